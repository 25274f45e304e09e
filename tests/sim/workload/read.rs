//! Readers of partitions. One kind follows the end: it reads on from where it stopped, or from the log start if that
//! has moved past it. The other asks a majority where the log ends, and reads some range.

use super::{Answer, Request, Seen};
use crate::chance::{Chance, MILLISECOND};
use crate::sight::{Actor, Sight};
use crate::swarm::Load;
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{GroupKind, Offset, RaftGroupId};
use std::collections::BTreeMap;

/// How often it looks for new partitions, in microseconds.
const LOOK_PAUSE: u64 = 500 * MILLISECOND;

/// A reader.
struct Reader {
    /// Of which partition.
    group: RaftGroupId,
    /// It reads to the end; otherwise it asks where that is.
    follows: bool,
    /// The next offset to be read.
    next: Offset,
    /// The question that is on its way.
    ticket: Option<Ticket>,
    /// Its partition is gone.
    is_gone: bool,
    /// It has been answered since the faults stopped.
    has_ended: bool,
}

/// See the module.
pub struct Read {
    /// How much there is to do.
    load: Load,
    /// The readers, by tag − 1.
    readers: Vec<Reader>,
    /// Who has asked.
    asked: BTreeMap<Ticket, usize>,
    /// The faults have stopped.
    is_calm: bool,
}

impl Read {
    /// Readers of every partition there will be.
    pub fn new(load: Load) -> Self {
        Self { load, readers: Vec::new(), asked: BTreeMap::new(), is_calm: false }
    }

    fn look(&mut self, sight: &mut dyn Sight) {
        for group in sight.groups(GroupKind::Partition) {
            if self.readers.iter().any(|reader| reader.group == group) {
                continue;
            }
            for follows in [true, false] {
                let (next, ticket, is_gone, has_ended) = (Offset(0), None, false, false);
                self.readers.push(Reader { group, follows, next, ticket, is_gone, has_ended });
                sight.wake(self.readers.len() as u64, 0);
            }
        }
    }

    fn read(&mut self, place: usize, sight: &mut dyn Sight) {
        let reader = &mut self.readers[place];
        let has_nothing_to_ask = reader.ticket.is_some() || (self.is_calm && reader.has_ended);
        if has_nothing_to_ask || !sight.is_worth_asking(reader.group) {
            return;
        }
        let bytes_max = sight.chance().magnitude(1, 64 << 10) as usize;
        let from = match reader.follows {
            true => Some(reader.next),
            false if sight.chance().one_in(2) => Some(Offset(sight.chance().below(reader.next.0 as u64 + 1) as i64)),
            false => None,
        };
        let node = sight.guess(reader.group);
        let linearizable = !reader.follows;
        let ticket = sight.ask(node, reader.group, Request::Read { from, bytes_max, linearizable });
        reader.ticket = Some(ticket);
        self.asked.insert(ticket, place);
    }
}

impl Actor for Read {
    fn woken(&mut self, tag: u64, sight: &mut dyn Sight) {
        let Some(place) = (tag as usize).checked_sub(1) else {
            self.look(sight);
            return sight.wake(0, LOOK_PAUSE);
        };
        if !sight.groups(GroupKind::Partition).contains(&self.readers[place].group) {
            self.readers[place].is_gone = true;
            return;
        }
        self.read(place, sight);
        let (low, high) = self.load.read_pause;
        let after = sight.chance().between(low, high);
        sight.wake(tag, after);
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, _sight: &mut dyn Sight) {
        let Some(place) = self.asked.remove(&ticket) else { return };
        let reader = &mut self.readers[place];
        reader.ticket = None;
        if let Answer::Read(Seen { log_start, end, records }) = answer {
            let read_to = records.last().map_or(log_start, |(offset, _)| Offset(offset.0 + 1));
            reader.next = if reader.follows { reader.next.max(read_to) } else { end };
            reader.has_ended = self.is_calm;
        }
    }

    fn stop(&mut self) {
        self.is_calm = true;
    }

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.is_calm && self.readers.iter().all(|reader| reader.is_gone || reader.has_ended)
    }

    fn describe(&self) -> String {
        let waits = |reader: &&Reader| !reader.is_gone && !reader.has_ended;
        let groups: Vec<_> = self.readers.iter().filter(waits).map(|reader| reader.group.0).collect();
        format!("readers that were not answered: of groups {groups:?}")
    }
}
