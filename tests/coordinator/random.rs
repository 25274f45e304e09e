//! Random commands, sensible and not: whatever is asked for, groups keep their invariants, rows and memory stay the
//! same, and a replica that crashes anywhere, or is given a snapshot instead of the entries, comes to the same state.

use crate::world::{G, Memory, RAFT, World, commit, create, dynamic, fixed, known, protocols, simple, subscription};
use ackord::coordinator::Coordinator;
use ackord::coordinator::command::{Action, Assign, Expired, Join, Leaver};
use ackord::coordinator::group::{Group, Phase};
use ackord::machine::StateMachine;
use ackord::storage::{Engine, WriteBatch};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked for, as far as it does not depend on the state at that time.
#[derive(Clone, Debug)]
enum Step {
    /// A new member, dynamic or static, in one or two steps.
    New { instance: Option<u8>, two_steps: bool, delay_first: bool, offers: u8 },
    /// A member, an id that was handed out, or a stranger, joins again.
    Again { who: u8, instance: bool, offers: u8 },
    /// Somebody, the leader if `leader`, assigns for the generation, or for one nearby.
    Assign { who: u8, leader: bool, off: i8 },
    /// Members leave.
    Leave { who: Vec<u8>, by_name: bool },
    /// Members are given up, in this life or in another.
    Expire { who: Vec<u8>, stale: bool },
    /// A preparation's time runs out, this one's or an earlier.
    FinishJoin { stale: bool },
    /// A member, or nobody, stores an offset.
    Commit { who: Option<u8>, topic: u8, off: i8 },
    /// Who is no member stores offsets of a group of its own.
    Simple { topic: u8 },
    /// An administrator cleans up.
    Delete { topic: u8, group: bool },
    /// Time passes.
    Retain { hours: u8 },
    /// A topic goes.
    Forget { topic: u8 },
    /// The node restarts.
    Restart,
    /// The follower is sent a snapshot.
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let new = (prop::option::of(0..3_u8), any::<bool>(), any::<bool>(), 0..6_u8);
    let some = || prop::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        6 => new.prop_map(|(instance, two_steps, delay_first, offers)| {
            Step::New { instance, two_steps, delay_first, offers }
        }),
        8 => (any::<u8>(), any::<bool>(), 0..6_u8).prop_map(|(who, instance, offers)| {
            Step::Again { who, instance, offers }
        }),
        6 => (any::<u8>(), prop::bool::weighted(0.8), -1..=1_i8).prop_map(|(who, leader, off)| {
            Step::Assign { who, leader, off: off * i8::from(who % 4 == 0) }
        }),
        2 => (some(), any::<bool>()).prop_map(|(who, by_name)| Step::Leave { who, by_name }),
        2 => (some(), any::<bool>()).prop_map(|(who, stale)| Step::Expire { who, stale }),
        3 => prop::bool::weighted(0.2).prop_map(|stale| Step::FinishJoin { stale }),
        4 => (prop::option::of(any::<u8>()), 0..3_u8, -1..=1_i8).prop_map(|(who, topic, off)| {
            Step::Commit { who, topic, off }
        }),
        2 => (0..3_u8).prop_map(|topic| Step::Simple { topic }),
        1 => (0..3_u8, any::<bool>()).prop_map(|(topic, group)| Step::Delete { topic, group }),
        1 => any::<u8>().prop_map(|hours| Step::Retain { hours }),
        1 => (0..3_u8).prop_map(|topic| Step::Forget { topic }),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
    ]
}

/// Protocols that are mostly compatible.
fn offers(number: u8) -> Vec<(String, Vec<u8>)> {
    match number {
        0..=2 => protocols(&["range", "sticky"]),
        3 => protocols(&["sticky", "range"]),
        4 => vec![("range".to_owned(), subscription(&["t0", "t1"]))],
        _ => vec![("own".to_owned(), vec![1, 2, 3])],
    }
}

fn topic(number: u8) -> String {
    format!("t{number}")
}

/// The id of a member, of somebody who was handed one, or of nobody.
fn pick(group: &Group, who: u8) -> (String, Option<String>, u64) {
    let members = group.members.values().map(|member| (member.id.clone(), member.instance.clone(), member.joins));
    let pending = group.pending.iter().map(|id| (id.clone(), None, 0));
    let all: Vec<_> = members.chain(pending).chain([("stranger".to_owned(), None, 9)]).collect();
    all[usize::from(who) % all.len()].clone()
}

fn action(step: &Step, group: &Group, fresh: &mut u32) -> Option<Action> {
    let name = || G.to_owned();
    Some(match step {
        Step::New { instance, two_steps, delay_first, offers: number } => {
            *fresh += 1;
            let id = format!("m{fresh}");
            let join = instance.map_or_else(|| dynamic(&id), |number| fixed(&format!("i{number}"), &id));
            let (two_steps, delay_first) = (*two_steps, *delay_first);
            let can_skip_assignment = fresh.is_multiple_of(2);
            let protocols = offers(*number);
            Action::Join(Join { two_steps, delay_first, can_skip_assignment, protocols, members_max: 5, ..join })
        }
        Step::Again { who, instance, offers: number } => {
            let (id, fixed, _) = pick(group, *who);
            let instance = fixed.filter(|_| *instance);
            let members_max = u32::from(*who) % 6;
            Action::Join(Join { instance, protocols: offers(*number), members_max, ..known(&id) })
        }
        Step::Assign { who, leader, off } => {
            let leader = group.leader.clone().filter(|_| *leader);
            let member = leader.unwrap_or_else(|| pick(group, *who).0);
            let generation = group.generation + i32::from(*off);
            let assignments = group.members.keys().skip(usize::from(*who) % 2);
            let assignments = assignments.map(|id| (id.clone(), format!("{id}/{generation}").into_bytes())).collect();
            Action::Assign(Assign { group: name(), generation, member, instance: None, assignments })
        }
        Step::Leave { who, by_name } => {
            let leaver = |who: &u8| {
                let (member, instance, _) = pick(group, *who);
                if *by_name && instance.is_some() {
                    Leaver { member: String::new(), instance }
                } else {
                    Leaver { member, instance: None }
                }
            };
            Action::Leave { group: name(), members: who.iter().map(leaver).collect() }
        }
        Step::Expire { who, stale } => {
            let expired = |who: &u8| {
                let (member, _, joins) = pick(group, *who);
                Expired { member, joins: joins.saturating_sub(u64::from(*stale)) }
            };
            Action::Expire { group: name(), members: who.iter().map(expired).collect() }
        }
        Step::FinishJoin { stale } => {
            Action::FinishJoin { group: name(), round: group.rounds.saturating_sub(u64::from(*stale)) }
        }
        Step::Commit { who, topic: number, off } => {
            let member = who.map(|who| pick(group, who).0);
            let generation = if member.is_some() { group.generation + i32::from(*off) } else { -1 };
            let offsets = [(topic(*number), i32::from(*number), i64::from(*off))];
            let offsets = offsets.each_ref().map(|(topic, partition, offset)| (topic.as_str(), *partition, *offset));
            Action::Commit(commit(&member.unwrap_or_default(), generation, &offsets))
        }
        Step::Simple { topic: number } => {
            let offsets = [("t0", 0, 1), ("t1", i32::from(*number), 2)];
            Action::Commit(simple(&format!("s{number}"), &offsets))
        }
        Step::Delete { topic: number, group: true } => {
            let groups = vec![name(), format!("s{number}")];
            Action::DeleteGroups { groups }
        }
        Step::Delete { topic: number, group: false } => {
            Action::DeleteOffsets { group: name(), partitions: vec![(topic(*number), i32::from(*number))] }
        }
        Step::Retain { .. } => Action::ExpireOffsets { retention_ms: 24 * 3600 * 1000 },
        Step::Forget { topic: number } => Action::ForgetTopics { topics: vec![topic(*number)] },
        Step::Restart | Step::Snapshot => return None,
    })
}

/// What holds in every state.
fn check(group: &Group) {
    assert_eq!(group.is_empty(), group.members.is_empty(), "{group:?}");
    assert!(group.pending.iter().all(|id| !group.members.contains_key(id)), "{group:?}");
    let preparing = matches!(group.phase, Phase::Preparing { .. });
    let mut instances = Vec::new();
    for (id, member) in &group.members {
        assert_eq!(*id, member.id);
        assert!(member.joins > 0 && member.joins <= group.joins, "{group:?}");
        assert!(member.generation <= group.generation, "{group:?}");
        assert!(preparing || member.generation == group.generation, "{group:?}");
        assert!(preparing || !member.joined, "{group:?}");
        instances.extend(member.instance.clone());
    }
    let count = instances.len();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), count, "two members have one static name: {group:?}");
    assert_eq!(group.leader.is_some(), !group.is_empty(), "{group:?}");
    assert!(group.leader.iter().all(|leader| group.members.contains_key(leader)), "{group:?}");
    match group.phase {
        Phase::Empty => assert_eq!(group.protocol, None, "{group:?}"),
        Phase::Preparing { round, first } => {
            assert_eq!(round, group.rounds);
            let missing = group.members.values().any(|member| !member.joined);
            assert!(first || missing || !group.pending.is_empty(), "nothing holds it up: {group:?}");
        }
        Phase::Completing | Phase::Stable => {
            let protocol = group.protocol.as_ref().expect("they agreed");
            assert!(group.members.values().all(|member| member.metadata(protocol).is_some()), "{group:?}");
            let assigned = group.members.values().any(|member| !member.assignment.is_empty());
            assert!(group.phase == Phase::Stable || !assigned, "{group:?}");
        }
    }
}

/// What holds from one state to the next of a group.
fn check_step(before: &Group, after: &Group) {
    assert!(after.generation == before.generation || after.generation == before.generation + 1);
    assert!(after.joins >= before.joins && after.rounds >= before.rounds && after.since_ms >= before.since_ms);
    if (&after.phase, after.generation) == (&before.phase, before.generation) && after.phase == Phase::Stable {
        // A member's share stays, under whatever id it comes back.
        let shares = |group: &Group| {
            let mut shares: Vec<_> = group.members.values().map(|member| member.assignment.clone()).collect();
            shares.sort();
            shares
        };
        assert_eq!(shares(before), shares(after), "one assignment in a generation");
        assert_eq!(before.protocol, after.protocol);
    }
}

fn groups(coordinator: &Coordinator) -> BTreeMap<String, Arc<Group>> {
    coordinator.groups().clone()
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    let mut follower = create(&Memory::default());
    let mut fresh = 0;
    for step in steps {
        let before = groups(&world.coordinator);
        let none = Arc::new(Group::default());
        let group = before.get(G).unwrap_or(&none);
        world.now_ms += if let Step::Retain { hours } = step { i64::from(*hours) * 3_600_000 } else { 10 };
        if let Some(action) = action(step, group, &mut fresh) {
            world.run(action);
        }
        let reopened = Coordinator::open(&world.engine, RAFT).unwrap().expect("it is there");
        assert_eq!(reopened.snapshot(), world.coordinator.snapshot(), "rows are what memory is");
        match step {
            Step::Restart => world.coordinator = reopened,
            Step::Snapshot => {
                follower.install(&world.coordinator.snapshot(), &mut WriteBatch::default()).unwrap();
            }
            _ => {}
        }
        let after = groups(&world.coordinator);
        for (name, group) in &after {
            check(group);
            if let Some(earlier) = before.get(name) {
                check_step(earlier, group);
            }
        }
        let all = before.keys().chain(after.keys());
        let changed = all.filter(|name| before.get(*name) != after.get(*name));
        assert!(changed.into_iter().all(|name| world.coordinator.changed().contains(name)));
    }
    // A replica that had a snapshot for a beginning.
    let engine = Memory::default();
    let mut batch = WriteBatch::default();
    follower.install(&follower.snapshot(), &mut batch).unwrap();
    engine.write(batch).unwrap();
    let rest: Vec<_> = world.log.iter().filter(|entry| entry.id.index > follower.applied().index).cloned().collect();
    let mut batch = WriteBatch::default();
    follower.apply(&rest, &[], &mut batch).unwrap();
    engine.write(batch).unwrap();
    assert_eq!(groups(&follower), groups(&world.coordinator));
    assert_eq!(engine.dump(), world.engine.dump());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn random_commands_keep_the_invariants(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps);
    }
}
