//! Offsets: who may store them, who may delete them, and how long they last.

use crate::world::{G, RAFT, World, commit, dynamic, known, protocols, simple, subscription};
use ackord::coordinator::command::{Commit, Join, Rejection};
use ackord::coordinator::offsets::{self, Committed};
use ackord::coordinator::{LOOK_STEP_MS_MAX, NAME_BYTES_MAX, STATE_BYTES_MAX};

const DAY_MS: i64 = 24 * 3600 * 1000;

#[test]
fn members_store_offsets_of_their_generation() {
    let mut world = World::stable(&["a", "b"]);
    assert_eq!(world.commit(commit("a", 1, &[("t", 0, 5), ("t", 1, 7)])), Ok(()));
    assert_eq!(world.commit(commit("b", 1, &[("u", 0, 1)])), Ok(()));
    assert_eq!(world.offsets_of(G), "t/0=5 t/1=7 u/0=1");
    assert_eq!(world.commit(commit("a", 0, &[("t", 0, 9)])), Err(Rejection::IllegalGeneration));
    assert_eq!(world.commit(commit("a", 2, &[("t", 0, 9)])), Err(Rejection::IllegalGeneration));
    assert_eq!(world.commit(commit("a", -1, &[("t", 0, 9)])), Err(Rejection::IllegalGeneration));
    assert_eq!(world.commit(commit("x", 1, &[("t", 0, 9)])), Err(Rejection::UnknownMember));
    assert_eq!(world.commit(commit("", 1, &[("t", 0, 9)])), Err(Rejection::UnknownMember));
    assert_eq!(world.commit(simple(G, &[("t", 0, 9)])), Err(Rejection::UnknownMember));
    // While the next generation is prepared they still store what they did in this one, but not in the next before
    // its work is assigned.
    world.join(known("a")).unwrap();
    assert_eq!(world.commit(commit("b", 1, &[("t", 1, 8)])), Ok(()));
    world.join(known("b")).unwrap();
    assert_eq!(world.commit(commit("b", 1, &[("t", 1, 9)])), Err(Rejection::IllegalGeneration));
    assert_eq!(world.commit(commit("b", 2, &[("t", 1, 9)])), Err(Rejection::RebalanceInProgress));
    assert_eq!(world.offsets_of(G), "t/0=5 t/1=8 u/0=1");
    // A client may go back.
    world.assign("a", 2, &[]).unwrap();
    assert_eq!(world.commit(commit("a", 2, &[("t", 0, 100), ("t", 0, 2)])), Ok(()));
    assert_eq!(world.offsets_of(G), "t/0=2 t/1=8 u/0=1");
    world.leave(&[("a", None), ("b", None)]);
    assert_eq!(world.commit(commit("a", 2, &[("t", 0, 9)])), Err(Rejection::UnknownMember));
    assert_eq!(world.commit(commit("a", -1, &[("t", 0, 9)])), Ok(()), "without members, from who has no generation");
    assert_eq!(world.offsets_of(G), "t/0=9 t/1=8 u/0=1");
}

#[test]
fn who_is_no_member_makes_a_simple_group() {
    let mut world = World::new();
    let of_a_generation = Commit { group: "s".to_owned(), ..commit("a", 1, &[("t", 0, 1)]) };
    assert_eq!(world.commit(of_a_generation), Err(Rejection::IllegalGeneration));
    assert_eq!(world.commit(simple("s", &[])), Ok(()));
    assert!(world.coordinator.groups().is_empty());
    assert_eq!(world.commit(simple("s", &[("t", 3, 1)])), Ok(()));
    assert!(world.coordinator.changed().contains("s"));
    let group = &world.coordinator.groups()["s"];
    assert_eq!((group.is_empty(), &group.protocol_type, group.generation), (true, &None, 0));
    world.now_ms += 1;
    assert_eq!(world.commit(simple("s", &[("t", 3, 2)])), Ok(()));
    assert!(world.coordinator.changed().is_empty(), "an offset does not change its group");
    let stored = Committed { offset: 2, leader_epoch: 4, metadata: "m".to_owned(), committed_at_ms: world.now_ms };
    assert_eq!(offsets::read(&world.engine, RAFT, "s", "t", 3).unwrap(), Some(stored));
    assert_eq!(offsets::read(&world.engine, RAFT, "s", "t", 4).unwrap(), None);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(offsets::read(&world.engine, RAFT, "s", &long, 3).unwrap(), None);
    assert_eq!(offsets::read_all(&world.engine, RAFT, &long).unwrap(), []);
    assert_eq!(world.commit(simple(&long, &[("t", 0, 1)])), Err(Rejection::CoordinatorFull));
    assert_eq!(world.commit(simple("s", &[(&long, 0, 1)])), Err(Rejection::CoordinatorFull));
}

#[test]
fn names_that_begin_alike_are_apart() {
    let mut world = World::new();
    for (number, group) in ["g", "g\0", "gt", "", "g\u{7f}"].into_iter().enumerate() {
        let number = i64::try_from(number).unwrap();
        world.commit(simple(group, &[("t", 1, number), ("tt", 256, number), ("", 0, number)])).unwrap();
    }
    assert_eq!(world.offsets_of("g"), "/0=0 t/1=0 tt/256=0");
    assert_eq!(world.offsets_of("gt"), "/0=2 t/1=2 tt/256=2");
    assert_eq!(world.offsets_of(""), "/0=3 t/1=3 tt/256=3");
    world.delete_groups(&["g"]);
    assert_eq!(world.offsets_of("g"), "");
    assert_eq!(world.offsets_of("g\0"), "/0=1 t/1=1 tt/256=1");
}

#[test]
fn offsets_of_topics_that_are_read_are_not_deleted() {
    let mut world = World::new();
    assert_eq!(world.delete_offsets(G, &[("t", 0)]), Err(Rejection::UnknownGroup));
    let reads = |id, topics: &[&str]| {
        let protocols = vec![("range".to_owned(), subscription(topics))];
        Join { protocols, delay_first: true, ..dynamic(id) }
    };
    let offsets = [("t", 0, 1), ("u", 0, 1), ("v", 0, 1), ("v", 1, 1)];
    world.commit(simple(G, &offsets)).unwrap();
    world.join(reads("a", &["t"])).unwrap();
    world.join(reads("b", &["t", "u"])).unwrap();
    let refused = Err(Rejection::SubscribedToTopic);
    assert_eq!(world.delete_offsets(G, &[("v", 0)]), Ok(vec![refused]), "nothing is agreed on yet");
    world.finish_join(1);
    assert_eq!(
        world.delete_offsets(G, &[("t", 0), ("u", 0), ("v", 0), ("w", 9)]),
        Ok(vec![refused, refused, Ok(()), Ok(())])
    );
    assert_eq!(world.offsets_of(G), "t/0=1 u/0=1 v/1=1");
    world.leave(&[("a", None), ("b", None)]);
    assert_eq!(world.delete_offsets(G, &[("u", 0)]), Ok(vec![Ok(())]));
    assert_eq!(world.offsets_of(G), "t/0=1 v/1=1");
    // Metadata that is none of a consumer's may mean any topic.
    world.join(Join { protocols: vec![("range".to_owned(), vec![9])], ..dynamic("c") }).unwrap();
    assert_eq!(world.delete_offsets(G, &[("t", 0)]), Ok(vec![refused]));
    world.leave(&[("c", None)]);
    world.join(Join { protocol_type: "connect".to_owned(), ..dynamic("d") }).unwrap();
    assert_eq!(world.delete_offsets(G, &[("t", 0)]), Err(Rejection::NonEmptyGroup));
    assert_eq!(world.offsets_of(G), "t/0=1 v/1=1");
}

#[test]
fn groups_without_members_are_deleted_with_their_offsets() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1)])).unwrap();
    world.commit(simple("s", &[("t", 0, 1)])).unwrap();
    let unknown = Err(Rejection::UnknownGroup);
    assert_eq!(world.delete_groups(&[G, "s", "s", "n"]), [Err(Rejection::NonEmptyGroup), Ok(()), unknown, unknown]);
    assert_eq!((world.offsets_of("s"), world.offsets_of(G)), (String::new(), "t/0=1".to_owned()));
    world.leave(&[("a", None)]);
    assert_eq!(world.delete_groups(&[G]), [Ok(())]);
    assert!(world.coordinator.changed().contains(G));
    assert_eq!(world.engine.dump().len(), 1, "nothing but the position is left: {:?}", world.engine.dump());
}

#[test]
fn offsets_of_a_group_last_while_it_has_members_and_a_while_longer() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1)])).unwrap();
    world.now_ms += 10 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/0=1");
    world.leave(&[("a", None)]);
    world.now_ms += 7 * DAY_MS - 1;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/0=1");
    world.now_ms += 1;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!((world.offsets_of(G), world.show()), (String::new(), "none".to_owned()));
}

#[test]
fn an_offset_set_while_the_group_is_away_lasts_as_long() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1)])).unwrap();
    world.leave(&[("a", None)]);
    world.now_ms += 6 * DAY_MS;
    world.commit(simple(G, &[("u", 0, 1)])).unwrap();
    world.now_ms += DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "u/0=1");
}

#[test]
fn offsets_of_a_simple_group_last_by_themselves() {
    let mut world = World::new();
    world.commit(simple(G, &[("t", 0, 1)])).unwrap();
    world.now_ms += DAY_MS;
    world.commit(simple(G, &[("t", 1, 1)])).unwrap();
    world.now_ms += 6 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/1=1");
    world.now_ms += DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.show(), "none");
}

#[test]
fn offsets_of_topics_that_consumers_no_longer_read_expire() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1), ("u", 0, 1)])).unwrap();
    world.now_ms += 7 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/0=1", "its members read t");
    world.commit(commit("a", 1, &[("u", 0, 1)])).unwrap();
    world.now_ms += 7 * DAY_MS;
    world.join(known("a")).unwrap();
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/0=1 u/0=1", "what they will read is open");
}

#[test]
fn a_group_that_stored_nothing_goes_when_it_is_empty() {
    let mut world = World::stable(&["a"]);
    world.expire_offsets(DAY_MS);
    assert_eq!(world.show(), "stable 1 range, leader a: a");
    world.leave(&[("a", None)]);
    world.join(Join { two_steps: true, ..dynamic("b") }).unwrap();
    world.expire_offsets(DAY_MS);
    assert_eq!(world.show(), "empty 2 -, leader -: (b)", "somebody is about to join");
    world.expire(&[("b", 0)]);
    world.expire_offsets(DAY_MS);
    assert_eq!(world.show(), "none");
}

#[test]
fn a_clock_that_is_wrong_for_a_moment_drops_nothing() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1)])).unwrap();
    world.leave(&[("a", None)]);
    world.commit(simple("simple", &[("t", 0, 1)])).unwrap();
    let right_ms = world.now_ms;
    // Far ahead, while it is looked for old offsets and others are stored.
    world.now_ms += 50_000 * DAY_MS;
    world.look_for_old_offsets(7 * DAY_MS);
    world.commit(simple("late", &[("t", 0, 1)])).unwrap();
    world.look_for_old_offsets(7 * DAY_MS);
    // Right again. The looks moved the time a little, so the others go a little early, and only by that.
    world.now_ms = right_ms + 6 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!((world.offsets_of(G), world.offsets_of("simple")), ("t/0=1".to_owned(), "t/0=1".to_owned()));
    world.now_ms = right_ms + 7 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!((world.offsets_of(G), world.offsets_of("simple")), (String::new(), String::new()));
    // What was stored meanwhile stays for too long rather than too short, until it is stored again.
    assert_eq!(world.offsets_of("late"), "t/0=1");
    world.commit(simple("late", &[("t", 0, 2)])).unwrap();
    world.now_ms += 7 * DAY_MS;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of("late"), "");
}

#[test]
fn one_look_drops_no_more_than_its_step() {
    let mut world = World::new();
    world.commit(simple(G, &[("t", 0, 1)])).unwrap();
    world.now_ms += LOOK_STEP_MS_MAX / 2;
    world.commit(simple(G, &[("t", 1, 1)])).unwrap();
    world.now_ms += DAY_MS;
    world.look_for_old_offsets(LOOK_STEP_MS_MAX);
    assert_eq!(world.offsets_of(G), "t/1=1", "half a step is left to it");
    world.look_for_old_offsets(LOOK_STEP_MS_MAX);
    assert_eq!(world.show(), "none");
}

#[test]
fn the_clock_does_not_go_back() {
    let mut world = World::new();
    world.now_ms = 10 * DAY_MS;
    world.commit(simple(G, &[("t", 0, 1)])).unwrap();
    world.now_ms = 1000;
    world.commit(simple(G, &[("t", 1, 1)])).unwrap();
    assert_eq!(offsets::read(&world.engine, RAFT, G, "t", 1).unwrap().unwrap().committed_at_ms, 10 * DAY_MS);
    world.now_ms = 17 * DAY_MS - 1;
    world.expire_offsets(7 * DAY_MS);
    assert_eq!(world.offsets_of(G), "t/0=1 t/1=1");
}

#[test]
fn deleted_topics_are_forgotten() {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 0, 1), ("t", 1, 1), ("u", 0, 1)])).unwrap();
    world.commit(simple("s", &[("t", 0, 1)])).unwrap();
    world.forget_topics(&["t", "n"]);
    assert_eq!((world.offsets_of(G), world.offsets_of("s")), ("u/0=1".to_owned(), String::new()));
    assert_eq!(world.show(), "stable 1 range, leader a: a");
}

#[test]
fn what_offsets_may_weigh_is_limited() {
    let mut world = World::new();
    let metadata = "m".repeat(NAME_BYTES_MAX);
    let heavy = |topic: usize| {
        let offsets: Vec<(String, i32, i64)> = (0..500).map(|number| (topic.to_string(), number, 1)).collect();
        let offsets: Vec<(&str, i32, i64)> = offsets.iter().map(|(t, p, o)| (t.as_str(), *p, *o)).collect();
        let mut commit = simple(G, &offsets);
        commit.offsets.iter_mut().for_each(|(_, _, new)| new.metadata.clone_from(&metadata));
        commit
    };
    let refused = (0..20).find_map(|topic| world.commit(heavy(topic)).err().map(|error| (topic, error)));
    assert_eq!(refused, Some((STATE_BYTES_MAX / (500 * NAME_BYTES_MAX), Rejection::CoordinatorFull)));
    assert_eq!(world.commit(heavy(0)), Ok(()), "what is there can be stored again");
    assert_eq!(world.offsets_of(G).split(' ').count(), 8 * 500, "all or nothing");
    let before = world.coordinator.snapshot().len();
    assert!(before > STATE_BYTES_MAX / 2 && before < STATE_BYTES_MAX, "{before}");
    assert_eq!(world.delete_offsets(G, &[("0", 0)]), Ok(vec![Ok(())]));
    assert_eq!(world.commit(simple(G, &[("new", 0, 1)])), Ok(()));
    world.join(Join { protocols: protocols(&["range"]), ..dynamic("a") }).unwrap();
}
