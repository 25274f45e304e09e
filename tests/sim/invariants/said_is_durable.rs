//! What a replica says, it has on its disk: the term it speaks in, the vote it asks for or gives, the entries it says
//! that it has (Raft §5.1). Only a leader's entries may be ahead of its own disk (Raft thesis §10.2.1).

use super::durable::Logs;
use crate::observe::{Invariant, Observation};
use ackord::raft::{MessageKind, RaftMessage};
use ackord::types::{LogIndex, NodeId, RaftGroupId, ReplicaId};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct SaidIsDurable {
    /// What every node's logs hold.
    logs: Logs,
    /// How far each of them has reached since its process started: an answer may leave after what it speaks of was cut
    /// off by entries of a later term, which it does not speak for. If those came before it was written, it never is:
    /// its log is what it would be if it had been.
    reached: BTreeMap<(NodeId, RaftGroupId), LogIndex>,
}

impl SaidIsDurable {
    fn reach(&mut self, node: NodeId, group: RaftGroupId) {
        if let Some(log) = self.logs.of(node, group) {
            let reached = self.reached.entry((node, group)).or_default();
            *reached = log.last.index.max(*reached);
        }
    }

    fn check(&self, node: NodeId, group: RaftGroupId, message: &RaftMessage) -> Result<(), String> {
        // These promise nothing.
        if matches!(message.kind, MessageKind::RequestPreVote | MessageKind::RequestPreVoteResponse) {
            return Ok(());
        }
        let log = self.logs.of(node, group).ok_or_else(|| format!("node {node} says {message:?} before its birth"))?;
        let hard_state = log.hard_state;
        let votes_for = |whom: ReplicaId| hard_state.term > message.term || hard_state.vote == Some(whom);
        let was_cut_off = log.last.term > message.term;
        let reached = self.reached.get(&(node, group)).copied().unwrap_or_default();
        let why = match message.kind {
            _ if hard_state.term < message.term => "its term",
            MessageKind::RequestVote if !votes_for(message.from) => "its own vote",
            MessageKind::RequestVoteResponse if !message.reject && !votes_for(message.to) => "its vote",
            MessageKind::AppendResponse if !message.reject && !was_cut_off && reached < message.index => {
                "those entries"
            }
            _ => return Ok(()),
        };
        let (kind, term, index) = (message.kind, message.term, message.index);
        Err(format!(
            "node {node} sends {kind:?} of term {term} and entry {index} in group {group}, and {why} is not durable: \
             {hard_state:?}, entries up to {reached}"
        ))
    }
}

impl Invariant for SaidIsDurable {
    fn name(&self) -> &'static str {
        "said_is_durable"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        self.logs.observe(observation);
        match observation {
            Observation::Started { node, groups } => {
                self.reached.retain(|(other, _), _| other != node);
                groups.keys().for_each(|group| self.reach(*node, *group));
            }
            Observation::Persisted { node, write } => self.reach(*node, write.group),
            Observation::Sent { node, group, message } => self.check(*node, *group, message)?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, append, birth, breaks, holds, replica, write};
    use super::*;
    use ackord::types::{HardState, Term};
    use ackord::wal::{GroupWrite, LogChange};

    fn persisted(write: &GroupWrite) -> Observation<'_> {
        Observation::Persisted { node: NODES[0], write }
    }

    fn sent(message: &RaftMessage) -> Observation<'_> {
        Observation::Sent { node: NODES[0], group: GROUP, message }
    }

    fn says(kind: MessageKind, term: u64, index: u64) -> RaftMessage {
        let (from, to) = (replica(NODES[0]), replica(NODES[1]));
        RaftMessage { kind, from, to, term: Term(term), index: LogIndex(index), ..RaftMessage::default() }
    }

    #[test]
    fn entries_and_terms_are_durable() {
        let (birth, entries, cut) = (birth(), append(2, 2..=4), append(3, 2..=3));
        let answer = says(MessageKind::AppendResponse, 2, 4);
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&entries), sent(&answer)]);
        let late = [persisted(&birth), persisted(&entries), persisted(&cut), sent(&answer)];
        holds(&mut SaidIsDurable::default(), &late);
        let never_written = [persisted(&birth), persisted(&cut), sent(&answer)];
        holds(&mut SaidIsDurable::default(), &never_written);
        let early = says(MessageKind::AppendResponse, 2, 5);
        breaks(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&entries), sent(&early)], "those entries");
        let refusal = RaftMessage { reject: true, ..early };
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&entries), sent(&refusal)]);
        let heartbeat = says(MessageKind::Heartbeat, 3, 0);
        breaks(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&entries), sent(&heartbeat)], "its term");
        breaks(&mut SaidIsDurable::default(), &[sent(&heartbeat)], "before its birth");
        let asks_first = says(MessageKind::RequestPreVote, 3, 0);
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), sent(&asks_first)]);
        let leads = says(MessageKind::Append, 2, 9);
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&entries), sent(&leads)]);
    }

    #[test]
    fn votes_are_durable() {
        let promise = |vote| {
            let hard_state = HardState { term: Term(2), vote, commit: LogIndex(1) };
            GroupWrite { hard_state, ..write(2, LogChange::None) }
        };
        let (birth, none) = (birth(), promise(None));
        let (own, other) = (promise(Some(replica(NODES[0]))), promise(Some(replica(NODES[1]))));
        let (asks, gives) = (says(MessageKind::RequestVote, 2, 1), says(MessageKind::RequestVoteResponse, 2, 0));
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&own), sent(&asks)]);
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&other), sent(&gives)]);
        breaks(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&none), sent(&asks)], "its own vote");
        breaks(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&own), sent(&gives)], "its vote");
        let refuses = RaftMessage { reject: true, ..gives };
        holds(&mut SaidIsDurable::default(), &[persisted(&birth), persisted(&own), sent(&refuses)]);
    }
}
