//! What each command does and refuses.

use crate::world::{CLUSTER, World, reason, registration, topic};
use ackord::controller::command::{
    Answer, Command, ConfigChanges, ConfigOperation, Layout, MorePartitions, NewTopic, ProducerIds, Reason,
    TopicReference,
};
use ackord::controller::view::{GroupFate, MetadataView};
use ackord::controller::{PARTITIONS_PER_REQUEST_MAX, PARTITIONS_PER_TOPIC_MAX};
use ackord::machine::{Outcome, StateMachine};
use ackord::types::{COORDINATOR_TOPIC, Incarnation, LogEntry, LogIndex, NodeId, RaftGroupId, ReplicaId, TopicId};
use std::collections::BTreeSet;
use std::sync::Arc;

fn nodes(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn manual(name: &str, assignment: &[&[u32]]) -> NewTopic {
    NewTopic { layout: Layout::Manual(assignment.iter().map(|n| nodes(n)).collect()), ..topic(name, 0, 0) }
}

fn delete(world: &mut World, reference: TopicReference) -> Result<(String, TopicId), Reason> {
    match world.run(&Command::DeleteTopics { topics: vec![reference] }) {
        Answer::Deleted(mut topics) => topics.remove(0).result.map_err(|rejection| rejection.reason),
        other => panic!("{other:?}"),
    }
}

fn changed(answer: Answer) -> Result<(), Reason> {
    match answer {
        Answer::Changed(mut topics) => topics.remove(0).1.map_err(|rejection| rejection.reason),
        other => panic!("{other:?}"),
    }
}

fn done(answer: Answer) -> Result<(), Reason> {
    match answer {
        Answer::Done(result) => result.map_err(|rejection| rejection.reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_topic_is_found_by_name_by_id_and_by_group() {
    let mut world = World::of_nodes(3);
    let created = world.create(topic("orders", 4, 3)).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (4, 3));
    let view = world.view();
    let found = view.topic_named("orders").unwrap();
    assert_eq!((found.id, found.created_ms), (created.id, 5));
    assert!(Arc::ptr_eq(found, view.topic(created.id).unwrap()));
    for (number, partition) in found.partitions.iter().enumerate() {
        let hosts: BTreeSet<_> = partition.replicas.iter().map(|replica| replica.node()).collect();
        assert_eq!(hosts.len(), 3);
        assert_eq!(view.group(partition.group), GroupFate::Alive(Arc::clone(found), number));
    }
    assert_eq!(view.group(RaftGroupId(5)), GroupFate::Unborn);
    assert!(view.topic_named("order").is_none());
}

#[test]
fn names_that_exist_collide_or_break_the_rules_are_refused() {
    let mut world = World::of_nodes(1);
    world.create(topic("a.b", 1, 1)).unwrap();
    assert_eq!(reason(world.create(topic("a.b", 1, 1))), Reason::TopicAlreadyExists);
    assert_eq!(reason(world.create(topic("a_b", 1, 1))), Reason::InvalidTopic);
    assert_eq!(reason(world.create(topic("a b", 1, 1))), Reason::InvalidTopic);
    assert!(world.view().topic_named("a_b").is_none());
    let same_id = NewTopic { id: topic("a.b", 1, 1).id, ..topic("c", 1, 1) };
    assert_eq!(reason(world.create(same_id)), Reason::InvalidRequest);
    assert_eq!(reason(world.create(NewTopic { id: TopicId(1), ..topic("c", 1, 1) })), Reason::InvalidRequest);
}

#[test]
fn layouts_that_the_cluster_cannot_carry_are_refused() {
    let mut world = World::of_nodes(3);
    assert_eq!(reason(world.create(topic("t", 1, 4))), Reason::InvalidReplicationFactor);
    assert_eq!(reason(world.create(topic("t", 1, 0))), Reason::InvalidReplicationFactor);
    assert_eq!(reason(world.create(topic("t", 1, -1))), Reason::InvalidReplicationFactor);
    assert_eq!(reason(world.create(topic("t", 0, 1))), Reason::InvalidPartitions);
    assert_eq!(reason(world.create(topic("t", -1, 1))), Reason::InvalidPartitions);
    let too_many = i32::try_from(PARTITIONS_PER_TOPIC_MAX + 1).unwrap();
    assert_eq!(reason(world.create(topic("t", too_many, 1))), Reason::InvalidPartitions);
    assert_eq!(reason(world.create(manual("t", &[&[1, 2], &[3]]))), Reason::InvalidReplicaAssignment);
    assert_eq!(reason(world.create(manual("t", &[&[1, 1]]))), Reason::InvalidReplicaAssignment);
    assert_eq!(reason(world.create(manual("t", &[&[1, 9]]))), Reason::InvalidReplicaAssignment);
    assert_eq!(reason(world.create(manual("t", &[&[]]))), Reason::InvalidReplicaAssignment);
    assert_eq!(reason(world.create(manual("t", &[]))), Reason::InvalidPartitions);
    assert_eq!(world.view().topics().len(), 0);
}

#[test]
fn only_nodes_alive_at_the_proposal_count() {
    let mut world = World::of_nodes(3);
    let command = |topics| Command::CreateTopics { topics, live: nodes(&[1, 3]), now_ms: 0, validate_only: false };
    let Answer::Created(answers) = world.run(&command(vec![topic("three", 1, 3), topic("two", 2, 2)])) else {
        panic!("CreateTopics is answered by Created");
    };
    assert_eq!(reason(answers[0].1.clone()), Reason::InvalidReplicationFactor);
    assert!(answers[1].1.is_ok(), "one topic's refusal does not touch the next");
    let view = world.view();
    let hosts = |node| view.topic_named("two").unwrap().partitions.iter().any(|p| p.replica_on(NodeId(node)).is_some());
    assert!(hosts(1) && hosts(3) && !hosts(2));
}

#[test]
fn a_manual_assignment_is_taken_as_it_is() {
    let mut world = World::of_nodes(3);
    world.create(manual("t", &[&[3, 1], &[2, 3]])).unwrap();
    let view = world.view();
    let replicas: Vec<_> = view.topic_named("t").unwrap().partitions.iter().map(|p| p.replicas.clone()).collect();
    let replica = |node| ReplicaId::new(NodeId(node), 0);
    assert_eq!(replicas, [vec![replica(3), replica(1)], vec![replica(2), replica(3)]]);
}

#[test]
fn validate_only_answers_alike_and_changes_nothing() {
    let mut world = World::of_nodes(3);
    let before = world.view();
    let topics = vec![topic("good", 3, 3), topic("bad", 1, 9)];
    let validate = Command::CreateTopics { topics, live: nodes(&[1, 2, 3]), now_ms: 0, validate_only: true };
    let Answer::Created(answers) = world.run(&validate) else { panic!("CreateTopics is answered by Created") };
    assert!(answers[0].1.is_ok());
    assert_eq!(reason(answers[1].1.clone()), Reason::InvalidReplicationFactor);
    assert_eq!(before, world.view());
}

#[test]
fn a_name_twice_in_a_request_is_nobodys() {
    let mut world = World::of_nodes(1);
    let topics = vec![topic("twice", 1, 1), topic("once", 1, 1), topic("twice", 2, 1)];
    let live = nodes(&[1]);
    let Answer::Created(answers) = world.run(&Command::CreateTopics { topics, live, now_ms: 0, validate_only: false })
    else {
        panic!("CreateTopics is answered by Created");
    };
    let reasons: Vec<_> = answers.into_iter().map(|(_, result)| result.map_err(|r| r.reason).err()).collect();
    assert_eq!(reasons, [Some(Reason::InvalidRequest), None, Some(Reason::InvalidRequest)]);
    assert!(world.view().topic_named("twice").is_none());
}

#[test]
fn one_request_makes_a_bounded_number_of_partitions() {
    let mut world = World::of_nodes(1);
    let half = i32::try_from(PARTITIONS_PER_REQUEST_MAX / 2).unwrap();
    let topics = vec![topic("a", half, 1), topic("b", half, 1), topic("c", 1, 1)];
    let live = nodes(&[1]);
    let Answer::Created(answers) = world.run(&Command::CreateTopics { topics, live, now_ms: 0, validate_only: false })
    else {
        panic!("CreateTopics is answered by Created");
    };
    assert!(answers[0].1.is_ok() && answers[1].1.is_ok());
    assert_eq!(reason(answers[2].1.clone()), Reason::PolicyViolation);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_makes_another_topic() {
    let mut world = World::of_nodes(3);
    let first = world.create(topic("t", 2, 3)).unwrap();
    let groups: Vec<_> = world.view().topic(first.id).unwrap().partitions.iter().map(|p| p.group).collect();
    assert_eq!(delete(&mut world, TopicReference::Id(first.id)), Ok(("t".to_owned(), first.id)));
    assert!(groups.iter().all(|group| world.view().group(*group) == GroupFate::Deleted));
    assert_eq!(delete(&mut world, TopicReference::Id(first.id)), Err(Reason::UnknownTopicId));
    assert_eq!(delete(&mut world, TopicReference::Name("t".to_owned())), Err(Reason::UnknownTopic));

    let again = NewTopic { id: TopicId(99), ..topic("t", 2, 3) };
    let second = world.create(again).unwrap();
    let view = world.view();
    let reborn: Vec<_> = view.topic(second.id).unwrap().partitions.iter().map(|p| p.group).collect();
    assert!(reborn.iter().all(|group| !groups.contains(group)), "group numbers are never reused");
    assert!(groups.iter().all(|group| view.group(*group) == GroupFate::Deleted));
}

#[test]
fn partitions_can_only_be_added() {
    let mut world = World::of_nodes(3);
    world.create(topic("t", 2, 2)).unwrap();
    world.create(topic("between", 1, 1)).unwrap();
    let before = world.view();
    let grow = |count, assignment: Option<&[&[u32]]>| Command::CreatePartitions {
        topics: vec![MorePartitions {
            name: "t".to_owned(),
            count,
            assignment: assignment.map(|all| all.iter().map(|one| nodes(one)).collect()),
        }],
        live: nodes(&[1, 2, 3]),
        validate_only: false,
    };
    assert_eq!(changed(world.run(&grow(2, None))), Err(Reason::InvalidPartitions));
    assert_eq!(changed(world.run(&grow(1, None))), Err(Reason::InvalidPartitions));
    assert_eq!(changed(world.run(&grow(3, Some(&[&[1], &[2]])))), Err(Reason::InvalidReplicaAssignment));
    assert_eq!(changed(world.run(&grow(3, Some(&[&[1, 2, 3]])))), Err(Reason::InvalidReplicaAssignment));
    assert_eq!(before, world.view());

    assert_eq!(changed(world.run(&grow(4, None))), Ok(()));
    assert_eq!(changed(world.run(&grow(5, Some(&[&[3, 2]])))), Ok(()));
    let view = world.view();
    let grown = view.topic_named("t").unwrap();
    assert_eq!(grown.partitions.len(), 5);
    assert_eq!(grown.partitions[..2], before.topic_named("t").unwrap().partitions[..], "what was there stays there");
    for (number, partition) in grown.partitions.iter().enumerate() {
        assert_eq!(view.group(partition.group), GroupFate::Alive(Arc::clone(grown), number));
    }
    assert_eq!(grown.partitions[4].replicas[0].node(), NodeId(3));
}

#[test]
fn configs_change_all_or_nothing() {
    let mut world = World::of_nodes(3);
    world.create(topic("t", 1, 3)).unwrap();
    let set = |name: &str, value: &str| (name.to_owned(), ConfigOperation::Set(Some(value.to_owned())));
    let alter_of = |name: &str, operations, replace| Command::AlterTopicConfigs {
        topics: vec![ConfigChanges { name: name.to_owned(), replace, operations }],
        validate_only: false,
    };
    let alter = |operations, replace| alter_of("t", operations, replace);
    let good = vec![set("retention.ms", "1000"), set("min.insync.replicas", "2")];
    assert_eq!(changed(world.run(&alter(good, false))), Ok(()));
    let half_bad = vec![set("retention.ms", "5"), set("min.insync.replicas", "3")];
    assert_eq!(changed(world.run(&alter(half_bad, false))), Err(Reason::InvalidConfig));
    assert_eq!(world.view().topic_named("t").unwrap().configs["retention.ms"], "1000");
    assert_eq!(changed(world.run(&alter(vec![set("segment.bytes", "4096")], true))), Ok(()));
    let view = world.view();
    let names: Vec<_> = view.topic_named("t").unwrap().configs.keys().cloned().collect();
    assert_eq!(names, ["segment.bytes"], "AlterConfigs replaces what it does not name");

    world.create(NewTopic { name: COORDINATOR_TOPIC.to_owned(), ..topic("own", 1, 3) }).unwrap();
    let of_the_clusters_own = alter_of(COORDINATOR_TOPIC, vec![set("retention.ms", "5")], false);
    assert_eq!(changed(world.run(&of_the_clusters_own)), Err(Reason::InvalidTopic));
}

#[test]
fn a_node_is_one_data_directory_at_a_time() {
    let mut world = World::of_nodes(2);
    let mut moved = registration(2);
    moved.listeners[0].port = 19092;
    assert_eq!(done(world.run(&Command::RegisterBroker(moved.clone()))), Ok(()));
    let view = world.view();
    let broker = view.broker(NodeId(2)).unwrap();
    assert_eq!((broker.listeners[0].port, broker.registered), (19092, world.controller.applied().index));

    moved.incarnation = Incarnation(1);
    assert_eq!(done(world.run(&Command::RegisterBroker(moved.clone()))), Err(Reason::DuplicateBroker));
    world.create(manual("t", &[&[2]])).unwrap();
    assert_eq!(done(world.run(&Command::UnregisterBroker { node: NodeId(2) })), Err(Reason::InvalidRequest));
    delete(&mut world, TopicReference::Name("t".to_owned())).unwrap();
    assert_eq!(done(world.run(&Command::UnregisterBroker { node: NodeId(2) })), Ok(()));
    assert_eq!(done(world.run(&Command::UnregisterBroker { node: NodeId(2) })), Err(Reason::UnknownBroker));
    assert_eq!(done(world.run(&Command::RegisterBroker(moved))), Ok(()));
}

#[test]
fn registrations_that_make_no_sense_are_refused() {
    let mut world = World::of_nodes(1);
    let mut doubled = registration(2);
    doubled.listeners.push(doubled.listeners[0].clone());
    assert_eq!(done(world.run(&Command::RegisterBroker(doubled))), Err(Reason::InvalidRequest));
    let mut nameless = registration(2);
    nameless.listeners[0].host.clear();
    assert_eq!(done(world.run(&Command::RegisterBroker(nameless))), Err(Reason::InvalidRequest));
    assert_eq!(done(world.run(&Command::RegisterBroker(registration(0)))), Err(Reason::InvalidRequest));
    assert_eq!(done(world.run(&Command::RegisterBroker(registration(1 << 31)))), Err(Reason::InvalidRequest));
}

#[test]
fn producer_ids_are_handed_out_once() {
    let mut world = World::of_nodes(2);
    let mut allocate = |node: u32, incarnation: u128| {
        let command = Command::AllocateProducerIds { node: NodeId(node), incarnation: Incarnation(incarnation) };
        match world.run(&command) {
            Answer::ProducerIds(result) => result.map_err(|rejection| rejection.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(allocate(1, 1 << 64), Ok(ProducerIds { first: 0, count: 1000 }));
    assert_eq!(allocate(2, 2 << 64), Ok(ProducerIds { first: 1000, count: 1000 }));
    assert_eq!(allocate(2, 7), Err(Reason::UnknownBroker));
    assert_eq!(allocate(3, 3 << 64), Err(Reason::UnknownBroker));
    assert_eq!(allocate(1, 1 << 64), Ok(ProducerIds { first: 2000, count: 1000 }));
}

#[test]
fn the_feature_level_waits_for_every_node_and_never_falls() {
    let mut world = World::of_nodes(2);
    let raise = |level| Command::RaiseFeatureLevel { level };
    assert_eq!(done(world.run(&raise(2))), Err(Reason::InvalidFeatureLevel));
    for node in 1..=2 {
        let newer = ackord::controller::command::Registration { feature_level_max: 2, ..registration(node) };
        assert_eq!(done(world.run(&Command::RegisterBroker(newer))), Ok(()));
    }
    assert_eq!(done(world.run(&raise(2))), Ok(()));
    assert_eq!(done(world.run(&raise(1))), Err(Reason::InvalidFeatureLevel));
    assert_eq!(done(world.run(&Command::RegisterBroker(registration(1)))), Err(Reason::InvalidFeatureLevel));
}

#[test]
fn a_node_learns_from_two_views_what_to_create_and_to_tombstone() {
    let mut world = World::of_nodes(3);
    world.create(manual("old", &[&[1, 2], &[2, 3]])).unwrap();
    world.create(manual("kept", &[&[1]])).unwrap();
    let before = world.view();
    world.create(manual("new", &[&[3, 1], &[2, 3]])).unwrap();
    delete(&mut world, TopicReference::Name("old".to_owned())).unwrap();
    let growth = MorePartitions { name: "kept".to_owned(), count: 2, assignment: Some(vec![nodes(&[1])]) };
    let grow = Command::CreatePartitions { topics: vec![growth], live: nodes(&[1]), validate_only: false };
    assert_eq!(changed(world.run(&grow)), Ok(()));
    let after = world.view();

    let changes = after.changes_since(&before, NodeId(1));
    assert_eq!(changes.tombstone, [RaftGroupId(1)]);
    let mut created: Vec<_> = changes.create.iter().map(|plan| (plan.group.0, plan.partition)).collect();
    created.sort_unstable();
    assert_eq!(created, [(4, 0), (6, 1)]);
    let born = changes.create.iter().find(|plan| plan.group == RaftGroupId(4)).unwrap();
    assert_eq!(born.replica, ReplicaId::new(NodeId(1), 0));
    assert_eq!(born.members.voters, [ReplicaId::new(NodeId(1), 0), ReplicaId::new(NodeId(3), 0)]);
    assert!(after.changes_since(&after, NodeId(1)).create.is_empty());

    // A node that starts knows no earlier view: it is told of everything it is to have.
    let all = after.changes_since(&MetadataView::empty(CLUSTER), NodeId(3));
    let mut groups: Vec<_> = all.create.iter().map(|plan| plan.group.0).collect();
    groups.sort_unstable();
    assert_eq!((groups, all.tombstone), (vec![4, 5], vec![]));
}

#[test]
fn entries_of_rafts_own_move_only_the_position() {
    let mut world = World::of_nodes(1);
    let before = world.view();
    let empty = LogEntry { id: world.next_id(), ..LogEntry::default() };
    assert_eq!(world.apply(empty.clone()), Outcome::None);
    assert!(Arc::ptr_eq(&before, &world.view()));
    assert_eq!(world.controller.applied(), empty.id);
    assert_ne!(world.controller.applied().index, LogIndex(0));
}
