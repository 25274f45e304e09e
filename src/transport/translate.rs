//! Between what replicas say to each other and the frames it travels in.
//!
//! Bytes fields stay the slices they are, both ways. What comes in was made by anybody: it becomes a message only if it
//! is one that a replica of ours could have sent. The frame's own limits (`proto`) bound what it takes in memory.
//!
//! * [`repair`]: what is said of repairs.

pub mod repair;

use super::ProposalOutcome;
use crate::multiraft::apply::machine::Kind;
use crate::multiraft::apply::transfer::{SnapshotBody, SnapshotMessage};
use crate::partition::snapshot::SnapshotChunk;
use crate::proto::Malformed;
use crate::proto::peer::{self, RaftMessageType as Type};
use crate::raft::{MessageKind, RaftMessage, SnapshotMeta};
use crate::types::{LogEntry, LogId, LogIndex, Membership, NodeId, Offset, RaftGroupId, ReplicaId, Term};

/// The most replicas a group's configuration may name in each of its lists.
const MEMBERS_MAX: usize = 1_000;
/// The longest context of a read or of a leader's transfer, in bytes.
const CONTEXT_BYTES_MAX: usize = 1 << 10;

/// A message as it travels.
#[must_use]
pub fn raft_to_wire(group: RaftGroupId, message: RaftMessage) -> peer::RaftMessage {
    peer::RaftMessage {
        r#type: type_of(message.kind).into(),
        group: group.0,
        from: message.from.0,
        to: message.to.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: message.entries.into_iter().map(Into::into).collect(),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        request_snapshot: message.request_snapshot.0,
        priority: message.priority,
        context: message.context,
        snapshot: message.snapshot.map(|meta| meta_to_wire(&meta)),
    }
}

/// What another node says in a Raft message.
pub fn raft_from_wire(message: peer::RaftMessage) -> Result<(RaftGroupId, RaftMessage), Malformed> {
    let kind = MessageKind::ALL
        .into_iter()
        .find(|kind| i32::from(type_of(*kind)) == message.r#type)
        .ok_or(Malformed("message: unknown type"))?;
    // To raft-rs a message of term 0 is one of the node's own.
    if message.term == 0 {
        return Err(Malformed("message: terms begin at 1"));
    }
    if message.context.len() > CONTEXT_BYTES_MAX {
        return Err(Malformed("message: its context is too long"));
    }
    if (kind == MessageKind::Snapshot) != message.snapshot.is_some() {
        return Err(Malformed("message: a snapshot's description belongs to a snapshot"));
    }
    if kind != MessageKind::Append && !message.entries.is_empty() {
        return Err(Malformed("message: only appends have entries"));
    }
    let entries = message.entries.into_iter().map(LogEntry::try_from).collect::<Result<Vec<_>, _>>()?;
    check_entries(&entries, LogId::new(message.index, message.log_term), Term(message.term))?;
    let group = RaftGroupId(message.group);
    let message = RaftMessage {
        kind,
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        entries,
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        request_snapshot: LogIndex(message.request_snapshot),
        priority: message.priority,
        context: message.context,
        snapshot: message.snapshot.map(meta_from_wire).transpose()?,
    };
    Ok((group, message))
}

/// Entries follow each other and the one before them, in no later term than the leader's that sends them.
fn check_entries(entries: &[LogEntry], before: LogId, term: Term) -> Result<(), Malformed> {
    let mut previous = before;
    for entry in entries {
        if previous.index.0.checked_add(1) != Some(entry.id.index.0) {
            return Err(Malformed("message: its entries are not consecutive"));
        }
        if entry.id.term < previous.term || entry.id.term > term {
            return Err(Malformed("message: its entries' terms are out of order"));
        }
        previous = entry.id;
    }
    Ok(())
}

fn meta_to_wire(meta: &SnapshotMeta) -> peer::SnapshotMetadata {
    let (index, term) = (meta.at.index.0, meta.at.term.0);
    peer::SnapshotMetadata { index, term, membership: Some((&meta.membership).into()) }
}

fn meta_from_wire(meta: peer::SnapshotMetadata) -> Result<SnapshotMeta, Malformed> {
    if meta.index == 0 || meta.term == 0 {
        return Err(Malformed("snapshot: index and term begin at 1"));
    }
    let membership = members_from_wire(meta.membership)?;
    Ok(SnapshotMeta { at: LogId::new(meta.index, meta.term), membership })
}

fn members_from_wire(members: Option<peer::Membership>) -> Result<Membership, Malformed> {
    let members = members.unwrap_or_default();
    let lists = [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next];
    if lists.into_iter().any(|list| list.len() > MEMBERS_MAX) {
        return Err(Malformed("membership: too many members"));
    }
    if members.voters.is_empty() {
        return Err(Malformed("membership: it has a voter"));
    }
    Ok(Membership::from(members))
}

const fn type_of(kind: MessageKind) -> Type {
    match kind {
        MessageKind::Append => Type::Append,
        MessageKind::AppendResponse => Type::AppendResponse,
        MessageKind::RequestVote => Type::RequestVote,
        MessageKind::RequestVoteResponse => Type::RequestVoteResponse,
        MessageKind::RequestPreVote => Type::RequestPreVote,
        MessageKind::RequestPreVoteResponse => Type::RequestPreVoteResponse,
        MessageKind::Heartbeat => Type::Heartbeat,
        MessageKind::HeartbeatResponse => Type::HeartbeatResponse,
        MessageKind::Snapshot => Type::Snapshot,
        MessageKind::TimeoutNow => Type::TimeoutNow,
    }
}

/// What is said of a state in transit, as it travels.
#[must_use]
pub fn snapshot_to_wire(message: SnapshotMessage) -> peer::SnapshotMessage {
    use peer::snapshot_message::Body;
    let body = match message.body {
        SnapshotBody::WantHead { from_byte } => Body::WantHead(peer::WantHead { from_byte }),
        SnapshotBody::WantRecords { from, until } => {
            Body::WantRecords(peer::WantRecords { from: from.0, until: until.0 })
        }
        SnapshotBody::Head { kind, from_byte, total_bytes, bytes } => {
            Body::Head(peer::HeadPiece { from_byte, total_bytes, data: bytes, kind: kind_to_wire(kind).into() })
        }
        SnapshotBody::Records(chunk) => {
            let batch = |(base, data): (Offset, _)| peer::SnapshotBatch { base_offset: base.0, data };
            let batches = chunk.batches.into_iter().map(batch).collect();
            Body::Records(peer::SnapshotRecords { log_start: chunk.log_start.0, batches })
        }
        SnapshotBody::Gone => Body::Gone(peer::Gone {}),
    };
    peer::SnapshotMessage {
        group: message.group.0,
        from: message.from.0,
        to: message.to.0,
        index: message.at.index.0,
        term: message.at.term.0,
        body: Some(body),
    }
}

/// What another node says of a state in transit.
pub fn snapshot_from_wire(message: peer::SnapshotMessage) -> Result<SnapshotMessage, Malformed> {
    use peer::snapshot_message::Body;
    let body = match message.body.ok_or(Malformed("snapshot message: it says nothing"))? {
        Body::WantHead(want) => SnapshotBody::WantHead { from_byte: want.from_byte },
        Body::WantRecords(want) => SnapshotBody::WantRecords { from: offset(want.from)?, until: offset(want.until)? },
        Body::Head(peer::HeadPiece { from_byte, total_bytes, data: bytes, kind }) => {
            SnapshotBody::Head { kind: kind_from_wire(kind)?, from_byte, total_bytes, bytes }
        }
        Body::Records(records) => {
            let batch = |batch: peer::SnapshotBatch| Ok((offset(batch.base_offset)?, batch.data));
            let batches = records.batches.into_iter().map(batch).collect::<Result<_, _>>()?;
            SnapshotBody::Records(SnapshotChunk { log_start: offset(records.log_start)?, batches })
        }
        Body::Gone(peer::Gone {}) => SnapshotBody::Gone,
    };
    Ok(SnapshotMessage {
        group: RaftGroupId(message.group),
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        at: LogId::new(message.index, message.term),
        body,
    })
}

const fn kind_to_wire(kind: Kind) -> peer::MachineKind {
    match kind {
        Kind::Partition => peer::MachineKind::Partition,
        Kind::Controller => peer::MachineKind::Controller,
        Kind::Coordinator => peer::MachineKind::Coordinator,
    }
}

fn kind_from_wire(kind: i32) -> Result<Kind, Malformed> {
    match peer::MachineKind::try_from(kind) {
        Ok(peer::MachineKind::Partition) => Ok(Kind::Partition),
        Ok(peer::MachineKind::Controller) => Ok(Kind::Controller),
        Ok(peer::MachineKind::Coordinator) => Ok(Kind::Coordinator),
        Ok(peer::MachineKind::NoMachine) | Err(_) => Err(Malformed("snapshot message: of an unknown state machine")),
    }
}

fn offset(number: i64) -> Result<Offset, Malformed> {
    if number < 0 { Err(Malformed("snapshot message: offsets begin at 0")) } else { Ok(Offset(number)) }
}

/// A proposal's outcome as it travels.
#[must_use]
pub fn outcome_to_wire(id: u64, outcome: ProposalOutcome) -> peer::ControllerOutcome {
    use peer::controller_outcome::Result;
    let (result, log_index) = match outcome {
        ProposalOutcome::Answered { answer, at } => (Result::Answer(answer), at.0),
        ProposalOutcome::NotProposed { leader } => {
            let leader_node = leader.map_or(0, |node| node.0);
            (Result::NotProposed(peer::NotProposed { leader_node }), 0)
        }
        ProposalOutcome::Unknown => (Result::Unknown(peer::Undecided {}), 0),
    };
    peer::ControllerOutcome { id, result: Some(result), log_index }
}

/// What the peer says became of a proposal; what it leaves out is unknown.
#[must_use]
pub fn outcome_from_wire(outcome: peer::ControllerOutcome) -> ProposalOutcome {
    use peer::controller_outcome::Result;
    match outcome.result {
        Some(Result::Answer(answer)) => ProposalOutcome::Answered { answer, at: LogIndex(outcome.log_index) },
        Some(Result::NotProposed(refusal)) => {
            let leader = Some(NodeId(refusal.leader_node)).filter(|node| node.0 != 0);
            ProposalOutcome::NotProposed { leader }
        }
        Some(Result::Unknown(peer::Undecided {})) | None => ProposalOutcome::Unknown,
    }
}

#[cfg(test)]
#[path = "translate/tests.rs"]
mod tests;
