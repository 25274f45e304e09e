//! State on its way between replicas: what is said, what a sender keeps, what a receiver has so far.
//!
//! The receiver asks, one bounded piece at a time; whatever is lost is asked for again. A sender keeps only the heads
//! it has offered, within a budget, and answers `Gone` for what it no longer has.

use super::machine::{Arrival, Kind, Machine};
use crate::partition::snapshot::{InstallError, SnapshotChunk};
use crate::raft::SnapshotMeta;
use crate::types::{LogId, Offset, RaftGroupId, ReplicaId};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// The most bytes of one piece (a single larger batch still goes).
pub const PIECE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of heads that a sender keeps.
const DEPARTING_BYTES_MAX: usize = 512 << 20;
/// The longest head a receiver accepts.
const HEAD_BYTES_MAX: u64 = 256 << 20;
/// Requests that may stay without an answer before a transfer is given up.
const SILENT_REQUESTS_MAX: u32 = 10;

/// Something said about a state in transit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMessage {
    /// The group.
    pub group: RaftGroupId,
    /// Who says it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// Which state: as of this entry.
    pub at: LogId,
    /// What is said.
    pub body: SnapshotBody,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotBody {
    /// Receiver: send the head from this byte on.
    WantHead { from_byte: u64 },
    /// Receiver: send records from this offset on, below `until`.
    WantRecords { from: Offset, until: Offset },
    /// Sender: a piece of the head.
    Head { kind: Kind, from_byte: u64, total_bytes: u64, bytes: Bytes },
    /// Sender: some records.
    Records(SnapshotChunk),
    /// Sender: this state is not to be had here any more.
    Gone,
}

impl SnapshotMessage {
    /// The payload bytes this message pins in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match &self.body {
            SnapshotBody::Head { bytes, .. } => bytes.len(),
            SnapshotBody::Records(chunk) => chunk.batches.iter().map(|(_, bytes)| bytes.len()).sum(),
            SnapshotBody::WantHead { .. } | SnapshotBody::WantRecords { .. } | SnapshotBody::Gone => 0,
        }
    }
}

/// Heads that followers may ask for.
#[derive(Debug, Default)]
pub struct Departures {
    /// The newest of each group.
    heads: BTreeMap<RaftGroupId, (LogId, Kind, Bytes)>,
}

impl Departures {
    /// Keeps a head, instead of the group's older one.
    pub fn keep(&mut self, group: RaftGroupId, at: LogId, kind: Kind, head: Bytes) {
        let held: usize = self.heads.values().map(|(_, _, head)| head.len()).sum();
        if held + head.len() > DEPARTING_BYTES_MAX {
            self.heads.clear();
        }
        self.heads.insert(group, (at, kind, head));
    }

    /// Forgets a deleted group's.
    pub fn forget(&mut self, group: RaftGroupId) {
        self.heads.remove(&group);
    }

    /// A piece of a head.
    #[must_use]
    pub fn piece(&self, group: RaftGroupId, at: LogId, from_byte: u64) -> SnapshotBody {
        let Some((_, kind, head)) = self.heads.get(&group).filter(|(kept, _, _)| *kept == at) else {
            return SnapshotBody::Gone;
        };
        let from = usize::try_from(from_byte).unwrap_or(usize::MAX).min(head.len());
        let to = head.len().min(from + PIECE_BYTES_MAX);
        let (from_byte, total_bytes) = (from as u64, head.len() as u64);
        SnapshotBody::Head { kind: *kind, from_byte, total_bytes, bytes: head.slice(from..to) }
    }

    /// Whether records for the state at `at` may still be asked for.
    #[must_use]
    pub fn has(&self, group: RaftGroupId, at: LogId) -> bool {
        self.heads.get(&group).is_some_and(|(kept, _, _)| *kept == at)
    }
}

/// One state on its way to this node.
pub struct Transfer {
    /// Who receives: this node's replica.
    pub own: ReplicaId,
    /// Who sends.
    pub from: ReplicaId,
    /// Which state.
    pub meta: SnapshotMeta,
    /// What the state is installed into, if the group's own machine is missing or damaged.
    pub blank: Option<Machine>,
    /// The head so far.
    head: BytesMut,
    /// How long the head is, once known.
    head_bytes: Option<u64>,
    /// The state so far, once the head is complete.
    pub arrival: Option<Arrival>,
    /// Requests since the last answer.
    silent_requests: u32,
}

impl Transfer {
    /// Nothing has arrived yet.
    #[must_use]
    pub fn new(own: ReplicaId, from: ReplicaId, meta: SnapshotMeta) -> Self {
        let (head, blank, arrival) = (BytesMut::new(), None, None);
        Self { own, from, meta, blank, head, head_bytes: None, arrival, silent_requests: 0 }
    }

    /// What to ask for next; `None` when everything is here.
    #[must_use]
    pub fn request(&self, group: RaftGroupId) -> Option<SnapshotMessage> {
        let body = match &self.arrival {
            None => SnapshotBody::WantHead { from_byte: self.head.len() as u64 },
            Some(arrival) => {
                let (from, until) = arrival.wants()?;
                SnapshotBody::WantRecords { from, until }
            }
        };
        Some(SnapshotMessage { group, from: self.own, to: self.from, at: self.meta.at, body })
    }

    /// Counts a request that follows silence; `true` when there were too many.
    pub fn is_hopeless(&mut self) -> bool {
        self.silent_requests += 1;
        self.silent_requests > SILENT_REQUESTS_MAX
    }

    /// An answer has arrived.
    pub fn heard(&mut self) {
        self.silent_requests = 0;
    }

    /// Takes in a piece of the head; the whole head when it is complete. Pieces that do not continue it are dropped.
    pub fn take_piece(
        &mut self,
        from_byte: u64,
        total_bytes: u64,
        bytes: &Bytes,
    ) -> Result<Option<Bytes>, InstallError> {
        if total_bytes > HEAD_BYTES_MAX || *self.head_bytes.get_or_insert(total_bytes) != total_bytes {
            return Err(InstallError::Refused(format!("a head of {total_bytes} bytes")));
        }
        if from_byte != self.head.len() as u64 || self.arrival.is_some() {
            return Ok(None);
        }
        self.head.extend_from_slice(bytes);
        match (self.head.len() as u64).cmp(&total_bytes) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some(self.head.split().freeze())),
            std::cmp::Ordering::Greater => Err(InstallError::Refused("its head is longer than it said".to_owned())),
        }
    }
}
