//! What replicas say of a repair, as it travels. The bodies' numbers are judged by the replica that hears them; what is
//! bounded or ordered here is what no replica would say.

use super::{members_from_wire, meta_from_wire, meta_to_wire};
use crate::multiraft::core::repair::message::{ANCHORS_MAX, Lack, Lost, RepairBody, RepairMessage};
use crate::proto::Malformed;
use crate::proto::peer::{self, repair_message::Body};
use crate::types::{LogEntry, LogId, LogIndex, RaftGroupId, ReplicaId, Term};

/// What is said of a repair, as it travels.
#[must_use]
pub fn repair_to_wire(message: RepairMessage) -> peer::RepairMessage {
    let RepairMessage { group, from, to, body } = message;
    peer::RepairMessage { group: group.0, from: from.0, to: to.0, body: Some(body_to_wire(body)) }
}

fn body_to_wire(body: RepairBody) -> Body {
    match body {
        RepairBody::WantEntries(Lost { nonce, first, last, anchors }) => {
            let anchors = anchors.into_iter().map(position_to_wire).collect();
            Body::WantEntries(peer::WantEntries { first: first.0, last: last.0, anchors, nonce })
        }
        RepairBody::Entries { nonce, entries } => {
            Body::Entries(peer::LostEntries { entries: entries.into_iter().map(Into::into).collect(), nonce })
        }
        RepairBody::NoEntries { nonce, lack } => {
            Body::NoEntries(peer::NoEntries { lack: lack_to_wire(lack).into(), nonce })
        }
        RepairBody::WantState { at_least, committed } => {
            Body::WantState(peer::WantState { at_least: at_least.0, committed: Some(position_to_wire(committed)) })
        }
        RepairBody::State(meta) => Body::State(meta_to_wire(&meta)),
        RepairBody::NoState { applied } => Body::NoState(peer::NoState { applied: applied.0 }),
        RepairBody::WantFloor { nonce } => Body::WantFloor(peer::WantFloor { nonce }),
        RepairBody::Led { by } => Body::Led(peer::RepairLed { by: by.0 }),
        RepairBody::Term { nonce, term } => Body::Term(peer::RepairTerm { nonce, term: term.0 }),
        RepairBody::Floor { nonce, term, last, membership } => {
            let membership = Some((&membership).into());
            Body::Floor(peer::RepairFloor { nonce, term: term.0, last: last.0, membership })
        }
    }
}

/// What another node says of a repair.
pub fn repair_from_wire(message: peer::RepairMessage) -> Result<RepairMessage, Malformed> {
    let body = body_from_wire(message.body.ok_or(Malformed("repair message: it says nothing"))?)?;
    let (group, from, to) = (RaftGroupId(message.group), ReplicaId(message.from), ReplicaId(message.to));
    Ok(RepairMessage { group, from, to, body })
}

fn body_from_wire(body: Body) -> Result<RepairBody, Malformed> {
    Ok(match body {
        Body::WantEntries(peer::WantEntries { first, last, anchors, nonce }) => {
            if first == 0 || last < first {
                return Err(Malformed("repair message: a range of entries that is none"));
            }
            if anchors.len() > ANCHORS_MAX {
                return Err(Malformed("repair message: too many anchors"));
            }
            let anchors = anchors.into_iter().map(position_from_wire).collect();
            RepairBody::WantEntries(Lost { nonce, first: LogIndex(first), last: LogIndex(last), anchors })
        }
        Body::Entries(peer::LostEntries { entries, nonce }) => {
            let entries = entries.into_iter().map(LogEntry::try_from).collect::<Result<Vec<_>, _>>()?;
            check_entries(&entries)?;
            RepairBody::Entries { nonce, entries }
        }
        Body::NoEntries(peer::NoEntries { lack, nonce }) => {
            RepairBody::NoEntries { nonce, lack: lack_from_wire(lack)? }
        }
        Body::WantState(peer::WantState { at_least, committed }) => {
            let committed = committed.map(position_from_wire).unwrap_or_default();
            RepairBody::WantState { at_least: LogIndex(at_least), committed }
        }
        Body::State(meta) => RepairBody::State(meta_from_wire(meta)?),
        Body::NoState(state) => RepairBody::NoState { applied: LogIndex(state.applied) },
        Body::WantFloor(want) => RepairBody::WantFloor { nonce: want.nonce },
        Body::Led(peer::RepairLed { by }) => RepairBody::Led { by: ReplicaId(by) },
        Body::Term(peer::RepairTerm { nonce, term }) => RepairBody::Term { nonce, term: Term(term) },
        Body::Floor(peer::RepairFloor { nonce, term, last, membership }) => {
            let membership = members_from_wire(membership)?;
            RepairBody::Floor { nonce, term: Term(term), last: LogIndex(last), membership }
        }
    })
}

fn check_entries(entries: &[LogEntry]) -> Result<(), Malformed> {
    if entries.is_empty() {
        return Err(Malformed("repair message: no entries"));
    }
    let follows = |pair: &[LogEntry]| {
        pair[0].id.index.0.checked_add(1) == Some(pair[1].id.index.0) && pair[0].id.term <= pair[1].id.term
    };
    if entries.windows(2).all(follows) {
        Ok(())
    } else {
        Err(Malformed("repair message: its entries do not follow each other"))
    }
}

const fn position_to_wire(at: LogId) -> peer::LogPosition {
    peer::LogPosition { index: at.index.0, term: at.term.0 }
}

const fn position_from_wire(at: peer::LogPosition) -> LogId {
    LogId::new(at.index, at.term)
}

const fn lack_to_wire(lack: Lack) -> peer::Lack {
    match lack {
        Lack::Different => peer::Lack::Different,
        Lack::Released => peer::Lack::Released,
        Lack::Damaged => peer::Lack::Damaged,
    }
}

fn lack_from_wire(lack: i32) -> Result<Lack, Malformed> {
    match peer::Lack::try_from(lack) {
        Ok(peer::Lack::Different) => Ok(Lack::Different),
        Ok(peer::Lack::Released) => Ok(Lack::Released),
        Ok(peer::Lack::Damaged) => Ok(Lack::Damaged),
        Err(_) => Err(Malformed("repair message: an unknown lack")),
    }
}
