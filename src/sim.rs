//! What simulations stand on: a disk that forgets, tears and rots, and randomness that a seed repeats.
//!
//! Nothing here is used by a running node. It is a part of the library, not of the tests, so that every test and the
//! simulator of whole clusters use the very same one.

pub mod disk;
pub mod random;

pub use disk::SimDisk;
pub use random::Random;
