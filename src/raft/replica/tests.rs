//! What a replica does that raft-rs leaves to its user.

use super::*;
use crate::raft::{MemberChange, SnapshotMeta};
use crate::types::NodeId;

/// Takes everything; the number of the last `Ready`.
fn drain(replica: &mut Replica) -> u64 {
    let mut number = 0;
    while let Some(ready) = replica.take_ready().expect("raft goes on") {
        number = ready.number;
    }
    number
}

fn make_durable(replica: &mut Replica) {
    let number = drain(replica);
    replica.persisted(number).expect("raft goes on");
    drain(replica);
}

/// What `from` says in term 2.
fn says(from: ReplicaId, kind: MessageKind, index: u64) -> RaftMessage {
    let to = ReplicaId::new(NodeId(1), 0);
    RaftMessage { kind, from, to, term: Term(2), index: LogIndex(index), ..RaftMessage::default() }
}

fn hear(replica: &mut Replica, message: RaftMessage) {
    replica.step(message).expect("raft goes on");
}

/// Replica 1, elected in term 2 by the second voter; its first entry, 2@2, is committed.
fn leader(voters: &[ReplicaId]) -> Replica {
    leader_with(voters, ReplicaOptions::default())
}

fn leader_with(voters: &[ReplicaId], options: ReplicaOptions) -> Replica {
    let birth = LogId::new(1, 1);
    let start = ReplicaStart {
        group: RaftGroupId(1),
        replica: voters[0],
        hard_state: HardState { term: birth.term, vote: None, commit: birth.index },
        start: birth,
        last: birth,
        terms: Vec::new(),
        applied: birth.index,
        membership: Membership::of_voters(voters.iter().copied()),
    };
    let mut replica = Replica::new(start, options).expect("it fits");
    replica.campaign().expect("raft goes on");
    make_durable(&mut replica);
    for (kind, index) in [
        (MessageKind::RequestPreVoteResponse, 0),
        (MessageKind::RequestVoteResponse, 0),
        (MessageKind::AppendResponse, 2),
    ] {
        hear(&mut replica, says(voters[1], kind, index));
        make_durable(&mut replica);
    }
    assert_eq!((replica.role(), replica.commit()), (Role::Leader, LogIndex(2)));
    replica
}

#[test]
fn a_follower_whose_answer_to_a_snapshot_was_lost_is_spoken_to_again() {
    let [own, second, third] = [1, 2, 3].map(|node| ReplicaId::new(NodeId(node), 0));
    let mut replica = leader(&[own, second, third]);
    replica.log_mut().advance_start(LogIndex(2));
    let membership = Membership::of_voters([own, second, third]);
    replica.log_mut().offer_snapshot(SnapshotMeta { at: LogId::new(2, 2), membership });
    hear(&mut replica, RaftMessage { reject: true, ..says(third, MessageKind::AppendResponse, 1) });
    make_durable(&mut replica);
    let waits = |replica: &Replica| replica.followers().iter().any(|follower| follower.snapshot);
    let beats = |commit| RaftMessage { commit: LogIndex(commit), ..says(third, MessageKind::HeartbeatResponse, 0) };
    assert!(waits(&replica), "it was told of the snapshot");
    hear(&mut replica, beats(1));
    assert!(waits(&replica), "it has not installed it yet");
    hear(&mut replica, beats(2));
    assert!(!waits(&replica));
}

/// It may be a change of members that tells who elects it. Its entries are on the disk only, as after a start.
#[test]
fn a_candidate_hears_from_another_what_is_committed() {
    let voters = [1, 2, 3].map(|node| ReplicaId::new(NodeId(node), 0));
    let (first, last) = (LogId::new(1, 1), LogId::new(9, 1));
    let start = ReplicaStart {
        group: RaftGroupId(1),
        replica: voters[0],
        hard_state: HardState { term: Term(1), vote: None, commit: LogIndex(4) },
        start: first,
        last,
        terms: vec![LogId::new(2, 1)],
        applied: LogIndex(4),
        membership: Membership::of_voters(voters),
    };
    let mut replica = Replica::new(start, ReplicaOptions::default()).expect("it fits");
    replica.campaign().expect("raft goes on");
    drain(&mut replica);
    assert_eq!((replica.role(), replica.log().in_tail(LogIndex(5))), (Role::Candidate, false));
    let asks = RaftMessage {
        log_term: Term(1),
        commit: LogIndex(7),
        commit_term: Term(1),
        ..says(voters[1], MessageKind::RequestPreVote, 7)
    };
    hear(&mut replica, RaftMessage { commit_term: Term(2), ..asks.clone() });
    assert_eq!((replica.role(), replica.commit()), (Role::Candidate, LogIndex(4)), "of entries that it does not have");
    hear(&mut replica, asks);
    assert_eq!((replica.role(), replica.commit()), (Role::Follower, LogIndex(7)));
    assert_eq!(replica.replay_wanted().map(|wanted| (wanted.low.0, wanted.high.0)), Some((5, 8)));
}

/// Otherwise a group in which nothing else is written would wait for ever for a change that nobody has proposed.
#[test]
fn a_change_that_found_no_room_is_not_waited_for() {
    let [own, other, new] = [1, 2, 3].map(|node| ReplicaId::new(NodeId(node), 0));
    let mut replica = leader_with(
        &[own, other],
        ReplicaOptions { max_message_bytes: 5, max_uncommitted_bytes: 10, ..Default::default() },
    );
    let large = replica.propose(vec![(Bytes::new(), Bytes::from_static(&[7; 20]))]).expect("raft goes on");
    assert_eq!(large, Ok(LogId::new(3, 2)));
    let change = MemberChange { learn: vec![new], ..MemberChange::default() };
    assert_eq!(replica.propose_change(&change).expect("raft goes on"), None);
    make_durable(&mut replica);
    hear(&mut replica, says(other, MessageKind::AppendResponse, 3));
    make_durable(&mut replica);
    assert!(!replica.has_pending_change());
    assert_eq!(replica.propose_change(&change).expect("raft goes on"), Some(LogId::new(4, 2)));
}

/// A change that was proposed before may remove the leader, with entries of its own still on their way to its disk.
#[test]
fn a_leader_that_was_removed_steps_down() {
    let [own, other] = [1, 2].map(|node| ReplicaId::new(NodeId(node), 0));
    let mut replica = leader(&[own, other]);
    let reaches = |replica: &mut Replica, index| hear(replica, says(other, MessageKind::AppendResponse, index));
    let change = MemberChange { remove: vec![own], ..MemberChange::default() };
    assert_eq!(replica.propose_change(&change).expect("raft goes on"), Some(LogId::new(3, 2)));
    make_durable(&mut replica);
    let entry = replica.propose(vec![(Bytes::new(), Bytes::new())]).expect("raft goes on");
    assert_eq!(entry, Ok(LogId::new(4, 2)));
    let number = drain(&mut replica);
    reaches(&mut replica, 3);
    drain(&mut replica);
    assert_eq!((replica.commit(), replica.role()), (LogIndex(3), Role::Follower));
    assert_eq!(replica.membership(), &Membership::of_voters([other]));
    replica.persisted(number).expect("what it has written is durable, whoever leads");
}
