//! Greetings in every order, of disks that were rolled back, and of disks that this node's metadata does not show.

use super::*;
use std::sync::atomic::AtomicU64;

const THERE: Incarnation = Incarnation(22);
/// Node 1, let in.
const FIRST: Admitted = Admitted { node: NodeId(1), incarnation: Incarnation(11) };

struct Known;

impl PeerRegistry for Known {
    fn registered(&self, node: NodeId) -> Option<Registered> {
        Some(Registered { at: LogIndex(0), incarnation: Incarnation(u128::from(node.0) * 11) })
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
        in_doubt: false,
        address: String::new(),
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
    here.check_welcome(NodeId(2), &there.welcome(FIRST)).unwrap();
    here.admit(&early).unwrap();
    here.check_welcome(NodeId(2), &there.welcome(FIRST)).unwrap();

    // So may those of the next process, and what the first one said is still held against it.
    let again = process(2, 3, 12);
    let early = again.welcome(FIRST);
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
    here.check_welcome(NodeId(2), &there.welcome(FIRST)).unwrap();
    let back = process(2, 3, 11);
    // However much it writes since.
    for turn in [11, 12, 13] {
        write(&back, turn);
        for reason in [
            here.admit(&back.hello(NodeId(1))).unwrap_err(),
            here.check_welcome(NodeId(2), &back.welcome(FIRST)).unwrap_err(),
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
    for reason in [
        here.admit(&there.hello(NodeId(1))).unwrap_err(),
        here.check_welcome(NodeId(3), &there.welcome(FIRST)).unwrap_err(),
    ] {
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
    here.check_welcome(NodeId(2), &damaged.welcome(FIRST)).unwrap();
    here.admit(&damaged.hello(NodeId(1))).unwrap();
    write(&damaged, 9);
    here.admit(&damaged.hello(NodeId(1))).unwrap();
    let less = with_losses(1, process(2, 4, 8));
    assert!(here.admit(&less.hello(NodeId(1))).is_err(), "less than the damaged one had");
    assert!(here.admit(&process(2, 4, 20).hello(NodeId(1))).is_err(), "a disk from before the loss");
    here.admit(&with_losses(1, process(2, 5, 9)).hello(NodeId(1))).unwrap();
}

/// The count of an earlier loss was among what is lost now.
#[test]
fn a_process_in_doubt_is_let_in_whatever_it_has_counted() {
    let (here, mut there) = (process(1, 1, 0), process(2, 2, 12));
    there.own.losses = 2;
    here.admit(&there.hello(NodeId(1))).unwrap();
    let mut damaged = process(2, 3, 7);
    damaged.own.losses = 1;
    assert!(here.admit(&damaged.hello(NodeId(1))).is_err());
    damaged.own.in_doubt = true;
    here.admit(&damaged.hello(NodeId(1))).unwrap();
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

/// A copy of the metadata that can grow.
#[derive(Default)]
struct Copy {
    shown: Mutex<BTreeMap<NodeId, Registered>>,
    retired: Mutex<Vec<Incarnation>>,
}

impl Copy {
    fn of(shown: &[(u32, Registered)]) -> Arc<Self> {
        let copy = Self::default();
        shown.iter().for_each(|(node, registered)| copy.shows(*node, *registered));
        Arc::new(copy)
    }

    fn shows(&self, node: u32, registered: Registered) {
        self.shown.lock().unwrap().insert(NodeId(node), registered);
    }
}

impl PeerRegistry for Copy {
    fn registered(&self, node: NodeId) -> Option<Registered> {
        self.shown.lock().unwrap().get(&node).copied().filter(|shown| !self.was_replaced(shown.incarnation))
    }

    fn was_replaced(&self, incarnation: Incarnation) -> bool {
        self.retired.lock().unwrap().contains(&incarnation)
    }
}

const fn disk(incarnation: u128, at: u64) -> Registered {
    Registered { at: LogIndex(at), incarnation: Incarnation(incarnation) }
}

/// The disks of node 3, one after the other.
const A: Registered = disk(31, 10);
const B: Registered = disk(32, 60);
const C: Registered = disk(33, 90);

fn with_copy(node: u32, incarnation: Incarnation, copy: &Arc<Copy>) -> Admission {
    let own = Own { incarnation, address: format!("n{node}:{incarnation}"), ..process(node, 1, 0).own };
    Admission::new(own, Arc::clone(copy) as Arc<dyn PeerRegistry>)
}

/// Node 3 with this disk, whose own copy shows so.
fn third(disk: Registered) -> Admission {
    with_copy(3, disk.incarnation, &Copy::of(&[(3, disk)]))
}

/// Node 1 with this copy, and what it says to node 3 with each of these disks, on the connection that 3 has opened and
/// on the one to it.
fn greeted(here: &Admission, disks: &[Registered]) -> Vec<bool> {
    let let_in = |disk: &Registered| {
        let there = third(*disk);
        let heard = here.admit(&there.hello(NodeId(1))).is_ok();
        assert_eq!(heard, here.check_welcome(NodeId(3), &there.welcome(FIRST)).is_ok(), "{disk:?}");
        assert_eq!(heard, here.knows(Admitted { node: NodeId(3), incarnation: disk.incarnation }), "{disk:?}");
        heard
    };
    disks.iter().map(let_in).collect()
}

fn first(copy: &Arc<Copy>) -> Admission {
    with_copy(1, Incarnation(11), copy)
}

#[test]
fn of_two_disks_of_a_node_the_one_that_was_registered_later_is_let_in() {
    for shown in [&[][..], &[(3, A)]] {
        assert_eq!(greeted(&first(&Copy::of(shown)), &[A, B, A, B]), [true, true, false, true], "{shown:?}");
        assert_eq!(greeted(&first(&Copy::of(shown)), &[B, A]), [true, false], "{shown:?}");
    }
    // A copy that has come further decides.
    assert_eq!(greeted(&first(&Copy::of(&[(3, B)])), &[A, B]), [false, true]);
    assert_eq!(greeted(&first(&Copy::of(&[(3, C)])), &[B, A, C]), [false, false, true]);
}

#[test]
fn what_is_claimed_counts_until_the_own_copy_has_come_as_far() {
    let copy = Copy::of(&[(3, A)]);
    let here = first(&copy);
    assert_eq!(greeted(&here, &[B]), [true]);
    assert_eq!(here.claimants(), [NodeId(3)]);
    assert_eq!(here.claimed_address(NodeId(3)), Some(format!("n3:{}", B.incarnation)));
    copy.shows(3, B);
    assert_eq!((here.claimants(), here.claimed_address(NodeId(3))), (Vec::new(), None));
    copy.shows(3, C);
    assert_eq!(greeted(&here, &[B, C]), [false, true]);
}

#[test]
fn a_replaced_disk_is_refused_whatever_it_claims() {
    let copy = Copy::of(&[]);
    let here = first(&copy);
    assert_eq!(greeted(&here, &[B]), [true]);
    copy.retired.lock().unwrap().push(B.incarnation);
    assert!(!here.knows(Admitted { node: NodeId(3), incarnation: B.incarnation }));
    assert!(here.admit(&third(B).hello(NodeId(1))).unwrap_err().contains("was replaced"));
    assert_eq!(greeted(&here, &[B, C]), [false, true]);
}

#[test]
fn a_disk_that_its_own_copy_does_not_show_claims_nothing() {
    for (shown, own) in [(&[][..], &[][..]), (&[(3, A)], &[]), (&[(3, A)], &[(3, B)])] {
        let here = first(&Copy::of(shown));
        let there = with_copy(3, C.incarnation, &Copy::of(own));
        assert_eq!((there.own_registration(), there.hello(NodeId(1)).registration), (None, None));
        assert!(here.admit(&there.hello(NodeId(1))).is_err());
        let registration = Some(peer::Registration { index: 0, address: "n3".into() });
        assert!(here.admit(&peer::Hello { registration, ..there.hello(NodeId(1)) }).is_err());
        assert!(here.claimants().is_empty());
    }
}

#[test]
fn who_has_lost_its_copy_hears_from_one_node_what_it_may_claim_before_another() {
    let there = with_copy(3, B.incarnation, &Copy::of(&[(1, disk(11, 5))]));
    let (knows, outdated) = (first(&Copy::of(&[(3, B)])), first(&Copy::of(&[(3, A)])));
    assert!(outdated.admit(&there.hello(NodeId(1))).is_err());
    let met = knows.admit(&there.hello(NodeId(1))).unwrap();
    assert!(there.check_welcome(NodeId(1), &knows.welcome(met)).unwrap().knows_us);
    assert_eq!(there.own_registration(), Some(B));
    outdated.admit(&there.hello(NodeId(1))).unwrap();
    assert!(outdated.knows(met));
    // The disk before it hears nothing: it is not let in.
    let before = with_copy(3, A.incarnation, &Copy::of(&[]));
    assert!(knows.admit(&before.hello(NodeId(1))).is_err());
    let met = Admitted { node: NodeId(3), incarnation: A.incarnation };
    assert_eq!(knows.welcome(met).yours, None, "what is said of another disk");
}

#[test]
fn what_a_refused_process_claims_is_not_remembered() {
    let here = first(&Copy::of(&[(3, A)]));
    let mut there = third(B);
    there.own.first_turn = 10;
    write(&there, 10);
    here.admit(&there.hello(NodeId(1))).unwrap();
    let again = third(Registered { at: LogIndex(70), ..B });
    assert!(here.admit(&peer::Hello { life: proto::id_bytes(9), ..again.hello(NodeId(1)) }).is_err(), "rolled back");
    assert_eq!(here.known(NodeId(3)), Some(B));
}

#[test]
fn strangers_fill_no_memory() {
    let here = first(&Copy::of(&[]));
    for node in 2..CLAIMS_MAX as u32 + 100 {
        let copy = Copy::of(&[(node, disk(node.into(), 5))]);
        here.admit(&with_copy(node, Incarnation(node.into()), &copy).hello(NodeId(1))).unwrap();
    }
    assert_eq!(here.claims.borrow().len(), CLAIMS_MAX);
}
