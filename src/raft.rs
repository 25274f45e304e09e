//! One replica of one Raft group: raft-rs behind our own types, with its traps closed.
//!
//! This is the only room that knows raft-rs and its generated types. It knows no topic, no offset and no disk: entries
//! come in as bytes and leave as [`Ready`] values that say, by type, what may leave the node at once, what must be
//! durable first, and what is committed.
//!
//! * [`change`]: changes of members.
//! * [`message`]: what replicas say to each other, and its translation.
//! * [`group_log`]: the in-memory view of one group's log that raft-rs reads.
//! * [`ready`]: what a replica starts from, and what it wants done.
//! * [`replica`]: the state machine itself: input in, [`Ready`] out.

pub mod change;
pub mod group_log;
pub mod message;
pub mod ready;
pub mod replica;

pub use change::MemberChange;
pub use message::{MessageKind, RaftMessage, SnapshotMeta};
pub use ready::{Broken, FollowerProgress, Omissions, ProposeError, Ready, ReplicaOptions, ReplicaStart, Role, Write};
pub use replica::Replica;
