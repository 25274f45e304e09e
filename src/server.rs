//! The composition root: it puts the rooms of a node together.

pub mod identity;
pub mod run;

pub use run::{ServerError, run};
