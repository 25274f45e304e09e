//! The write-ahead log: Raft entries and hard states of every group of this node, in one stream of turns.
//!
//! One append and one fdatasync make a *turn* durable, for all groups that have something to write. The log knows what
//! it has promised: each turn repeats the identifier and all section headers of the turn before it, so a start tells a
//! torn tail, which nobody was promised, from damage, which quarantines the groups it touches and no others.
//!
//! * `layout` says what the bytes mean, `encode` builds a turn, `scan` finds and verifies turns in a segment.
//! * `index` knows where every entry lies and what every group promised; `read` fetches entries, from any thread.
//! * `recover` turns segments into an index and a list of findings; `start` makes that final, ends the old tail and
//!   goes on in a new segment; `log` appends and rotates; `space` makes room: spares, freeing, copying forward.
//! * `disk` is the waist below; `real_disk` the one implementation that touches files.
//!
//! The log never truncates, retries or guesses: a failed write or sync ends it, and damage stays damage until a
//! snapshot or a peer's copy replaces what was lost. What it cannot detect: media damage to the very last turn, not yet
//! sealed, which looks like a torn write; and a whole directory put back to an older state, which the peers notice.

pub mod disk;
mod encode;
mod index;
mod layout;
mod log;
mod read;
pub mod real_disk;
mod recover;
mod scan;
mod space;
mod start;

pub use encode::entry_bytes;
pub use log::Log;
pub use read::{Location, Reader};
pub use space::{Headroom, RoomMade, Spare, SpareOrder, prepare_spare};

use crate::types::{HardState, LogEntry, LogId, LogIndex, NodeId, RaftGroupId, Term};
use std::collections::BTreeMap;
use std::io;

/// The number of a turn. Starts at 1 and grows by one with every append; a dropped, torn turn leaves a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnNumber(pub u64);

/// Whose log it is. Every header carries it, so that a foreign file is never taken for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
}

/// How the log uses its disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// The length of a segment file. 256 KiB to 2 GiB, a multiple of 4 KiB. An existing segment keeps its own.
    pub segment_bytes: u64,
    /// How much log is kept for replicas that were away, beyond what this node needs itself.
    pub retain_bytes: u64,
    /// How far beyond `retain_bytes` the log may grow before entries that hold back an old segment are copied forward.
    pub slack_bytes: u64,
    /// How many spare segments to keep ready: one in reserve for promises or for the next start, and at least one to
    /// rotate into.
    pub spares: usize,
    /// How many freed segments are kept for reuse beyond that. Segments are freed in bursts, when the state machines
    /// have been flushed; one that is removed instead costs writing all its zeros anew.
    pub recycled_max: usize,
    /// Whether an empty directory becomes a new log. Otherwise it is a lost disk, and refused: a replica that comes
    /// back without its promises can lose what others committed.
    pub create: bool,
    /// What is left out, in the simulator's negative controls; nothing anywhere else.
    pub omit: Omissions,
}

/// Precautions that a negative control leaves out, to show that the simulator notices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Omissions {
    /// Entries that were copied forward are replayed as if they had been appended.
    pub moved_apart: bool,
    /// A damaged log is cut off at its first flaw and taken for whole.
    pub damage: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retain_bytes: 1 << 30,
            slack_bytes: 256 << 20,
            spares: 2,
            recycled_max: 8,
            create: false,
            omit: Omissions::default(),
        }
    }
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A write, sync or other call failed. It is unknown what of it is durable; the process must end.
    #[error("the log's disk failed while {doing}: {error}")]
    Disk { doing: &'static str, error: io::Error },
    /// An earlier call failed, so the log accepts nothing any more.
    #[error("the log has failed before and accepts nothing any more")]
    Failed,
    /// There is no space for another segment. Nothing was written, and the log goes on.
    #[error("no space for another segment of the log; nothing was written")]
    Full,
    /// The turn is larger than a segment can take. Nothing was written, and the log goes on.
    #[error("a turn of {bytes} bytes does not fit into a segment; nothing was written")]
    TooLarge { bytes: u64 },
    /// The directory holds no log, and none may be created.
    #[error(
        "the log's directory is empty: its disk was lost or replaced. This node must not rejoin under its old \
         identity, because it has forgotten its promises; format it anew and let it replace the old replicas"
    )]
    Empty,
    /// The directory holds another node's log.
    #[error("the log belongs to node {} of cluster {:032x}", owner.node, owner.cluster)]
    Foreign { owner: Identity },
    /// A newer program wrote the log.
    #[error("the log has format {0}, which this version does not know")]
    UnknownFormat(u32),
    /// There are segments, and no turn in any of them can be read.
    #[error("the log can't be opened: {0}")]
    Unreadable(String),
}

/// Why entries could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log has let go of some of them: whoever needs them needs a snapshot.
    #[error("group {group}: the log no longer holds these entries")]
    Released { group: RaftGroupId },
    /// The log should hold them and does not. The group is to be quarantined.
    #[error("group {group}: entries {first} to {last} are damaged: {reason}")]
    Damaged { group: RaftGroupId, first: LogIndex, last: LogIndex, reason: String },
}

/// The file name of the segment with this number.
fn segment_name(number: u64) -> String {
    format!("segment-{number:016}.wal")
}

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

impl GroupWrite {
    /// What it takes of its turn, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        let entries = match &self.change {
            LogChange::Append(entries) | LogChange::Refill(entries) => entries.as_slice(),
            _ => &[],
        };
        encode::section_bytes(entries)
    }
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
    /// Entries that were lost here, as a peer has them: they take the places that the log kept for them, and cut
    /// nothing off.
    Refill(Vec<LogEntry>),
    /// A replica that took part has found that it has lost promises: it is in doubt at every start, until a state is
    /// installed. Nothing of a group that the log does not know.
    Doubt,
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
    /// Whether turns of unknown content are missing and nothing later settles what was in them: then a group that is
    /// not listed may still have existed here, and voted. Until that is settled (`Log::settle`), no group may be born
    /// on this node that could have been here before.
    pub incomplete: bool,
    /// How many starts have found that the newest turns were lost, so that every group is in doubt; no more than 255
    /// are counted. Turn numbers begin again at lower ones then, and this tells whoever remembers higher ones that the
    /// log knows.
    pub losses: u8,
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
    /// Why this group may neither vote nor acknowledge, if it may not.
    pub damage: Option<Damage>,
}

/// What a log has lost of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// A sentence for the operator.
    pub reason: String,
    /// Whether it is not known what the group has promised: terms, votes and entries may be missing that nothing here
    /// tells of. Otherwise the hard state is certain and only the entries in `holes` are lost.
    pub doubt: bool,
    /// Entries that the log promised and can't produce, ascending.
    pub holes: Vec<Hole>,
}

/// Consecutive entries that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first.
    pub first: LogIndex,
    /// The last.
    pub last: LogIndex,
    /// The first entry at or after `last` whose identity is certain. A log that holds this one holds the lost ones
    /// before it (log matching, Raft §5.3).
    pub anchor: LogId,
}

impl GroupRecovery {
    /// The first index the log holds, or would hold next.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.start.index.next()
    }

    /// The term of the entry at `index`, from `start` to `last`, as far as it is certain.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        let lost = |hole: &Hole| hole.first <= index && index <= hole.last && hole.anchor.index != index;
        let holes = self.damage.as_ref().map_or(&[][..], |damage| &damage.holes);
        if index < self.start.index || index > self.last.index || holes.iter().any(lost) {
            return None;
        }
        if index == self.last.index {
            return Some(self.last.term);
        }
        let after = self.terms.partition_point(|begin| begin.index <= index);
        self.terms.get(after.checked_sub(1)?).map(|begin| begin.term)
    }
}
