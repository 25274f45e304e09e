//! See `ackord_fuzz::log_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::log_bytes::run(data));
