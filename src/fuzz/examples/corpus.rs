//! `cargo run -p skrin-fuzz --example corpus -- DIR` writes the seeds as a corpus for `cargo fuzz`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "src/fuzz/cargo-fuzz/corpus".to_owned());
    skrin_fuzz::write_corpus(Path::new(&dir))
}
