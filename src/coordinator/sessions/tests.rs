//! Stories of groups, in virtual time.

use super::*;

const DELAY_MS: u64 = 3_000;
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

/// A group of these members, each with how often the group had been joined when it joined last.
fn group(phase: Phase, generation: i32, members: &[(&str, u64)]) -> Group {
    let member = |(id, joins): &(&str, u64)| {
        let (session_timeout_ms, rebalance_timeout_ms) = (SESSION_MS, REBALANCE_MS);
        let id = (*id).to_owned();
        let member =
            Member { id: id.clone(), session_timeout_ms, rebalance_timeout_ms, joins: *joins, ..Member::default() };
        (id, Arc::new(member))
    };
    let members = members.iter().map(member).collect();
    Group { name: "g".to_owned(), phase, generation, members, ..Group::default() }
}

fn lead(now_ms: u64, group: Group) -> Sessions {
    Sessions::lead(now_ms, DELAY_MS, &[Arc::new(group)])
}

fn expire(members: &[(&str, u64)]) -> Vec<Action> {
    let members = members.iter().map(|(member, joins)| Expired { member: (*member).to_owned(), joins: *joins });
    vec![Action::Expire { group: "g".into(), members: members.collect() }]
}

fn finish(round: u64) -> Vec<Action> {
    vec![Action::FinishJoin { group: "g".into(), round }]
}

/// Everything that is due until then, with the moment at which the sessions asked to be looked at.
fn run(sessions: &mut Sessions, until_ms: u64) -> Vec<(u64, Action)> {
    let mut done = Vec::new();
    while let Some(now_ms) = sessions.next_due().filter(|due_ms| *due_ms <= until_ms) {
        done.extend(sessions.due(now_ms).into_iter().map(|action| (now_ms, action)));
    }
    done
}

/// The first thing that is due, and when.
fn first(sessions: &mut Sessions, until_ms: u64) -> Option<(u64, Action)> {
    run(sessions, until_ms).into_iter().next()
}

#[test]
fn a_silent_member_is_given_up_and_one_that_is_heard_of_is_not() {
    let mut sessions = lead(1_000, group(Phase::Stable, 4, &[("a", 1), ("b", 2)]));
    for now_ms in (2_000..60_000).step_by(3_000) {
        sessions.heard(now_ms, "g", "a");
        let silent = sessions.due(now_ms);
        let expected = if now_ms < 11_000 { Vec::new() } else { expire(&[("b", 2)]) };
        if now_ms == 11_000 {
            assert_eq!(silent, expected);
        }
        assert!(silent.is_empty() || silent == expected, "{now_ms}: {silent:?}");
    }
}

#[test]
fn what_was_not_carried_out_is_said_again() {
    let mut sessions = lead(0, group(Phase::Stable, 4, &[("a", 1)]));
    let said = run(&mut sessions, 14_000);
    let times: Vec<_> = said.iter().map(|(now_ms, _)| *now_ms).collect();
    assert_eq!(times, [10_000, 12_000, 14_000]);
    // Once the group shows it, it is over.
    sessions.observe(14_500, &Arc::new(group(Phase::Empty, 4, &[])));
    assert_eq!(sessions.next_due(), None);
}

#[test]
fn a_new_leader_counts_everybody_as_heard_of() {
    let mut sessions = lead(1_000_000, group(Phase::Stable, 4, &[("a", 1)]));
    assert_eq!(first(&mut sessions, 2_000_000), Some((1_010_000, expire(&[("a", 1)]).remove(0))));
}

#[test]
fn who_waits_for_an_answer_is_there_until_the_connection_drops() {
    let mut sessions = lead(0, group(Phase::Completing, 4, &[("a", 1)]));
    sessions.asked(0, "g", "a");
    sessions.waits("g", "a");
    sessions.waits("g", "a");
    assert_eq!(run(&mut sessions, 200_000), []);
    sessions.stops_waiting(200_000, "g", "a");
    assert_eq!(run(&mut sessions, 300_000), [], "it waits for another answer");
    sessions.stops_waiting(300_000, "g", "a");
    assert_eq!(first(&mut sessions, 400_000), Some((310_000, expire(&[("a", 1)]).remove(0))));
}

#[test]
fn joining_again_counts_as_being_heard_and_a_change_by_others_does_not() {
    let mut sessions = lead(0, group(Phase::Stable, 4, &[("a", 1), ("b", 2)]));
    let preparing = Phase::Preparing { round: 2, first: false };
    sessions.observe(6_000, &Arc::new(group(preparing, 4, &[("a", 3), ("b", 2)])));
    assert_eq!(first(&mut sessions, 15_000), Some((10_000, expire(&[("b", 2)]).remove(0))));
    let has_a = |said: &[(u64, Action)]| {
        let expires_a = |action: &Action| matches!(action, Action::Expire { members, .. } if members[0].member == "a");
        said.iter().any(|(_, action)| expires_a(action))
    };
    assert!(!has_a(&run(&mut sessions, 15_999)));
    assert!(has_a(&run(&mut sessions, 16_000)));
}

#[test]
fn an_id_that_nobody_joins_under_is_given_up() {
    let pending = |ids: &[&str]| {
        let pending = ids.iter().map(|id| (*id).to_owned()).collect();
        Arc::new(Group { pending, ..group(Phase::Stable, 4, &[("a", 1)]) })
    };
    let mut sessions = Sessions::lead(0, DELAY_MS, &[pending(&[])]);
    sessions.waits("g", "a");
    sessions.observe(1_000, &pending(&["p", "q"]));
    sessions.handed_out(1_000, "g", "p", 6_000);
    let said = run(&mut sessions, 46_000);
    assert_eq!(said.first(), Some(&(7_000, expire(&[("p", 0)]).remove(0))));
    let q = said
        .iter()
        .find(|(_, action)| *action == expire(&[("q", 0)])[0] || *action == expire(&[("p", 0), ("q", 0)])[0]);
    assert_eq!(q.map(|(now_ms, _)| *now_ms), Some(46_000), "as long as Java's default if nobody said how long");
    // One that joins in time is a member like any other.
    let mut sessions = Sessions::lead(0, DELAY_MS, &[pending(&["p"])]);
    sessions.observe(5_000, &Arc::new(group(Phase::Stable, 4, &[("a", 1), ("p", 2)])));
    sessions.waits("g", "a");
    assert_eq!(first(&mut sessions, 46_000), Some((15_000, expire(&[("p", 2)]).remove(0))));
}

#[test]
fn a_preparation_takes_as_long_as_its_slowest_member_may() {
    let mut sessions = lead(0, group(Phase::Stable, 4, &[("a", 1)]));
    let preparing = Phase::Preparing { round: 2, first: false };
    let mut next = group(preparing.clone(), 4, &[("a", 2)]);
    sessions.observe(1_000, &Arc::new(next.clone()));
    sessions.waits("g", "a");
    // A slower one comes, and goes again.
    let slow = Member { rebalance_timeout_ms: 90_000, session_timeout_ms: 900_000, joins: 3, ..Member::default() };
    next.members.insert("s".to_owned(), Arc::new(Member { id: "s".to_owned(), ..slow }));
    sessions.observe(2_000, &Arc::new(next.clone()));
    assert_eq!(run(&mut sessions, 90_999), []);
    assert_eq!(first(&mut sessions, 91_000), Some((91_000, finish(2).remove(0))));
    sessions.observe(91_500, &Arc::new(group(preparing, 4, &[("a", 2)])));
    assert_eq!(sessions.due(91_500), finish(2), "the time of those who are left is over");
    assert!(sessions.observe(92_000, &Arc::new(group(Phase::Completing, 5, &[("a", 2)]))), "a generation");
    sessions.asked(92_000, "g", "a");
    assert_eq!(run(&mut sessions, 500_000), []);
}

#[test]
fn an_empty_group_waits_a_moment_and_longer_while_members_arrive() {
    let first_round = Phase::Preparing { round: 1, first: true };
    let mut sessions = Sessions::lead(0, DELAY_MS, &[]);
    sessions.observe(0, &Arc::new(group(first_round.clone(), 0, &[("a", 1)])));
    sessions.waits("g", "a");
    assert_eq!(first(&mut sessions, 3_000), Some((3_000, finish(1).remove(0))), "nobody else came");

    let mut sessions = Sessions::lead(0, DELAY_MS, &[]);
    sessions.observe(0, &Arc::new(group(first_round.clone(), 0, &[("a", 1)])));
    let mut members = vec![("a", 1)];
    let ids: Vec<_> = (0..100).map(|number| format!("m{number:02}")).collect();
    let mut over = None;
    for (id, joins) in ids.iter().zip(2_u64..) {
        let now_ms = joins * 1_000;
        over = first(&mut sessions, now_ms);
        if over.is_some() {
            break;
        }
        members.push((id.as_str(), joins));
        sessions.observe(now_ms, &Arc::new(group(first_round.clone(), 0, &members)));
        members.iter().for_each(|(id, _)| sessions.heard(now_ms, "g", id));
    }
    assert_eq!(over, Some((60_000, finish(1).remove(0))), "until the rebalance timeout, whoever else comes");
}

#[test]
fn static_members_that_may_take_no_time_and_do_not_come_are_not_waited_for_over_and_over() {
    let preparing = |joined| {
        let mut group = group(Phase::Preparing { round: 7, first: false }, 4, &[("a", 1)]);
        for member in group.members.values_mut() {
            let changed = Arc::make_mut(member);
            (changed.instance, changed.rebalance_timeout_ms, changed.joined) = (Some("desk".to_owned()), 0, joined);
        }
        group
    };
    let mut sessions = lead(0, preparing(false));
    let said = run(&mut sessions, SESSION_MS as u64);
    assert_eq!(said, [(SESSION_MS as u64, expire(&[("a", 1)]).remove(0))], "its session ends the group");
    let mut sessions = lead(0, preparing(false));
    assert_eq!(sessions.due(0), []);
    sessions.observe(1_000, &Arc::new(preparing(true)));
    assert_eq!(sessions.due(1_000), finish(7), "it has come");
}

#[test]
fn a_new_leader_gives_a_preparation_its_whole_time() {
    let preparing = Phase::Preparing { round: 7, first: false };
    let mut sessions = lead(500_000, group(preparing, 4, &[("a", 1)]));
    sessions.waits("g", "a");
    assert_eq!(first(&mut sessions, 900_000), Some((560_000, finish(7).remove(0))));
}

#[test]
fn who_does_not_ask_for_its_share_is_given_up_though_it_is_heard_of() {
    let members = [("a", 1), ("b", 2), ("c", 3)];
    let mut sessions = lead(0, group(Phase::Preparing { round: 1, first: false }, 4, &members));
    assert!(sessions.observe(1_000, &Arc::new(group(Phase::Completing, 5, &members))));
    sessions.asked(2_000, "g", "a");
    assert!(!sessions.observe(3_000, &Arc::new(group(Phase::Stable, 5, &members))), "no other generation");
    sessions.asked(4_000, "g", "b");
    members.iter().for_each(|(member, _)| sessions.waits("g", member));
    assert_eq!(first(&mut sessions, 70_000), Some((61_000, expire(&[("c", 3)]).remove(0))));
    // The next preparation ends it: its members are asked for anew.
    sessions.observe(70_000, &Arc::new(group(Phase::Preparing { round: 2, first: false }, 5, &members)));
    assert_eq!(run(&mut sessions, 129_999), []);
}

#[test]
fn of_a_stable_group_a_new_leader_asks_only_that_its_members_are_heard_of() {
    let mut sessions = lead(0, group(Phase::Stable, 5, &[("a", 1)]));
    sessions.waits("g", "a");
    assert_eq!(run(&mut sessions, 1_000_000), []);
}

#[test]
fn a_group_without_members_is_not_kept() {
    let mut sessions = lead(0, group(Phase::Empty, 5, &[]));
    assert_eq!((sessions.groups.len(), sessions.next_due()), (0, None));
    sessions.observe(0, &Arc::new(group(Phase::Stable, 5, &[("a", 1)])));
    sessions.forget("g");
    assert_eq!((sessions.groups.len(), sessions.next_due()), (0, None));
}

#[test]
fn shorter_timeouts_hold_at_once() {
    let mut sessions = lead(0, group(Phase::Stable, 5, &[("a", 1)]));
    let mut quicker = group(Phase::Stable, 5, &[]);
    let member = Member { id: "a".to_owned(), session_timeout_ms: 2_000, joins: 2, ..Member::default() };
    quicker.members.insert("a".to_owned(), Arc::new(member));
    sessions.observe(1_000, &Arc::new(quicker));
    assert_eq!(first(&mut sessions, 20_000), Some((3_000, expire(&[("a", 2)]).remove(0))));
}

/// No deadline of a member, a round or a generation passes unseen, whatever happens in between: against sessions that
/// are written down as the rules say, without timers.
#[test]
fn timers_find_what_a_simple_list_finds() {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let ids: Vec<_> = (0..40).map(|number| format!("m{number}")).collect();
    let mut heard: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    let mut sessions = Sessions::lead(0, DELAY_MS, &[]);
    let (mut now_ms, mut joins) = (0, 0);
    let mut present: Vec<(&str, u64)> = Vec::new();
    let mut expired = 0;
    for _ in 0..20_000 {
        now_ms += next(400);
        let id = ids[next(40) as usize].as_str();
        match next(6) {
            0 => {
                joins += 1;
                present.retain(|(known, _)| *known != id);
                present.push((id, joins));
                heard.entry(id).or_insert((now_ms, 0)).0 = now_ms;
                sessions.observe(now_ms, &Arc::new(group(Phase::Stable, 5, &present)));
            }
            1 => {
                sessions.waits("g", id);
                heard.entry(id).and_modify(|(_, waiting)| *waiting += 1);
            }
            2 => {
                sessions.stops_waiting(now_ms, "g", id);
                heard.entry(id).and_modify(|known| *known = (now_ms, known.1.saturating_sub(1)));
            }
            _ => {
                sessions.heard(now_ms, "g", id);
                heard.entry(id).and_modify(|known| known.0 = now_ms);
            }
        }
        let silent = |(id, _): &(&str, u64)| heard[id].1 == 0 && heard[id].0 + SESSION_MS as u64 <= now_ms;
        let mut expected: Vec<_> = present.iter().filter(|known| silent(known)).copied().collect();
        expected.sort_unstable();
        let mut found: Vec<(String, u64)> = Vec::new();
        for action in sessions.due(now_ms) {
            let Action::Expire { members, .. } = action else { panic!("{action:?}") };
            found.extend(members.into_iter().map(|silent| (silent.member, silent.joins)));
        }
        found.sort_unstable();
        let expected: Vec<_> = expected.into_iter().map(|(id, joins)| (id.to_owned(), joins)).collect();
        assert_eq!(found, expected, "at {now_ms}");
        if !found.is_empty() {
            expired += found.len();
            present.retain(|(id, _)| !found.iter().any(|(silent, _)| silent == id));
            heard.retain(|id, _| !found.iter().any(|(silent, _)| silent == id));
            sessions.observe(now_ms, &Arc::new(group(Phase::Stable, 5, &present)));
        }
        assert!(sessions.timers.len() <= present.len(), "one timer each");
    }
    assert!(expired > 100, "{expired}");
}

/// With 10,000 members a heartbeat touches two maps and no timer, and looking for what is due is bounded.
#[test]
fn ten_thousand_members_are_bounded() {
    let ids: Vec<_> = (0..10_000).map(|number| format!("m{number:05}")).collect();
    let members: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    let mut sessions = lead(0, group(Phase::Stable, 5, &members));
    for now_ms in (0..100_000).step_by(3_000) {
        let timers = sessions.timers.clone();
        ids.iter().for_each(|id| sessions.heard(now_ms, "g", id));
        assert_eq!(sessions.timers, timers, "being heard of moves no timer");
        while sessions.next_due().is_some_and(|due_ms| due_ms <= now_ms) {
            assert_eq!(sessions.due(now_ms), []);
        }
    }
    let mut expired = 0;
    while let [Action::Expire { members, .. }] = &sessions.due(109_500)[..] {
        assert!(members.len() <= TIMERS_PER_CALL_MAX);
        expired += members.len();
    }
    assert_eq!(expired, 10_000);
}
