//! Each entry of a group's committed log once, in order, whichever replica applies it first.

use crate::observe::Observation;
use ackord::machine::Outcome;
use ackord::types::{LogEntry, LogIndex, RaftGroupId};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct Replay {
    /// The last entry of each group that was applied anywhere.
    last: BTreeMap<RaftGroupId, LogIndex>,
}

impl Replay {
    /// The entry that is applied, with what it came to, if nobody has applied it before.
    pub fn fresh<'a>(&mut self, observation: &Observation<'a>) -> Option<(RaftGroupId, &'a LogEntry, &'a Outcome)> {
        let Observation::Applied { group, entry, outcome, .. } = observation else { return None };
        let last = self.last.entry(*group).or_default();
        if entry.id.index <= *last {
            return None;
        }
        *last = entry.id.index;
        Some((*group, entry, outcome))
    }
}
