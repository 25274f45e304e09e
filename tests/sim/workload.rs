//! What clients ask, and are told.
//!
//! * [`admin`]: registers the nodes and makes the first topics.
//! * [`probe`]: once the faults have stopped, writes to every group.
//! * [`consume`], [`produce`], [`read`], [`topics`], [`trim`]: see there.

pub mod admin;
pub mod consume;
pub mod probe;
pub mod produce;
pub mod read;
pub mod topics;
pub mod trim;

use ackord::multiraft::core::effect::Reply;
use ackord::multiraft::handle::order::Sequence;
use ackord::record::RecordBatch;
use ackord::types::{Offset, RaftGroupId, TopicId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request {
    /// Add this batch; `value` is in it.
    Produce { value: u64, batch: RecordBatch, sequence: Option<Sequence> },
    /// Let the log start here.
    Trim { offset: Offset },
    /// Another command, as it stands in the log.
    Command { context: Bytes, data: Bytes },
    /// Tell where the log starts and ends, and some records from `from` on (nothing: from where it starts).
    Read { from: Option<Offset>, bytes_max: usize, linearizable: bool },
    /// Tell the offsets that a consumer group has stored, as of now or later.
    Offsets { group: String },
    /// Tell the topics that there are, as of now or later.
    Topics,
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where the log starts.
    pub log_start: Offset,
    /// Where it ends.
    pub end: Offset,
    /// Some of its records.
    pub records: Vec<(Offset, u64)>,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// By the group.
    Reply(Reply),
    /// A read was served.
    Read(Seen),
    /// Stored offsets were read, by partition.
    Offsets(BTreeMap<i32, i64>),
    /// Topics were read, with the groups of their partitions.
    Topics(BTreeMap<TopicId, Vec<RaftGroupId>>),
    /// The node has gone: nobody will ever say.
    Lost,
}
