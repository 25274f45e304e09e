//! Writes to every group, again and again until each is acknowledged: once the faults have stopped, that takes a while
//! and no longer.

use super::{Answer, Request};
use crate::batch::batch_of;
use crate::chance::{Chance, MILLISECOND};
use crate::sight::{Actor, Sight};
use ackord::controller::command::{Command as Administer, Registration};
use ackord::coordinator::command::{Action, Command as Coordinate};
use ackord::multiraft::core::effect::{Reply, Ticket};
use ackord::types::{CONTROLLER_GROUP, GroupKind, Incarnation, LogIndex, NodeId, RaftGroupId};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The values of probes begin here.
const FIRST_VALUE: u64 = 1 << 48;

/// Which groups have acknowledged a probe, and where.
pub type Acknowledged = Rc<RefCell<BTreeMap<RaftGroupId, LogIndex>>>;

/// See the module.
pub struct Probe {
    /// Groups to be probed, with the tag of each.
    groups: Vec<RaftGroupId>,
    /// Questions that are on their way.
    asked: BTreeMap<Ticket, usize>,
    /// Values written so far.
    written: u64,
    /// What is known.
    acknowledged: Acknowledged,
    /// It asks no more.
    is_stopped: bool,
}

impl Probe {
    /// Probes of these groups.
    pub fn new(groups: Vec<RaftGroupId>, acknowledged: Acknowledged) -> Self {
        Self { groups, asked: BTreeMap::new(), written: 0, acknowledged, is_stopped: false }
    }

    fn request(&mut self, group: RaftGroupId, sight: &dyn Sight) -> Request {
        let command = |data| Request::Command { context: Bytes::new(), data };
        if group == CONTROLLER_GROUP {
            let (node, incarnation) = (NodeId(1), Incarnation(0x1001));
            let registration =
                Registration { node, incarnation, rack: None, listeners: Vec::new(), feature_level_max: 1 };
            return command(Administer::RegisterBroker(registration).encode().expect("it is short"));
        }
        if sight.groups(GroupKind::Coordinator).contains(&group) {
            let action = Action::ForgetTopics { topics: Vec::new() };
            return command(Coordinate { now_ms: 0, action }.encode().expect("it is short"));
        }
        self.written += 1;
        let value = FIRST_VALUE + self.written;
        Request::Produce { value, batch: batch_of(value, 1, 0, None), sequence: None }
    }

    fn ask(&mut self, place: usize, sight: &mut dyn Sight) {
        let group = self.groups[place];
        let (request, node) = (self.request(group, sight), sight.guess(group));
        let ticket = sight.ask(node, group, request);
        self.asked.insert(ticket, place);
    }
}

impl Actor for Probe {
    fn woken(&mut self, tag: u64, sight: &mut dyn Sight) {
        if tag == 0 {
            return (0..self.groups.len()).for_each(|place| self.ask(place, sight));
        }
        let place = tag as usize - 1;
        if !self.is_stopped && !self.acknowledged.borrow().contains_key(&self.groups[place]) {
            self.ask(place, sight);
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight) {
        let Some(place) = self.asked.remove(&ticket) else { return };
        if let Answer::Reply(Reply::Applied { at, .. }) = answer {
            self.acknowledged.borrow_mut().insert(self.groups[place], at.index);
            return;
        }
        let after = sight.chance().between(20 * MILLISECOND, 200 * MILLISECOND);
        sight.wake(place as u64 + 1, after);
    }

    fn stop(&mut self) {
        self.is_stopped = true;
    }

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.is_stopped && self.asked.is_empty()
    }

    fn describe(&self) -> String {
        format!("probes: {} questions are open", self.asked.len())
    }
}
