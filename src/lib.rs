//! Ackord: a message log for people who cannot lose a message.
//!
//! Every partition is a Raft group of its own; all groups of a node share one write-ahead log, so that one fsync covers
//! them all; what the groups replicate lies in RocksDB. An acknowledgement means that the record is on the disks of a
//! majority.
//!
//! # Rooms
//!
//! Arrows point down only; `tests/tidy` holds the table of who may name whom, and checks every path against it.
//!
//! ```text
//!        main → cli, server                 composition root
//!   kafka   native   http                   edges: they know the broker, never each other
//!      └──────┼──────┘
//!          broker   transport               shell: sockets, waiting
//!             └──┬────┘
//!   multiraft::{handle, worker}    sim      two drivers of one core: threads and real disks, or one seed
//!                └───┬──────────────┘
//!                multiraft                  ┐ core: deterministic, no I/O of its own. No clock, threads, randomness
//!     ┌──────────┬───┴──────┬───────────┐   │ or HashMap; what it needs to know enters as a value
//!   raft    partition  controller  coordinator
//!     │          └───── machine ────────┘   │
//!    wal             storage                ┘ over a Disk and an Engine: real ones, or simulated
//!
//!   types · record · frame · error · config · proto      vocabulary
//! ```
//!
//! * [`wal`] and [`storage`] hold the waists to the disk and to the database, [`machine`] the one between Raft groups
//!   and what they replicate.
//! * [`controller`] is the state machine of group 0: nodes, topics, assignments, configs.
//! * [`config`] is a node's file, [`server::identity`] says who a data directory is.
//! * [`transport`] carries what nodes say to each other.
//! * [`proto`] has the messages of the native protocol and between nodes, and the limits on what they may ask for.
pub mod broker;
pub mod config;
pub mod controller;
pub mod kafka;
pub mod machine;
pub mod multiraft;
pub mod partition;
pub mod proto;
pub mod raft;
pub mod record;
pub mod server;
pub mod sim;
pub mod storage;
pub mod transport;
pub mod types;
pub mod wal;
