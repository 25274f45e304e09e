//! Many Raft groups on one node, behind one waist: inputs in, effects out.
//!
//! * [`apply`]: runs committed entries through the state machines.
//! * [`core`]: the deterministic part. Production's worker thread and the simulator's loop drive the very same code.
//! * [`handle`]: the way in, for the rest of the node.
//! * [`worker`]: the production driver: threads around the core.

pub mod apply;
pub mod core;
pub mod handle;
pub mod worker;
