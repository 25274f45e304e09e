//! The worker of a node: takes in what has arrived, lets the core decide, begins what it wants done. Word for word what
//! production's worker does, with events in the place of channels.

use crate::chance::Chance;
use crate::clients::{Asked, Ticketed, What};
use crate::jobs::{CrashPoint, Job};
use crate::network::Cargo;
use crate::node::{Arrived, Process, Waiting};
use crate::observe::Observation;
use crate::sabotage::{self, Sabotage};
use crate::trace::mix;
use crate::workload::{Answer, Request, Seen};
use crate::world::{Event, TICK, World};
use ackord::controller::Controller;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::core::effect::{Effect, Input, Leadership, Proposal, Refused, Reply, Source, Ticket};
use ackord::partition::command::Command;
use ackord::raft::RaftMessage;
use ackord::storage::Engine;
use ackord::types::{CONTROLLER_GROUP, LogId, NodeId, Offset, RaftGroupId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

impl World {
    /// Something reaches a node's worker, which will look into its mailbox soon.
    pub fn arrive(&mut self, position: usize, arrived: Arrived) {
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        process.inbox.push_back(arrived);
        if !std::mem::replace(&mut process.work_due, true) {
            let (low, high) = self.shape.speeds.worker;
            let after = self.chances.jobs.between(low, high);
            let (node, life) = (self.nodes[position].id, self.nodes[position].life);
            self.schedule(after, Event::Work { node, life });
        }
    }

    /// The worker looks into its mailbox.
    pub fn work(&mut self, position: usize) {
        let process = self.nodes[position].process.as_mut().expect("it runs");
        process.work_due = false;
        if !process.inbox.is_empty() {
            self.round(position, false);
        }
    }

    /// A tick of time.
    pub fn tick(&mut self, position: usize) {
        let (node, life) = (self.nodes[position].id, self.nodes[position].life);
        self.schedule(TICK, Event::Tick { node, life });
        self.look_for_forgotten(position);
        self.run_errands(position);
        self.round(position, true);
        self.tell_tick_load(position);
        self.want_learners(position);
    }

    /// A node whose log may have forgotten groups looks whether the controller's state shows all that may have been
    /// here, and whether they are here again.
    fn look_for_forgotten(&mut self, position: usize) {
        let Some(view) = self.nodes[position].controller().map(Controller::view) else { return };
        let engine = self.nodes[position].engine.clone();
        let Process { core, known, seen, .. } = self.nodes[position].process.as_mut().expect("it runs");
        if !known.is_unsettled() || !Arc::ptr_eq(&view, seen) {
            return;
        }
        if known.settle(&core.group_ids().filter(|group| core.replica(*group).is_some()).collect()) {
            if engine.flush().is_ok() {
                self.coverage.hit("log settled");
                self.enqueue(position, Job::Settle);
            }
            return;
        }
        if let (Some(replica), Some(applied)) = (core.replica(CONTROLLER_GROUP), core.applied(CONTROLLER_GROUP)) {
            known.look(replica.log().last().index, applied, &view);
        }
    }

    /// Takes in what has arrived and begins what follows.
    pub fn round(&mut self, position: usize, tick: bool) {
        let (process, mut jobs) = (self.nodes[position].process.as_mut().expect("it runs"), Vec::new());
        let mut proposals: BTreeMap<RaftGroupId, Vec<Proposal>> = BTreeMap::new();
        while let Some(arrived) = process.inbox.pop_front() {
            match arrived {
                Arrived::Input(input) => process.core.handle(input),
                Arrived::Messages(messages) => {
                    Self::note_arrived(process, &messages);
                    process.core.handle(Input::Messages(messages));
                }
                Arrived::Repair(message) => process.core.handle(Input::Repair(message)),
                Arrived::Snapshot(message) => jobs.push(Job::Transferred(message)),
                Arrived::Examined { group, recovery } => jobs.push(Job::ExamineState { group, recovery }),
                Arrived::Propose { group, proposal } => proposals.entry(group).or_default().push(proposal),
                Arrived::RefusalKnown { group, source } => {
                    if let Some(proposals) = proposals.remove(&group) {
                        process.core.handle(Input::Propose { group, proposals });
                    }
                    process.core.handle(Input::RefusalKnown { group, source });
                }
            }
        }
        for (group, proposals) in proposals {
            process.core.handle(Input::Propose { group, proposals });
        }
        if tick {
            process.core.handle(Input::Tick);
        }
        let effects = process.core.poll();
        jobs.into_iter().for_each(|job| self.enqueue(position, job));
        self.tell_commits(position);
        self.tell_load(position);
        self.tell_progress(position);
        let life = self.nodes[position].life;
        for effect in effects {
            if self.nodes[position].process.is_none() || self.nodes[position].life != life {
                return;
            }
            self.begin(position, effect);
        }
    }

    fn tell_commits(&mut self, position: usize) {
        let (node, process) = (self.nodes[position].id, self.nodes[position].process.as_mut().expect("it runs"));
        for group in process.core.group_ids() {
            // While committed entries are read back, Raft knows of entries that have not been taken from it yet.
            let Some(replica) = process.core.replica(group).filter(|replica| !replica.has_ready()) else { continue };
            let (commit, known) = (replica.commit(), process.commits.entry(group).or_default());
            if commit > *known {
                *known = commit;
                let (term, last) = (replica.term(), replica.log().last().index);
                self.watch.tell(&Observation::Knows { node, group, term, commit, last });
                if let Some(commit) = replica.commit_id() {
                    let own = replica.term();
                    self.watch.tell(&Observation::Committed { node, group, term: own, commit });
                }
            }
        }
    }

    /// Begins an effect: what takes no time happens at once.
    fn begin(&mut self, position: usize, effect: Effect) {
        let node = self.nodes[position].id;
        let job = match effect {
            Effect::Send { to, messages } => {
                if !self.crash_instead(position, CrashPoint::Send) {
                    self.note_messages(node, to, &messages);
                    for (group, message) in &messages {
                        self.watch.tell(&Observation::Sent { node, group: *group, message });
                    }
                    self.tamper_with_leaving(position, &messages);
                    self.send(node, to, Cargo::Raft(messages));
                }
                return;
            }
            Effect::Reply { ticket, reply } => return self.reply(position, ticket, reply),
            Effect::Publish { group, leadership } => return self.publish(position, group, leadership),
            Effect::Quarantined { group, reason } => return self.quarantined(position, group, &reason),
            Effect::Append(turn) => Job::Append(turn),
            Effect::Release(bounds) => Job::Release(bounds),
            Effect::ReadEntries { group, wanted } => Job::Locate { group, wanted },
            Effect::Apply { group, entries, memberships } => Job::Apply { group, entries, memberships },
            Effect::BuildSnapshot { group } => Job::Build { group },
            Effect::FetchSnapshot { group, own, from, meta } => Job::Fetch { group, own, from, meta },
            Effect::InstallSnapshot { group, meta, .. } => Job::Install { group, at: meta.at },
            Effect::Removed { group } => Job::Remove { group },
            Effect::Flush => Job::BeginFlush,
            Effect::Examine { group, lost } => Job::Examine { group, lost },
            Effect::Repair(message) => {
                if !self.crash_instead(position, CrashPoint::Send) {
                    self.trace.note(self.now, "repair", &[node.0.into(), message.to.0, message.group.0], || {
                        format!("{message:?}")
                    });
                    self.send(node, message.to.node(), Cargo::Repair(message));
                }
                return;
            }
            Effect::Repairing { group, step } => {
                self.trace.note(self.now, "repairing", &[node.0.into(), group.0], || {
                    format!("node {node}, group {group}: {step}")
                });
                return;
            }
            Effect::Repaired { group, last } => return self.repaired(position, group, last),
        };
        self.enqueue(position, job);
    }

    fn note_messages(&mut self, node: NodeId, to: NodeId, messages: &[(RaftGroupId, RaftMessage)]) {
        let fold = |hash, (group, message): &(RaftGroupId, RaftMessage)| {
            let what = (message.kind as u64) << 8 | u64::from(message.reject);
            let numbers =
                [group.0, what, message.term.0, message.index.0, message.commit.0, message.entries.len() as u64];
            numbers.into_iter().fold(hash, mix)
        };
        let hash = messages.iter().fold(0, fold);
        self.trace.note(self.now, "send", &[node.0.into(), to.0.into(), hash], || {
            let each: Vec<_> = messages.iter().map(|(group, message)| describe_message(*group, message)).collect();
            format!("node {node} to node {to}: {}", each.join(", "))
        });
    }

    fn publish(&mut self, position: usize, group: RaftGroupId, leadership: Leadership) {
        let node = self.nodes[position].id;
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let before = process.board.insert(group, leadership).unwrap_or_default();
        let own = process.core.replica(group).map(|replica| replica.id());
        let leads = own.is_some() && leadership.leader == own;
        let led = before.leader == own && before.term == leadership.term;
        let numbers = [node.0.into(), group.0, leadership.term.0, leadership.leader.unwrap_or_default().0];
        self.trace.note(self.now, "publish", &numbers, || format!("node {node}, group {group}: {leadership:?}"));
        self.watch.tell(&Observation::Published { node, group, leadership });
        let (true, Some(replica)) = (leads && !led, own) else { return };
        let term = leadership.term;
        process.led.insert(group, term);
        self.watch.tell(&Observation::Led { node, group, replica, term });
        if let Some((_, before)) = self.leaders.insert(group, (term, replica))
            && before != replica
        {
            self.report.leader_changes += 1;
            self.coverage.hit("leader changed");
        }
    }

    fn quarantined(&mut self, position: usize, group: RaftGroupId, reason: &str) {
        let node = self.nodes[position].id;
        self.trace.note(self.now, "quarantine", &[node.0.into(), group.0], || {
            format!("node {node}, group {group}: {reason}")
        });
        self.coverage.hit("quarantined");
        self.watch.tell(&Observation::Quarantined { node, group, reason });
        let has_old_disk = self.nodes[position].rolled_back || self.watch.deaf_to == Some(node);
        if !self.nodes[position].damaged && !has_old_disk {
            self.watch.object(|| format!("node {node}, never damaged, has quarantined group {group}: {reason}"));
        }
    }

    fn repaired(&mut self, position: usize, group: RaftGroupId, last: LogId) {
        let node = self.nodes[position].id;
        self.trace.note(self.now, "repaired", &[node.0.into(), group.0, last.index.0], || {
            format!("node {node}, group {group}, up to {last}")
        });
        self.coverage.hit("repaired");
        for harm in &self.nodes[position].harms {
            self.coverage.hit(&format!("repaired after {harm}"));
        }
        let process = self.nodes[position].process.as_ref().expect("it runs");
        let start = process.log.log.bounds(group).map_or(last, |(start, _)| start);
        self.watch.tell(&Observation::Repaired { node, group, start, last });
    }

    /// A request reaches a node.
    pub fn request(&mut self, node: NodeId, ticket: Ticket, ticketed: Ticketed) {
        let position = World::position(node);
        let life = self.nodes[position].life;
        let process = self.nodes[position].process.as_mut();
        let is_meant = ticketed.life == Some(life) && self.watch.deaf_to != Some(node);
        let Some(process) = process.filter(|_| is_meant) else {
            return self.settle(ticket, Answer::Reply(Reply::Refused(Refused::NoReplica)));
        };
        if let Request::Read { from, bytes_max, linearizable: false } = ticketed.request {
            return self.show(position, ticket, (ticketed.group, from, bytes_max));
        }
        let bytes = Process::room_of(&ticketed.request);
        if !process.at_the_door.is_empty() || !process.has_room(bytes, &self.shape) {
            process.at_the_door.push_back((ticket, ticketed));
            return self.coverage.hit("mailbox full");
        }
        self.admit(position, ticket, ticketed);
    }

    /// Admits whoever waits at the door, as far as there is room.
    fn open_door(&mut self, position: usize) {
        loop {
            let Some(process) = self.nodes[position].process.as_mut() else { return };
            let Some((_, ticketed)) = process.at_the_door.front() else { return };
            if !process.has_room(Process::room_of(&ticketed.request), &self.shape) {
                return;
            }
            let (ticket, ticketed) = process.at_the_door.pop_front().expect("it was just seen");
            self.admit(position, ticket, ticketed);
        }
    }

    /// What the broker and the handle do with a request.
    fn admit(&mut self, position: usize, ticket: Ticket, ticketed: Ticketed) {
        if let Some(answer) = self.answers_at_once(position, &ticketed) {
            return self.settle(ticket, answer);
        }
        let Ticketed { group, request, .. } = ticketed;
        let (bytes, is_batch) = (Process::room_of(&request), matches!(request, Request::Produce { .. }));
        let engine = self.nodes[position].engine.clone();
        let view = self.nodes[position].view(group);
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let serving = process.board.get(&group).is_some_and(|leadership| leadership.serving);
        let refused = |why| Answer::Reply(Reply::Refused(why));
        let (context, data, sequence) = match request {
            Request::Read { from, bytes_max, .. } if self.shape.sabotage == Sabotage::ReadsUnconfirmed => {
                return self.show(position, ticket, (group, from, bytes_max));
            }
            Request::Read { .. } | Request::Offsets { .. } | Request::Topics => {
                process.take_room(ticket, Waiting { bytes, sequence: None });
                return self.arrive(position, Arrived::Input(Input::ReadIndex { group, ticket }));
            }
            Request::Produce { sequence, .. } if !serving => {
                // As the broker does it: what comes after waits for this one.
                sequence.inspect(|sequence| process.order.refused(group, *sequence));
                return self.settle(ticket, refused(Refused::NotLeader));
            }
            _ if !serving => return self.settle(ticket, refused(Refused::NotLeader)),
            Request::Produce { batch, sequence, .. } => {
                let now_ms = (self.now / 1_000).cast_signed();
                let context = Command::Produce { proposed_at_ms: now_ms }.encode();
                (context, batch.into_bytes(), sequence)
            }
            Request::Trim { offset } => (Command::SetLogStart { offset }.encode(), Bytes::new(), None),
            Request::Command { context, data } => (context, data, None),
        };
        if let Some(sequence) = sequence {
            let sent = |process: &Process| process.order.send(group, sequence, || Ok(()));
            let mut taken = sent(process);
            let is_known = || {
                view.as_ref().is_some_and(|view| matches!(view.knows_producer(&engine, sequence.producer), Ok(true)))
            };
            if taken.is_err() && is_known() {
                process.order.forget(group, sequence.producer);
                taken = sent(process);
            }
            if let Err(why) = taken {
                process.order.refused(group, sequence);
                return self.settle(ticket, refused(why));
            }
        }
        process.take_room(ticket, Waiting { bytes, sequence: sequence.map(|sequence| (group, sequence)) });
        let source = sequence.map(|sequence| Source(sequence.producer));
        let early = self.answers_too_early(position, group).filter(|_| is_batch);
        self.arrive(position, Arrived::Propose { group, proposal: Proposal { ticket, source, context, data } });
        early.into_iter().for_each(|answer| self.settle(ticket, answer));
    }

    fn reply(&mut self, position: usize, ticket: Ticket, reply: Reply) {
        if self.crash_instead(position, CrashPoint::Reply) {
            return;
        }
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let Some(waiting) = process.waiting.remove(&ticket) else { return };
        process.admitted_bytes -= waiting.bytes;
        if let (Reply::Refused(_) | Reply::Undecided, Some((group, sequence))) = (&reply, waiting.sequence) {
            process.order.refused(group, sequence);
            let source = Source(sequence.producer);
            self.arrive(position, Arrived::RefusalKnown { group, source });
        }
        self.open_door(position);
        let Some(Asked { group, what, .. }) = self.asked.get(&ticket) else { return };
        match (&reply, what.clone()) {
            (Reply::ReadAt(_), What::Read { from, bytes_max }) => {
                self.show(position, ticket, (*group, from, bytes_max));
            }
            (Reply::ReadAt(_), What::Offsets(name)) => {
                let (group, stored) = (*group, self.nodes[position].stored_offsets(*group, &name));
                match stored {
                    Ok(offsets) => self.settle(ticket, Answer::Offsets(offsets)),
                    Err(reason) => self.unreadable(position, ticket, group, &reason),
                }
            }
            (Reply::ReadAt(_), What::Topics) => {
                let topics = self.nodes[position].topics();
                self.settle(ticket, Answer::Topics(topics));
            }
            _ => {
                let reply = self.tamper_with_reply(reply);
                self.settle(ticket, Answer::Reply(reply));
            }
        }
    }

    /// Shows a reader what this node has of a partition now.
    fn show(
        &mut self,
        position: usize,
        ticket: Ticket,
        (group, from, bytes_max): (RaftGroupId, Option<Offset>, usize),
    ) {
        let here = &self.nodes[position];
        let node = here.id;
        let process = here.process.as_ref().expect("it runs");
        let quarantined = process.core.quarantine_reason(group).is_some();
        let serving = here.serves(group);
        let (Some(view), true, false) = (here.view(group), serving, quarantined) else {
            return self.settle(ticket, Answer::Reply(Reply::Refused(Refused::NotLeader)));
        };
        let epoch = process.board.get(&group).copied().unwrap_or_default().term;
        let from = from.unwrap_or(view.log_start).max(view.log_start).min(view.high_watermark);
        let mut records = match here.read(group, from, bytes_max) {
            Ok(records) => records,
            Err(reason) => return self.unreadable(position, ticket, group, &reason),
        };
        let (log_start, end) = (view.log_start, self.tamper_with_read(view.high_watermark, &mut records));
        let ended = Observation::ReadEnded { ticket, node, group, epoch, log_start, end, records: &records };
        self.watch.tell(&ended);
        self.coverage.hit("read served");
        self.settle(ticket, Answer::Read(Seen { log_start, end, records }));
    }
}

impl World {
    /// Rows that a reader needs are not there: what the broker does about it.
    fn unreadable(&mut self, position: usize, ticket: Ticket, group: RaftGroupId, reason: &str) {
        self.condemn(position, group, reason);
        self.settle(ticket, Answer::Reply(Reply::Refused(Refused::NotLeader)));
    }

    /// Rows of a group can't be read, which only damage explains.
    pub fn condemn(&mut self, position: usize, group: RaftGroupId, reason: &str) {
        let here = &self.nodes[position];
        if !here.damaged {
            let node = here.id;
            return self.watch.object(|| format!("node {node} can't read group {group}: {reason}"));
        }
        let Some(generation) = here.machine(group).map(Machine::generation) else { return };
        self.enqueue(position, Job::Condemn { group, generation, reason: reason.to_owned() });
    }
}

impl Process {
    /// Whether so many bytes more are admitted; something larger than the whole mailbox passes alone.
    fn has_room(&self, bytes: usize, shape: &crate::swarm::Shape) -> bool {
        let all = sabotage::limits(shape).admitted_bytes_max;
        self.admitted_bytes + bytes.min(all) <= all || self.admitted_bytes == 0
    }

    fn take_room(&mut self, ticket: Ticket, waiting: Waiting) {
        self.admitted_bytes += waiting.bytes;
        self.waiting.insert(ticket, waiting);
    }
}

fn describe_message(group: RaftGroupId, message: &RaftMessage) -> String {
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
}
