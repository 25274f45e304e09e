//! A whole cluster in one thread, under faults, with one seed deciding everything.

mod batch;
mod chance;
mod clients;
mod controls;
mod coverage;
mod damage;
mod drive;
mod faults;
mod invariants;
mod jobs;
mod liveness;
mod load;
mod network;
mod node;
mod observe;
mod perform;
mod process;
mod replace;
mod runner;
mod sabotage;
mod sight;
mod swarm;
mod trace;
mod watch;
mod workload;
mod world;

/// See `runner`.
#[test]
fn seeds() {
    runner::seeds();
}
