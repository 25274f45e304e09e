//! Whom clients are told to ask.
//!
//! A replica becomes Raft's leader before it can answer: it serves once it has applied an entry of its own term, and
//! only then tells the others. A follower knows earlier whom it has voted for, and does not say so: clients would ask
//! there in vain. What Raft knows beyond the announcements is used for one thing: a leader of an older term is none.

use crate::multiraft::core::effect::Leadership;
use crate::types::{NodeId, Term};

/// The newest leader that serves, and its term: this node, or one that was announced.
pub(super) fn serving(own: NodeId, known: Leadership, announced: Option<(Term, NodeId)>) -> Option<(Term, NodeId)> {
    let here = known.serving.then_some((known.term, own));
    here.max(announced).filter(|(term, _)| *term >= known.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ReplicaId;

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn known(term: u64, leader: Option<NodeId>, serving: bool) -> Leadership {
        Leadership { term: Term(term), leader: leader.map(|node| ReplicaId::new(node, 0)), serving }
    }

    #[test]
    fn a_leader_is_named_once_it_serves() {
        let named = |known, announced| serving(OWN, known, announced);
        let (old, new) = (Some((Term(4), OTHER)), Some((Term(5), OTHER)));
        assert_eq!(named(known(5, Some(OTHER), false), None), None, "elected, as a follower knows, and not serving");
        assert_eq!(named(known(5, Some(OTHER), false), old), None, "nor is it named under its old term");
        assert_eq!(named(known(5, Some(OTHER), false), new), new);
        assert_eq!(named(known(5, None, false), old), None, "the leader of an older term is none");
        assert_eq!(named(known(5, Some(OWN), false), old), None, "elected here, and not serving");
        assert_eq!(named(known(5, Some(OWN), true), old), Some((Term(5), OWN)));
        assert_eq!(named(known(4, Some(OWN), true), new), new, "deposed, and not aware of it");
        assert_eq!(named(Leadership::default(), new), new, "a group that is not hosted here");
    }
}
