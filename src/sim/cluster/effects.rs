//! Effects that take time on a simulated node, until chance finishes them, and the places where a crash can hit.

use super::node::Finished;
use crate::multiraft::apply::{FlushPlan, Transferred};
use crate::multiraft::core::effect::{Effect, Input};
use crate::partition::trim::Freed;
use crate::raft::SnapshotMeta;
use crate::raft::group_log::Wanted;
use crate::sim::Random;
use crate::types::{LogEntry, LogIndex, Membership, RaftGroupId, ReplicaId};
use crate::wal::Turn;
use std::collections::VecDeque;

/// An effect that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A turn of the log.
    Append,
    /// Entries for a state machine.
    Apply,
    /// Old entries for a follower or a replay.
    Read,
    /// State machines made durable.
    Flush,
    /// Space given back.
    Reclaim,
    /// Log to be freed.
    Release,
    /// A state taken for followers.
    Build,
    /// A state asked for.
    Fetch,
    /// A state switched to.
    Install,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Append,
        Self::Apply,
        Self::Read,
        Self::Flush,
        Self::Reclaim,
        Self::Release,
        Self::Build,
        Self::Fetch,
        Self::Install,
    ];
}

/// Where a crash hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// Nothing in particular was going on.
    Idle,
    /// Instead of sending.
    Send,
    /// Instead of answering a client.
    Reply,
    /// Before an effect began.
    Before(Kind),
    /// In the middle of it.
    During(Kind),
    /// After it was done and before its completion was heard.
    After(Kind),
}

impl CrashPoint {
    /// Whether it has to do with moving whole states between nodes.
    #[must_use]
    pub fn is_rare(self) -> bool {
        match self {
            Self::Before(kind) | Self::During(kind) | Self::After(kind) => {
                matches!(kind, Kind::Build | Kind::Fetch | Kind::Install)
            }
            Self::Idle | Self::Send | Self::Reply => false,
        }
    }
}

/// A crash in the middle of an effect: at the so-manieth change of the disk (1 is the first).
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Which change.
    pub operations: u64,
}

/// Committed entries of a group, and the members that result from those that change them.
pub type Committed = (RaftGroupId, Vec<LogEntry>, Vec<(LogIndex, Membership)>);

/// What has begun on a node and not finished.
#[derive(Default)]
pub struct Open {
    /// The turn in flight.
    pub append: Option<Turn>,
    /// Entries to apply, in order.
    pub applies: VecDeque<Committed>,
    /// Entries to read.
    pub reads: VecDeque<(RaftGroupId, Wanted)>,
    /// What a flush will have made durable.
    pub flushes: VecDeque<FlushPlan>,
    /// What flushes have made durably deleted.
    pub reclaims: VecDeque<Vec<Freed>>,
    /// Log to be freed.
    pub releases: VecDeque<Vec<(RaftGroupId, LogIndex)>>,
    /// States to take.
    pub builds: VecDeque<RaftGroupId>,
    /// States to ask for.
    pub fetches: VecDeque<(RaftGroupId, ReplicaId, ReplicaId, SnapshotMeta)>,
    /// States to switch to.
    pub installs: VecDeque<(RaftGroupId, SnapshotMeta)>,
}

impl Open {
    /// Adds an effect; `begin_flush` says what a flush that begins now covers.
    pub fn add(&mut self, effect: Effect, begin_flush: impl FnOnce() -> FlushPlan) {
        match effect {
            Effect::Append(turn) => {
                assert!(self.append.is_none(), "one turn is in flight at a time");
                self.append = Some(turn);
            }
            Effect::Apply { group, entries, memberships } => self.applies.push_back((group, entries, memberships)),
            Effect::ReadEntries { group, wanted } => self.reads.push_back((group, wanted)),
            Effect::Flush => self.flushes.push_back(begin_flush()),
            Effect::Release(bounds) => self.releases.push_back(bounds),
            Effect::BuildSnapshot { group } => self.builds.push_back(group),
            Effect::FetchSnapshot { group, own, from, meta } => self.fetches.push_back((group, own, from, meta)),
            Effect::InstallSnapshot { group, meta, .. } => self.installs.push_back((group, meta)),
            other => unreachable!("{} takes no time", describe(&other)),
        }
    }

    /// Chooses one of the effects that could finish now. A state is switched to only after what was to be applied
    /// before: those effects share a thread.
    pub fn pick(&self, random: &mut Random) -> Option<Kind> {
        let is_open = |kind: &Kind| match kind {
            Kind::Append => self.append.is_some(),
            Kind::Apply => !self.applies.is_empty(),
            Kind::Read => !self.reads.is_empty(),
            Kind::Flush => !self.flushes.is_empty(),
            Kind::Reclaim => !self.reclaims.is_empty(),
            Kind::Release => !self.releases.is_empty(),
            Kind::Build => !self.builds.is_empty(),
            Kind::Fetch => !self.fetches.is_empty(),
            Kind::Install => !self.installs.is_empty() && self.applies.is_empty(),
        };
        let open: Vec<_> = Kind::ALL.into_iter().filter(is_open).collect();
        (!open.is_empty()).then(|| open[random.below(open.len() as u64) as usize])
    }
}

/// What a transfer's step leads to, as inputs and messages.
pub fn after_transfer(group: RaftGroupId, transferred: Transferred) -> Finished {
    let mut inputs = Vec::new();
    inputs.extend(transferred.pulled_by.map(|by| Input::SnapshotPulled { group, by }));
    inputs.extend(transferred.done.map(|(at, generation)| Input::SnapshotFetched { group, at, generation }));
    Finished { inputs, send: transferred.send }
}

/// One line for the trace.
#[must_use]
pub fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Send { to, messages } => {
            let each = messages.iter().map(|(group, message)| {
                format!(
                    "{group}:{:?} t{} i{}@{} n{} c{}{}",
                    message.kind,
                    message.term,
                    message.index,
                    message.log_term,
                    message.entries.len(),
                    message.commit,
                    if message.reject { " no" } else { "" }
                )
            });
            format!("send to {to}: {}", each.collect::<Vec<_>>().join(", "))
        }
        Effect::Append(turn) => format!("append {} writes", turn.writes.len()),
        Effect::Apply { group, entries, .. } => format!("apply {} entries of group {group}", entries.len()),
        Effect::ReadEntries { group, wanted } => format!("read {}..{} of group {group}", wanted.low, wanted.high),
        Effect::BuildSnapshot { group } => format!("build a snapshot of group {group}"),
        Effect::FetchSnapshot { group, meta, .. } => format!("fetch a snapshot of group {group} at {}", meta.at),
        Effect::InstallSnapshot { group, meta, .. } => format!("install a snapshot of group {group} at {}", meta.at),
        Effect::Removed { group } => format!("removed group {group}"),
        Effect::Flush => "flush".to_owned(),
        Effect::Release(bounds) => format!("release {bounds:?}"),
        Effect::Reply { ticket, reply } => format!("reply to {}: {reply:?}", ticket.0),
        Effect::Publish { group, leadership } => format!("group {group}: {leadership:?}"),
        Effect::Quarantined { group, reason } => format!("quarantined group {group}: {reason}"),
        Effect::Repair(message) => format!("about a repair: {message:?}"),
        Effect::Examine { group, lost } => format!("examine group {group}: {lost:?}"),
        Effect::Repairing { group, step } => format!("repairing group {group}: {step}"),
        Effect::Repaired { group, last } => format!("repaired group {group} up to {last}"),
    }
}
