//! How a replica that fell behind the log gets the state instead, as a sequence of durable steps.
//!
//! The receiver pulls. A leader's snapshot message only names a state (an entry and the members as of it); the receiver
//! fetches what it lacks into a place of its own, and raft-rs hears of the snapshot when the data is there:
//!
//! 1. message → `Effect::FetchSnapshot` → `Input::SnapshotFetched`: nothing of the old state has changed;
//! 2. raft-rs accepts → `Installing` durable in the log → `Effect::InstallSnapshot`: one batch switches the state, and
//!    a flush makes it durable → `Input::SnapshotInstalled`;
//! 3. `Installed` durable in the log → raft-rs and the leader hear that it is persisted.
//!
//! A crash before 2 leaves the old state and an old log. One between 2 and 3 leaves an `Installing` without
//! `Installed`: the state machine says which it was, because no state but the snapshot's has been applied up to exactly
//! its entry (raft-rs accepts a snapshot only if the log does not hold that entry, and nothing is appended behind
//! `Installing`).

use super::effect::Effect;
use super::group::Group;
use crate::raft::Write;
use crate::raft::{Broken, MessageKind, RaftMessage, SnapshotMeta};
use crate::types::{HardState, LogId, ReplicaId, Term};
use crate::wal::{GroupRecovery, GroupWrite, LogChange};

/// A follower whose snapshot makes no progress for so many election timeouts is probed again.
const PATIENCE_ELECTION_TIMEOUTS: u64 = 10;

/// The receiver's side.
#[derive(Debug, Default)]
pub enum Incoming {
    /// No snapshot is on its way.
    #[default]
    None,
    /// Its data is being fetched.
    Fetching { meta: SnapshotMeta, from: ReplicaId, since: u64 },
    /// raft-rs has accepted it; nothing else happens in the group until it is durable.
    Installing(Box<Install>),
}

/// A snapshot between its acceptance and its being durable.
#[derive(Debug)]
pub struct Install {
    /// Which state.
    pub meta: SnapshotMeta,
    /// Where the state machine keeps it.
    pub generation: u64,
    /// The `Ready` that brought it.
    pub number: u64,
    /// What that `Ready` wants written besides.
    pub write: Option<Write>,
    /// What that `Ready` says once everything is durable.
    pub send_after: Vec<RaftMessage>,
}

/// The sender's side: a follower that was told to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The follower.
    pub to: ReplicaId,
    /// When it is given up, in ticks.
    pub deadline: u64,
}

impl Group {
    /// A leader names a state to fetch. One that this replica has anyway is left to raft-rs, which says so.
    pub(super) fn snapshot_offered(
        &mut self,
        message: RaftMessage,
        now: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        let Some(meta) = message.snapshot.clone() else { return Ok(()) };
        let stale = message.term < self.replica.term() || message.to != self.replica.id();
        if stale || meta.at.index <= self.replica.commit() {
            return self.replica.step(message);
        }
        if matches!(self.incoming, Incoming::None) {
            self.incoming = Incoming::Fetching { meta, from: message.from, since: now };
            self.fetch_again(now, effects);
        }
        Ok(())
    }

    /// Whether a snapshot is on its way: the state must not move meanwhile.
    pub(super) fn is_fetching(&self) -> bool {
        matches!(self.incoming, Incoming::Fetching { .. })
    }

    /// Asks for the snapshot's data, and again every election timeout: a question or an answer may be lost.
    pub(super) fn fetch_again(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let Incoming::Fetching { meta, from, since } = &self.incoming else { return };
        if (now - since).is_multiple_of(self.replica.election_ticks()) {
            let (own, from, meta) = (self.replica.id(), *from, meta.clone());
            effects.push(Effect::FetchSnapshot { group: self.id, own, from, meta });
        }
    }

    /// The data is there (or could not be had: `None`). What it shows is committed, so it is valid whoever leads now.
    pub(super) fn snapshot_fetched(&mut self, at: LogId, generation: Option<u64>) -> Result<(), Broken> {
        let Incoming::Fetching { meta, .. } = &self.incoming else { return Ok(()) };
        if meta.at != at {
            return Ok(());
        }
        let meta = meta.clone();
        self.incoming = Incoming::None;
        let (Some(generation), Some(leader)) = (generation, self.replica.leader()) else { return Ok(()) };
        self.fetched_generation = generation;
        self.commit_before_snapshot = self.replica.commit();
        self.replica.step(RaftMessage {
            kind: MessageKind::Snapshot,
            from: leader,
            to: self.replica.id(),
            term: self.replica.term(),
            snapshot: Some(meta),
            ..RaftMessage::default()
        })
    }

    /// What announces the accepted snapshot in the log.
    pub(super) fn announcement(&self) -> Option<(u64, GroupWrite, LogId)> {
        let install = self.installing()?;
        let change = LogChange::Installing { at: install.meta.at, generation: install.generation };
        let hard_state = HardState { commit: self.commit_before_snapshot, ..self.replica.hard_state() };
        Some((install.number, GroupWrite { group: self.id, hard_state, change }, install.meta.at))
    }

    /// The snapshot that is being made durable.
    pub(super) fn installing(&self) -> Option<&Install> {
        match &self.incoming {
            Incoming::Installing(install) => Some(install),
            _ => None,
        }
    }

    /// The state machine has the snapshot, durably: what remains to be written, in order.
    pub(super) fn snapshot_installed(&mut self, at: LogId, effects: &mut Vec<Effect>) -> Option<(GroupWrite, Install)> {
        self.installing().filter(|install| install.meta.at == at)?;
        let Incoming::Installing(install) = std::mem::take(&mut self.incoming) else { return None };
        let change = LogChange::Installed { at: install.meta.at, generation: install.generation };
        let write = GroupWrite { group: self.id, hard_state: self.replica.hard_state(), change };
        self.restored(install.meta.at, effects);
        Some((write, *install))
    }

    /// A follower was told to fetch, or has fetched something: it has time until the deadline moves no more.
    pub(super) fn snapshot_progress(&mut self, to: ReplicaId, now: u64) {
        let deadline = now + PATIENCE_ELECTION_TIMEOUTS * self.replica.election_ticks();
        match self.outgoing.iter_mut().find(|outgoing| outgoing.to == to) {
            Some(outgoing) => outgoing.deadline = deadline,
            None => self.outgoing.push(Outgoing { to, deadline }),
        }
    }

    /// Followers that did not get their snapshot are probed again, or raft-rs would never speak to them.
    pub(super) fn expire_snapshots(&mut self, now: u64) -> Result<bool, Broken> {
        if self.outgoing.is_empty() {
            return Ok(false);
        }
        let late: Vec<_> = self.outgoing.extract_if(.., |outgoing| now >= outgoing.deadline).collect();
        for outgoing in &late {
            self.replica.report_snapshot(outgoing.to, false)?;
        }
        Ok(!late.is_empty())
    }
}

/// Decides, on start, what an `Installing` without an `Installed` came to. Returns what must be written before the
/// group goes on. With promises in doubt nothing is decided: what followed may be what was lost.
pub(super) fn resolve_install(recovery: &mut GroupRecovery, applied: LogId) -> Option<LogChange> {
    let (at, generation) = recovery.installing.take()?;
    if at != applied || recovery.damage.as_ref().is_some_and(|damage| damage.doubt) {
        return None; // never switched: the old state and the old log stand
    }
    recovery.start = at;
    recovery.last = at;
    recovery.terms.clear();
    recovery.damage = None;
    recovery.hard_state.commit = recovery.hard_state.commit.max(at.index);
    if recovery.hard_state.term < at.term {
        recovery.hard_state.term = at.term;
        recovery.hard_state.vote = None;
    }
    assert!(at.term > Term(0), "a snapshot holds at least the birth of its group");
    Some(LogChange::Installed { at, generation })
}
