//! See `ackord_fuzz::kafka_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::kafka_request::run(data));
