//! The composition root: it puts the rooms of a node together.

pub mod identity;
