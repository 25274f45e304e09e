//! Random commands, sensible and not: whatever is asked for, the state keeps its invariants, and a replica that crashes
//! anywhere, or is given a snapshot instead of the entries, comes to the same state.

use crate::world::{Memory, World, open, registration, topic};
use ackord::controller::PRODUCER_IDS_PER_BLOCK;
use ackord::controller::command::{
    Answer, Command, ConfigChanges, ConfigOperation, Finished, Layout, MorePartitions, NewTopic, TopicReference,
};
use ackord::controller::view::{GroupFate, MetadataView, Partition, Replacement};
use ackord::machine::StateMachine;
use ackord::storage::{Engine, WriteBatch};
use ackord::types::{Incarnation, NodeId, RaftGroupId, TopicId};
use fastrand::Rng;
use std::collections::BTreeSet;

const SEEDS: u64 = 30;
const COMMANDS: usize = 150;

fn name(rng: &mut Rng) -> String {
    let names = ["a", "b", "a.b", "a_b", "orders", "no good", "", "payments", "x.y.z", "x_y.z"];
    rng.choice(names).expect("there are names").to_owned()
}

fn nodes(rng: &mut Rng) -> Vec<NodeId> {
    (0..rng.usize(0..5)).map(|_| NodeId(rng.u32(1..8))).collect()
}

fn assignment(rng: &mut Rng) -> Vec<Vec<NodeId>> {
    (0..rng.usize(0..4)).map(|_| nodes(rng)).collect()
}

fn configs(rng: &mut Rng) -> (String, Option<String>) {
    let names = ["retention.ms", "min.insync.replicas", "cleanup.policy", "unclean.leader.election.enable", "nonsense"];
    let values = ["1", "2", "-1", "delete", "compact", "true", "false", ""];
    (rng.choice(names).expect("names").to_owned(), rng.choice(values).map(str::to_owned))
}

fn new_topic(rng: &mut Rng) -> NewTopic {
    let layout = match rng.bool() {
        true => Layout::Counted { partitions: rng.i32(-1..6), replication_factor: rng.i16(-1..5) },
        false => Layout::Manual(assignment(rng)),
    };
    let configs = (0..rng.usize(0..2)).map(|_| configs(rng)).collect();
    let id = TopicId(if rng.u8(..) < 10 { rng.u128(0..3) } else { rng.u128(..) });
    NewTopic { id, layout, configs, ..topic(&name(rng), 0, 0) }
}

fn command(rng: &mut Rng, view: &MetadataView) -> Command {
    let validate_only = rng.u8(0..5) == 0;
    let live = (1..8).filter(|_| rng.u8(0..5) > 0).map(NodeId).collect();
    match rng.u8(0..21) {
        0 | 1 => {
            let mut registration = registration(rng.u32(0..8));
            registration.rack = rng.choice(["r1", "r2", ""]).map(str::to_owned).filter(|rack| !rack.is_empty());
            registration.feature_level_max = rng.u32(1..4);
            registration.incarnation.0 += rng.u128(0..3);
            Command::RegisterBroker(registration)
        }
        2 => Command::UnregisterBroker { node: NodeId(rng.u32(1..8)) },
        3..=7 => {
            let topics = (0..rng.usize(0..4)).map(|_| new_topic(rng)).collect();
            Command::CreateTopics { topics, live, now_ms: rng.i64(..), validate_only }
        }
        8 | 9 => {
            let known: Vec<_> = view.topics().map(|topic| topic.id).collect();
            let by_id = TopicReference::Id(rng.choice(known).unwrap_or_default());
            Command::DeleteTopics { topics: vec![by_id, TopicReference::Name(name(rng))] }
        }
        10 | 11 => {
            let assignment = rng.bool().then(|| assignment(rng));
            let topics = vec![MorePartitions { name: name(rng), count: rng.i32(-1..9), assignment }];
            Command::CreatePartitions { topics, live, validate_only }
        }
        12 | 13 => {
            let (config, value) = configs(rng);
            let operation = match rng.u8(0..4) {
                0 => ConfigOperation::Delete,
                1 => ConfigOperation::Append(value),
                2 => ConfigOperation::Subtract(value),
                _ => ConfigOperation::Set(value),
            };
            let changes = ConfigChanges { name: name(rng), replace: rng.bool(), operations: vec![(config, operation)] };
            Command::AlterTopicConfigs { topics: vec![changes], validate_only }
        }
        14 => {
            let node = rng.u32(1..8);
            Command::AllocateProducerIds { node: NodeId(node), incarnation: Incarnation(u128::from(node) << 64) }
        }
        15 | 16 => {
            let old = NodeId(rng.u32(1..8));
            let new = if rng.bool() { old } else { NodeId(rng.u32(1..8)) };
            let disk = view.broker(old).map(|broker| broker.incarnation).filter(|_| rng.u8(0..8) > 0);
            Command::ReplaceNode { old, new, disk, live: nodes(rng), force: rng.bool() }
        }
        17 | 18 => {
            let open = |partition: &Partition| {
                let group = partition.group;
                let finished = |pair: &Replacement| Finished { group, old: pair.old, new: pair.new };
                partition.replacing.iter().map(finished).collect::<Vec<_>>()
            };
            // Only who is registered is heard, and can have caught up.
            let is_there = |finished: &Finished| view.broker(finished.new.node()).is_some();
            let open = view.all_groups().flat_map(open).filter(is_there);
            let mut finished: Vec<_> = open.filter(|_| rng.bool()).collect();
            finished.extend(finished.first().map(|first| Finished { new: first.old, ..*first }));
            Command::FinishReplacements { finished }
        }
        19 => {
            let known: Vec<_> = view.brokers().map(|broker| (broker.node, broker.incarnation)).collect();
            let (node, incarnation) = rng.choice(known).unwrap_or_default();
            Command::JoinController { node, incarnation }
        }
        _ => Command::RaiseFeatureLevel { level: rng.u32(0..4) },
    }
}

/// Replicas of a group are on different nodes, which are registered, or lost and being replaced.
fn check_replicas(view: &MetadataView, partition: &Partition) {
    for replicas in [&partition.replicas, &partition.wanted()] {
        let hosts: BTreeSet<_> = replicas.iter().map(|replica| replica.node()).collect();
        assert_eq!(hosts.len(), replicas.len(), "replicas are on different nodes");
        let lost = |node: &NodeId| view.cluster().replacements.iter().any(|open| open.old == *node);
        assert!(hosts.iter().all(|node| view.broker(*node).is_some() || lost(node)), "{partition:?}");
    }
    let hosted = (1..8).filter_map(|node| partition.replica_on(NodeId(node)));
    assert!(hosted.chain(partition.wanted()).all(|replica| !partition.is_lost(replica)), "{partition:?}");
    assert!(partition.replacing.iter().all(|pair| partition.wanted().contains(&pair.new)), "{partition:?}");
}

/// What holds in every state, and from one state to the next.
fn check(before: &MetadataView, after: &MetadataView, ever: &mut BTreeSet<RaftGroupId>) {
    let mut groups = BTreeSet::new();
    let mut names = BTreeSet::new();
    for topic in after.topics() {
        assert!(names.insert(topic.name.replace('.', "_")), "{} collides", topic.name);
        assert_eq!(after.topic_named(&topic.name), Some(topic));
        assert!(!topic.partitions.is_empty());
        for (number, partition) in topic.partitions.iter().enumerate() {
            assert!(groups.insert(partition.group), "group {} has two partitions", partition.group);
            assert_eq!(after.group(partition.group), GroupFate::Alive(topic.clone(), number));
            check_replicas(after, partition);
            assert_eq!(partition.replicas.len(), topic.replication_factor());
        }
        if let Some(earlier) = before.topic(topic.id) {
            for (now, then) in topic.partitions.iter().zip(&earlier.partitions) {
                assert_eq!((now.group, now.first_replicas()), (then.group, then.first_replicas()));
                let back = now.wanted().into_iter().find(|replica| then.is_lost(*replica));
                assert_eq!(back, None, "a lost replica is back");
                let known = then.peers().voters.into_iter().chain(then.removed.iter().copied());
                let mut forgotten = known.filter(|replica| then.is_lost(*replica) && !now.is_lost(*replica));
                assert_eq!(forgotten.next(), None, "a lost replica is heard again");
                let given_up = |view: &MetadataView, node| view.gave_up(then.group, NodeId(node));
                assert!((1..8).all(|node| given_up(after, node) || !given_up(before, node)), "{then:?} {now:?}");
            }
        }
    }
    check_replicas(after, &after.cluster().controllers.members);
    let retired = &after.cluster().retired;
    assert!(after.brokers().all(|broker| !retired.contains(&broker.incarnation)), "a replaced disk is back");
    assert!(retired.starts_with(&before.cluster().retired));
    assert_eq!(after.partition_count(), groups.len() as u64);
    let gone = |group: &&RaftGroupId| !groups.contains(group);
    assert!(ever.iter().filter(gone).all(|group| after.group(*group) == GroupFate::Deleted));
    let reborn = |group: &&RaftGroupId| ever.contains(group) && before.group(**group) == GroupFate::Deleted;
    assert_eq!(groups.iter().find(reborn), None, "a deleted group is back");
    ever.extend(&groups);
    assert!(after.brokers().all(|broker| broker.feature_level_max >= after.cluster().feature_level));

    // A node that follows the views has just the groups that the last one gives it.
    for node in (1..8).map(NodeId) {
        let hosted = |view: &MetadataView| -> BTreeSet<RaftGroupId> {
            let partitions = view.topics().flat_map(|topic| topic.partitions.clone());
            partitions.filter(|p| p.replica_on(node).is_some()).map(|p| p.group).collect()
        };
        let changes = after.changes_since(before, node);
        let mut followed = hosted(before);
        changes.tombstone.iter().for_each(|group| assert!(followed.remove(group)));
        changes.create.iter().for_each(|plan| assert!(followed.insert(plan.group)));
        assert_eq!(followed, hosted(after));
    }
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::of_nodes(rng.u32(1..6));
    let mut follower = open(&Memory::default());
    let mut ever = BTreeSet::new();
    let mut producer_ids = BTreeSet::new();
    for _ in 0..COMMANDS {
        let before = world.view();
        let answer = world.run(&command(&mut rng, &before));
        check(&before, &world.view(), &mut ever);
        if let Answer::ProducerIds(Ok(block)) = answer {
            assert_eq!((block.first % i64::from(PRODUCER_IDS_PER_BLOCK), block.count), (0, PRODUCER_IDS_PER_BLOCK));
            assert!(producer_ids.insert(block.first));
        }
        if rng.u8(0..20) == 0 {
            world.controller = open(&world.engine);
        }
        if rng.u8(0..40) == 0 {
            follower.install(&world.controller.snapshot(), &mut WriteBatch::default()).unwrap();
        }
    }
    let engine = Memory::default();
    let mut batch = WriteBatch::default();
    follower.install(&follower.snapshot(), &mut batch).unwrap();
    engine.write(batch).unwrap();
    let rest: Vec<_> = world.log.iter().filter(|entry| entry.id.index > follower.applied().index).cloned().collect();
    let mut batch = WriteBatch::default();
    follower.apply(&rest, &[], &mut batch).unwrap();
    engine.write(batch).unwrap();
    assert_eq!(follower.view(), world.view());
    assert_eq!(engine.dump(), world.engine.dump());
}

#[test]
fn random_commands_keep_the_invariants() {
    let seeds = match std::env::var("ACKORD_SEED") {
        Ok(seed) => vec![seed.parse().expect("ACKORD_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "run it alone: ACKORD_SEED={seed} cargo test --test controller random_commands");
    }
}
