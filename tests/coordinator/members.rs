//! Dynamic members: joining, generations, assignments, leaving, being given up.

use crate::world::{G, RAFT, World, again, dynamic, is_in, known, protocols, subscription};
use ackord::coordinator::command::{Action, Answer, Join, Rejection};
use ackord::coordinator::group::{Member, Phase};
use ackord::coordinator::{Coordinator, MEMBERS_MAX, NAME_BYTES_MAX, PENDING_MAX, PROTOCOLS_MAX, STATE_BYTES_MAX};
use ackord::machine::codec;
use ackord::storage::{Engine, Family, WriteBatch};

#[test]
fn the_first_generation_waits_for_company() {
    let mut world = World::new();
    assert_eq!(world.join(Join { delay_first: true, ..dynamic("a") }), is_in("a", 1));
    assert_eq!(world.show(), "preparing(1, first) 0 -, leader a: a+");
    assert_eq!(world.join(Join { delay_first: true, ..dynamic("b") }), is_in("b", 1));
    world.finish_join(0);
    world.finish_join(2);
    assert_eq!(world.show(), "preparing(1, first) 0 -, leader a: a+ b+", "other rounds' timeouts are nothing to it");
    world.now_ms = 5000;
    world.finish_join(1);
    assert_eq!(world.show(), "completing 1 range, leader a: a b");
    assert_eq!((world.group().since_ms, world.member("b").generation), (5000, 1));
}

#[test]
fn without_a_delay_whoever_is_there_is_the_generation() {
    let mut world = World::new();
    assert_eq!(world.join(dynamic("a")), is_in("a", 1));
    assert_eq!(world.show(), "completing 1 range, leader a: a");
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let mut world = World::new();
    let two_steps = |id| Join { two_steps: true, ..dynamic(id) };
    assert_eq!(world.join(two_steps("a")), again("a"));
    assert_eq!(world.show(), "empty 0 -, leader -: (a)");
    assert_eq!(world.join(Join { two_steps: true, ..known("a") }), is_in("a", 1));
    world.assign("a", 1, &["a"]).unwrap();
    assert_eq!(world.join(two_steps("b")), again("b"));
    assert_eq!(world.join(two_steps("c")), again("c"));
    assert_eq!(world.show(), "stable 1 range, leader a: a (b) (c)", "an id alone changes nothing");
    // A preparation waits for ids that are out, until they join, leave, or are given up.
    assert_eq!(world.join(known("a")), is_in("a", 2));
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a+ (b) (c)");
    assert_eq!(world.join(known("b")), is_in("b", 2));
    world.expire(&[("c", 1)]);
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a+ b+ (c)");
    world.expire(&[("c", 0)]);
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert_eq!(world.join(known("c")), Err(Rejection::UnknownMember));
    // One that leaves before it has joined.
    world.join(two_steps("d")).unwrap();
    assert_eq!(world.leave(&[("d", None)]), [Ok(())]);
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    // A static name does not go with an id that was handed out.
    world.join(two_steps("e")).unwrap();
    let odd = Join { instance: Some("i".to_owned()), ..known("e") };
    assert_eq!(world.join(odd), Err(Rejection::UnknownMember));
}

#[test]
fn ids_are_not_given_twice_and_not_made_up() {
    let mut world = World::stable(&["a"]);
    world.join(Join { two_steps: true, ..dynamic("b") }).unwrap();
    for id in ["a", "b", ""] {
        assert_eq!(world.join(dynamic(id)), Err(Rejection::UnknownMember));
    }
    assert_eq!(world.join(known("x")), Err(Rejection::UnknownMember));
    let elsewhere = Join { group: "elsewhere".to_owned(), ..known("a") };
    assert_eq!(world.join(elsewhere), Err(Rejection::UnknownMember));
    assert!(!world.coordinator.groups().contains_key("elsewhere"), "what is refused makes no group");
    assert_eq!(world.show(), "stable 1 range, leader a: a (b)");
}

#[test]
fn the_leader_assigns_once_for_all() {
    let mut world = World::stable(&["a"]);
    world.join(dynamic("b")).unwrap();
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a b+");
    assert_eq!(world.assign("a", 1, &["a"]), Err(Rejection::RebalanceInProgress));
    assert_eq!(world.member("a").assignment, b"a", "what it had lasts until the next generation");
    assert_eq!(world.join(known("a")), is_in("a", 2));
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert!(world.member("a").assignment.is_empty());
    assert_eq!(world.assign("a", 1, &["a", "b"]), Err(Rejection::IllegalGeneration));
    assert_eq!(world.assign("x", 2, &["a", "b"]), Err(Rejection::UnknownMember));
    assert_eq!(world.assign("b", 2, &["b"]), Ok(()), "who does not lead only waits");
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert_eq!(world.assign("a", 2, &["a", "stranger"]), Ok(()));
    assert_eq!(world.show(), "stable 2 range, leader a: a b");
    assert_eq!((&world.member("a").assignment[..], &world.member("b").assignment[..]), (&b"a"[..], &b""[..]));
    assert_eq!(world.assign("a", 2, &["b"]), Ok(()));
    assert!(world.member("b").assignment.is_empty(), "the second word does not count");
    let answer = World::new().assign("a", 1, &[]);
    assert_eq!(answer, Err(Rejection::UnknownMember), "no such group");
}

#[test]
fn who_does_not_come_in_time_is_out() {
    let mut world = World::stable(&["a", "b", "c"]);
    world.join(dynamic("d")).unwrap();
    world.join(known("c")).unwrap();
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a b c+ d+");
    world.finish_join(2);
    assert_eq!(world.show(), "completing 2 range, leader d: c d", "the first that came leads");
    assert_eq!(world.join(known("a")), Err(Rejection::UnknownMember));
    assert_eq!(world.assign("a", 2, &[]), Err(Rejection::UnknownMember));
}

#[test]
fn a_leader_that_comes_stays_the_leader() {
    let mut world = World::stable(&["b", "a", "c"]);
    world.join(dynamic("0")).unwrap();
    for id in ["a", "c", "b"] {
        world.join(known(id)).unwrap();
    }
    assert_eq!(world.show(), "completing 2 range, leader b: 0 a b c");
    // One that leaves is followed by who has been there longest.
    world.assign("b", 2, &[]).unwrap();
    world.leave(&[("b", None)]);
    assert_eq!(world.show(), "preparing(3) 2 range, leader 0: 0 a c");
}

#[test]
fn a_member_that_lost_its_answer_asks_again() {
    let mut world = World::stable(&["a", "b"]);
    let joins = world.member("b").joins;
    assert_eq!(world.join(known("b")), is_in("b", 1));
    assert_eq!(world.show(), "stable 1 range, leader a: a b");
    world.expire(&[("b", joins)]);
    assert_eq!(world.show(), "stable 1 range, leader a: a b", "its time ran out before it asked again");
    let changed = Join { protocols: vec![("range".to_owned(), subscription(&["u"]))], ..known("b") };
    assert_eq!(world.join(changed.clone()), is_in("b", 2));
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a b+");
    assert_eq!(world.join(changed.clone()), is_in("b", 2));
    world.join(known("a")).unwrap();
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert_eq!(world.join(changed), is_in("b", 2));
    assert_eq!(world.join(known("a")), is_in("a", 2), "the leader, too, while nothing is assigned");
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert_eq!(world.join(known("b")), is_in("b", 3));
    assert_eq!(world.show(), "preparing(3) 2 range, leader a: a b+", "changed back");
}

#[test]
fn a_leader_that_joins_again_begins_another_generation() {
    let mut world = World::stable(&["a", "b"]);
    assert_eq!(world.join(known("a")), is_in("a", 2));
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a+ b");
}

#[test]
fn members_have_a_protocol_in_common() {
    let mut world = World::new();
    let with = |id, kind: &str, names: &[&str]| Join {
        protocol_type: kind.to_owned(),
        protocols: protocols(names),
        delay_first: true,
        ..dynamic(id)
    };
    assert_eq!(world.join(with("a", "consumer", &[])), Err(Rejection::InconsistentProtocol));
    assert_eq!(world.join(with("a", "", &["x"])), Err(Rejection::InconsistentProtocol));
    assert_eq!(world.show(), "none");
    world.join(with("a", "consumer", &["x", "y", "z"])).unwrap();
    assert_eq!(world.join(with("b", "connect", &["x"])), Err(Rejection::InconsistentProtocol));
    assert_eq!(world.join(with("b", "consumer", &["w"])), Err(Rejection::InconsistentProtocol));
    world.join(with("b", "consumer", &["z", "y"])).unwrap();
    let other = Join { member: "b".to_owned(), ..with("", "consumer", &["x", "w"]) };
    assert_eq!(world.join(other), Err(Rejection::InconsistentProtocol), "nor does a change take the last one away");
    world.join(with("c", "consumer", &["w", "z", "y"])).unwrap();
    world.finish_join(1);
    // Common are y and z; a prefers y, the others z.
    assert_eq!(world.show(), "completing 1 z, leader a: a b c");
    // When all are gone, the group may be of another kind.
    world.leave(&[("a", None), ("b", None), ("c", None)]);
    assert_eq!(world.show(), "empty 2 -, leader -:");
    assert_eq!(world.join(with("d", "connect", &["k"])), is_in("d", 3));
    assert_eq!(world.group().protocol_type.as_deref(), Some("connect"));
    // A name that is there twice is there once.
    let mut world = World::new();
    world.join(with("a", "consumer", &["x", "x"])).unwrap();
    assert_eq!(world.member("a").protocols.len(), 1);
    let many: Vec<String> = (0..=PROTOCOLS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(world.join(with("b", "consumer", &many)), Err(Rejection::InconsistentProtocol));
}

#[test]
fn of_two_protocols_with_as_many_votes_every_replica_takes_the_same() {
    let mut world = World::new();
    world.join(Join { protocols: protocols(&["y", "x"]), delay_first: true, ..dynamic("a") }).unwrap();
    world.join(Join { protocols: protocols(&["x", "y"]), ..dynamic("b") }).unwrap();
    world.finish_join(1);
    assert_eq!(world.show(), "completing 1 x, leader a: a b");
}

#[test]
fn leaving() {
    let mut world = World::stable(&["a", "b", "c"]);
    let gone = Err(Rejection::UnknownMember);
    assert_eq!(world.leave(&[("x", None), ("", None), ("c", None), ("c", None)]), [gone, gone, Ok(()), gone]);
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a b");
    world.join(known("a")).unwrap();
    world.leave(&[("b", None)]);
    assert_eq!(world.show(), "completing 2 range, leader a: a", "the others had joined");
    world.join(dynamic("d")).unwrap();
    world.join(known("a")).unwrap();
    assert_eq!(world.show(), "completing 3 range, leader a: a d");
    world.leave(&[("a", None)]);
    assert_eq!(world.show(), "preparing(4) 3 range, leader d: d");
    world.now_ms += 1;
    world.leave(&[("d", None)]);
    assert_eq!(world.show(), "empty 4 -, leader -:");
    assert_eq!((world.group().since_ms, world.group().protocol_type.as_deref()), (world.now_ms, Some("consumer")));
    world.join(dynamic("e")).unwrap();
    assert_eq!(world.show(), "completing 5 range, leader e: e", "the generation never goes back");
    let mut world = World::new();
    assert_eq!(world.leave(&[("a", None)]), [gone]);
    // The first preparation, too, ends when nobody is left.
    world.join(Join { delay_first: true, ..dynamic("a") }).unwrap();
    world.join(Join { delay_first: true, ..dynamic("b") }).unwrap();
    world.leave(&[("a", None)]);
    assert_eq!(world.show(), "preparing(1, first) 0 -, leader b: b+");
    world.leave(&[("b", None)]);
    assert_eq!(world.show(), "empty 1 -, leader -:");
}

#[test]
fn members_that_are_silent_are_given_up() {
    let mut world = World::stable(&["a", "b", "c"]);
    let (a, b, c) = (world.member("a").joins, world.member("b").joins, world.member("c").joins);
    world.expire(&[("a", a + 9), ("nobody", 1), ("b", 0)]);
    assert_eq!(world.show(), "stable 1 range, leader a: a b c");
    world.expire(&[("a", a), ("b", b)]);
    assert_eq!(world.show(), "preparing(2) 1 range, leader c: c");
    world.join(known("c")).unwrap();
    assert_eq!(world.show(), "completing 2 range, leader c: c");
    world.expire(&[("c", c)]);
    assert_eq!(world.show(), "completing 2 range, leader c: c", "it has joined since");
    world.expire(&[("c", world.member("c").joins)]);
    assert_eq!(world.show(), "empty 3 -, leader -:");
    let elsewhere = Action::Expire { group: "elsewhere".to_owned(), members: Vec::new() };
    assert_eq!(world.run(elsewhere), Answer::Done(Ok(())));
}

#[test]
fn a_full_group_takes_nobody_in_and_throws_nobody_out() {
    let mut world = World::stable(&["a", "b"]);
    let full = |join| Join { members_max: 2, ..join };
    assert_eq!(world.join(full(dynamic("c"))), Err(Rejection::GroupFull));
    assert_eq!(world.join(full(Join { two_steps: true, ..dynamic("c") })), Err(Rejection::GroupFull));
    assert_eq!(world.join(full(known("b"))), is_in("b", 1));
    assert_eq!(world.join(full(known("a"))), is_in("a", 2));
    assert_eq!(world.join(full(known("b"))), is_in("b", 2));
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
}

#[test]
fn a_group_that_became_too_large_keeps_the_first_to_come() {
    let mut world = World::stable(&["a", "b", "c"]);
    let full = |join| Join { members_max: 2, ..join };
    world.join(full(known("a"))).unwrap();
    world.join(full(known("c"))).unwrap();
    assert_eq!(world.join(full(known("c"))), is_in("c", 2));
    assert_eq!(world.join(full(known("x"))), Err(Rejection::GroupFull));
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a+ b c+");
    assert_eq!(world.join(full(known("b"))), Err(Rejection::GroupFull));
    assert_eq!(world.show(), "completing 2 range, leader a: a c");
}

#[test]
fn what_one_group_may_hold_is_limited() {
    let mut world = World::stable(&["a"]);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let longer = [
        Join { group: long.clone(), ..dynamic("b") },
        Join { client_id: long.clone(), ..dynamic("b") },
        Join { instance: Some(long.clone()), ..dynamic("b") },
        Join { protocols: protocols(&["range", &long]), ..dynamic("b") },
        dynamic(&long),
    ];
    for join in longer {
        assert_eq!(world.join(join), Err(Rejection::CoordinatorFull));
    }
    for number in 0..PENDING_MAX {
        world.join(Join { two_steps: true, members_max: u32::MAX, ..dynamic(&format!("p{number}")) }).unwrap();
    }
    let more = Join { two_steps: true, members_max: u32::MAX, ..dynamic("more") };
    assert_eq!(world.join(more), Err(Rejection::GroupFull));
    assert_eq!(world.group().pending.len(), PENDING_MAX);
}

/// Joining so many one by one takes long: their rows are written.
#[test]
fn the_largest_group_is_limited_whatever_the_configuration_says() {
    let mut world = World::stable(&["a"]);
    let (rounds, member) = (world.group().rounds, world.member("a").clone());
    let mut batch = WriteBatch::default();
    for number in 1..MEMBERS_MAX {
        let id = format!("m{number:05}");
        let key = [&RAFT.0.to_be_bytes()[..], b"m\0\x01g\0\x06", id.as_bytes()].concat();
        batch.put(Family::Groups, key, codec::encode(&Member { id, ..member.clone() }));
    }
    world.engine.write(batch).unwrap();
    world.coordinator = Coordinator::open(&world.engine, RAFT).unwrap().expect("it is there");
    let unlimited = |join| Join { members_max: u32::MAX, ..join };
    assert_eq!(world.group().members.len(), MEMBERS_MAX);
    assert_eq!(world.join(unlimited(dynamic("one-more"))), Err(Rejection::GroupFull));
    assert_eq!(world.join(unlimited(known("m00001"))), is_in("m00001", 1));
    world.leave(&[("a", None)]);
    assert_eq!(world.join(unlimited(dynamic("one-more"))), is_in("one-more", 2));
    assert_eq!((world.group().rounds, world.group().members.len()), (rounds + 1, MEMBERS_MAX));
}

#[test]
fn the_whole_state_is_limited() {
    let mut world = World::new();
    let megabytes = |count: usize| vec![("range".to_owned(), vec![0; count << 20])];
    let heavy = |id: &str| Join { group: format!("group-{id}"), protocols: megabytes(8), ..dynamic(id) };
    let mut groups = 0;
    let refused = loop {
        match world.join(heavy(&groups.to_string())) {
            Ok(_) => groups += 1,
            Err(rejection) => break rejection,
        }
    };
    assert_eq!((refused, groups), (Rejection::CoordinatorFull, STATE_BYTES_MAX / (8 << 20) - 1));
    assert_eq!(world.coordinator.groups().len(), groups, "what is refused leaves nothing");
    // What is there already can go on, and be made lighter.
    let id = "0".to_owned();
    let lighter = Join { member: id.clone(), protocols: megabytes(1), ..heavy("0") };
    assert!(world.join(lighter.clone()).is_ok());
    assert!(world.join(Join { member: id, ..heavy("0") }).is_ok());
    assert!(world.join(lighter).is_ok());
    assert!(world.join(dynamic("small")).is_ok());
    assert!(matches!(world.group().phase, Phase::Completing), "{}", world.show());
    assert_eq!(world.group().name, G);
}
