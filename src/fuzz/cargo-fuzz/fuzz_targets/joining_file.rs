#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skrin_fuzz::run("joining_file", data));
