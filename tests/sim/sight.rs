//! What a workload can do and see of a cluster, whoever drives it.

use crate::observe::Observation;
use crate::workload::{Answer, Request};
use ackord::coordinator::group::Group;
use ackord::multiraft::core::effect::Ticket;
use ackord::sim::Random;
use ackord::types::{GroupKind, NodeId, Offset, RaftGroupId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node's consumer groups, by name.
pub type Groups = BTreeMap<String, Arc<Group>>;

/// The cluster as a workload sees it. What it shows, it shows at once, as an answer that takes no time would.
pub trait Sight {
    /// Chance.
    fn chance(&mut self) -> &mut Random;

    /// Asks a node; the answer comes to the actor.
    fn ask(&mut self, node: NodeId, group: RaftGroupId, request: Request) -> Ticket;

    /// Wakes the actor after so many microseconds.
    fn wake(&mut self, tag: u64, after: u64);

    /// Tells the invariants.
    fn tell(&mut self, observation: &Observation<'_>);

    /// Whom a client would ask about a group: mostly the node that serves it.
    fn guess(&mut self, group: RaftGroupId) -> NodeId;

    /// Whether a client would ask about a group now: while no node serves it, mostly not.
    fn is_worth_asking(&mut self, group: RaftGroupId) -> bool;

    /// The groups of one kind that there are, as the controller has it.
    fn groups(&self, kind: GroupKind) -> Vec<RaftGroupId>;

    /// Where a partition starts and ends at a node that answers for it.
    fn bounds(&self, node: NodeId, group: RaftGroupId) -> Option<(Offset, Offset)>;

    /// Where a partition should start to keep no more than so many bytes, as a node that answers for it sees it.
    fn retained_start(&self, node: NodeId, group: RaftGroupId, bytes: u64) -> Option<Offset>;

    /// The consumer groups of a coordinator at a node that answers for it.
    fn consumer_groups(&self, node: NodeId, raft: RaftGroupId) -> Option<Groups>;
}

/// Somebody who asks. It sleeps until it is woken or answered; first it is woken with the tag 0.
pub trait Actor {
    /// It is time for what it has asked to be woken for.
    fn woken(&mut self, tag: u64, sight: &mut dyn Sight);

    /// An answer has come.
    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight);

    /// The faults have stopped: it finishes what it has begun, and begins nothing new.
    fn stop(&mut self);

    /// Whether it has.
    fn is_settled(&self, sight: &dyn Sight) -> bool;

    /// For a failure's report.
    fn describe(&self) -> String;
}
