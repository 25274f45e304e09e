//! Whose committed entries are read back from the log next: those that a state machine has not applied and memory does
//! not hold, after a start.
//!
//! They come in pieces, and a group wants the next one when it has handed over the last. All groups of a node share the
//! room for what is not applied yet, so they take turns: whoever has had a piece waits until everybody else has.

use super::{Core, Slot};
use crate::types::RaftGroupId;
use std::collections::BTreeSet;
use std::ops::Bound;

/// How a group's replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// There is nothing to read back.
    Nothing,
    /// It wants a piece.
    Wanted,
    /// A piece is being read.
    Reading,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replays {
    /// Groups that want a piece.
    wanted: BTreeSet<RaftGroupId>,
    /// Groups whose pieces are being read.
    reading: BTreeSet<RaftGroupId>,
    /// Whose turn it was last.
    last: RaftGroupId,
}

impl Replays {
    /// How a group's replay stands now.
    pub fn note(&mut self, group: RaftGroupId, replay: Replay) {
        self.wanted.remove(&group);
        self.reading.remove(&group);
        match replay {
            Replay::Nothing => {}
            Replay::Wanted => drop(self.wanted.insert(group)),
            Replay::Reading => drop(self.reading.insert(group)),
        }
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<RaftGroupId> {
        let behind = self.wanted.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        self.last = *behind.or_else(|| self.wanted.first())?;
        self.wanted.take(&self.last)
    }
}

impl Core {
    /// Payload handed to state machines and not applied yet, and the pieces that were asked for, in bytes.
    pub(super) fn unapplied_soon(&self) -> usize {
        let piece = usize::try_from(self.options.replica.max_committed_bytes).unwrap_or(usize::MAX);
        self.unapplied_bytes.saturating_add(self.replays.reading.len().saturating_mul(piece))
    }

    /// Whether so much waits that no entries of peers are taken.
    pub(super) fn is_behind(&self) -> bool {
        self.options.drops_entries(self.queue.payload().brought, self.unapplied_soon())
    }

    /// Asks for as many pieces as there is room for.
    pub(super) fn begin_replays(&mut self) {
        while self.unapplied_soon() <= self.options.unapplied_bytes_max
            && let Some(id) = self.replays.next()
        {
            let Some(Slot::Live(group)) = self.groups.get_mut(&id) else { continue };
            self.effects.extend(group.begin_replay());
            self.replays.note(id, group.replay());
        }
    }

    /// A group is gone or must stay silent: it writes nothing more and reads nothing back.
    pub(super) fn forget(&mut self, id: RaftGroupId) {
        self.queue.forget(id);
        self.replays.note(id, Replay::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{Effect, Input};
    use super::super::{BIRTH, CoreOptions, GroupStart};
    use super::*;
    use crate::machine::Outcome;
    use crate::raft::ReplicaOptions;
    use crate::types::{HardState, LogEntry, LogId, LogIndex, Membership, NodeId, ReplicaId, Term};
    use crate::wal::GroupRecovery;
    use bytes::Bytes;
    use std::collections::{BTreeMap, VecDeque};

    const PIECE: usize = 1_000;
    const PIECES: u64 = 5;

    /// A follower whose state machine has applied nothing of so many pieces of two entries each.
    fn start(group: u64) -> GroupStart {
        let last = LogId::new(1 + 2 * PIECES, 1);
        let hard_state = HardState { term: Term(1), vote: None, commit: last.index };
        let replica = |node| ReplicaId::new(NodeId(node), 0);
        GroupStart {
            group: RaftGroupId(group),
            replica: replica(1),
            recovery: GroupRecovery { hard_state, start: BIRTH, last, terms: vec![BIRTH], ..GroupRecovery::default() },
            applied: BIRTH,
            membership: Membership::of_voters([1, 2, 3].map(replica)),
            state_damage: None,
            forgotten: false,
        }
    }

    fn entry(index: u64) -> LogEntry {
        LogEntry { id: LogId::new(index, 1), data: Bytes::from_static(&[7; PIECE / 2]), ..LogEntry::default() }
    }

    /// However many groups replay, their pieces share one room, by turns.
    #[test]
    fn groups_take_turns_and_one_piece_crosses_the_limit() {
        let replica = ReplicaOptions { max_committed_bytes: PIECE as u64, ..ReplicaOptions::default() };
        let options = CoreOptions { replica, unapplied_bytes_max: 3 * PIECE + 1, ..CoreOptions::default() };
        let mut core = Core::new(options, (1..=50).map(start).collect());
        let mut turns: BTreeMap<_, u64> = (1..=50).map(|group| (RaftGroupId(group), 0)).collect();
        let mut applying = VecDeque::new();
        loop {
            let effects = core.poll();
            let (mut asked, before) = (0, applying.len());
            for effect in effects {
                match effect {
                    Effect::ReadEntries { group, wanted } => {
                        asked += 1;
                        *turns.get_mut(&group).expect("it is one of them") += 1;
                        let result = Ok(vec![entry(wanted.low.0), entry(wanted.low.0 + 1)]);
                        core.handle(Input::EntriesRead { group, wanted, result });
                    }
                    Effect::Apply { group, entries, .. } => applying.push_back((group, entries)),
                    _ => {}
                }
            }
            assert!(core.unapplied_bytes() <= 4 * PIECE, "the limit, and the piece that crosses it");
            let (least, most) = (turns.values().min(), turns.values().max());
            assert!(
                most <= least.map(|least| least + 1).as_ref(),
                "nobody has two turns before all had one: {turns:?}"
            );
            if asked == 0 && applying.len() == before {
                // Everything that can be read without applying anything was.
                let Some((group, entries)) = applying.pop_front() else { break };
                let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
                let outcomes = entries.iter().map(|entry| (entry.id, Outcome::None)).collect();
                core.handle(Input::Applied { group, outcomes, bytes });
            }
        }
        assert!(turns.values().all(|turns| *turns == PIECES), "{turns:?}");
        assert!((1..=50).all(|group| core.applied(RaftGroupId(group)) == Some(LogIndex(1 + 2 * PIECES))));
    }
}
