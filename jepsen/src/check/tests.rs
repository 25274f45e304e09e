//! Histories made by hand: one that is right in every way, and one for each way to be wrong.

use super::*;
use crate::history::value;
use std::time::Instant;

fn send(producer: u32, counts: std::ops::Range<u32>, outcome: Outcome) -> Send {
    let now = Instant::now();
    // Odd producers are idempotent.
    let sequence = (producer % 2 == 1).then_some(counts.start.cast_signed());
    let values = counts.map(|count| value(producer, count)).collect();
    Send { partition: 0, values, sequence, doubts: 0, sent: now, completed: now, outcome }
}

fn read(from: i64, values: &[Value]) -> Read {
    Read { partition: 0, from, records: (from..).zip(values.iter().copied()).collect(), whole: None }
}

fn whole(values: &[Value]) -> Read {
    Read { whole: Some(values.len() as i64), ..read(0, values) }
}

/// Producer 1 (idempotent): 0 and 1 acknowledged. Producer 2: 0 acknowledged after one doubt, and there twice; 1
/// refused; 2 in doubt and there; 3 in doubt and not there.
fn right() -> History {
    let mut doubted = send(2, 0..1, Outcome::Ok { base_offset: 4 });
    doubted.doubts = 1;
    let mut there = send(2, 2..3, Outcome::Info);
    there.doubts = 1;
    let sends = vec![
        send(1, 0..2, Outcome::Ok { base_offset: 0 }),
        doubted,
        send(2, 1..2, Outcome::Fail),
        there,
        send(2, 3..4, Outcome::Info),
    ];
    let log = [value(1, 0), value(1, 1), value(2, 0), value(2, 2), value(2, 0)];
    History { sends, reads: vec![read(1, &log[1..4]), whole(&log)], complaints: Vec::new() }
}

fn kinds(history: &History) -> Vec<Kind> {
    check(history).iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn nothing_is_wrong_with_what_is_right() {
    assert_eq!(check(&right()), []);
    assert_eq!(right().acknowledged(), 3);
}

#[test]
fn an_acknowledged_record_that_is_not_there_is_lost() {
    let mut history = right();
    history.sends.push(send(1, 2..3, Outcome::Ok { base_offset: 5 }));
    let anomalies = check(&history);
    assert_eq!(anomalies.len(), 1);
    assert_eq!((anomalies[0].kind, anomalies[0].count), (Kind::LostWrite, 1));
}

#[test]
fn a_record_that_was_read_and_is_gone_is_lost() {
    let mut history = right();
    history.sends[4].doubts = 1;
    history.reads.insert(0, read(5, &[value(2, 3)]));
    assert_eq!(kinds(&history), [Kind::LostWrite]);
}

#[test]
fn an_offset_that_was_used_twice_is_inconsistent() {
    let mut history = right();
    history.reads[0].records[2].1 = value(2, 0);
    assert_eq!(kinds(&history), [Kind::InconsistentOffsets]);
}

#[test]
fn a_record_at_another_offset_than_acknowledged_is_inconsistent() {
    let mut history = right();
    history.sends[1].outcome = Outcome::Ok { base_offset: 7 };
    assert_eq!(kinds(&history), [Kind::InconsistentOffsets]);
}

#[test]
fn copies_that_no_attempt_explains_are_duplicates() {
    let mut never_in_doubt = right();
    never_in_doubt.sends[1].doubts = 0;
    assert_eq!(kinds(&never_in_doubt), [Kind::Duplicate]);
    let mut idempotent = right();
    idempotent.sends[1].sequence = Some(0);
    assert!(kinds(&idempotent).contains(&Kind::Duplicate));
    let mut never_sent_again = right();
    never_sent_again.sends[1].outcome = Outcome::Info;
    assert_eq!(kinds(&never_sent_again), [Kind::Duplicate]);
}

#[test]
fn a_refused_record_that_is_read_is_an_aborted_read() {
    let mut history = right();
    history.sends[3].outcome = Outcome::Fail;
    assert_eq!(kinds(&history), [Kind::AbortedRead]);
}

#[test]
fn a_missing_offset_is_a_hole() {
    let mut skipped = right();
    skipped.reads[0].records.remove(1);
    assert_eq!(kinds(&skipped), [Kind::Hole]);
    let mut late = right();
    late.reads[0].from = 0;
    assert_eq!(kinds(&late), [Kind::Hole]);
    let mut short = right();
    short.reads[1].whole = Some(6);
    assert_eq!(kinds(&short), [Kind::Hole]);
}

#[test]
fn a_record_without_a_writer_is_a_phantom() {
    let mut history = right();
    history.sends.remove(3);
    assert_eq!(kinds(&history), [Kind::Phantom]);
}

#[test]
fn idempotent_records_keep_their_order() {
    let mut history = right();
    history.reads.remove(0);
    history.reads[0].records.swap(0, 1);
    let swapped = history.reads[0].records.iter().zip(0..).map(|((_, value), offset)| (offset, *value)).collect();
    history.reads[0].records = swapped;
    history.sends[0].outcome = Outcome::Info;
    assert_eq!(kinds(&history), [Kind::Reordered]);
}

#[test]
fn complaints_are_anomalies() {
    let mut history = right();
    history.complaints.push("refused".to_owned());
    assert_eq!(kinds(&history), [Kind::Complaint]);
}
