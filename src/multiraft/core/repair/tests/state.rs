//! Which state takes the place of what is lost, and when.

use super::super::message::{RepairBody, RepairMessage};
use super::{
    GROUP, OWN, SECOND, THIRD, announced, core, doubt, hear, hole, nobody_has_them, questions, said, start, state,
    wants_state, written,
};
use crate::multiraft::core::effect::{Effect, Input, ReadFailure};
use crate::multiraft::core::{BIRTH, Core, CoreOptions};
use crate::raft::SnapshotMeta;
use crate::types::{LogId, LogIndex, Membership, NodeId, ReplicaId, Term};
use crate::wal::{Damage, GroupRecovery, Hole, LogChange};

/// What a core that is offered a state does with it, once it is here: the index it had asked for, and the effects.
fn offered(core: &mut Core, index: u64, term: u64) -> (LogIndex, Vec<Effect>) {
    let (from, wanted) = questions(core).remove(0);
    let RepairBody::WantState { at_least, .. } = wanted else { panic!("{wanted:?}") };
    hear(core, from, state(index, term));
    core.poll();
    core.handle(Input::SnapshotFetched { group: GROUP, at: LogId::new(index, term), generation: Some(2) });
    (at_least, core.poll())
}

fn is_switch(effect: &Effect) -> bool {
    matches!(effect, Effect::InstallSnapshot { .. })
}

#[test]
fn a_hole_that_nobody_can_fill_takes_a_state_from_behind_it() {
    let mut core = core(start(hole(4, 5)));
    nobody_has_them(&mut core);
    hear(&mut core, SECOND, state(5, 3));
    assert!(said(&mut core).is_empty(), "entry 5 is lost itself: what it was is not known");
    let (at_least, effects) = offered(&mut core, 6, 3);
    assert_eq!(at_least, LogIndex(6));
    let change = announced(effects).map(|(change, _)| change);
    assert_eq!(change, Some(LogChange::None), "entries 7 to 9 are here, and need no leader to be written anew");
    core.handle(Input::Appended);
    assert!(core.poll().iter().any(is_switch));
    core.handle(Input::SnapshotInstalled { group: GROUP, at: LogId::new(6, 3) });
    let released = |effect: &Effect| matches!(effect, Effect::Release(groups) if *groups == [(GROUP, LogIndex(7))]);
    assert!(core.poll().iter().any(released), "the log stays, but for what was lost");
    let mut whole = start(doubt());
    (whole.recovery.damage, whole.recovery.start) = (None, LogId::new(6, 3));
    let found = Some((LogId::new(6, 3), whole.membership));
    core.handle(Input::Examined { group: GROUP, recovery: Some(whole.recovery), state: found });
    assert_eq!(core.replica(GROUP).expect("it takes part again").log().last(), LogId::new(9, 3));
}

/// So it can't be that entries 8 and 9 are ever committed as they are here.
#[test]
fn a_log_that_has_another_entry_where_a_state_ends_begins_anew() {
    let mut core = core(start(hole(4, 5)));
    nobody_has_them(&mut core);
    let (_, effects) = offered(&mut core, 8, 5);
    let (change, hard_state) = announced(effects).expect("the switch is announced");
    assert_eq!(change, LogChange::Installing { at: LogId::new(8, 5), generation: 2 });
    assert_eq!((hard_state.term, hard_state.vote), (Term(4), Some(SECOND)), "promises stand");
}

/// It may be committed with our word.
#[test]
fn a_last_entry_that_is_lost_takes_a_state_at_or_above_it() {
    let damage = Damage { holes: vec![Hole { anchor: LogId::new(9, 3), ..hole(8, 9).holes[0] }], ..hole(8, 9) };
    let mut core = core(start(damage));
    nobody_has_them(&mut core);
    let (at_least, effects) = offered(&mut core, 9, 3);
    assert_eq!(at_least, LogIndex(9));
    let (change, _) = announced(effects).expect("the log begins anew behind it");
    assert_eq!(change, LogChange::Installing { at: LogId::new(9, 3), generation: 2 });
}

/// The other one of two voters has the entry, and nobody to say that it is committed. It can't have been written again.
#[test]
fn what_is_known_to_be_committed_counts_where_it_is_asked_for() {
    let mut lost = start(doubt());
    (lost.recovery.damage, lost.state_damage) = (None, Some("it rotted".to_owned()));
    let asked = questions(&mut core(lost.clone())).remove(0).1;
    let at_least = BIRTH.index;
    assert_eq!(
        asked,
        RepairBody::WantState { at_least, committed: BIRTH },
        "whose log ends before 7 can tell that one"
    );
    let holes = hole(8, 8).holes;
    lost.recovery.damage = Some(Damage { holes, ..hole(8, 8) });
    let asked = questions(&mut core(lost)).remove(0).1;
    let wanted = RepairBody::WantState { at_least: LogIndex(9), committed: LogId::new(7, 3) };
    assert_eq!(asked, wanted, "more is not known");
    for (committed, known) in [(LogId::new(9, 3), 9), (LogId::new(9, 4), 7), (LogId::new(10, 3), 7)] {
        let mut whole = start(doubt());
        (whole.recovery.damage, whole.applied) = (None, LogId::new(7, 3));
        let mut core = Core::new(CoreOptions::default(), vec![whole]);
        hear(&mut core, SECOND, RepairBody::WantState { at_least, committed });
        core.poll();
        assert_eq!(core.replica(GROUP).expect("it takes part").commit(), LogIndex(known), "{committed}");
    }
}

/// The other one of two voters may have less in its state than this one has in its log, and no leader without it.
#[test]
fn a_whole_log_goes_on_from_any_state_that_it_reaches() {
    let mut lost = start(doubt());
    (lost.recovery.damage, lost.state_damage) = (None, Some("it rotted".to_owned()));
    let mut core = core(lost);
    let (at_least, effects) = offered(&mut core, 2, 3);
    assert_eq!(at_least, BIRTH.index);
    assert!(!effects.iter().any(is_switch), "the next start goes by what the log says is needed");
    let kept = |effect: &Effect| matches!(effect, Effect::Release(groups) if *groups == [(GROUP, LogIndex(0))]);
    assert!(effects.iter().any(kept));
    assert_eq!(announced(effects).map(|(change, _)| change), Some(LogChange::None));
    core.handle(Input::Appended);
    assert!(core.poll().iter().any(is_switch));
}

/// A flush of the state that was lost since had let go of what the next one has to take in. Promises are whole.
#[test]
fn entries_that_were_freed_before_they_were_applied_take_a_state() {
    let mut older = start(doubt());
    older.recovery.damage = None;
    let mut core = Core::new(CoreOptions::default(), vec![older]);
    let wanted = core.poll().into_iter().find_map(|effect| match effect {
        Effect::ReadEntries { wanted, .. } => Some(wanted),
        _ => None,
    });
    let wanted = wanted.expect("the state takes in what is committed");
    let first = LogIndex(6);
    core.handle(Input::EntriesRead { group: GROUP, wanted, result: Err(ReadFailure::Released { first }) });
    assert_eq!(written(&mut core), None, "nothing is in doubt");
    let mut found = start(doubt());
    (found.recovery.damage, found.recovery.start) = (None, LogId::new(5, 3));
    let state = Some((BIRTH, found.membership));
    core.handle(Input::Examined { group: GROUP, recovery: Some(found.recovery), state });
    assert!(wants_state(&questions(&mut core)[0].1, 5));
}

/// The replica has the place of one that was lost with the node's last disk, and its state is lost, too.
#[test]
fn a_state_from_before_the_replica_joined_is_not_taken() {
    let own = ReplicaId::new(NodeId(1), 1);
    let mut lost = start(Damage::default());
    (lost.recovery, lost.replica, lost.state_damage) = (GroupRecovery::default(), own, Some("gone".to_owned()));
    let mut core = core(lost);
    assert!(questions(&mut core).iter().all(|(_, body)| matches!(body, RepairBody::WantState { .. })));
    let offer = |members: &[ReplicaId]| {
        let membership = Membership::of_voters(members.iter().copied());
        let body = RepairBody::State(SnapshotMeta { at: LogId::new(5, 2), membership });
        Input::Repair(RepairMessage { group: GROUP, from: SECOND, to: own, body })
    };
    let fetches = |core: &mut Core| core.poll().iter().any(|effect| matches!(effect, Effect::FetchSnapshot { .. }));
    core.handle(offer(&[OWN, SECOND, THIRD]));
    assert!(!fetches(&mut core));
    core.handle(offer(&[own, SECOND, THIRD]));
    assert!(fetches(&mut core));
}

/// The first one is found damaged while its announcement is on its way to the disk, and another is here by then.
#[test]
fn what_announces_one_state_does_not_count_for_another() {
    let mut lost = start(doubt());
    (lost.recovery.damage, lost.state_damage) = (None, Some("it rotted".to_owned()));
    let mut core = core(lost);
    let (_, effects) = offered(&mut core, 2, 3);
    assert!(announced(effects).is_some());
    core.handle(Input::ApplyFailed { group: GROUP, reason: "that one, too".to_owned(), bytes: 0 });
    hear(&mut core, THIRD, state(5, 3));
    core.handle(Input::SnapshotFetched { group: GROUP, at: LogId::new(5, 3), generation: Some(3) });
    let switches = |core: &mut Core| core.poll().iter().any(is_switch);
    assert!(!switches(&mut core));
    core.handle(Input::Appended);
    assert!(!switches(&mut core), "its own announcement is not durable yet");
    core.handle(Input::Appended);
    assert!(switches(&mut core));
}
