//! Removals from the front of partitions: what retention decides, and what clients want, little or much.

use super::{Answer, Request};
use crate::chance::{Chance, MILLISECOND};
use crate::sight::{Actor, Sight};
use crate::swarm::Load;
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{GroupKind, Offset, RaftGroupId};

/// What retention keeps of a partition, in bytes: less than a long run with large records writes.
const KEPT_BYTES: u64 = 1 << 20;
/// How soon it looks again when there is nothing to trim, in microseconds.
const LOOK_PAUSE: u64 = 500 * MILLISECOND;

/// See the module.
pub struct Trim {
    /// How much there is to do.
    load: Load,
    /// The faults have stopped.
    is_calm: bool,
}

impl Trim {
    /// Removals from every partition there will be.
    pub fn new(load: Load) -> Self {
        Self { load, is_calm: false }
    }

    fn trim(&self, group: RaftGroupId, sight: &mut dyn Sight) {
        let node = sight.guess(group);
        let Some((start, end)) = sight.bounds(node, group) else { return };
        let length = (end.0 - start.0) as u64;
        let offset = match sight.chance().below(6) {
            0 | 1 => sight.retained_start(node, group, KEPT_BYTES),
            // Most are for little, so that much remains to be lost; some are for what is gone or not there yet.
            2 => Some(Offset(sight.chance().below(end.0 as u64 + 5) as i64)),
            _ => Some(Offset(start.0 + sight.chance().below(1 + length / 4) as i64)),
        };
        if let Some(offset) = offset {
            sight.ask(node, group, Request::Trim { offset });
        }
    }
}

impl Actor for Trim {
    fn woken(&mut self, _tag: u64, sight: &mut dyn Sight) {
        let (low, high) = self.load.trim_pause;
        if self.is_calm || high == 0 {
            return;
        }
        let groups = sight.groups(GroupKind::Partition);
        let Some(count) = Some(groups.len() as u64).filter(|count| *count > 0) else {
            return sight.wake(0, LOOK_PAUSE);
        };
        let group = *sight.chance().pick(&groups);
        self.trim(group, sight);
        let after = sight.chance().between(low / count, high / count);
        sight.wake(0, after.max(1));
    }

    fn answered(&mut self, _ticket: Ticket, _answer: Answer, _sight: &mut dyn Sight) {}

    fn stop(&mut self) {
        self.is_calm = true;
    }

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.is_calm
    }

    fn describe(&self) -> String {
        "trims: nothing is waited for".to_owned()
    }
}
