//! Static members (KIP-345, KIP-814): they come back without an id, and the work stays where it was.

use crate::world::{World, commit, dynamic, fixed, is_in, known, protocols};
use ackord::coordinator::command::{Join, Joined, Rejection};

/// A stable generation of the static members "i-0" (id "a", the leader) and "i-1" (id "b").
fn stable() -> World {
    let mut world = World::new();
    world.join(Join { delay_first: true, ..fixed("i-0", "a") }).unwrap();
    world.join(fixed("i-1", "b")).unwrap();
    world.finish_join(1);
    world.assign_as("a", Some("i-0"), 1, &["a", "b"]).unwrap();
    assert_eq!(world.show(), "stable 1 range, leader a: a b");
    world
}

fn known_fixed(instance: &str, id: &str) -> Join {
    Join { member: id.to_owned(), new_member: "unused".to_owned(), ..fixed(instance, id) }
}

#[test]
fn a_follower_comes_back_and_nothing_stops() {
    let mut world = stable();
    let host = Join { client_host: "/10.0.0.9".to_owned(), two_steps: true, ..fixed("i-1", "c") };
    assert_eq!(world.join(host), is_in("c", 1));
    assert_eq!(world.show(), "stable 1 range, leader a: a c");
    let member = world.member("c");
    assert_eq!((&member.assignment[..], member.generation, &member.client_host[..]), (&b"b"[..], 1, "/10.0.0.9"));
}

#[test]
fn a_leader_comes_back_and_need_not_assign_again() {
    let mut world = stable();
    let skips = Joined::In { member: "c".to_owned(), generation: 1, skip_assignment: true, leader: None };
    assert_eq!(world.join(fixed("i-0", "c")), Ok(skips));
    assert_eq!(world.show(), "stable 1 range, leader c: b c");
    // An older client would take its leadership for a reason to assign: it is told that its old self leads.
    let older = Join { can_skip_assignment: false, ..fixed("i-0", "d") };
    let leader = Some("c".to_owned());
    let told = Joined::In { member: "d".to_owned(), generation: 1, skip_assignment: false, leader };
    assert_eq!(world.join(older), Ok(told));
    assert_eq!(world.show(), "stable 1 range, leader d: b d");
    assert_eq!(world.assign_as("d", Some("i-0"), 1, &[]), Ok(()));
    assert_eq!(world.member("d").assignment, b"a");
}

#[test]
fn the_old_id_is_fenced() {
    let mut world = stable();
    world.join(fixed("i-1", "c")).unwrap();
    let fenced = Err(Rejection::FencedInstance);
    assert_eq!(world.join(known_fixed("i-1", "b")).map(drop), fenced);
    assert_eq!(world.assign_as("b", Some("i-1"), 1, &[]), fenced);
    assert_eq!(world.leave(&[("b", Some("i-1"))]), [fenced]);
    let with_instance = |instance: &str, member| {
        let instance = Some(instance.to_owned());
        ackord::coordinator::command::Commit { instance, ..commit(member, 1, &[("t", 0, 1)]) }
    };
    assert_eq!(world.commit(with_instance("i-1", "b")), fenced);
    assert_eq!(world.commit(with_instance("i-1", "c")), Ok(()));
    assert_eq!(world.commit(with_instance("i-9", "c")), Err(Rejection::UnknownMember));
    // Without the name nobody knows who it was.
    assert_eq!(world.join(known("b")).map(drop), Err(Rejection::UnknownMember));
    assert_eq!(world.assign("b", 1, &[]), Err(Rejection::UnknownMember));
    assert_eq!(world.join(known_fixed("i-9", "c")).map(drop), Err(Rejection::UnknownMember));
    assert_eq!(world.group().check_member("b", Some("i-1")), fenced);
    assert_eq!(world.show(), "stable 1 range, leader a: a c");
}

#[test]
fn one_that_would_change_the_protocol_begins_another_generation() {
    let mut world = stable();
    let other = Join { protocols: protocols(&["sticky", "range"]), ..fixed("i-0", "c") };
    // One vote for each: "range" is first by name, as it was.
    let skips = Joined::In { member: "c".to_owned(), generation: 1, skip_assignment: true, leader: None };
    assert_eq!(world.join(other), Ok(skips));
    let other = Join { protocols: protocols(&["sticky"]), ..fixed("i-1", "d") };
    assert_eq!(world.join(other), is_in("d", 2));
    assert_eq!(world.show(), "preparing(2) 1 range, leader c: c d+");
    world.join(known_fixed("i-0", "c")).unwrap();
    assert_eq!(world.show(), "completing 2 sticky, leader c: c d");
}

#[test]
fn one_that_comes_back_while_the_leader_assigns_begins_another_generation() {
    let mut world = stable();
    world.join(known_fixed("i-0", "a")).unwrap();
    world.join(known_fixed("i-1", "b")).unwrap();
    assert_eq!(world.show(), "completing 2 range, leader a: a b");
    assert_eq!(world.join(fixed("i-1", "c")), is_in("c", 3));
    assert_eq!(world.show(), "preparing(3) 2 range, leader a: a c+");
    // While it is prepared, coming back is joining.
    assert_eq!(world.join(fixed("i-0", "d")), is_in("d", 3));
    assert_eq!(world.show(), "completing 3 range, leader d: c d");
}

#[test]
fn one_that_is_away_keeps_its_place_until_its_session_ends() {
    let mut world = stable();
    world.join(dynamic("x")).unwrap();
    world.finish_join(2);
    assert_eq!(world.show(), "completing 2 range, leader x: a b x", "only who came can lead");
    assert_eq!(world.member("a").generation, 2);
    world.assign("x", 2, &["a", "b", "x"]).unwrap();
    assert_eq!(world.join(fixed("i-0", "c")), is_in("c", 2));
    assert_eq!(world.member("c").assignment, b"a");
    world.leave(&[("x", None)]);
    world.finish_join(3);
    assert_eq!(world.show(), "preparing(4) 2 range, leader b: b c", "nobody came: they are given another round");
    world.expire(&[("b", world.member("b").joins)]);
    assert_eq!(world.show(), "preparing(4) 2 range, leader c: c");
    world.expire(&[("c", world.member("c").joins)]);
    assert_eq!(world.show(), "empty 3 -, leader -:");
}

#[test]
fn administrators_remove_them_by_name() {
    let mut world = stable();
    let unknown = Err(Rejection::UnknownMember);
    assert_eq!(world.leave(&[("", Some("i-1")), ("", Some("i-1")), ("", Some("i-2"))]), [Ok(()), unknown, unknown]);
    assert_eq!(world.show(), "preparing(2) 1 range, leader a: a");
    assert_eq!(world.leave(&[("a", Some("i-0"))]), [Ok(())]);
    assert_eq!(world.show(), "empty 2 -, leader -:");
}

#[test]
fn a_full_group_has_room_for_them_to_come_back() {
    let mut world = stable();
    assert_eq!(world.join(Join { members_max: 2, ..fixed("i-1", "c") }), is_in("c", 1));
    assert_eq!(world.join(Join { members_max: 2, ..fixed("i-2", "d") }), Err(Rejection::GroupFull));
    assert_eq!(world.show(), "stable 1 range, leader a: a c");
}
