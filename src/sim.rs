//! The second driver, and what it stands on: what the simulator puts in the place of threads, files, RocksDB and the
//! network. Deterministic, in memory, and forgetful on demand.
//!
//! Nothing here is used by a running node. It is a part of the library, not of the tests, so that every test and the
//! simulator of whole clusters use the very same one.

pub mod cluster;
pub mod disk;
pub mod engine;
pub mod random;

pub use disk::SimDisk;
pub use random::Random;
