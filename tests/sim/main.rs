//! A whole cluster in one thread, under faults, with one seed deciding everything.

mod chance;
mod coverage;
mod damage;
mod drive;
mod faults;
mod jobs;
mod liveness;
mod network;
mod node;
mod observe;
mod perform;
mod runner;
mod swarm;
mod trace;
mod watch;
mod workload;
mod world;
