//! Runs committed entries through the state machines of this node's groups, and moves whole states between nodes.
//!
//! One applier owns all machines and runs on a thread of its own (or inside the simulator's loop): a stall of the
//! database must not delay heartbeats, votes or appends. It is deterministic; the same entries give the same outcomes
//! and the same writes.
//!
//! A group whose machine is missing or damaged has none here. A state that arrives for it says which kind it is, and
//! goes into a blank machine of that kind, which nobody sees before it is complete.
//!
//! * [`machine`]: the kinds of state machines.
//! * [`transfer`]: states on their way between replicas.

pub mod machine;
pub mod transfer;

use crate::machine::{MachineError, Outcome, own};
use crate::partition::read::ReadError;
use crate::partition::snapshot::{InstallError, SnapshotChunk};
use crate::partition::trim::Freed;
use crate::raft::SnapshotMeta;
use crate::record::RecordBatch;
use crate::storage::{Engine, EngineError, WriteBatch};
use crate::types::{ClusterId, LogEntry, LogId, LogIndex, Membership, Offset, RaftGroupId, ReplicaId};
use machine::{Kind, Machine};
use std::collections::{BTreeMap, BTreeSet};
use transfer::{Departures, PIECE_BYTES_MAX, SnapshotBody, SnapshotMessage, Transfer};

/// The most partitions whose space one flush gives back: each is one more deleted range in the database's memory.
const TRIMS_PER_FLUSH_MAX: usize = 256;

/// How often a group's machine may be found damaged in one life of the process. What is damaged beyond that lies in
/// files that new rows do not get around.
const CONDEMNED_MAX: u32 = 2;

/// What a flush makes durable.
#[derive(Debug, Default)]
pub struct FlushPlan {
    /// The groups' states up to these entries.
    pub applied: Vec<(RaftGroupId, LogIndex)>,
    /// What was deleted: `Freed::reclaim` when the flush is done.
    pub freed: Vec<Freed>,
    /// Groups whose rows can't be read, and why; their machines are gone.
    pub damaged: Vec<(RaftGroupId, String)>,
}

/// What a message about a state in transit leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// To be said to the peer.
    pub send: Option<SnapshotMessage>,
    /// The transfer to this node has ended: the state is here under a generation, or (`None`) can't be had.
    pub done: Option<(LogId, Option<u64>)>,
    /// A follower has asked for something: its transfer is alive.
    pub pulled_by: Option<ReplicaId>,
    /// The state here can't be read or written, and why; its machine is gone.
    pub failed: Option<String>,
}

/// Who is told after each write, so that readers see the new state.
pub trait Observer: Send {
    /// `machine` has changed and its rows are written.
    fn changed(&mut self, group: RaftGroupId, machine: &Machine);

    /// The group's machine is damaged and gone. Another may come, with whatever state a peer has: an older one, too.
    fn lost(&mut self, _group: RaftGroupId) {}
}

/// Nobody is told.
pub struct NoObserver;

impl Observer for NoObserver {
    fn changed(&mut self, _group: RaftGroupId, _machine: &Machine) {}
}

/// See the module.
pub struct Applier<E> {
    /// The database of every machine.
    engine: E,
    /// The cluster whose metadata a controller's state must be.
    cluster: ClusterId,
    /// The machines.
    machines: BTreeMap<RaftGroupId, Machine>,
    /// What each machine has applied since the last flush began.
    unflushed: BTreeMap<RaftGroupId, LogIndex>,
    /// How often each group's machine was found damaged.
    condemned: BTreeMap<RaftGroupId, u32>,
    /// Groups whose log start has moved since the space before it was last given back.
    untrimmed: BTreeSet<RaftGroupId>,
    /// Somebody was told that a flush would give space back.
    flush_wished: bool,
    /// States offered to followers.
    departures: Departures,
    /// States on their way here.
    transfers: BTreeMap<RaftGroupId, Transfer>,
    /// Who is told.
    observer: Box<dyn Observer>,
}

impl<E: Engine> Applier<E> {
    /// An applier over machines that were opened from `engine`.
    #[must_use]
    pub fn new(
        engine: E,
        cluster: ClusterId,
        machines: BTreeMap<RaftGroupId, Machine>,
        mut observer: Box<dyn Observer>,
    ) -> Self {
        machines.iter().for_each(|(group, machine)| observer.changed(*group, machine));
        // A machine may be ahead of what any flush has announced: the next flush announces it.
        let unflushed = machines.iter().map(|(group, machine)| (*group, machine.applied().index)).collect();
        // And the space before its log start may not be given back: files may lie there whose keys are deleted.
        let has_start = |(_, machine): &(&RaftGroupId, &Machine)| machine.log_start() > Offset(0);
        let untrimmed = machines.iter().filter(has_start).map(|(group, _)| *group).collect();
        let condemned = BTreeMap::new();
        let (flush_wished, departures, transfers) = (false, Departures::default(), BTreeMap::new());
        Self {
            engine,
            cluster,
            machines,
            unflushed,
            condemned,
            untrimmed,
            flush_wished,
            departures,
            transfers,
            observer,
        }
    }

    /// The database.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// A machine, to look at.
    #[must_use]
    pub fn machine(&self, group: RaftGroupId) -> Option<&Machine> {
        self.machines.get(&group)
    }

    /// Takes in a machine that was just created, durably.
    pub fn add(&mut self, group: RaftGroupId, machine: Machine) {
        self.observer.changed(group, &machine);
        self.unflushed.insert(group, machine.applied().index);
        self.machines.insert(group, machine);
    }

    /// Lets go of a deleted group's machine.
    pub fn remove(&mut self, group: RaftGroupId) {
        self.unflushed.remove(&group);
        self.untrimmed.remove(&group);
        self.machines.remove(&group);
        self.departures.forget(group);
        self.transfers.remove(&group);
    }

    /// Lets go of a machine that is damaged; `false` if there is none, or another than the one of this generation. Its
    /// rows stay as they are until a peer's state takes their place.
    pub fn condemn(&mut self, group: RaftGroupId, generation: Option<u64>) -> bool {
        let is_it = |machine: &Machine| generation.is_none_or(|generation| machine.generation() == generation);
        if !self.machines.get(&group).is_some_and(is_it) {
            return false;
        }
        self.remove(group);
        *self.condemned.entry(group).or_default() += 1;
        self.observer.lost(group);
        true
    }

    /// Whether a group's machine was found damaged so often that another state would be, too.
    #[must_use]
    pub fn is_beyond_repair(&self, group: RaftGroupId) -> bool {
        self.condemned.get(&group).is_some_and(|times| *times > CONDEMNED_MAX)
    }

    /// Applies committed entries, which follow those applied before. The outcomes are visible to readers of the
    /// database, not durable.
    ///
    /// Entries a machine already has (its database flushed by itself before a crash) are skipped; a group whose machine
    /// is gone was deleted, and nobody waits for its outcomes.
    pub fn apply(
        &mut self,
        group: RaftGroupId,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
    ) -> Result<Vec<(LogId, Outcome)>, MachineError> {
        let Some(machine) = self.machines.get_mut(&group) else { return Ok(Vec::new()) };
        let (applied, log_start) = (machine.applied().index, machine.log_start());
        let skip = entries.iter().take_while(|entry| entry.id.index <= applied).count();
        let entries = &entries[skip..];
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        let mut batch = WriteBatch::default();
        let outcomes = machine.apply(entries, memberships, &mut batch)?;
        assert_eq!(outcomes.len(), entries.len(), "group {group}: one outcome per entry");
        self.engine.write(batch)?;
        self.observer.changed(group, machine);
        self.unflushed.insert(group, last.id.index);
        if machine.log_start() > log_start {
            self.untrimmed.insert(group);
        }
        Ok(entries.iter().map(|entry| entry.id).zip(outcomes).collect())
    }

    /// What a flush that begins now will make durable, with what lies before the log starts deleted. The caller flushes
    /// the engine, on whichever thread, and only then reclaims.
    pub fn begin_flush(&mut self) -> Result<FlushPlan, EngineError> {
        self.flush_wished = false;
        let (mut batch, mut freed, mut damaged) = (WriteBatch::default(), Vec::new(), Vec::new());
        for _ in 0..TRIMS_PER_FLUSH_MAX {
            let Some(group) = self.untrimmed.pop_first() else { break };
            let Some(machine) = self.machines.get(&group) else { continue };
            match machine.trim(&self.engine, &mut batch) {
                Ok(ranges) => freed.extend(ranges),
                Err(error) if error.damage => {
                    self.condemn(group, None);
                    damaged.push((group, error.reason));
                }
                Err(error) => return Err(error),
            }
        }
        if !batch.changes.is_empty() {
            self.engine.write(batch)?;
        }
        let applied = std::mem::take(&mut self.unflushed).into_iter().collect();
        Ok(FlushPlan { applied, freed, damaged })
    }

    /// Whether a flush should come soon, though little may have been written, because it would give space back. Says so
    /// once per flush.
    pub fn take_flush_wish(&mut self) -> bool {
        let wished = !self.untrimmed.is_empty() && !self.flush_wished;
        self.flush_wished |= wished;
        wished
    }

    /// Takes the group's state as of now, for followers to ask for.
    pub fn build_snapshot(&mut self, group: RaftGroupId) -> Option<SnapshotMeta> {
        let machine = self.machines.get(&group)?;
        let (meta, head) = machine.head();
        self.departures.keep(group, meta.at, machine.kind(), head);
        Some(meta)
    }

    /// Begins to fetch a state, or asks again for the piece that is missing.
    pub fn fetch(&mut self, group: RaftGroupId, own: ReplicaId, from: ReplicaId, meta: SnapshotMeta) -> Transferred {
        let at = meta.at;
        let fresh = self.transfers.get(&group).is_none_or(|transfer| transfer.meta.at != at || transfer.from != from);
        if fresh {
            self.transfers.insert(group, Transfer::new(own, from, meta));
        }
        let transfer = self.transfers.get_mut(&group).expect("the transfer was just seen or made");
        if transfer.is_hopeless() {
            self.transfers.remove(&group);
            return Transferred { done: Some((at, None)), ..Transferred::default() };
        }
        let send = transfer.request(group);
        let generation = transfer.arrival.as_ref().filter(|_| send.is_none()).map(machine::Arrival::generation);
        let done = generation.map(|generation| (at, Some(generation)));
        Transferred { send, done, ..Transferred::default() }
    }

    /// Takes in what a peer says of a state in transit.
    pub fn transferred(&mut self, message: SnapshotMessage) -> Transferred {
        let SnapshotMessage { group, from, to, at, body } = message;
        let mut failed = None;
        let answer = match body {
            SnapshotBody::WantHead { from_byte } => self.departures.piece(group, at, from_byte),
            SnapshotBody::WantRecords { from, until } => {
                self.records(group, at, (from, until)).unwrap_or_else(|reason| {
                    self.condemn(group, None);
                    failed = Some(reason);
                    SnapshotBody::Gone
                })
            }
            body => return self.arrived(group, at, from, body),
        };
        let send = Some(SnapshotMessage { group, from: to, to: from, at, body: answer });
        Transferred { send, done: None, pulled_by: Some(from), failed }
    }

    /// Records for a receiver. The error says why they can't be read.
    fn records(&self, group: RaftGroupId, at: LogId, range: (Offset, Offset)) -> Result<SnapshotBody, String> {
        let Some(machine) = self.machines.get(&group).filter(|_| self.departures.has(group, at)) else {
            return Ok(SnapshotBody::Gone);
        };
        match machine.chunk(&self.engine, range.0, range.1, PIECE_BYTES_MAX) {
            Ok(Some(chunk)) => Ok(SnapshotBody::Records(chunk)),
            Ok(None) => Ok(SnapshotBody::Gone),
            Err(ReadError::OutOfRange { .. }) => Ok(SnapshotBody::Gone),
            Err(error) => Err(error.to_string()),
        }
    }

    fn arrived(&mut self, group: RaftGroupId, at: LogId, from: ReplicaId, body: SnapshotBody) -> Transferred {
        let Some(transfer) = self.transfers.get_mut(&group) else { return Transferred::default() };
        // A state that is here whole may be about to be installed: late answers to questions that were repeated, among
        // them that it is gone at the sender by now, change nothing.
        let is_whole = transfer.request(group).is_none();
        if transfer.meta.at != at || transfer.from != from || is_whole {
            return Transferred::default();
        }
        transfer.heard();
        let own = self.machines.get(&group);
        let blank = |kind| Machine::blank(kind, &self.engine, group, self.cluster, at);
        match take(own, &blank, transfer, &self.engine, body) {
            Ok(()) => {
                let send = transfer.request(group);
                let here = transfer.arrival.as_ref().filter(|_| send.is_none());
                let done = here.map(|arrival| (at, Some(arrival.generation())));
                Transferred { send, done, ..Transferred::default() }
            }
            Err(error) => {
                tracing::warn!(%group, %at, %from, %error, "snapshot transfer given up");
                self.transfers.remove(&group);
                let failed = matches!(error, InstallError::Engine(_)).then(|| error.to_string());
                if failed.is_some() {
                    self.condemn(group, None);
                }
                Transferred { done: Some((at, None)), failed, ..Transferred::default() }
            }
        }
    }

    /// Switches to the state that was fetched; one that is here already stays. The caller flushes before it says so,
    /// then calls `Freed::reclaim`.
    pub fn install(&mut self, group: RaftGroupId, at: LogId) -> Result<Option<Freed>, String> {
        if self.machines.get(&group).is_some_and(|machine| machine.applied() == at) {
            return Ok(None);
        }
        let transfer = self.transfers.remove(&group).filter(|transfer| transfer.meta.at == at);
        let Transfer { own, blank, arrival, .. } = transfer.ok_or("no such snapshot was fetched")?;
        let arrival = arrival.ok_or("no such snapshot was fetched")?;
        let mut batch = WriteBatch::default();
        own::put(&mut batch, group, own);
        self.engine.write(batch).map_err(|error| error.to_string())?;
        let mut blank = blank;
        let machine = self.machines.get_mut(&group).or(blank.as_mut()).ok_or("the group is gone")?;
        let freed = machine.finish_install(&self.engine, arrival).map_err(|error| error.to_string())?;
        self.observer.changed(group, machine);
        self.machines.extend(blank.filter(|_| !self.machines.contains_key(&group)).map(|machine| (group, machine)));
        self.unflushed.insert(group, at.index);
        self.untrimmed.insert(group);
        Ok(freed)
    }
}

/// Takes one answer into a transfer. An error ends the transfer; the present state is as it was.
fn take(
    own: Option<&Machine>,
    blank: &dyn Fn(Kind) -> Machine,
    transfer: &mut Transfer,
    engine: &dyn Engine,
    body: SnapshotBody,
) -> Result<(), InstallError> {
    match body {
        SnapshotBody::Head { kind, from_byte, total_bytes, bytes } => {
            if own.is_some_and(|machine| machine.kind() != kind) {
                return Err(InstallError::Refused("it is another kind of state machine's".to_owned()));
            }
            if let Some(head) = transfer.take_piece(from_byte, total_bytes, &bytes)? {
                let machine = own.unwrap_or_else(|| transfer.blank.insert(blank(kind)));
                transfer.arrival = Some(machine.begin_install(engine, &transfer.meta, head, own.is_none())?);
            }
            Ok(())
        }
        SnapshotBody::Records(chunk) => match &mut transfer.arrival {
            Some(arrival) if arrival.wants().is_some() && continues(arrival, &chunk) => arrival.receive(engine, &chunk),
            _ => Ok(()), // a repeated answer
        },
        SnapshotBody::Gone => Err(InstallError::Refused("the sender no longer has this state".to_owned())),
        SnapshotBody::WantHead { .. } | SnapshotBody::WantRecords { .. } => Ok(()),
    }
}

/// Whether a chunk brings what is missing next, rather than repeating what is here.
fn continues(arrival: &machine::Arrival, chunk: &SnapshotChunk) -> bool {
    let Some((wanted, _)) = arrival.wants() else { return false };
    let end = chunk.batches.last().and_then(|(base_offset, bytes)| {
        let batch = RecordBatch::parse(bytes.clone()).ok()?;
        Some(base_offset.0.saturating_add(i64::from(batch.last_offset_delta()) + 1))
    });
    chunk.log_start > wanted || end.is_some_and(|end| end > wanted.0)
}
