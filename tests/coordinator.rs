//! The coordinator as a replicated state machine: what members, administrators and time do to consumer groups, that
//! every replica and every replay comes to the same state, that snapshots carry all of it, and that old formats stay
//! readable.

#[path = "coordinator/formats.rs"]
mod formats;
#[path = "coordinator/members.rs"]
mod members;
#[path = "support/memory.rs"]
mod memory;
#[path = "coordinator/offsets.rs"]
mod offsets;
#[path = "coordinator/random.rs"]
mod random;
#[path = "coordinator/replay.rs"]
mod replay;
#[path = "coordinator/statics.rs"]
mod statics;
#[path = "coordinator/world.rs"]
mod world;
