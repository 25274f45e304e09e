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
//!        main → cli → server, client        composition root; the client knows the native protocol and no server
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
//!   types · record · config · proto · metrics            vocabulary
//! ```
//!
//! * [`wal`] and [`storage`] hold the waists to the disk and to the database, [`machine`] the one between Raft groups
//!   and what they replicate.
//! * [`controller`] is the state machine of group 0: nodes, topics, assignments, configs.
//! * [`config`] is a node's file, [`server::identity`] says who a data directory is.
//! * [`broker`] is the waist between what clients speak ([`kafka`], [`native`]) and what answers them.
//! * [`client`] is the Rust client of the native protocol; [`cli`] is made of it, and starts nodes.
//! * [`metrics`] names what a node measures, [`http`] shows it.
//! * [`proto`] has the messages of the native protocol and between nodes, and the limits on what they may ask for.
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod http;
pub mod kafka;
pub mod machine;
pub mod metrics;
pub mod multiraft;
pub mod native;
pub mod partition;
pub mod proto;
pub mod raft;
pub mod record;
pub mod server;
pub mod sim;
pub mod storage;
pub mod types;
pub mod wal;
