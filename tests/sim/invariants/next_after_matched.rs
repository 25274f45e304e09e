//! A leader never goes back behind what a follower has acknowledged: what it sends next comes after that
//! (tikv/raft-rs#557).
//!
//! Nothing is lost where this is broken: the follower has those entries, and takes them for what they are. But the
//! leader would send again what was acknowledged, and read it from the disk for that, or send a whole state in its
//! place once it has let go of them.

use crate::observe::{Invariant, Observation};

/// See the module.
#[derive(Default)]
pub struct NextAfterMatched;

impl Invariant for NextAfterMatched {
    fn name(&self) -> &'static str {
        "next_after_matched"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Progress { node, group, follower, matched, next } if next <= matched => Err(format!(
                "node {node} leads group {group} and sends {follower} entry {next} next, which has {matched} already"
            )),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_leader_goes_on_after_what_is_there() {
    use super::sample::{GROUP, NODES, breaks, holds, replica};
    use ackord::types::LogIndex;
    let progress = |matched, next| {
        let (matched, next) = (LogIndex(matched), LogIndex(next));
        Observation::Progress { node: NODES[0], group: GROUP, follower: replica(NODES[1]), matched, next }
    };
    holds(&mut NextAfterMatched, &[progress(0, 1), progress(4, 5), progress(4, 9)]);
    breaks(&mut NextAfterMatched, &[progress(4, 4)], "which has 4 already");
    breaks(&mut NextAfterMatched, &[progress(4, 2)], "which has 4 already");
}
