//! A node whose files are damaged, in every way there is, while the others go on: it says so, is repaired by its peers,
//! takes part again, and whatever was acknowledged is read back in order, once. All of it over real files and sockets.
//! (What the log makes of damage by itself is in `tests/wal_damage.rs`, and the repair under every order of events in
//! the simulator.)
//!
//! `make test-damage` (`ACKORD_ALL_DAMAGE=1`) runs every kind of damage; otherwise about half of them.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "damaged_node/log.rs"]
mod log;
#[path = "damaged_node/running.rs"]
mod running;
#[path = "damaged_node/state.rs"]
mod state;
#[path = "damaged_node/world.rs"]
mod world;
