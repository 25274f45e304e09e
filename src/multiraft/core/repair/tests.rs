//! Repairs, question by question: what is asked, what is believed, and what is promised in the end.

mod serve;
mod state;

use super::super::effect::{Effect, Input};
use super::super::{BIRTH, Core, CoreOptions, GroupStart, snapshot};
use super::message::{Lack, Lost, RepairBody, RepairMessage};
use crate::raft::{MessageKind, RaftMessage, SnapshotMeta};
use crate::types::{HardState, LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId, Term};
use crate::wal::{Damage, GroupRecovery, Hole, LogChange};
use bytes::Bytes;

const GROUP: RaftGroupId = RaftGroupId(1);
const OWN: ReplicaId = ReplicaId::new(NodeId(1), 0);
const SECOND: ReplicaId = ReplicaId::new(NodeId(2), 0);
const THIRD: ReplicaId = ReplicaId::new(NodeId(3), 0);
const FOURTH: ReplicaId = ReplicaId::new(NodeId(4), 0);

/// A log with entries 2 to 9 of term 3 that has voted for the second in term 4, with this damage.
fn start(damage: Damage) -> GroupStart {
    let hard_state = HardState { term: Term(4), vote: Some(SECOND), commit: LogIndex(7) };
    let (last, terms, damage) = (LogId::new(9, 3), vec![LogId::new(2, 3)], Some(damage));
    let recovery = GroupRecovery { hard_state, start: BIRTH, last, terms, installing: None, damage };
    let membership = Membership::of_voters([OWN, SECOND, THIRD]);
    GroupStart {
        group: GROUP,
        replica: OWN,
        recovery,
        applied: BIRTH,
        membership,
        state_damage: None,
        forgotten: false,
    }
}

fn hole(first: u64, last: u64) -> Damage {
    let hole = Hole { first: LogIndex(first), last: LogIndex(last), anchor: LogId::new(last + 1, 3) };
    Damage { reason: "it rotted".to_owned(), doubt: false, holes: vec![hole] }
}

fn doubt() -> Damage {
    Damage { reason: "a segment is missing".to_owned(), doubt: true, holes: Vec::new() }
}

fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { id: LogId::new(index, term), ..LogEntry::default() }
}

fn core(start: GroupStart) -> Core {
    let mut core = Core::new(CoreOptions { life: 1_000, ..CoreOptions::default() }, vec![start]);
    let quarantined = |effect: &Effect| matches!(effect, Effect::Quarantined { .. });
    assert!(core.poll().iter().any(quarantined), "a damaged replica takes no part");
    core
}

/// Lets time pass until something is asked.
fn questions(core: &mut Core) -> Vec<(ReplicaId, RepairBody)> {
    for _ in 0..11 {
        core.handle(Input::Tick);
        let said = said(core);
        if !said.is_empty() {
            return said;
        }
    }
    panic!("nothing is asked for an election timeout");
}

fn said(core: &mut Core) -> Vec<(ReplicaId, RepairBody)> {
    let message = |effect| match effect {
        Effect::Repair(message) => Some((message.to, message.body)),
        _ => None,
    };
    core.poll().into_iter().filter_map(message).collect()
}

/// Lets time pass until lost entries are asked for.
fn lost(core: &mut Core) -> (ReplicaId, Lost) {
    match questions(core).remove(0) {
        (from, RepairBody::WantEntries(lost)) => (from, lost),
        other => panic!("{other:?}"),
    }
}

fn hear(core: &mut Core, from: ReplicaId, body: RepairBody) {
    core.handle(Input::Repair(RepairMessage { group: GROUP, from, to: OWN, body }));
}

/// The one change that is on its way to the disk, with the hard state beside it.
fn written(core: &mut Core) -> Option<(LogChange, HardState)> {
    announced(core.poll())
}

#[test]
fn a_damaged_replica_says_nothing_to_raft() {
    let mut core = core(start(hole(4, 5)));
    for kind in [MessageKind::RequestVote, MessageKind::RequestPreVote, MessageKind::Append, MessageKind::Heartbeat] {
        let message = RaftMessage { kind, from: SECOND, to: OWN, term: Term(9), ..RaftMessage::default() };
        core.handle(Input::Messages(vec![(GROUP, message)]));
    }
    let speaks = |effect: &Effect| matches!(effect, Effect::Send { .. } | Effect::Append(_));
    assert!(!core.poll().iter().any(speaks));
    (0..100).for_each(|_| core.handle(Input::Tick));
    assert!(!core.poll().iter().any(speaks), "it does not campaign");
}

/// Many groups may be repaired at once, and what they are given waits for the log like everything else.
#[test]
fn what_fills_holes_is_bounded() {
    let groups = [GROUP, RaftGroupId(2)];
    let data = Bytes::from_static(&[7; 100]);
    let entries = [4, 5].map(|index| LogEntry { data: data.clone(), ..entry(index, 3) }).to_vec();
    let give = |core: &mut Core, group, asked: &RepairBody| {
        let RepairBody::WantEntries(Lost { nonce, .. }) = *asked else { panic!("{asked:?}") };
        let body = RepairBody::Entries { nonce, entries: entries.clone() };
        core.handle(Input::Repair(RepairMessage { group, from: SECOND, to: OWN, body }));
    };
    let starts = groups.map(|group| GroupStart { group, ..start(hole(4, 5)) });
    let mut core = Core::new(CoreOptions { queued_bytes_max: 100, ..CoreOptions::default() }, starts.to_vec());
    let asked = questions(&mut core);
    assert_eq!(asked.len(), 2);
    groups.iter().zip(&asked).for_each(|(group, (_, asked))| give(&mut core, *group, asked));
    assert_eq!(core.queued().brought, 200, "the second group's are dropped");
    assert!(written(&mut core).is_some());
    core.handle(Input::Appended);
    assert_eq!(core.queued().brought, 0);
    let asked = questions(&mut core);
    assert_eq!(asked.len(), 1, "it asks again");
    give(&mut core, groups[1], &asked[0].1);
    assert!(written(&mut core).is_some());
}

#[test]
fn only_the_entries_that_were_lost_fill_a_hole() {
    let mut core = core(start(hole(4, 5)));
    let (from, asked) = lost(&mut core);
    let (nonce, anchors) = (asked.nonce, vec![LogId::new(6, 3), LogId::new(9, 3)]);
    assert_eq!((from, asked), (SECOND, Lost { nonce, first: LogIndex(4), last: LogIndex(5), anchors }));
    for wrong in [
        vec![],
        vec![entry(5, 3)],
        vec![entry(4, 2)],
        vec![entry(4, 4)],
        vec![entry(4, 3), entry(6, 3)],
        vec![entry(4, 3), entry(5, 3), entry(6, 3)],
    ] {
        hear(&mut core, SECOND, RepairBody::Entries { nonce, entries: wrong.clone() });
        assert_eq!(written(&mut core), None, "{wrong:?} are not they");
    }
    let entries = vec![entry(4, 3), entry(5, 3)];
    hear(&mut core, SECOND, RepairBody::Entries { nonce: nonce - 1, entries: entries.clone() });
    assert_eq!(written(&mut core), None, "nor is what an earlier question asked for");
    hear(&mut core, SECOND, RepairBody::Entries { nonce, entries });
    let (change, hard_state) = written(&mut core).expect("the entries go to the disk");
    assert_eq!(change, LogChange::Refill(vec![entry(4, 3), entry(5, 3)]));
    assert_eq!(hard_state, start(doubt()).recovery.hard_state, "nothing else is promised");
    assert!(core.replica(GROUP).is_none(), "not before they are durable, and were looked at");
}

fn state(index: u64, term: u64) -> RepairBody {
    let membership = Membership::of_voters([OWN, SECOND, THIRD]);
    RepairBody::State(SnapshotMeta { at: LogId::new(index, term), membership })
}

fn wants_state(body: &RepairBody, from: u64) -> bool {
    matches!(body, RepairBody::WantState { at_least, .. } if *at_least == LogIndex(from))
}

fn announced(effects: Vec<Effect>) -> Option<(LogChange, HardState)> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::Append(turn) => turn.writes.into_iter().next().map(|write| (write.change, write.hard_state)),
        _ => None,
    })
}

fn nobody_has_them(core: &mut Core) {
    let (_, Lost { nonce, .. }) = lost(core);
    for from in [SECOND, THIRD] {
        hear(core, from, RepairBody::NoEntries { nonce, lack: Lack::Released });
    }
}

/// The database had more than the log had left; the next start may find another database.
#[test]
fn promises_that_a_start_finds_lost_stay_in_doubt() {
    let mut short = start(doubt());
    (short.recovery.damage, short.applied) = (None, LogId::new(12, 3));
    let mut core = Core::new(CoreOptions::default(), vec![short]);
    let (change, promise) = written(&mut core).expect("it is written down");
    assert_eq!((change, promise.term, promise.commit), (LogChange::Doubt, Term(4), LogIndex(0)));
}

#[test]
fn promises_that_are_not_known_take_everybodys_term_and_a_confirmed_leader() {
    let mut core = core(start(doubt()));
    let asked = questions(&mut core);
    let RepairBody::WantFloor { nonce } = asked[0].1 else { panic!("{asked:?}") };
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [SECOND, THIRD], "everybody is asked");
    let membership = Membership::of_voters([OWN, SECOND, THIRD]);
    let floor = |nonce, last| RepairBody::Floor { nonce, term: Term(6), last, membership: membership.clone() };
    hear(&mut core, THIRD, floor(nonce - 1, LogIndex(3)));
    hear(&mut core, SECOND, floor(nonce, LogIndex(20)));
    let waits = |core: &mut Core| questions(core).iter().all(|(_, body)| matches!(body, RepairBody::WantFloor { .. }));
    assert!(waits(&mut core), "the third may be a candidate with our vote");
    hear(&mut core, THIRD, RepairBody::Term { nonce: nonce - 1, term: Term(1) });
    assert!(waits(&mut core), "an answer to an earlier question says nothing");
    hear(&mut core, THIRD, RepairBody::Term { nonce, term: Term(8) });
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| wants_state(body, 20)), "{asked:?}");
    let at = LogId::new(21, 6);
    hear(&mut core, SECOND, RepairBody::State(SnapshotMeta { at, membership: membership.clone() }));
    core.handle(Input::SnapshotFetched { group: GROUP, at, generation: Some(2) });
    let (change, hard_state) = written(&mut core).expect("the switch is announced");
    assert_eq!(change, LogChange::Installing { at, generation: 2 });
    assert_eq!((hard_state.term, hard_state.vote), (Term(8), Some(OWN)), "no vote in any term that was said");
    core.handle(Input::Appended);
    core.poll();
    core.handle(Input::SnapshotInstalled { group: GROUP, at: LogId::new(20, 6) });
    assert_eq!(written(&mut core), None, "that was another one");
    core.handle(Input::SnapshotInstalled { group: GROUP, at });
    let (change, hard_state) = written(&mut core).expect("the switch is confirmed");
    assert_eq!(change, LogChange::Installed { at, generation: 2 });
    assert_eq!(hard_state, HardState { term: Term(8), vote: Some(OWN), commit: LogIndex(21) });
}

/// The third is lost with its disk: nobody waits for what it would say once a leader's members are without it.
#[test]
fn promises_to_a_removed_voter_are_not_waited_for() {
    let mut core = core(start(doubt()));
    let asked = questions(&mut core);
    let RepairBody::WantFloor { nonce } = asked[0].1 else { panic!("{asked:?}") };
    let floor = |last, voters: &[ReplicaId]| {
        let membership = Membership::of_voters(voters.iter().copied());
        RepairBody::Floor { nonce, term: Term(6), last: LogIndex(last), membership }
    };
    let wants_floor = |asked: &[(ReplicaId, RepairBody)], of: &[ReplicaId]| {
        asked.iter().all(|(_, body)| matches!(body, RepairBody::WantFloor { .. }))
            && asked.iter().map(|(to, _)| *to).eq(of.iter().copied())
    };
    hear(&mut core, SECOND, floor(20, &[OWN, SECOND, THIRD]));
    assert!(wants_floor(&questions(&mut core), &[SECOND, THIRD]), "the leader is asked again, too");
    hear(&mut core, SECOND, floor(22, &[OWN, SECOND, FOURTH]));
    assert!(wants_floor(&questions(&mut core), &[SECOND, THIRD, FOURTH]), "who came may have our vote");
    hear(&mut core, FOURTH, RepairBody::Term { nonce, term: Term(6) });
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| wants_state(body, 22)), "{asked:?}");
}

/// While this replica was away another took a member's place, and leads by now.
#[test]
fn a_leader_that_is_not_known_here_is_named_by_the_others() {
    let mut core = core(start(doubt()));
    let asked = questions(&mut core);
    let RepairBody::WantFloor { nonce } = asked[0].1 else { panic!("{asked:?}") };
    hear(&mut core, SECOND, RepairBody::Led { by: FOURTH });
    let asked: Vec<_> = questions(&mut core).into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, [SECOND, THIRD, FOURTH]);
    let membership = Membership::of_voters([OWN, SECOND, FOURTH]);
    let floor = RepairBody::Floor { nonce, term: Term(6), last: LogIndex(20), membership };
    hear(&mut core, SECOND, RepairBody::Term { nonce, term: Term(6) });
    hear(&mut core, FOURTH, floor);
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| wants_state(body, 20)), "{asked:?}");
}

/// The third is lost, and the one that is to take its place is damaged before it votes.
#[test]
fn a_learner_has_promised_nothing_to_anybody() {
    let mut core = core(start(doubt()));
    let asked = questions(&mut core);
    let RepairBody::WantFloor { nonce } = asked[0].1 else { panic!("{asked:?}") };
    let membership = Membership { learners: vec![OWN], ..Membership::of_voters([SECOND, THIRD, FOURTH]) };
    hear(&mut core, SECOND, RepairBody::Floor { nonce, term: Term(6), last: LogIndex(20), membership });
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| wants_state(body, 20)), "{asked:?}");
}

/// A replica that has joined knows only itself, until it is told who the others are.
#[test]
fn a_replica_that_knows_only_itself_asks_those_whom_the_controller_names() {
    for membership in [Membership::of_joining(OWN), Membership::of_voters([OWN])] {
        let mut core = core(GroupStart { membership, ..start(doubt()) });
        (0..11).for_each(|_| core.handle(Input::Tick));
        assert_eq!(said(&mut core), [], "there is nobody to ask");
        let membership = Membership::of_voters([OWN, SECOND, THIRD]);
        core.handle(Input::Adopt { group: GROUP, replica: OWN, membership: membership.clone() });
        let asked: Vec<_> = questions(&mut core).into_iter().map(|(to, _)| to).collect();
        assert_eq!(asked, [SECOND, THIRD]);
        let others = Membership::of_voters([OWN, FOURTH]);
        core.handle(Input::Replicas { group: GROUP, replica: OWN, membership: others });
        let asked: Vec<_> = questions(&mut core).into_iter().map(|(to, _)| to).collect();
        assert_eq!(asked, [FOURTH], "those of before may be gone");
    }
}

/// The members that its own state names may all have been replaced while it was away.
#[test]
fn those_whom_the_controller_names_are_asked_beside_those_who_are_known() {
    let mut core = core(start(hole(4, 5)));
    let planned = |members: &[ReplicaId]| Membership::of_voters(members.iter().copied());
    let replicas = |group, replica, members| Input::Replicas { group, replica, membership: planned(members) };
    core.handle(replicas(RaftGroupId(2), OWN, &[OWN, FOURTH]));
    assert!(core.quarantine_reason(RaftGroupId(2)).is_none(), "one that is yet to be born is not forgotten");
    core.handle(replicas(GROUP, OWN, &[OWN, FOURTH]));
    let mut asked: Vec<_> = (0..3).flat_map(|_| questions(&mut core)).map(|(to, _)| to).collect();
    asked.sort_unstable();
    assert_eq!(asked, [SECOND, THIRD, FOURTH]);
    let other = ReplicaId::new(NodeId(1), 1);
    core.handle(replicas(GROUP, other, &[other, SECOND]));
    let asked: Vec<_> = (0..3).flat_map(|_| questions(&mut core)).map(|(to, _)| to).collect();
    assert!(asked.contains(&FOURTH), "what is said of another replica is not about this one");
}

/// A replica that has joined, and has had no snapshot, meets damage: nobody names the members to it again.
#[test]
fn who_has_joined_asks_its_leader() {
    let membership = Membership::of_joining(OWN);
    let mut core = Core::new(CoreOptions { life: 1_000, ..CoreOptions::default() }, Vec::new());
    core.handle(Input::Create { group: GROUP, replica: OWN, membership: membership.clone(), preferred: false });
    core.poll();
    core.handle(Input::Appended);
    let beat = RaftMessage { kind: MessageKind::Heartbeat, from: THIRD, to: OWN, term: Term(6), ..Default::default() };
    core.handle(Input::Messages(vec![(GROUP, beat)]));
    core.handle(Input::ApplyFailed { group: GROUP, reason: "rows are gone".to_owned(), bytes: 0 });
    core.poll();
    core.handle(Input::Examined { group: GROUP, recovery: Some(GroupRecovery::default()), state: None });
    let asked = questions(&mut core);
    assert!(asked.len() == 1 && asked[0].0 == THIRD && wants_state(&asked[0].1, 0), "{asked:?}");
}

/// The state that is here is from before anybody was known, and is looked at again after each step.
#[test]
fn another_look_forgets_nobody_who_was_named() {
    let joining = Membership::of_joining(OWN);
    let start = GroupStart { membership: joining.clone(), ..start(hole(4, 5)) };
    let recovery = start.recovery.clone();
    let mut core = core(start);
    let membership = Membership::of_voters([OWN, SECOND, THIRD]);
    core.handle(Input::Adopt { group: GROUP, replica: OWN, membership });
    assert_eq!(lost(&mut core).0, SECOND);
    let (from, Lost { nonce, .. }) = lost(&mut core);
    assert_eq!(from, THIRD);
    hear(&mut core, THIRD, RepairBody::Entries { nonce, entries: vec![entry(4, 3)] });
    let effects = core.poll();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Append(_))), "{effects:?}");
    core.handle(Input::Appended);
    let mut recovery = recovery;
    recovery.damage = Some(hole(5, 5));
    core.handle(Input::Examined { group: GROUP, recovery: Some(recovery), state: Some((BIRTH, joining)) });
    // Whoever has helped is asked first.
    assert_eq!(lost(&mut core).0, THIRD);
    assert_eq!(lost(&mut core).0, SECOND);
}

/// Between `Installing` and a start, turns were lost: one of them may have been `Installed`, with promises behind it.
#[test]
fn an_installation_is_not_concluded_while_promises_are_in_doubt() {
    let at = LogId::new(12, 4);
    let mut recovery = GroupRecovery { installing: Some((at, 2)), ..start(doubt()).recovery };
    assert_eq!(snapshot::resolve_install(&mut recovery, at), None);
    assert_eq!(recovery.damage, Some(doubt()), "the doubt stands");
    let mut recovery = GroupRecovery { installing: Some((at, 2)), ..start(hole(4, 5)).recovery };
    assert_eq!(snapshot::resolve_install(&mut recovery, at), Some(LogChange::Installed { at, generation: 2 }));
    assert_eq!(recovery.damage, None, "the holes are below the state");
}

/// Its leader has committed what this one has acknowledged, and its log ends before that.
#[test]
fn promises_that_are_found_lost_while_it_takes_part_stay_in_doubt() {
    let mut whole = start(doubt());
    (whole.recovery.damage, whole.applied) = (None, LogId::new(7, 3));
    let mut core = Core::new(CoreOptions::default(), vec![whole]);
    core.poll();
    let (kind, commit) = (MessageKind::Heartbeat, LogIndex(100));
    let beat = RaftMessage { kind, from: SECOND, to: OWN, term: Term(6), commit, ..RaftMessage::default() };
    core.handle(Input::Messages(vec![(GROUP, beat)]));
    let (change, promise) = written(&mut core).expect("it is written down");
    assert_eq!((change, promise.term, promise.commit), (LogChange::Doubt, Term(6), LogIndex(0)));
    assert!(core.quarantine_reason(GROUP).is_some_and(|reason| reason.contains("contradict")));
}

/// One leader after the other answers, the earlier one late and with the longer log.
#[test]
fn the_members_of_the_latest_leader_count() {
    let mut core = core(start(doubt()));
    let asked = questions(&mut core);
    let RepairBody::WantFloor { nonce } = asked[0].1 else { panic!("{asked:?}") };
    let floor = |term, last, members: [ReplicaId; 3]| {
        let membership = Membership::of_voters(members);
        RepairBody::Floor { nonce, term: Term(term), last: LogIndex(last), membership }
    };
    hear(&mut core, SECOND, floor(6, 15, [OWN, SECOND, FOURTH]));
    hear(&mut core, THIRD, floor(5, 20, [OWN, SECOND, THIRD]));
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| matches!(body, RepairBody::WantFloor { .. })), "the fourth has not answered");
    hear(&mut core, FOURTH, RepairBody::Term { nonce, term: Term(6) });
    let asked = questions(&mut core);
    assert!(asked.iter().all(|(_, body)| wants_state(body, 20)), "{asked:?}");
}

/// It was told of the others while it took part; those that it knew itself may be gone when it is damaged.
#[test]
fn what_the_controller_has_said_before_counts_for_a_later_repair() {
    let mut whole = start(doubt());
    (whole.recovery.damage, whole.applied) = (None, LogId::new(9, 3));
    let mut core = Core::new(CoreOptions::default(), vec![whole]);
    let membership = Membership::of_voters([OWN, FOURTH]);
    core.handle(Input::Replicas { group: GROUP, replica: OWN, membership });
    core.handle(Input::ApplyFailed { group: GROUP, reason: "it rotted".to_owned(), bytes: 0 });
    let recovery = Some(start(doubt()).recovery);
    core.handle(Input::Examined { group: GROUP, recovery, state: None });
    let asked: Vec<_> = (0..3).flat_map(|_| questions(&mut core)).map(|(to, _)| to).collect();
    assert!(asked.contains(&FOURTH), "{asked:?}");
}

/// Its promises bind nobody else, so the next start may look again.
#[test]
fn the_only_voter_is_not_put_in_doubt() {
    let mut whole = start(doubt());
    (whole.recovery.damage, whole.applied) = (None, LogId::new(9, 3));
    whole.membership = Membership { learners: vec![SECOND], ..Membership::of_voters([OWN]) };
    let mut core = Core::new(CoreOptions::default(), vec![whole]);
    core.poll();
    let (kind, commit) = (MessageKind::Heartbeat, LogIndex(100));
    let beat = RaftMessage { kind, from: SECOND, to: OWN, term: Term(6), commit, ..RaftMessage::default() };
    core.handle(Input::Messages(vec![(GROUP, beat)]));
    assert!(core.quarantine_reason(GROUP).is_some());
    assert_eq!(written(&mut core), None);
}

/// Its vote is durable, and in the same moment its state turns out to be damaged.
#[test]
fn what_has_not_left_yet_is_not_said_any_more() {
    for is_damaged in [false, true] {
        let mut whole = start(doubt());
        (whole.recovery.damage, whole.applied) = (None, LogId::new(7, 3));
        let mut core = Core::new(CoreOptions::default(), vec![whole]);
        core.poll();
        let (kind, at) = (MessageKind::RequestVote, LogId::new(9, 3));
        let request = RaftMessage { kind, from: SECOND, to: OWN, term: Term(6), ..RaftMessage::default() };
        let request = RaftMessage { log_term: at.term, index: at.index, ..request };
        core.handle(Input::Messages(vec![(GROUP, request)]));
        assert!(written(&mut core).is_some());
        core.handle(Input::Appended);
        if is_damaged {
            core.handle(Input::ApplyFailed { group: GROUP, reason: "it rotted".to_owned(), bytes: 0 });
        }
        let speaks = core.poll().iter().any(|effect| matches!(effect, Effect::Send { .. }));
        assert_eq!(speaks, !is_damaged);
    }
}
