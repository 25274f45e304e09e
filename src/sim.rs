//! What a simulator puts in the place of files, of RocksDB and of chance: deterministic, in memory, and forgetful on
//! demand. The simulator of whole clusters that stands on it is `tests/sim`.
//!
//! Nothing here is used by a running node. It is a part of the library, not of the tests, so that every test and the
//! simulator use the very same.

pub mod disk;
pub mod engine;
pub mod random;

pub use disk::SimDisk;
pub use random::Random;
