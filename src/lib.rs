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
//!   multiraft::{handle, worker}             threads around the core; `tests/sim` drives it with one seed instead
//!                └───┬───┘
//!                multiraft                  ┐ core: deterministic, no I/O of its own. No clock, threads, randomness
//!     ┌──────────┬───┴──────┬───────────┐   │ or HashMap; what it needs to know enters as a value
//!   raft    partition  controller  coordinator
//!     │          └───── machine ────────┘   │
//!    wal             storage                ┘ over a Disk and an Engine: real ones, or those of sim
//!
//!   types · record · config · proto · metrics            vocabulary
//! ```
//!
//! * [`wal`] and [`storage`] hold the waists to the disk and to the database, [`machine`] the one between Raft groups
//!   and what they replicate.
//! * [`sim`] has a disk, a database and chance for tests and for the simulator of whole clusters, `tests/sim`.
//! * [`raft`] is one replica, raft-rs behind our own types; [`multiraft::core`] drives many of them: inputs in, effects
//!   out. [`multiraft::worker`] does the effects with threads, `tests/sim` with one seed.
//! * [`partition`] gives record batches their offsets, [`controller`] holds nodes, topics, assignments and configs,
//!   [`coordinator`] consumer groups and the offsets they store.
//! * [`broker`] is the waist between what clients speak ([`kafka`], [`native`]) and what answers them;
//!   [`broker::node`] is the real answer. [`edge`] is what the two have in common.
//! * [`client`] is the Rust client of the native protocol; [`cli`] is made of it, and starts nodes.
//! * [`metrics`] names what a node measures, [`http`] shows it.
//! * [`transport`] carries what nodes say to each other.
//! * [`config`] is a node's file, [`server`] puts a node together, [`server::identity`] says who a data directory is.
//! * [`proto`] has the messages of the native protocol and between nodes, and the limits on what they may ask for.
//!
//! # The way of a produce
//!
//! 1. [`kafka::connection`] reads a frame within the node's byte budget; [`kafka::guard`] bounds every length in it
//!    before it is decoded. The record batch stays one slice of the frame, to the disk of every replica.
//! 2. [`broker::node`] finds the partition, refuses if this node does not lead it, and validates the batch
//!    ([`record::validate`]).
//! 3. [`multiraft::handle`] admits it into a mailbox bounded in bytes. While that is full, the connection is not read.
//! 4. The worker's thread drains what has arrived, steps every touched group through [`multiraft::core`], and collects
//!    one turn for all of them. Appends leave for the followers at once, beside the leader's own write.
//! 5. The log's thread makes the turn durable: one vectored write and one fdatasync ([`wal`]). Only then what promises
//!    something durable leaves the node, in the order of turns.
//! 6. A majority has it: committed. The apply thread runs the entry through [`partition`], which gives the offset,
//!    checks the producer's sequence and writes the batch into RocksDB as it came, with everything that changes beside
//!    it.
//! 7. The outcome returns to the waiting request; the new high watermark wakes waiting fetches.
//!
//! # The way of a fetch
//!
//! [`broker::node`] reads the partition's published view: leader or not, epoch, log start, high watermark. What is
//! below the high watermark is read from the database on a blocking thread; the Raft worker never reads for consumers.
//! When there is too little, the fetch waits for the view to change. An offset above the end is called out of range
//! only after a majority has confirmed where the end is (ReadIndex).
//!
//! # The way of a consumer group
//!
//! A group belongs to one partition of an internal topic, by its name; that partition's Raft group replicates the
//! group's members, generations, assignments and offsets ([`coordinator`]). [`broker::node`] on its leader proposes
//! what members ask for, and answers those who have to wait (for a generation, for their share of it) from the state
//! that [`broker::node::views`] publishes. Heartbeats are not replicated: [`coordinator::sessions`] remembers them on
//! the leader, and proposes that a silent member be given up. A new leader counts every member as just heard of, so a
//! failover costs no rebalance.
//!
//! # The way of a repair
//!
//! 1. [`wal`] finds at its start, or when it reads, that it has lost entries, and says which; or that turns are missing
//!    that nobody can tell the contents of. A state machine that can't be opened or read is lost as a whole.
//! 2. The group's replica here becomes a [`multiraft::core::repair`]: it is no member of Raft any more, so it breaks no
//!    promise that it has forgotten. Everybody is asked for the lost entries, the damaged included; they come from a
//!    log that holds what came after them, and take their old places. If nobody has them, a state that covers
//!    everything promised here does.
//! 3. Where it is not known what was promised, everybody says its term, and a leader that a majority has confirmed
//!    without this replica says where its log ends: a state from there on, and no vote in any term of before, is at
//!    least as much as was promised.
//! 4. When that is durable, the replica is opened as at a start. If nobody can help, it stays as it is, and says so.
//!
//! # The way of a replacement
//!
//! A node that lost its disk has lost its promises, so it never comes back as what it was. The controller decides which
//! replica takes whose place ([`controller`]: `ReplaceNode`), under a number that was never given out. The new node
//! begins each of them empty; the leader of each group adds it as a learner, which gets a snapshot, and once it has
//! caught up exchanges the two in one joint change ([`multiraft::core::membership`]). Leaders look at the controller's
//! state again and again ([`broker::node`]) and remember nothing, so a new one goes on. The group of the controller
//! itself is no exception, but for one thing: a node can't read there which replica it is to have, so it asks
//! ([`server`]). Peers refuse the old disk by its incarnation, and whoever has not heard of the new one yet believes it
//! that it is registered ([`transport::admission`]).
//!
//! # What survives what
//!
//! * A crash of any process, at any point: the log is replayed over the state machines' last flush. The simulator
//!   crashes nodes before, during and after every kind of effect (`tests/sim`).
//! * A power cut of every node: what was acknowledged was under an fdatasync of a majority.
//! * A damaged disk: whatever contradicts itself is quarantined and says so; nothing is ever truncated ([`wal`]). Peers
//!   give back what was lost, and only then does the replica vote and acknowledge again
//!   ([`multiraft::core::repair`]).
//! * The loss of a minority of disks for good: their nodes are replaced while writes go on
//!   (`tests/cluster/replace.rs`).
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod edge;
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
pub mod transport;
pub mod types;
pub mod wal;
