//! What a log may do, and what it may not.

use super::super::sample::{GROUP, NODES, append, birth, breaks, entry, hard_state, holds, replica, write};
use super::*;
use ackord::types::LogIndex;
use ackord::wal::Damage;

const ONE: NodeId = NODES[0];

fn persisted(write: &GroupWrite) -> Observation<'_> {
    Observation::Persisted { node: ONE, write }
}

/// A log of entries 2 to 4 of term 2, as a start finds it.
fn found() -> GroupRecovery {
    GroupRecovery {
        hard_state: hard_state(2, None, 1),
        start: LogId::new(1, 1),
        last: LogId::new(4, 2),
        terms: vec![LogId::new(2, 2)],
        ..GroupRecovery::default()
    }
}

fn damage(reason: &str) -> Option<Damage> {
    Some(Damage { reason: reason.to_owned(), ..Damage::default() })
}

/// What a node does with these writes, and then finds that at its next start.
fn restart(writes: &[GroupWrite], writing: &Turn, found: &GroupRecovery, sentence: Option<&str>) {
    let groups = BTreeMap::from([(GROUP, found.clone())]);
    let mut observations: Vec<_> = writes.iter().map(persisted).collect();
    observations.push(Observation::Writing { node: ONE, turn: writing });
    observations.push(Observation::Crashed { node: ONE });
    observations.push(Observation::Started { node: ONE, groups: &groups });
    match sentence {
        None => holds(&mut NoHole::default(), &observations),
        Some(sentence) => breaks(&mut NoHole::default(), &observations, sentence),
    }
}

fn with_commit(mut write: GroupWrite, commit: u64) -> GroupWrite {
    write.hard_state.commit = LogIndex(commit);
    write
}

#[test]
fn appends_continue_or_cut_off() {
    let writes = [birth(), append(2, 2..=4), append(3, 3..=3), append(3, 4..=6)];
    holds(&mut NoHole::default(), &writes.each_ref().map(persisted));
    let hole = [birth(), append(2, 2..=2), append(2, 4..=4)];
    breaks(&mut NoHole::default(), &hole.each_ref().map(persisted), "appends 4@2");
    let inside = write(2, LogChange::Append(vec![entry(2, 2, "a"), entry(4, 2, "b")]));
    breaks(&mut NoHole::default(), &[birth(), inside].each_ref().map(persisted), "appends 4@2 after 2@2");
    let committed = [birth(), append(2, 2..=4), with_commit(write(2, LogChange::None), 3), append(3, 3..=3)];
    let committed = committed.map(|write| if write.hard_state.term.0 == 3 { with_commit(write, 3) } else { write });
    breaks(&mut NoHole::default(), &committed.each_ref().map(persisted), "overwrites entry 3@3");
    let back = |change| {
        [birth(), append(2, 2..=4), with_commit(write(2, LogChange::None), 3), with_commit(write(2, change), 0)]
    };
    breaks(&mut NoHole::default(), &back(LogChange::None).each_ref().map(persisted), "goes back");
    holds(&mut NoHole::default(), &back(LogChange::Doubt).each_ref().map(persisted));
    let beyond = [birth(), with_commit(append(2, 2..=4), 5)];
    breaks(&mut NoHole::default(), &beyond.each_ref().map(persisted), "ends with 4@2");
    let twice = [birth(), birth()];
    breaks(&mut NoHole::default(), &twice.each_ref().map(persisted), "born twice");
    let unborn = [append(2, 2..=2)];
    breaks(&mut NoHole::default(), &unborn.each_ref().map(persisted), "before it is born");
    let ended = [birth(), write(1, LogChange::Tombstone), birth()];
    breaks(&mut NoHole::default(), &ended.each_ref().map(persisted), "after its end");
}

#[test]
fn promises_are_kept() {
    let with_vote = |term, vote| GroupWrite { hard_state: hard_state(term, vote, 1), ..write(term, LogChange::None) };
    let (one, two) = (Some(replica(NODES[0])), Some(replica(NODES[1])));
    let kept = [birth(), with_vote(2, None), with_vote(2, one), with_vote(3, two)];
    holds(&mut NoHole::default(), &kept.each_ref().map(persisted));
    for (term, vote, sentence) in [(2, two, "takes back its vote"), (2, None, "takes back"), (1, one, "goes back")] {
        let broken = [birth(), with_vote(2, one), with_vote(term, vote)];
        breaks(&mut NoHole::default(), &broken.each_ref().map(persisted), sentence);
    }
}

#[test]
fn a_start_finds_what_was_there() {
    let (writes, nothing) = ([birth(), append(2, 2..=4)], Turn::default());
    restart(&writes, &nothing, &found(), None);
    let freed = GroupRecovery { start: LogId::new(3, 2), terms: vec![LogId::new(4, 2)], ..found() };
    restart(&writes, &nothing, &freed, None);
    let later_commit = GroupRecovery { hard_state: hard_state(2, None, 4), ..found() };
    let lost_end = GroupRecovery { last: LogId::new(3, 2), ..found() };
    let lost_vote = GroupRecovery { hard_state: hard_state(1, None, 1), ..found() };
    let lost_front = GroupRecovery { start: LogId::new(3, 1), terms: vec![LogId::new(4, 2)], ..found() };
    let other_terms = GroupRecovery { terms: vec![LogId::new(2, 1), LogId::new(3, 2)], ..found() };
    let damaged = GroupRecovery { damage: damage("rust"), ..found() };
    let wrong = [
        (lost_end, "ends with 3@2 now"),
        (lost_vote, "remembers"),
        (later_commit, "remembers"),
        (lost_front, "begins after 3@1 now"),
        (other_terms, "had terms"),
        (damaged, "nobody damaged it: rust"),
    ];
    for (found, sentence) in wrong {
        restart(&writes, &nothing, &found, Some(sentence));
    }
}

#[test]
fn the_turn_in_flight_is_there_whole_or_not_at_all() {
    let writes = [birth(), append(2, 2..=4)];
    let turn = Turn { writes: vec![append(3, 4..=5)] };
    let whole = GroupRecovery {
        hard_state: hard_state(3, None, 1),
        last: LogId::new(5, 3),
        terms: vec![LogId::new(2, 2), LogId::new(4, 3)],
        ..found()
    };
    restart(&writes, &turn, &found(), None);
    restart(&writes, &turn, &whole, None);
    let half = GroupRecovery { last: LogId::new(4, 3), ..whole };
    restart(&writes, &turn, &half, Some("or, with the turn that was being written"));
}

/// What a damaged group writes in the same turn says nothing of the others.
#[test]
fn the_turn_in_flight_may_hold_a_repair() {
    let other = RaftGroupId(2);
    let whole = GroupRecovery {
        hard_state: hard_state(3, None, 1),
        last: LogId::new(5, 3),
        terms: vec![LogId::new(2, 2), LogId::new(4, 3)],
        ..found()
    };
    let flawed = GroupRecovery { damage: damage("hole"), ..found() };
    let before = BTreeMap::from([(GROUP, found()), (other, flawed.clone())]);
    let after = BTreeMap::from([(GROUP, whole), (other, flawed)]);
    let repair = GroupWrite { group: other, ..append(2, 2..=2) };
    let repair = GroupWrite { change: LogChange::Refill(vec![entry(2, 2, "a")]), ..repair };
    let turn = Turn { writes: vec![repair, append(3, 4..=5)] };
    let observations = [
        Observation::Damaged { node: ONE },
        Observation::Started { node: ONE, groups: &before },
        Observation::Writing { node: ONE, turn: &turn },
        Observation::Crashed { node: ONE },
        Observation::Started { node: ONE, groups: &after },
    ];
    holds(&mut NoHole::default(), &observations);
}

/// A commit index that nothing durable tells of is not to be believed.
#[test]
fn no_commit_comes_from_a_turn_that_is_gone() {
    let writes = [birth(), append(2, 2..=4)];
    let turn = Turn { writes: vec![with_commit(append(3, 5..=5), 4)] };
    let kept = GroupRecovery { hard_state: hard_state(2, None, 4), ..found() };
    restart(&writes, &turn, &kept, Some("remembers"));
}

#[test]
fn groups_neither_vanish_nor_appear() {
    let (birth, none) = (birth(), BTreeMap::new());
    let observations = [persisted(&birth), Observation::Started { node: ONE, groups: &none }];
    breaks(&mut NoHole::default(), &observations, "is not there any more");
    let some = BTreeMap::from([(GROUP, found())]);
    breaks(&mut NoHole::default(), &[Observation::Started { node: ONE, groups: &some }], "was never born");
}

#[test]
fn after_damage_a_node_is_taken_as_it_comes() {
    let (birth, entries) = (birth(), append(2, 2..=4));
    let damaged = BTreeMap::from([(GROUP, GroupRecovery { damage: damage("hole"), ..found() })]);
    let healed = BTreeMap::from([(GROUP, GroupRecovery { last: LogId::new(2, 2), ..found() })]);
    let lost = BTreeMap::from([(GROUP, GroupRecovery { last: LogId::new(1, 1), terms: Vec::new(), ..found() })]);
    let observations = [
        persisted(&birth),
        persisted(&entries),
        Observation::Damaged { node: ONE },
        Observation::Started { node: ONE, groups: &damaged },
        Observation::Started { node: ONE, groups: &healed },
        Observation::Started { node: ONE, groups: &lost },
    ];
    breaks(&mut NoHole::default(), &observations, "ended with entry 2@2 and ends with 1@1 now");
}

#[test]
fn a_repaired_log_is_what_it_was() {
    let recovery = GroupRecovery { damage: damage("hole"), hard_state: hard_state(2, None, 3), ..found() };
    let damaged = BTreeMap::from([(GROUP, recovery)]);
    let start = LogId::new(1, 1);
    let begin = [Observation::Damaged { node: ONE }, Observation::Started { node: ONE, groups: &damaged }];
    let ready = || {
        let mut invariant = NoHole::default();
        holds(&mut invariant, &begin);
        invariant
    };
    let repaired = |index, term| {
        let last = LogId::new(index, term);
        Observation::Repaired { node: ONE, group: GROUP, start, last }
    };
    let refill = write(2, LogChange::Refill(vec![entry(2, 1, "a"), entry(3, 2, "b")]));
    let snapshot = write(2, LogChange::Installed { at: LogId::new(9, 2), generation: 2 });
    holds(&mut ready(), &[persisted(&refill), repaired(4, 2)]);
    holds(&mut ready(), &[persisted(&snapshot), repaired(9, 2)]);
    breaks(&mut ready(), &[persisted(&refill), repaired(3, 2)], "had a log up to 4@2");
    breaks(&mut ready(), &[persisted(&append(2, 5..=5))], "appends while it is damaged");
    let outside = write(2, LogChange::Refill(vec![entry(5, 2, "a")]));
    breaks(&mut ready(), &[persisted(&outside)], "refills 5@2");
    // What was refilled is there again, as it was refilled.
    let found = GroupRecovery { terms: vec![LogId::new(2, 1), LogId::new(3, 2)], ..found() };
    let found = GroupRecovery { hard_state: hard_state(2, None, 3), ..found };
    let again = BTreeMap::from([(GROUP, found)]);
    let (writes, again) = ([persisted(&refill), repaired(4, 2)], Observation::Started { node: ONE, groups: &again });
    holds(&mut ready(), &[writes[0].clone(), writes[1].clone(), again]);
}

#[test]
fn a_refill_brings_what_was_lost() {
    let (right, wrong) = (LogChange::Refill(vec![entry(3, 2, "a")]), LogChange::Refill(vec![entry(3, 3, "a")]));
    let writes = [birth(), append(2, 2..=4), write(2, right)];
    holds(&mut NoHole::default(), &writes.each_ref().map(persisted));
    let writes = [birth(), append(2, 2..=4), write(2, wrong)];
    breaks(&mut NoHole::default(), &writes.each_ref().map(persisted), "which is not what it had there");
}
