//! See `ackord_fuzz::native_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::native_request::run(data));
