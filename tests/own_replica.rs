//! A node's directory knows which replica of a group it has, whatever members the group has had since: taken for
//! another one, it would speak for promises that it does not know.

use ackord::controller::view::GroupPlan;
use ackord::machine::own;
use ackord::multiraft::apply::machine::Machine;
use ackord::server::data::{DataError, create_machines, destroy_machines, join_controller, open_groups};
use ackord::server::identity::{FirstVoter, Identity};
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{
    CONTROLLER_GROUP, ClusterId, EntryKind, GroupKind, Incarnation, LogEntry, LogIndex, Membership, NodeId,
    RaftGroupId, ReplicaId, TopicId,
};
use ackord::wal::{GroupRecovery, Recovery};
use bytes::Bytes;
use std::collections::BTreeMap;

const CLUSTER: ClusterId = ClusterId(3);
const NODE: NodeId = NodeId(1);
const GROUP: RaftGroupId = RaftGroupId(4);
/// On the node's first disk, on the one that replaced it, and elsewhere.
const FIRST: ReplicaId = ReplicaId::new(NODE, 0);
const SECOND: ReplicaId = ReplicaId::new(NODE, 1);
const OTHERS: [ReplicaId; 2] = [ReplicaId::new(NodeId(2), 0), ReplicaId::new(NodeId(3), 0)];

/// A directory that its node registered with, or one of the cluster's first.
fn identity(is_first: bool) -> Identity {
    let incarnation = Incarnation(9);
    let voters = is_first.then_some(FirstVoter { node: NODE, incarnation }).into_iter().collect();
    Identity { cluster: CLUSTER, node: NODE, incarnation, voters }
}

/// Which replica of a group a start takes the directory's for; the log knows the group.
fn own_replica(engine: &SimEngine, group: RaftGroupId, is_first: bool) -> ReplicaId {
    let recovery = Recovery { groups: BTreeMap::from([(group, GroupRecovery::default())]), ..Recovery::default() };
    let opened = open_groups(&identity(is_first), engine, &recovery).expect("it opens");
    opened.starts.iter().find(|start| start.group == group).expect("the log knows it").replica
}

/// The group's members change, as its state machine sees it.
fn change_members(engine: &SimEngine, machine: &mut Machine, node: ReplicaId) {
    let id = machine.applied();
    let id = ackord::types::LogId { index: id.index.next(), term: id.term };
    let entry = LogEntry { id, kind: EntryKind::ConfChange, data: Bytes::new(), ..LogEntry::default() };
    let members: (LogIndex, _) = (id.index, Membership::of_voters(OTHERS.into_iter().chain([node])));
    let mut batch = WriteBatch::default();
    machine.apply(&[entry], &[members], &mut batch).expect("it applies");
    engine.write(batch).expect("it writes");
}

fn create(engine: &SimEngine, replica: ReplicaId) -> Machine {
    let members = Membership::of_voters(OTHERS.into_iter().chain([replica]));
    let (kind, topic, peers) = (GroupKind::Partition, TopicId(8), members.clone());
    let plan = GroupPlan { group: GROUP, replica, members, peers, kind, topic, partition: 0 };
    create_machines(engine, &[plan]).expect("it writes").remove(0)
}

#[test]
fn members_that_come_and_go_do_not_change_which_replica_it_is() {
    for (own, other) in [(FIRST, SECOND), (SECOND, FIRST)] {
        let engine = SimEngine::default();
        let mut machine = create(&engine, own);
        assert_eq!(own_replica(&engine, GROUP, false), own);
        for member in [other, ReplicaId::new(NodeId(6), 0), own] {
            change_members(&engine, &mut machine, member);
            assert_eq!(own_replica(&engine, GROUP, false), own, "with {member}");
        }
        destroy_machines(&engine, &[GROUP].into()).expect("it writes");
        assert_eq!(own::get(&engine, GROUP).expect("it reads"), None, "the number of a group that is no more");
    }
}

#[test]
fn a_replica_of_which_nothing_tells_is_nobody() {
    let engine = SimEngine::default();
    let mut machine = create(&engine, SECOND);
    let mut batch = WriteBatch::default();
    own::delete(&mut batch, GROUP);
    engine.write(batch).expect("it writes");
    assert_eq!(own_replica(&engine, GROUP, false), SECOND, "the members tell");
    change_members(&engine, &mut machine, ReplicaId::new(NodeId(6), 0));
    let nobody = own_replica(&engine, GROUP, false);
    assert!(nobody.is_unknown() && nobody.node() == NODE && nobody != FIRST);
}

#[test]
fn of_the_controllers_group_a_first_voters_disk_has_the_first_replica_and_another_the_one_that_it_was_given() {
    let engine = SimEngine::default();
    assert_eq!(own_replica(&engine, CONTROLLER_GROUP, true), FIRST);
    assert!(own_replica(&engine, CONTROLLER_GROUP, false).is_unknown());
    let mut machine = join_controller(&engine, CLUSTER, SECOND).expect("it writes").expect("there was none");
    for member in [SECOND, FIRST, ReplicaId::new(NodeId(6), 0)] {
        change_members(&engine, &mut machine, member);
        assert_eq!(own_replica(&engine, CONTROLLER_GROUP, false), SECOND, "with {member}");
    }
}

/// Its birth was in the log before its state took anything in: it is repaired, not born again without its promises.
#[test]
fn a_group_that_has_lived_and_is_not_in_the_log_was_forgotten() {
    let engine = SimEngine::default();
    let open = || open_groups(&identity(true), &engine, &Recovery::default()).expect("it opens");
    let opened = open();
    assert!(opened.starts.is_empty(), "there was no log yet");
    let (replica, mut machine) = opened.unborn_controller.expect("it is yet to be born");
    assert_eq!(replica, FIRST);
    change_members(&engine, &mut machine, FIRST);
    let opened = open();
    assert!(opened.unborn_controller.is_none());
    assert!(opened.starts.iter().any(|start| start.group == CONTROLLER_GROUP && start.forgotten));
}

/// Nothing was promised yet, so the next start may begin with an empty database.
#[test]
fn a_state_that_is_damaged_before_its_group_was_born_is_set_aside() {
    let engine = SimEngine::default();
    let _machine = join_controller(&engine, CLUSTER, SECOND).expect("it writes").expect("there was none");
    let rows = engine.durable_keys(Family::Meta, &CONTROLLER_GROUP.0.to_be_bytes());
    engine.damage(Family::Meta, &rows);
    let Err(refused) = open_groups(&identity(false), &engine, &Recovery::default()) else { panic!("it reads damage") };
    assert!(matches!(refused, DataError::Controller(_)) && engine.is_condemned(), "{refused}");
}
