//! What is given to replicas that are being repaired, and what is not.

use super::super::message::{Lack, Lost, RepairBody};
use super::{GROUP, OWN, SECOND, THIRD, core, doubt, entry, hear, hole, nobody_has_them, said, start, state};
use crate::multiraft::core::effect::{Effect, Input};
use crate::multiraft::core::{Core, CoreOptions};
use crate::raft::group_log::Wanted;
use crate::raft::{MessageKind, RaftMessage};
use crate::types::{LogId, LogIndex, Term};

/// What is read from the log for the third when it asks for these.
fn read_for(core: &mut Core, first: u64, last: u64, anchor: LogId) -> Option<Wanted> {
    let (first, last) = (LogIndex(first), LogIndex(last));
    hear(core, THIRD, RepairBody::WantEntries(Lost { nonce: 5, first, last, anchors: vec![anchor] }));
    core.poll().into_iter().find_map(|effect| match effect {
        Effect::ReadEntries { wanted, .. } => Some(wanted),
        _ => None,
    })
}

/// What it is told once this entry was read.
fn told(core: &mut Core, wanted: Wanted, index: u64, term: u64) -> Vec<RepairBody> {
    core.handle(Input::EntriesRead { group: GROUP, wanted, result: Ok(vec![entry(index, term)]) });
    said(core).into_iter().map(|(_, body)| body).collect()
}

#[test]
fn the_damaged_give_what_they_have_and_nothing_else() {
    let mut core = core(start(hole(4, 5)));
    assert_eq!(read_for(&mut core, 3, 4, LogId::new(9, 3)), None, "what is lost here, too, is not to be had");
    assert_eq!(read_for(&mut core, 7, 8, LogId::new(9, 2)), None, "nor what is of another history");
    assert!(read_for(&mut core, 7, 8, LogId::new(9, 3)).is_some(), "intact entries are read for others");
}

/// A leader of a later term has put others in their place while the log was read, and the asker's anchor is gone.
#[test]
fn what_was_read_is_passed_on_only_while_it_is_in_the_log() {
    let mut whole = start(doubt());
    (whole.recovery.damage, whole.applied) = (None, LogId::new(7, 3));
    let mut core = Core::new(CoreOptions::default(), vec![whole]);
    core.poll();
    let anchor = LogId::new(9, 3);
    let read = |core: &mut Core| read_for(core, 8, 8, anchor).expect("it is on the disk");
    let wanted = read(&mut core);
    let entries = vec![entry(8, 3)];
    assert_eq!(told(&mut core, wanted, 8, 3), [RepairBody::Entries { nonce: 5, entries }]);
    let wanted = read(&mut core);
    assert_eq!(told(&mut core, wanted, 8, 2), [], "an earlier read's, of what is not there any more");
    let wanted = read(&mut core);
    let append = RaftMessage { kind: MessageKind::Append, from: SECOND, to: OWN, term: Term(6), ..Default::default() };
    let (log_term, index, entries) = (Term(3), LogIndex(7), vec![entry(8, 6), entry(9, 6)]);
    core.handle(Input::Messages(vec![(GROUP, RaftMessage { log_term, index, entries, ..append })]));
    core.poll();
    core.handle(Input::Appended);
    core.poll();
    let lack = Lack::Different;
    assert_eq!(told(&mut core, wanted, 8, 3), [RepairBody::NoEntries { nonce: 5, lack }], "the anchor is gone");
}

/// A state takes the place of its log: what stood there is not looked for any more.
#[test]
fn what_is_about_to_go_is_given_to_nobody() {
    let mut core = core(start(hole(4, 5)));
    let anchor = LogId::new(9, 3);
    let wanted = read_for(&mut core, 7, 7, anchor).expect("it has that one");
    assert_eq!(told(&mut core, wanted, 7, 3).len(), 1);
    let wanted = read_for(&mut core, 7, 7, anchor).expect("and gives it again");
    nobody_has_them(&mut core);
    hear(&mut core, SECOND, state(12, 3));
    core.handle(Input::SnapshotFetched { group: GROUP, at: LogId::new(12, 3), generation: Some(1) });
    core.poll();
    assert_eq!(told(&mut core, wanted, 7, 3), [], "what is being read goes, too");
    assert_eq!(read_for(&mut core, 7, 7, anchor), None);
}
