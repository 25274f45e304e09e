//! What the simulator puts in the place of real files and RocksDB: deterministic, in memory, and forgetful on demand.

pub mod engine;
