//! Producers: idempotent ones, which repeat whatever was not acknowledged under the same sequence, several batches on
//! their way at a time; and plain ones, which send everything once.
//!
//! An idempotent producer keeps what it sends in order, as Kafka's does: when a batch was refused or its fate is open,
//! nothing new leaves until every answer is in; then all that were not acknowledged go again, in their order. From the
//! oldest of these to the newest there are no more than a partition remembers, acknowledged ones included. A batch
//! whose predecessors are all acknowledged is never out of order, and nobody fences it, so no refusal of its sequence
//! is right.

use super::{Answer, Request};
use crate::batch::batch_of;
use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::observe::Observation;
use crate::sight::{Actor, Sight};
use crate::swarm::Load;
use ackord::machine::{Outcome, Refusal};
use ackord::multiraft::core::effect::{Reply, Ticket};
use ackord::multiraft::handle::order::Sequence;
use ackord::types::{GroupKind, NodeId, RaftGroupId};
use std::collections::{BTreeMap, VecDeque};

/// How often it looks for new partitions, in microseconds.
const LOOK_PAUSE: u64 = 500 * MILLISECOND;
/// The longest pause of a producer once the faults have stopped.
const CALM_PAUSE_MAX: u64 = SECOND;

/// A batch that is not acknowledged.
struct Batch {
    /// Its number among those of its producer.
    number: usize,
    /// The value of its first record.
    value: u64,
    /// Its records.
    count: u32,
    /// The length of each record's key.
    key_bytes: usize,
    /// The sequence of its first record.
    first_sequence: i32,
    /// The question that is on its way.
    ticket: Option<Ticket>,
}

/// A producer of one partition.
struct Lane {
    /// The partition.
    group: RaftGroupId,
    /// Id and epoch of an idempotent one.
    identity: Option<(i64, i16)>,
    /// The next batch's number.
    next_number: usize,
    /// The next record's sequence.
    next_sequence: i32,
    /// Whom it asks.
    node: NodeId,
    /// What is not acknowledged, in order.
    queue: VecDeque<Batch>,
    /// Something failed: everything in the queue goes again once all answers are in.
    repeat: bool,
    /// It has been asked for its last batch since the faults stopped.
    has_ended: bool,
}

/// See the module.
pub struct Produce {
    /// How much there is to do.
    load: Load,
    /// The producers, by tag − 1.
    lanes: Vec<Lane>,
    /// Which producer a question belongs to.
    asked: BTreeMap<Ticket, usize>,
    /// The last value that was written.
    last_value: u64,
    /// The faults have stopped.
    is_calm: bool,
}

impl Produce {
    /// Producers for every partition there will be.
    pub fn new(load: Load) -> Self {
        Self { load, lanes: Vec::new(), asked: BTreeMap::new(), last_value: 0, is_calm: false }
    }

    fn look(&mut self, sight: &mut dyn Sight) {
        for group in sight.groups(GroupKind::Partition) {
            if self.lanes.iter().any(|lane| lane.group == group) {
                continue;
            }
            for _ in 0..self.load.producers {
                let is_idempotent = sight.chance().below(100) < self.load.idempotent_percent;
                let id = 1_000 + self.lanes.len() as i64;
                let node = sight.guess(group);
                self.lanes.push(Lane {
                    group,
                    identity: is_idempotent.then_some((id, 0)),
                    next_number: 0,
                    next_sequence: 0,
                    node,
                    queue: VecDeque::new(),
                    repeat: false,
                    has_ended: false,
                });
                sight.wake(self.lanes.len() as u64, 0);
            }
        }
    }

    /// Begins a batch, if the producer may.
    fn begin(&mut self, place: usize, sight: &mut dyn Sight) {
        let lane = &mut self.lanes[place];
        let oldest = lane.queue.front().map_or(lane.next_number, |batch| batch.number);
        if lane.repeat || lane.next_number - oldest >= self.load.inflight || (self.is_calm && lane.has_ended) {
            return;
        }
        lane.has_ended = self.is_calm;
        if let Some((_, epoch)) = &mut lane.identity
            && lane.queue.is_empty()
            && sight.chance().one_in(200)
        {
            (*epoch, lane.next_sequence) = (*epoch + 1, 0);
        }
        let count = sight.chance().between(1, 3) as u32;
        let (low, high) = self.load.record_bytes;
        let key_bytes = sight.chance().between(low, high) as usize;
        let (value, first_sequence) = (self.last_value + 1, lane.next_sequence);
        self.last_value += u64::from(count);
        lane.next_sequence += count as i32;
        let number = lane.next_number;
        lane.next_number += 1;
        lane.queue.push_back(Batch { number, value, count, key_bytes, first_sequence, ticket: None });
        self.send(place, lane_end(&self.lanes[place]), sight);
    }

    fn send(&mut self, place: usize, which: usize, sight: &mut dyn Sight) {
        let lane = &mut self.lanes[place];
        let Batch { value, count, key_bytes, first_sequence, .. } = lane.queue[which];
        let stamp = lane.identity.map(|(id, epoch)| (id, epoch, first_sequence));
        let sequence = stamp.map(|(producer, epoch, first)| Sequence { producer, epoch, first });
        let batch = batch_of(value, count, key_bytes, stamp);
        let ticket = sight.ask(lane.node, lane.group, Request::Produce { value, batch, sequence });
        lane.queue[which].ticket = Some(ticket);
        self.asked.insert(ticket, place);
    }

    /// Sends everything again, once nothing is on its way.
    fn repeat(&mut self, place: usize, sight: &mut dyn Sight) {
        let lane = &mut self.lanes[place];
        if !lane.repeat || lane.queue.iter().any(|batch| batch.ticket.is_some()) {
            return;
        }
        lane.repeat = false;
        lane.node = sight.guess(lane.group);
        (0..self.lanes[place].queue.len()).for_each(|which| self.send(place, which, sight));
    }

    /// Something that was sent is not in the log for certain.
    fn fail(&mut self, place: usize, which: usize, sight: &mut dyn Sight) {
        let lane = &mut self.lanes[place];
        if lane.identity.is_some() {
            lane.repeat = true;
        } else {
            lane.queue.remove(which);
            lane.node = sight.guess(lane.group);
            // What nobody will send again does not show that the group goes on.
            lane.has_ended = false;
        }
    }

    fn refused(&mut self, place: usize, which: usize, ticket: Ticket, refusal: Refusal, sight: &mut dyn Sight) {
        if which == 0 || refusal != Refusal::OutOfOrderSequence {
            sight.tell(&Observation::WronglyRefused { ticket, group: self.lanes[place].group, refusal });
        }
        self.fail(place, which, sight);
    }
}

fn lane_end(lane: &Lane) -> usize {
    lane.queue.len() - 1
}

impl Actor for Produce {
    fn woken(&mut self, tag: u64, sight: &mut dyn Sight) {
        let Some(place) = (tag as usize).checked_sub(1) else {
            self.look(sight);
            return sight.wake(0, LOOK_PAUSE);
        };
        if !sight.groups(GroupKind::Partition).contains(&self.lanes[place].group) {
            let lane = &mut self.lanes[place];
            (lane.repeat, lane.has_ended) = (false, true);
            return lane.queue.clear(); // its topic is gone
        }
        if sight.is_worth_asking(self.lanes[place].group) {
            self.repeat(place, sight);
            for _ in 0..sight.chance().between(1, self.load.burst) {
                self.begin(place, sight);
            }
        }
        let (low, high) = self.load.pause;
        // Among many partitions each producer rests for long; what is left to do in the end is not to wait for that.
        let after = sight.chance().between(low, high).min(if self.is_calm { CALM_PAUSE_MAX } else { high });
        sight.wake(tag, after);
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight) {
        let Some(place) = self.asked.remove(&ticket) else { return };
        let queue = &mut self.lanes[place].queue;
        let Some(which) = queue.iter().position(|batch| batch.ticket == Some(ticket)) else { return };
        queue[which].ticket = None;
        match answer {
            Answer::Reply(Reply::Applied { outcome: Outcome::Appended { .. }, .. }) => {
                queue.remove(which);
            }
            Answer::Reply(Reply::Applied { outcome: Outcome::Refused(refusal), .. }) => {
                self.refused(place, which, ticket, refusal, sight);
            }
            _ => self.fail(place, which, sight),
        }
    }

    fn stop(&mut self) {
        self.is_calm = true;
    }

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.is_calm && self.lanes.iter().all(|lane| lane.has_ended && lane.queue.is_empty())
    }

    fn describe(&self) -> String {
        let waits = |lane: &&Lane| !lane.has_ended || !lane.queue.is_empty();
        let line = |lane: &Lane| {
            let Lane { group, identity, queue, repeat, node, .. } = lane;
            format!("{identity:?} of group {group} asks node {node}, {} waiting, repeat {repeat}", queue.len())
        };
        let lanes: Vec<_> = self.lanes.iter().filter(waits).map(line).collect();
        format!("producers: {}", lanes.join("; "))
    }
}
