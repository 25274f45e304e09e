//! Many Raft groups on one node, behind one waist: inputs in, effects out.
//!
//! * [`apply`]: runs committed entries through the state machines.
//! * [`core`]: the deterministic part. Production's worker thread and the simulator's loop drive the very same code.

pub mod apply;
pub mod core;
