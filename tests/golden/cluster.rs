//! The nodes of a story, and what is on its way between them.

use crate::node::{Cargo, GROUP, Node, Step};
use ackord::multiraft::apply::transfer::SnapshotBody;
use ackord::multiraft::core::effect::{Effect, Input, Proposal, Ticket};
use ackord::multiraft::core::repair::message::{Lost, RepairBody};
use ackord::partition::command::Command;
use ackord::raft::MessageKind;
use ackord::record::writer::BatchWriter;
use ackord::types::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// What waits on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// For the log's disk.
    Disk,
    /// For the state machine.
    Apply,
    /// Anything.
    Any,
}

/// See the module.
#[derive(Default)]
pub struct Cluster {
    /// By number.
    pub nodes: BTreeMap<u32, Node>,
    /// On its way, in order, by sender and receiver.
    network: BTreeMap<(u32, u32), VecDeque<Cargo>>,
    /// The last ticket.
    tickets: u64,
    /// The story's answers so far.
    pub lines: Vec<String>,
}

impl Cluster {
    /// So many nodes, all of them started.
    pub fn nodes(&mut self, count: u32) {
        for id in 1..=count {
            self.nodes.insert(id, Node::new(NodeId(id), count));
        }
        for id in 1..=count {
            self.start(id);
            while self.finish(id, Work::Any) {}
        }
    }

    /// A node that joins the group: it begins empty, and knows only itself.
    pub fn join(&mut self, id: u32) {
        self.nodes.insert(id, Node::joining(NodeId(id)));
        self.start(id);
        while self.finish(id, Work::Any) {}
    }

    /// A node that leads takes one step towards other members.
    pub fn members(&mut self, id: u32, go: &[u32], come: &[u32]) {
        let wanted = self.node(id).wanted(go, come);
        let mut step = Step::default();
        self.node(id).tell(Input::ChangeMembers { group: GROUP, wanted }, &mut step);
        self.take(id, step);
    }

    fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    fn take(&mut self, id: u32, step: Step) {
        self.lines.extend(step.lines.into_iter().map(|line| format!("node {id} {line}")));
        for (to, cargo) in step.cargo {
            self.lines.push(format!("node {id} sends node {to} {}", describe(&cargo)));
            self.network.entry((id, to.0)).or_default().push_back(cargo);
        }
    }

    /// Starts a node.
    pub fn start(&mut self, id: u32) {
        let step = self.node(id).start();
        self.take(id, step);
    }

    /// Cuts a node's power; what is on its way to it is lost.
    pub fn crash(&mut self, id: u32) {
        self.node(id).crash();
        self.network.retain(|(_, to), _| *to != id);
    }

    /// Lets time pass on a node.
    pub fn tick(&mut self, id: u32) {
        let mut step = Step::default();
        self.node(id).tell(Input::Tick, &mut step);
        self.take(id, step);
    }

    /// A node flushes its state.
    pub fn flush(&mut self, id: u32) {
        let mut step = Step::default();
        self.node(id).flush(&mut step);
        self.take(id, step);
    }

    /// A client writes a record through a node.
    pub fn write(&mut self, id: u32, text: &str) {
        self.tickets += 1;
        let batch = BatchWriter::new(0).record(None, Some(text.as_bytes()), 0).finish();
        let context = Command::Produce { proposed_at_ms: 0 }.encode();
        let proposal = Proposal { ticket: Ticket(self.tickets), source: None, context, data: batch.into_bytes() };
        let mut step = Step::default();
        self.node(id).tell(Input::Propose { group: GROUP, proposals: vec![proposal] }, &mut step);
        self.take(id, step);
    }

    /// Lets a node do the first thing that waits for its disk, its state machine, or anything; whether there was one.
    pub fn finish(&mut self, id: u32, work: Work) -> bool {
        let wanted = move |effect: &Effect| match work {
            Work::Disk => matches!(effect, Effect::Append(_)),
            Work::Apply => matches!(effect, Effect::Apply { .. }),
            Work::Any => true,
        };
        let mut step = Step::default();
        let done = self.node(id).finish(wanted, &mut step);
        self.take(id, step);
        done
    }

    /// The first thing on its way from one node to another arrives; whether there was one.
    pub fn deliver(&mut self, from: u32, to: u32) -> bool {
        let Some(cargo) = self.network.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        if !self.nodes.get(&to).is_some_and(Node::runs) {
            return true;
        }
        self.lines.push(format!("node {to} receives from node {from} {}", describe(&cargo)));
        let mut step = Step::default();
        self.node(to).receive(cargo, &mut step);
        self.take(to, step);
        true
    }

    /// Everything on its way from one node to another is lost.
    pub fn drop_all(&mut self, from: u32, to: u32) {
        self.network.remove(&(from, to));
    }

    /// Everything that waits is done, and everything on its way arrives, until nothing is left but time. Nodes in
    /// `without` are cut off.
    pub fn settle(&mut self, without: &[u32]) {
        for _ in 0..2_000 {
            let ids: Vec<u32> = self.nodes.keys().copied().collect();
            let mut any = false;
            for id in ids.iter().filter(|id| !without.contains(id)) {
                any |= self.finish(*id, Work::Any);
            }
            self.network.retain(|(from, to), _| !without.contains(from) && !without.contains(to));
            let links: Vec<_> =
                self.network.iter().filter(|(_, cargo)| !cargo.is_empty()).map(|(link, _)| *link).collect();
            for (from, to) in links {
                any |= self.deliver(from, to);
            }
            if !any {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }
}

/// A message in a few words.
fn describe(cargo: &Cargo) -> String {
    match cargo {
        Cargo::Raft(message) => {
            let before = format!("{}@{}", message.index, message.log_term);
            let rejected = if message.reject { ", refused" } else { "" };
            let what = match message.kind {
                MessageKind::Append => match (message.entries.first(), message.entries.last()) {
                    (Some(first), Some(last)) if first.id != last.id => {
                        format!("entries {} to {} after {before}, commit {}", first.id, last.id, message.commit)
                    }
                    (Some(first), _) => format!("entry {} after {before}, commit {}", first.id, message.commit),
                    _ => format!("no entry after {before}, commit {}", message.commit),
                },
                MessageKind::AppendResponse => format!("that it has everything up to {}{rejected}", message.index),
                MessageKind::RequestVote => format!("a request for its vote (log ends at {before})"),
                MessageKind::RequestVoteResponse => format!("its vote{rejected}"),
                MessageKind::RequestPreVote => format!("whether it would vote for it (log ends at {before})"),
                MessageKind::RequestPreVoteResponse => format!("that it would vote for it{rejected}"),
                MessageKind::Heartbeat => format!("a heartbeat, commit {}", message.commit),
                MessageKind::HeartbeatResponse => "an answer to its heartbeat".to_owned(),
                MessageKind::Snapshot => {
                    let at = message.snapshot.as_ref().map(|meta| meta.at).unwrap_or_default();
                    format!("that it needs the state at {at}")
                }
                MessageKind::TimeoutNow => "that it should campaign now".to_owned(),
            };
            format!("{what} (term {})", message.term)
        }
        Cargo::Snapshot(message) => match &message.body {
            SnapshotBody::WantHead { .. } => format!("for the state at {}", message.at),
            SnapshotBody::WantRecords { from, until } => format!("for records {from} to {}", until.0 - 1),
            SnapshotBody::Head { .. } => format!("the state at {}, without records", message.at),
            SnapshotBody::Records(chunk) => format!("{} batches of records", chunk.batches.len()),
            SnapshotBody::Gone => "that it has no such state".to_owned(),
        },
        Cargo::Repair(message) => match &message.body {
            RepairBody::WantEntries(Lost { first, last, anchors, .. }) => {
                let anchors: Vec<_> = anchors.iter().map(ToString::to_string).collect();
                format!("for its lost entries {first} to {last}, before {}", anchors.join(", "))
            }
            RepairBody::Entries { entries, .. } => {
                let ids: Vec<_> = entries.iter().map(|entry| entry.id.to_string()).collect();
                format!("the entries {}", ids.join(", "))
            }
            RepairBody::NoEntries { lack, .. } => format!("that it can't give them: {lack:?}"),
            RepairBody::WantState { at_least, committed } => {
                format!("for a state at {at_least} or later; {committed} is committed")
            }
            RepairBody::State(meta) => format!("that it has the state at {}", meta.at),
            RepairBody::Led { by } => format!("that node {} leads", by.node()),
            RepairBody::NoState { applied } => format!("that its state is at {applied} only"),
            RepairBody::WantFloor { .. } => "that it does not know its promises".to_owned(),
            RepairBody::Term { term, .. } => format!("that it is in term {term}"),
            RepairBody::Floor { term, last, .. } => {
                format!("that a majority has confirmed that it leads term {term}, with a log up to {last}")
            }
        },
    }
}
