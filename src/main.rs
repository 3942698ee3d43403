//! The `skrin` binary: all of it lives in the `skrin-cli` crate.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    skrin_cli::main()
}
