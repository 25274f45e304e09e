//! The second driver: what the simulator puts in the place of threads, files, RocksDB and the network. Deterministic,
//! in memory, and forgetful on demand.

pub mod cluster;
pub mod engine;
pub mod ledger;
pub mod random;
