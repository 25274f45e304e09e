//! What waits leaves in order, within its limits, and a proposal is definite until it leaves.

use super::*;
use crate::multiraft::core::repair::message::{ANCHORS_MAX, Lack, Lost};
use crate::partition::snapshot::SnapshotChunk;
use crate::raft::{MessageKind, SnapshotMeta};
use crate::types::{LogEntry, LogId, LogIndex, Membership, NodeId, Offset, ReplicaId, Term};
use prost::Message;

fn append(entries: usize, bytes: usize) -> (RaftGroupId, RaftMessage) {
    let entry = LogEntry { id: LogId::new(1, 1), data: vec![0; bytes].into(), ..LogEntry::default() };
    (RaftGroupId(1), RaftMessage { entries: vec![entry; entries], ..RaftMessage::default() })
}

/// The sizes of the batches that wait.
fn batches_of(queue: &Queue) -> Vec<usize> {
    let size = |body| match body {
        Body::Raft(batch) => batch.messages.len(),
        other => panic!("not a batch: {other:?}"),
    };
    std::iter::from_fn(|| queue.take()).map(size).collect()
}

#[test]
fn what_waits_together_leaves_together_up_to_a_batch() {
    let queue = Queue::new(QueueLimits::default());
    queue.send(vec![append(1, 1 << 20); 9]);
    queue.send(vec![append(1, 9 << 20), append(0, 0)]);
    assert_eq!(batches_of(&queue), [3, 3, 3, 1, 1]);
    // 256 bytes each: as many fill a batch as it may have.
    queue.send(vec![append(0, 0); BATCH_ITEMS_MAX + 1]);
    assert_eq!(batches_of(&queue), [BATCH_ITEMS_MAX, 1]);
}

#[test]
fn limits_hold_in_bytes_and_in_items() {
    let cost = 1_000 + ITEM_OVERHEAD_BYTES + ELEMENT_OVERHEAD_BYTES;
    let queue = Queue::new(QueueLimits { bytes_max: 3 * cost, items_max: 100 });
    queue.send(vec![append(1, 1_000); 5]);
    assert_eq!(queue.counts(), (2, 3 * cost));
    assert_eq!(batches_of(&queue), [3]);
    queue.send(vec![append(1, 100_000), append(0, 0)]);
    assert_eq!(batches_of(&queue), [1], "something larger than the queue still goes, alone");
    let queue = Queue::new(QueueLimits { items_max: 2, ..QueueLimits::default() });
    queue.send(vec![append(0, 0); 5]);
    assert_eq!((queue.counts().0, batches_of(&queue)), (3, vec![2]));
    queue.send(vec![append(1, ITEM_BYTES_MAX)]);
    assert_eq!(queue.counts(), (4, 0), "no frame could carry it");
}

/// What the queue takes in, the frame can carry.
#[test]
fn nothing_takes_more_on_the_wire_than_it_costs() {
    let most = u64::MAX;
    let entry = LogEntry { id: LogId::new(most, most), data: vec![1; 1 << 20].into(), ..LogEntry::default() };
    let many = vec![ReplicaId(most); 100];
    let membership = Membership {
        voters: many.clone(),
        learners: many.clone(),
        voters_outgoing: many.clone(),
        learners_next: many,
        auto_leave: true,
    };
    let (members, lost) = (membership.clone(), vec![entry.clone(); 3]);
    let message = RaftMessage {
        kind: MessageKind::Snapshot,
        from: ReplicaId(most),
        to: ReplicaId(most),
        term: Term(most),
        log_term: Term(most),
        index: LogIndex(most),
        entries: vec![LogEntry { context: vec![1; 1 << 20].into(), ..entry }; 3],
        commit: LogIndex(most),
        commit_term: Term(most),
        reject: true,
        reject_hint: LogIndex(most),
        request_snapshot: LogIndex(most),
        priority: -1,
        context: vec![1; 1_000].into(),
        snapshot: Some(SnapshotMeta { at: LogId::new(most, most), membership }),
    };
    let batches = vec![(Offset(i64::MAX), Bytes::from(vec![1; 1 << 20])); 3];
    let body = SnapshotBody::Records(SnapshotChunk { log_start: Offset(i64::MAX), batches });
    let (group, from, at, index) = (RaftGroupId(most), ReplicaId(most), LogId::new(most, most), LogIndex(most));
    let repair = |body| Item::Repair(RepairMessage { group, from, to: from, body });
    for item in [
        Item::Raft(group, message),
        Item::Snapshot(SnapshotMessage { group, from, to: from, at, body }),
        repair(RepairBody::WantEntries(Lost {
            nonce: most,
            first: index,
            last: index,
            anchors: vec![at; ANCHORS_MAX],
        })),
        repair(RepairBody::Entries { nonce: most, entries: lost }),
        repair(RepairBody::NoEntries { nonce: most, lack: Lack::Damaged }),
        repair(RepairBody::WantState { at_least: index, committed: LogId::default() }),
        repair(RepairBody::State(SnapshotMeta { at, membership: members.clone() })),
        repair(RepairBody::NoState { applied: index }),
        repair(RepairBody::WantFloor { nonce: most }),
        repair(RepairBody::Led { by: from }),
        repair(RepairBody::Term { nonce: most, term: Term(most) }),
        repair(RepairBody::Floor { nonce: most, term: Term(most), last: index, membership: members }),
        Item::Proposal { id: most, command: vec![1; 1 << 20].into(), timeout: Duration::MAX },
    ] {
        let cost = item.cost();
        let queue = Queue::new(QueueLimits { bytes_max: usize::MAX, items_max: 9 });
        queue.state().proposals.insert(most, Asking { reply: oneshot::channel().0, sent: false });
        assert!(queue.state().put(item, queue.limits));
        let frame = peer::Frame { body: queue.take() };
        assert!(frame.encoded_len() <= cost, "{} > {cost}", frame.encoded_len());
    }
}

#[test]
fn only_the_newest_announcement_of_a_group_waits() {
    let at = |term, node| Announcement { group: RaftGroupId(1), term: Term(term), node: NodeId(node) };
    let queue = Queue::new(QueueLimits::default());
    queue.announce(&[at(5, 1), at(7, 2)]);
    queue.announce(&[at(6, 3)]);
    let newest = peer::LeaderAnnouncement { group: 1, term: 7, node: 2 };
    assert_eq!(queue.take(), Some(Body::Leaders(peer::LeaderAnnouncements { leaders: vec![newest] })));
    assert_eq!(queue.take(), None);
}

#[test]
fn a_proposal_is_definite_until_it_leaves() {
    let unsent = ProposalOutcome::NotProposed { leader: None };
    let queue = Queue::new(QueueLimits::default());
    let propose = || queue.propose(Bytes::from_static(b"do"), Duration::from_secs(1)).unwrap();
    let (id, _) = propose();
    assert_eq!(queue.give_up(id), unsent);
    assert_eq!((queue.take(), queue.counts().1), (None, 0), "it does not leave any more");

    let (id, _) = propose();
    assert!(matches!(queue.take(), Some(Body::Proposal(proposal)) if proposal.id == id));
    assert_eq!(queue.give_up(id), ProposalOutcome::Unknown);
    queue.decided(id, unsent.clone());

    let ((_, mut left), _) = (propose(), queue.take());
    let (_, mut waits) = propose();
    queue.clear();
    assert_eq!(left.try_recv(), Ok(ProposalOutcome::Unknown));
    assert_eq!(waits.try_recv(), Ok(unsent));
}
