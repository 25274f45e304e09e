//! The controller as a replicated state machine: what commands do, that every replica and every replay comes to the
//! same state, that snapshots carry all of it, and that old formats stay readable.

#[path = "controller/commands.rs"]
mod commands;
#[path = "controller/forgotten.rs"]
mod forgotten;
#[path = "support/memory.rs"]
mod memory;
#[path = "controller/random.rs"]
mod random;
#[path = "controller/replace.rs"]
mod replace;
#[path = "controller/replay.rs"]
mod replay;
#[path = "controller/world.rs"]
mod world;
