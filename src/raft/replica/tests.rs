//! What a replica does that raft-rs leaves to its user.

use super::*;
use crate::raft::MemberChange;
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

/// A change that was proposed before may remove the leader, with entries of its own still on their way to its disk.
#[test]
fn a_leader_that_was_removed_steps_down() {
    let [own, other] = [1, 2].map(|node| ReplicaId::new(NodeId(node), 0));
    let birth = LogId::new(1, 1);
    let start = ReplicaStart {
        group: RaftGroupId(1),
        replica: own,
        hard_state: HardState { term: birth.term, vote: None, commit: birth.index },
        start: birth,
        last: birth,
        terms: Vec::new(),
        applied: birth.index,
        membership: Membership::of_voters([own, other]),
    };
    let mut replica = Replica::new(start, ReplicaOptions::default()).expect("it fits");
    let hear = |replica: &mut Replica, kind, index| {
        let (from, to, term, index) = (other, own, Term(2), LogIndex(index));
        replica.step(RaftMessage { kind, from, to, term, index, ..RaftMessage::default() }).expect("raft goes on");
    };
    replica.campaign().expect("raft goes on");
    make_durable(&mut replica);
    hear(&mut replica, MessageKind::RequestPreVoteResponse, 0);
    make_durable(&mut replica);
    hear(&mut replica, MessageKind::RequestVoteResponse, 0);
    make_durable(&mut replica);
    assert_eq!(replica.role(), Role::Leader);
    hear(&mut replica, MessageKind::AppendResponse, 2);
    make_durable(&mut replica);

    let change = MemberChange { remove: vec![own], ..MemberChange::default() };
    assert_eq!(replica.propose_change(&change).expect("raft goes on"), Some(LogId::new(3, 2)));
    make_durable(&mut replica);
    let entry = replica.propose(vec![(Bytes::new(), Bytes::new())]).expect("raft goes on");
    assert_eq!(entry, Ok(LogId::new(4, 2)));
    let number = drain(&mut replica);
    hear(&mut replica, MessageKind::AppendResponse, 3);
    drain(&mut replica);
    assert_eq!((replica.commit(), replica.role()), (LogIndex(3), Role::Follower));
    assert_eq!(replica.membership(), &Membership::of_voters([other]));
    replica.persisted(number).expect("what it has written is durable, whoever leads");
}
