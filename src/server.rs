//! The composition root: it puts the rooms of a node together.
//!
//! * [`identity`]: who a data directory is.
//! * [`data`]: opens a data directory: log, database, state machines.
//! * [`groups`]: keeps this node's Raft groups as the controller wants them.
//! * `inside`: the part that needs no network.
//! * [`joining`]: how a later node gets its copy of the metadata.
//! * [`listeners`]: its sockets, and what is served on them.
//! * `membership`: registers the node, and follows who else has.
//! * `observe`: what the node shows of itself over HTTP.
//! * [`outside`]: what the Raft worker sees of the rest of the process.
//! * `space`: refuses writes before the disk is full.
//! * [`mod@run`]: a whole node, from its configuration to its end.

pub mod data;
pub mod groups;
pub mod identity;
mod inside;
pub mod joining;
pub mod listeners;
mod membership;
mod observe;
pub mod outside;
pub mod run;
pub mod space;

pub use run::{ServerError, run};
