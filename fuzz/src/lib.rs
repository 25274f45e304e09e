//! The bodies of the fuzz targets: a function of bytes each, which panics if something is wrong.
//!
//! The fuzzer calls them from `fuzz_targets/`; `tests/fuzz_corpus.rs` includes the same files and calls them with every
//! file of `corpus/`, so that what was found once is found by `cargo test` if it comes back.

#[allow(dead_code, reason = "the edges' tests use more of it")]
#[path = "../../tests/support/fake_broker.rs"]
mod fake_broker;

pub mod commands;
pub mod kafka_request;
pub mod log_bytes;
pub mod native_request;
pub mod peer_frame;
pub mod record_batch;
mod shell;
