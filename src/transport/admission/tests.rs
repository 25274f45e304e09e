//! Greetings in every order, and of disks that were rolled back.

use super::*;
use std::sync::atomic::AtomicU64;

const THERE: Incarnation = Incarnation(22);

struct Known;

impl PeerRegistry for Known {
    fn incarnation_of(&self, node: NodeId) -> Option<Incarnation> {
        Some(Incarnation(u128::from(node.0) * 11))
    }

    fn was_replaced(&self, incarnation: Incarnation) -> bool {
        incarnation == Incarnation(33)
    }
}

/// A process on a node's disk; its log goes on.
fn process(node: u32, life: u128, first_turn: u64) -> Admission {
    let own = Own {
        cluster: ClusterId(7),
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node) * 11),
        durable_turn: Arc::new(AtomicU64::new(first_turn)),
        life,
        first_turn,
        losses: 0,
    };
    Admission::new(own, Arc::new(Known))
}

fn write(process: &Admission, turn: u64) {
    process.own.durable_turn.store(turn, Ordering::Release);
}

/// The node that was connected to greets back before the Hello it sent on a connection of its own arrives.
#[test]
fn greetings_of_one_process_may_cross() {
    let (here, there) = (process(1, 1, 0), process(2, 2, 10));
    let early = there.hello(NodeId(1));
    write(&there, 12);
    here.check_welcome(NodeId(2), &there.welcome()).unwrap();
    here.admit(&early).unwrap();
    here.check_welcome(NodeId(2), &there.welcome()).unwrap();

    // So may those of the next process, and what the first one said is still held against it.
    let again = process(2, 3, 12);
    let early = again.welcome();
    write(&again, 20);
    here.admit(&again.hello(NodeId(1))).unwrap();
    here.check_welcome(NodeId(2), &early).unwrap();
    assert!(here.admit(&process(2, 4, 19).hello(NodeId(1))).is_err());
    here.admit(&again.hello(NodeId(1))).expect("a process that was refused changes nothing");
}

#[test]
fn a_process_that_starts_with_less_than_an_earlier_one_had_is_refused() {
    let (here, there) = (process(1, 1, 0), process(2, 2, 10));
    here.admit(&there.hello(NodeId(1))).unwrap();
    write(&there, 12);
    here.check_welcome(NodeId(2), &there.welcome()).unwrap();
    let back = process(2, 3, 11);
    // However much it writes since.
    for turn in [11, 12, 13] {
        write(&back, turn);
        for reason in [
            here.admit(&back.hello(NodeId(1))).unwrap_err(),
            here.check_welcome(NodeId(2), &back.welcome()).unwrap_err(),
        ] {
            assert!(reason.contains("had turn 12 of its log on disk and has started with turn 11"), "{reason}");
        }
    }
    // Not even if the process that knew more was not the last one: what it wrote is missed all the same.
    here.admit(&process(2, 4, 12).hello(NodeId(1))).unwrap();
    assert!(here.admit(&back.hello(NodeId(1))).is_err());
}

#[test]
fn a_disk_that_was_replaced_is_refused_at_both_ends() {
    let (here, there) = (process(1, 1, 0), process(3, 2, 10));
    for reason in
        [here.admit(&there.hello(NodeId(1))).unwrap_err(), here.check_welcome(NodeId(3), &there.welcome()).unwrap_err()]
    {
        assert!(reason.contains("was replaced"), "{reason}");
    }
}

#[test]
fn a_process_that_knows_of_its_losses_is_let_in_and_the_next_is_measured_by_it() {
    let (here, there) = (process(1, 1, 0), process(2, 2, 12));
    here.admit(&there.hello(NodeId(1))).unwrap();
    let with_losses = |losses: u8, mut process: Admission| {
        process.own.losses = losses;
        process
    };
    let damaged = process(2, 3, 7);
    assert!(here.admit(&damaged.hello(NodeId(1))).is_err());
    let damaged = with_losses(1, damaged);
    here.check_welcome(NodeId(2), &damaged.welcome()).unwrap();
    here.admit(&damaged.hello(NodeId(1))).unwrap();
    write(&damaged, 9);
    here.admit(&damaged.hello(NodeId(1))).unwrap();
    let less = with_losses(1, process(2, 4, 8));
    assert!(here.admit(&less.hello(NodeId(1))).is_err(), "less than the damaged one had");
    assert!(here.admit(&process(2, 4, 20).hello(NodeId(1))).is_err(), "a disk from before the loss");
    here.admit(&with_losses(1, process(2, 5, 9)).hello(NodeId(1))).unwrap();
}

/// All of it was repaired while this node was away, which has only met the process before.
#[test]
fn a_loss_that_was_repaired_meanwhile_is_no_disk_that_was_rolled_back() {
    let (here, there) = (process(1, 1, 0), process(2, 2, 12));
    here.admit(&there.hello(NodeId(1))).unwrap();
    let mut repaired = process(2, 5, 9);
    repaired.own.losses = 1;
    here.admit(&repaired.hello(NodeId(1))).unwrap();
}

#[test]
fn a_greeting_that_contradicts_itself_is_refused() {
    let (here, there) = (process(1, 1, 0), process(2, 2, 10));
    let hello = peer::Hello { durable_turn: 9, ..there.hello(NodeId(1)) };
    assert!(here.admit(&hello).unwrap_err().contains("turn 9"));
    assert!(here.admit(&peer::Hello { life: bytes::Bytes::new(), ..there.hello(NodeId(1)) }).is_err());
    assert_eq!(here.seen.lock().unwrap().get(&THERE).map(|seen| seen.turn), None);
}
