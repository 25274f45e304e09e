//! The write-ahead log: Raft entries and hard states of every group of this node, in one stream of turns.

pub mod disk;

use crate::types::{HardState, LogEntry, LogId, LogIndex, RaftGroupId};
use std::collections::BTreeMap;

/// The number of a turn. Starts at 1 and grows by one with every append; a dropped, torn turn leaves a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnNumber(pub u64);

/// What one append makes durable, for any number of groups, under one fdatasync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// In the order in which they happened; a group may appear more than once.
    pub writes: Vec<GroupWrite>,
}

/// One group's part of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWrite {
    /// The group.
    pub group: RaftGroupId,
    /// Its hard state as of this write; always complete, so that the newest write alone tells what was promised.
    pub hard_state: HardState,
    /// What happens to its log.
    pub change: LogChange,
}

/// A change of one group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    /// Only the hard state.
    None,
    /// These entries, consecutive; whatever the log held from the first one's index on is cut off (Raft §5.3).
    Append(Vec<LogEntry>),
    /// The group begins to exist, with an empty log that continues after `start`.
    Born { start: LogId },
    /// A snapshot at `at` is about to be written into the state machine under `generation`; the log is unchanged.
    Installing { at: LogId, generation: u64 },
    /// That snapshot is durable in the state machine: the log is now empty and continues after `at`.
    Installed { at: LogId, generation: u64 },
    /// The group was deleted by the controller and never comes back under this number.
    Tombstone,
}

/// Everything the log knows after it has been opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Every group the log has heard of that is not tombstoned.
    pub groups: BTreeMap<RaftGroupId, GroupRecovery>,
    /// Groups that must never be created again under their number.
    pub tombstones: Vec<RaftGroupId>,
    /// The highest turn that is durable whole.
    pub durable_turn: TurnNumber,
    /// What was found and done about it, one sentence each, for the operator.
    pub findings: Vec<String>,
}

/// One group as the log remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRecovery {
    /// What it has promised.
    pub hard_state: HardState,
    /// The entry just before the first one that the log holds.
    pub start: LogId,
    /// The last entry; equals `start` when the log holds none.
    pub last: LogId,
    /// Where each term begins, ascending: (first index of the term's entries, term), for every entry after `start`.
    pub terms: Vec<LogId>,
    /// The newest `Installing` that no `Installed` has followed.
    pub installing: Option<(LogId, u64)>,
    /// Why this group may neither vote nor acknowledge: a sentence for the operator.
    pub damage: Option<String>,
}

impl GroupRecovery {
    /// The first index the log holds, or would hold next.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.start.index.next()
    }
}
