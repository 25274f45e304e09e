//! A quarantined replica says nothing: it neither votes nor answers, acknowledges or leads, from the moment at which it
//! is quarantined until it is repaired. What it has promised and what it holds is in doubt until then. What a repair
//! asks and answers is no message of Raft's.

use crate::observe::{Invariant, Observation};
use ackord::types::{NodeId, RaftGroupId};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
pub struct QuarantinedStaySilent {
    /// Replicas that take no part, since their process started or until they were repaired.
    quarantined: BTreeSet<(NodeId, RaftGroupId)>,
}

impl Invariant for QuarantinedStaySilent {
    fn name(&self) -> &'static str {
        "quarantined_stay_silent"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Quarantined { node, group, .. } => {
                self.quarantined.insert((*node, *group));
            }
            Observation::Repaired { node, group, .. } => {
                self.quarantined.remove(&(*node, *group));
            }
            // Each start decides anew, before it says anything.
            Observation::Started { node, .. } | Observation::Crashed { node } => {
                self.quarantined.retain(|(other, _)| other != node);
            }
            Observation::Sent { node, group, message } if self.quarantined.contains(&(*node, *group)) => {
                let (kind, term) = (message.kind, message.term);
                return Err(format!("node {node} is quarantined in group {group} and sends {kind:?} of term {term}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds};
    use super::*;
    use ackord::raft::{MessageKind, RaftMessage};
    use ackord::types::LogId;
    use std::collections::BTreeMap;

    const QUARANTINED: Observation<'_> = Observation::Quarantined { node: NODES[0], group: GROUP, reason: "rust" };

    fn sent(message: &RaftMessage) -> Observation<'_> {
        Observation::Sent { node: NODES[0], group: GROUP, message }
    }

    #[test]
    fn nothing_is_said_in_quarantine() {
        let says = |kind| RaftMessage { kind, ..RaftMessage::default() };
        let kinds = [
            MessageKind::Append,
            MessageKind::AppendResponse,
            MessageKind::RequestVote,
            MessageKind::RequestVoteResponse,
            MessageKind::Heartbeat,
            MessageKind::HeartbeatResponse,
        ];
        for message in kinds.map(says) {
            holds(&mut QuarantinedStaySilent::default(), &[sent(&message)]);
            breaks(&mut QuarantinedStaySilent::default(), &[QUARANTINED, sent(&message)], "is quarantined in group 1");
        }
        let message = says(MessageKind::Heartbeat);
        let of_another = Observation::Sent { node: NODES[1], group: GROUP, message: &message };
        let elsewhere = Observation::Sent { node: NODES[0], group: RaftGroupId(7), message: &message };
        holds(&mut QuarantinedStaySilent::default(), &[QUARANTINED, of_another, elsewhere]);
    }

    #[test]
    fn until_it_is_repaired_or_starts_anew() {
        let (message, nothing, last) = (RaftMessage::default(), BTreeMap::new(), LogId::new(5, 1));
        let repaired = Observation::Repaired { node: NODES[0], group: GROUP, start: last, last };
        holds(&mut QuarantinedStaySilent::default(), &[QUARANTINED, repaired, sent(&message)]);
        let started = |node| Observation::Started { node, groups: &nothing };
        holds(&mut QuarantinedStaySilent::default(), &[QUARANTINED, started(NODES[0]), sent(&message)]);
        let of_another = [QUARANTINED, started(NODES[1]), sent(&message)];
        breaks(&mut QuarantinedStaySilent::default(), &of_another, "is quarantined in group 1");
        let again = [QUARANTINED, started(NODES[0]), QUARANTINED, sent(&message)];
        breaks(&mut QuarantinedStaySilent::default(), &again, "is quarantined in group 1");
    }
}
