//! See `ackord_fuzz::peer_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ackord_fuzz::peer_frame::run(data));
