//! Promises broken on purpose, to show that the checks notice: `controls` breaks each, and each must be found.
//!
//! What is broken is broken at the waist between a node and the world: in a message before it arrives, in a turn before
//! it is written, in what a start has found. So everything else is what it always is.

use crate::chance::SECOND;
use crate::clients::Ticketed;
use crate::jobs::{CrashPoint, Kind};
use crate::network::Cargo;
use crate::node::{Arrived, CLUSTER, Node};
use crate::observe::Observation;
use crate::swarm::Shape;
use crate::workload::{Answer, Request};
use crate::world::World;
use ackord::controller::Controller;
use ackord::coordinator::Coordinator;
use ackord::machine::Outcome;
use ackord::multiraft::apply::Applier;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::core::effect::{Input, Refused, Reply};
use ackord::multiraft::core::membership::WantedMembers;
use ackord::multiraft::core::{CoreOptions, GroupStart};
use ackord::partition::Partition;
use ackord::raft::{MessageKind, RaftMessage, Role};
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, EngineError, Family, WriteBatch};
use ackord::types::{CONTROLLER_GROUP, HardState, LogId, LogIndex, NodeId, Offset, RaftGroupId, ReplicaId};
use ackord::wal::{LogChange, Recovery, Turn};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    Nothing,
    /// The disk says that it has synced, and has not.
    SyncNothing,
    /// Terms and votes are not written.
    ForgetVotes,
    /// A follower's acknowledgement counts for another voter, too.
    QuorumOneShort,
    /// A leader takes what it sends for acknowledged.
    AckUncommitted,
    /// Followers take all that they are sent for committed.
    ApplyUncommitted,
    /// After damage the term and vote of an earlier start are believed.
    OldPromises,
    /// The table of producers is left out of snapshots.
    SnapshotsWithoutProducers,
    /// Snapshots of coordinators carry no offsets.
    SnapshotsWithoutOffsets,
    /// Linearizable reads, and those of topics, are served from what this node has, without asking a majority.
    ReadsUnconfirmed,
    /// Entries are written without the commit index beside them.
    CommitsUnwritten,
    /// The commit index of a turn that was torn is kept.
    TornCommitKept,
    /// Nothing but what the shape's options leave out, in a cluster whose controller has one voter and learners.
    OneVoter,
    /// The log is freed up to what was applied, flushed or not.
    ReleaseUnflushed,
    /// Members are told their shares before these are committed: after a failover there are others.
    AssignmentsUncommitted,
    /// Files below a log start are dropped before that log start is durable.
    ReclaimUnflushed,
    /// With what lies below a log start, a record at or above one is deleted.
    TrimTooMuch,
    /// Damaged rows are taken for rows that are not there.
    TrustRows,
    /// Nodes take twice as much as they say.
    TwiceTheLimits,
    /// A leader acknowledges a batch when it takes it, before anybody else has it.
    AckTaken,
    /// All tails together take what they want.
    TailsUnbounded,
    /// Some batches are acknowledged that nobody has taken.
    AcknowledgeLost,
    /// Some batches are refused that are in the log.
    RefuseWhatIsDone,
    /// Some readers are shown less than there is.
    ReadShort,
    /// A quarantined replica votes for whoever asks.
    QuarantinedVotes,
    /// What is said of repairs never arrives.
    RepairsLost,
    /// A disk that was rolled back says that it was not.
    RolledBackLies,
}

/// What a disk that was rolled back says of its turns: with which it began, and which is durable.
pub const FAR_AHEAD: (u64, u64) = (1 << 40, 1 << 40);

/// What a node had promised at earlier starts.
#[derive(Default)]
pub struct Promises {
    /// By group.
    of: BTreeMap<RaftGroupId, HardState>,
    /// Its disk was damaged since.
    pub believed: bool,
}

/// The limits that a node really keeps to.
pub fn limits(shape: &Shape) -> CoreOptions {
    let core = shape.core.clone();
    let unbounded = shape.sabotage == Sabotage::TailsUnbounded;
    let times = if shape.sabotage == Sabotage::TwiceTheLimits { 2 } else { 1 };
    CoreOptions {
        admitted_bytes_max: times * core.admitted_bytes_max,
        queued_bytes_max: times * core.queued_bytes_max,
        unapplied_bytes_max: times * core.unapplied_bytes_max,
        tail_bytes_per_group: times * core.tail_bytes_per_group,
        tail_bytes_max: if unbounded { usize::MAX } else { times * core.tail_bytes_max },
        ..core
    }
}

/// How many of the nodes are the controller's first voters.
pub fn first_voters(shape: &Shape) -> u32 {
    if shape.sabotage == Sabotage::OneVoter { 1 } else { shape.nodes }
}

/// What has to be remembered of a turn that a node begins to write.
pub fn begun(sabotage: Sabotage, turn: &Turn) -> Option<Turn> {
    (sabotage == Sabotage::TornCommitKept).then(|| turn.clone())
}

/// What a turn becomes before it is written.
pub fn write(sabotage: Sabotage, turn: &mut Turn) {
    match sabotage {
        Sabotage::ForgetVotes => {
            turn.writes.iter_mut().for_each(|write| write.hard_state.vote = None);
            turn.writes.retain(|write| write.change != LogChange::None);
        }
        Sabotage::CommitsUnwritten => {
            for write in &mut turn.writes {
                if matches!(write.change, LogChange::None | LogChange::Append(_)) {
                    write.hard_state.commit = write.hard_state.commit.min(LogIndex(1));
                }
            }
        }
        _ => {}
    }
}

/// What a start finds: the groups, what the log remembers, and the controller's replica if it is still to be born.
pub fn start(
    sabotage: Sabotage,
    node: &mut Node,
    (starts, recovery, unborn): (&mut [GroupStart], &mut Recovery, &mut Option<(ReplicaId, Machine)>),
) {
    let begun = node.begun.take();
    for start in starts {
        match sabotage {
            Sabotage::TornCommitKept => keep_commit(start, begun.as_ref()),
            Sabotage::OldPromises => old_promises(start, &mut node.older),
            _ => break,
        }
        recovery.groups.insert(start.group, start.recovery.clone());
    }
    node.older.believed = false;
    if sabotage == Sabotage::OneVoter {
        join_later(node, unborn);
    }
}

fn old_promises(start: &mut GroupStart, older: &mut Promises) {
    let promises = &mut start.recovery.hard_state;
    match older.of.get(&start.group) {
        Some(before) if older.believed => (promises.term, promises.vote) = (before.term, before.vote),
        _ => drop(older.of.insert(start.group, *promises)),
    }
}

fn keep_commit(start: &mut GroupStart, begun: Option<&Turn>) {
    let writes = begun.iter().flat_map(|turn| &turn.writes).filter(|write| write.group == start.group);
    let commit = writes.map(|write| write.hard_state.commit).max().unwrap_or_default();
    start.recovery.hard_state.commit = start.recovery.hard_state.commit.max(commit);
}

/// What becomes of a group's state that was just installed.
pub fn installed(sabotage: Sabotage, applier: &mut Applier<SimEngine>, group: RaftGroupId, engine: &SimEngine) {
    let rows = |kind: u8| [&group.0.to_be_bytes()[..], &[kind]].concat();
    let mut batch = WriteBatch::default();
    match (sabotage, applier.machine(group)) {
        (Sabotage::SnapshotsWithoutOffsets, Some(Machine::Coordinator(_))) => {
            batch.delete_range(Family::Groups, rows(b'o'), rows(b'o' + 1));
            engine.write(batch).expect("the simulated database writes");
            let coordinator = Coordinator::open(engine, group).expect("it reads").expect("it is there");
            applier.add(group, Machine::Coordinator(Box::new(coordinator)));
        }
        (Sabotage::SnapshotsWithoutProducers, Some(Machine::Partition(_))) => {
            batch.delete_range(Family::Producers, rows(0), rows(u8::MAX));
            engine.write(batch).expect("the simulated database writes");
            let partition = Partition::open(engine, group).expect("it reads").expect("it is there");
            applier.add(group, Machine::Partition(Box::new(partition)));
        }
        _ => {}
    }
}

/// Loses the first record that is still in the log of some group.
pub fn trim_too_much(engine: &SimEngine) -> Result<(), EngineError> {
    let mut first = None;
    let visit = &mut |key: &[u8], _: &[u8]| {
        first = Some(key.to_vec());
        ControlFlow::Break(())
    };
    engine.scan(Family::Records, &[], &[0xff; 32], visit)?;
    let mut batch = WriteBatch::default();
    first.into_iter().for_each(|key| batch.delete(Family::Records, key));
    engine.write(batch)
}

/// Loses rows, and nobody is told.
pub fn lose_rows(engine: &SimEngine, family: Family, keys: &[Vec<u8>]) {
    let mut batch = WriteBatch::default();
    keys.iter().for_each(|key| batch.delete(family, key.clone()));
    // A database that has failed loses nothing more.
    let _failed = engine.write(batch).and_then(|()| engine.flush());
}

/// A node that is none of the first voters begins its replica of the controller's group empty, as
/// `server::joining` has it.
fn join_later(node: &Node, unborn: &mut Option<(ReplicaId, Machine)>) {
    if node.identity.voters.iter().any(|voter| voter.node == node.id) {
        return;
    }
    let own = ReplicaId::new(node.id, 0);
    let controller = Controller::join(&node.engine, CLUSTER, own).expect("the simulated database reads");
    node.engine.flush().expect("the simulated database flushes");
    if let Some(controller) = controller {
        *unborn = Some((own, Machine::Controller(Box::new(controller))));
    }
}

impl World {
    /// What messages become before they arrive.
    pub fn tamper_with_arriving(
        &self,
        position: usize,
        mut messages: Vec<(RaftGroupId, RaftMessage)>,
    ) -> Vec<(RaftGroupId, RaftMessage)> {
        match self.shape.sabotage {
            Sabotage::ApplyUncommitted => {
                for (_, message) in &mut messages {
                    if message.kind == MessageKind::Append {
                        message.commit = LogIndex(message.index.0 + message.entries.len() as u64);
                    }
                }
            }
            Sabotage::QuorumOneShort | Sabotage::AckUncommitted => {
                self.believe_in_less(position, &mut messages);
                if self.shape.sabotage == Sabotage::AckUncommitted {
                    return messages;
                }
                let others: Vec<_> = messages
                    .iter()
                    .filter_map(|(group, message)| self.other_voter(position, *group, message))
                    .collect();
                messages.extend(others);
            }
            _ => {}
        }
        messages
    }

    /// A replica that takes no part votes for whoever asks it.
    pub fn vote_in_quarantine(&mut self, position: usize, messages: &[(RaftGroupId, RaftMessage)]) {
        if self.shape.sabotage != Sabotage::QuarantinedVotes {
            return;
        }
        let node = self.nodes[position].id;
        let asks = messages.iter().filter(|(_, asked)| asked.kind == MessageKind::RequestVote);
        let asks: Vec<_> = asks.filter(|(group, _)| self.nodes[position].quarantined(*group).is_some()).collect();
        for (group, asked) in asks {
            let (kind, from, to, term) = (MessageKind::RequestVoteResponse, asked.to, asked.from, asked.term);
            let message = RaftMessage { kind, from, to, term, ..RaftMessage::default() };
            self.watch.tell(&Observation::Sent { node, group: *group, message: &message });
            self.send(node, to.node(), Cargo::Raft(vec![(*group, message)]));
        }
    }

    /// A follower is told that what it lacks is committed, and does not find that its log contradicts itself: whoever
    /// loses an acknowledged entry is to be found by what is lost.
    fn believe_in_less(&self, position: usize, messages: &mut [(RaftGroupId, RaftMessage)]) {
        for (group, message) in messages.iter_mut().filter(|(_, message)| message.kind == MessageKind::Heartbeat) {
            let last = self.nodes[position].replica(*group).map(|replica| replica.log().last().index);
            message.commit = message.commit.min(last.unwrap_or_default());
        }
    }

    /// The same acknowledgement in the name of another voter.
    fn other_voter(
        &self,
        position: usize,
        group: RaftGroupId,
        message: &RaftMessage,
    ) -> Option<(RaftGroupId, RaftMessage)> {
        let members = self.nodes[position].replica(group)?.membership();
        let is_other = |voter: &&ReplicaId| **voter != message.from && **voter != message.to;
        let from = *members.voters.iter().find(is_other)?;
        let acknowledges = message.kind == MessageKind::AppendResponse && !message.reject;
        acknowledges.then(|| (group, RaftMessage { from, ..message.clone() }))
    }

    /// What a node hears because it has sent this.
    pub fn tamper_with_leaving(&mut self, position: usize, messages: &[(RaftGroupId, RaftMessage)]) {
        if self.shape.sabotage != Sabotage::AckUncommitted {
            return;
        }
        let appends = messages.iter().filter(|(_, sent)| sent.kind == MessageKind::Append && !sent.entries.is_empty());
        let answer = |(group, sent): &(RaftGroupId, RaftMessage)| {
            let index = LogIndex(sent.index.0 + sent.entries.len() as u64);
            let kind = MessageKind::AppendResponse;
            let (from, to, term) = (sent.to, sent.from, sent.term);
            (*group, RaftMessage { kind, from, to, term, index, ..RaftMessage::default() })
        };
        let answers: Vec<_> = appends.map(answer).collect();
        if !answers.is_empty() {
            self.arrive(position, Arrived::Messages(answers));
        }
    }

    /// What a node answers by itself.
    pub fn answers_at_once(&mut self, position: usize, ticketed: &Ticketed) -> Option<Answer> {
        let (here, group) = (&self.nodes[position], ticketed.group);
        match (self.shape.sabotage, &ticketed.request) {
            (Sabotage::ReadsUnconfirmed, Request::Topics) => Some(Answer::Topics(here.topics())),
            (Sabotage::AcknowledgeLost, Request::Produce { .. })
                if here.serves(group) && self.chances.points.one_in(20) =>
            {
                let (at, base_offset) = (here.machine(group)?.applied(), here.view(group)?.high_watermark);
                Some(Answer::Reply(Reply::Applied { at, outcome: Outcome::Appended { base_offset, duplicate: false } }))
            }
            _ => None,
        }
    }

    /// What a leader answers to a batch that it has just taken, where nothing else is on its way.
    pub fn answers_too_early(&self, position: usize, group: RaftGroupId) -> Option<Answer> {
        let (here, breaks) = (&self.nodes[position], self.shape.sabotage == Sabotage::AckTaken);
        let (replica, machine) = (here.replica(group).filter(|_| breaks)?, here.machine(group)?);
        let is_idle = here.process.as_ref()?.core.pending_count(group) == 0
            && replica.role() == Role::Leader
            && replica.log().last() == machine.applied();
        let at = LogId { index: machine.applied().index.next(), term: replica.term() };
        let outcome = Outcome::Appended { base_offset: here.view(group)?.high_watermark, duplicate: false };
        is_idle.then_some(Answer::Reply(Reply::Applied { at, outcome }))
    }

    /// What becomes of a reply before a client hears it.
    pub fn tamper_with_reply(&mut self, reply: Reply) -> Reply {
        let is_done = matches!(reply, Reply::Applied { outcome: Outcome::Appended { .. }, .. });
        let breaks = self.shape.sabotage == Sabotage::RefuseWhatIsDone && is_done && self.chances.points.one_in(20);
        if breaks { Reply::Refused(Refused::Overwritten) } else { reply }
    }

    /// What becomes of a log's end, and the records below it, before a reader sees them.
    pub fn tamper_with_read(&mut self, end: Offset, records: &mut Vec<(Offset, u64)>) -> Offset {
        let last = records.last().map(|(offset, _)| *offset);
        match last.filter(|_| self.shape.sabotage == Sabotage::ReadShort && self.chances.points.one_in(10)) {
            Some(last) => {
                records.pop();
                last
            }
            None => end,
        }
    }

    /// What one voter alone decides is decided at once: to meet the moment before that is durable takes some help.
    pub fn sabotage_crashes(&mut self, position: usize, point: CrashPoint) -> bool {
        self.shape.sabotage == Sabotage::OneVoter
            && position == 0
            && point == CrashPoint::Before(Kind::Append)
            && self.nodes[position].replica(CONTROLLER_GROUP).is_some_and(|replica| replica.role() == Role::Leader)
            && !self.nodes[position].serves(CONTROLLER_GROUP)
            && self.chances.points.one_in(2)
    }

    /// The other nodes are to be learners of the controller's group, the last of them now and then.
    pub fn want_learners(&mut self, position: usize) {
        if self.shape.sabotage != Sabotage::OneVoter {
            return;
        }
        let (group, nodes) = (CONTROLLER_GROUP, self.shape.nodes);
        let last = if (self.now / SECOND).is_multiple_of(2) { nodes } else { nodes - 1 };
        let replica = |node| ReplicaId::new(NodeId(node), 0);
        let wanted = WantedMembers { voters: vec![replica(1)], learners: (2..=last).map(replica).collect() };
        self.arrive(position, Arrived::Input(Input::ChangeMembers { group, wanted }));
    }
}
