//! Nobody speaks as a replica that was lost with its node's disk: what that one had promised is forgotten, and its
//! number is never given out again.

use crate::observe::{Invariant, Observation};
use ackord::types::{RaftGroupId, ReplicaId};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
pub struct LostStaySilent {
    /// Replicas that were on disks which others have replaced.
    lost: BTreeSet<(RaftGroupId, ReplicaId)>,
}

impl Invariant for LostStaySilent {
    fn name(&self) -> &'static str {
        "lost_stay_silent"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Replaced { replicas, .. } => {
                self.lost.extend(replicas.iter().map(|(group, replica)| (*group, *replica)));
                Ok(())
            }
            Observation::Sent { node, group, message } if self.lost.contains(&(*group, message.from)) => Err(format!(
                "node {node} speaks as {} in group {group}, which was lost with its disk: {:?}",
                message.from, message.kind
            )),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_new_disk_does_not_speak_as_the_old_one() {
    use super::sample::{GROUP, NODES, breaks, holds, replica};
    use ackord::raft::RaftMessage;
    use std::collections::BTreeMap;
    let [old, new] = [replica(NODES[0]), ReplicaId::new(NODES[0], 1)];
    let (of_old, of_new) =
        (RaftMessage { from: old, ..RaftMessage::default() }, RaftMessage { from: new, ..RaftMessage::default() });
    let replicas = BTreeMap::from([(GROUP, old)]);
    let says = |message| Observation::Sent { node: NODES[0], group: GROUP, message };
    let elsewhere = Observation::Sent { node: NODES[0], group: RaftGroupId(7), message: &of_old };
    let replaced = Observation::Replaced { node: NODES[0], replicas: &replicas };
    holds(&mut LostStaySilent::default(), &[says(&of_old), replaced.clone(), says(&of_new), elsewhere]);
    breaks(&mut LostStaySilent::default(), &[replaced, says(&of_new), says(&of_old)], "speaks as 1");
}
