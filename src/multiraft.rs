//! Many Raft groups on one node, behind one waist: inputs in, effects out.
//!
//! * [`core`]: the deterministic part. Production's worker thread and the simulator's loop drive the very same code.

pub mod core;
