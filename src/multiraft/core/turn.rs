//! What waits for the log: writes of all groups in the order in which they arose, and the messages behind them.
//!
//! One turn is in flight at a time. A message that promises something leaves after the turn that holds the promise, and
//! after every message queued before it: a later `Ready` with nothing to write may acknowledge entries of an earlier
//! one.

use crate::raft::RaftMessage;
use crate::raft::Write;
use crate::types::{LogEntry, LogId, RaftGroupId};
use crate::wal::{self, GroupWrite, LogChange, Turn};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{AddAssign, SubAssign};

/// Payload, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Of proposals, which were admitted here.
    pub proposed: usize,
    /// Of what peers have sent.
    pub brought: usize,
}

impl Payload {
    /// All of it.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.proposed + self.brought
    }

    /// Splits off the next `bytes`: proposals as far as there are any. What nobody proposed counts as brought.
    fn split_off(&mut self, bytes: usize) -> Self {
        let proposed = bytes.min(self.proposed);
        self.proposed -= proposed;
        Self { proposed, brought: bytes - proposed }
    }
}

impl AddAssign for Payload {
    fn add_assign(&mut self, other: Self) {
        self.proposed += other.proposed;
        self.brought += other.brought;
    }
}

impl SubAssign for Payload {
    fn sub_assign(&mut self, other: Self) {
        self.proposed -= other.proposed;
        self.brought -= other.brought;
    }
}

/// One step of one group.
#[derive(Debug)]
struct Item {
    /// The group.
    group: RaftGroupId,
    /// What must be durable, if anything.
    write: Option<GroupWrite>,
    /// What of it is payload.
    payload: Payload,
    /// What happens once it is.
    done: Done,
}

/// What happens when an item is durable.
#[derive(Debug)]
pub struct Done {
    /// The group.
    pub group: RaftGroupId,
    /// The `Ready` that is now durable whole.
    pub ready: Option<u64>,
    /// Messages that waited for it.
    pub send_after: Vec<RaftMessage>,
    /// What else waited for it.
    pub then: Then,
}

/// What a durable item sets off, beyond Raft's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    #[default]
    Nothing,
    /// The state as of this entry, which was announced, can be switched to.
    Install(LogId),
    /// A step of the group's repair is durable.
    Examine,
    /// The group's end is durable.
    Removed,
}

/// See the module.
#[derive(Debug)]
pub struct TurnQueue {
    /// What one turn may take of the log, in bytes; one larger entry still goes.
    turn_bytes_max: usize,
    /// Taken in by a group, and not wanted written by it yet.
    held: BTreeMap<RaftGroupId, Payload>,
    /// Not handed to the log yet.
    waiting: VecDeque<Item>,
    /// What is in the turn in flight.
    flying_payload: Payload,
    /// What is held, waits or is in flight.
    payload: Payload,
    /// What the turn in flight will have done; `None` when there is none.
    flying: Option<Vec<Done>>,
}

impl TurnQueue {
    /// An empty one.
    #[must_use]
    pub fn new(turn_bytes_max: usize) -> Self {
        let (held, waiting, flying) = (BTreeMap::new(), VecDeque::new(), None);
        let (flying_payload, payload) = (Payload::default(), Payload::default());
        Self { turn_bytes_max, held, waiting, flying_payload, payload, flying }
    }

    /// Whether a turn is on its way to the disk.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.flying.is_some()
    }

    /// What was taken in and is not durable yet.
    #[must_use]
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// Payload bytes of the turn in flight.
    #[must_use]
    pub fn flying_bytes(&self) -> usize {
        self.flying_payload.bytes()
    }

    /// A group takes this in.
    pub fn hold(&mut self, group: RaftGroupId, payload: Payload) {
        if payload.bytes() > 0 {
            *self.held.entry(group).or_default() += payload;
            self.payload += payload;
        }
    }

    /// A group has given out everything that it wants written of what it took in.
    pub fn let_go(&mut self, group: RaftGroupId) -> Payload {
        let held = self.held.remove(&group).unwrap_or_default();
        self.payload -= held;
        held
    }

    /// Queues a change that is not Raft's: birth, tombstone, a step of a repair. Entries that one turn does not take
    /// are spread over several; `then` follows the last.
    pub fn push_change(&mut self, write: GroupWrite, then: Then) {
        let GroupWrite { group, hard_state, change } = write;
        let changes = match change {
            LogChange::Refill(entries) => {
                cut(entries, self.turn_bytes_max).into_iter().map(LogChange::Refill).collect()
            }
            change => vec![change],
        };
        let last = changes.len() - 1;
        for (position, change) in changes.into_iter().enumerate() {
            let brought = match &change {
                LogChange::Refill(entries) => payload_bytes(entries),
                _ => 0,
            };
            let payload = Payload { brought, ..Payload::default() };
            let then = if position == last { then } else { Then::Nothing };
            let done = Done { group, ready: None, send_after: Vec::new(), then };
            self.push(Item { group, write: Some(GroupWrite { group, hard_state, change }), payload, done });
        }
    }

    /// Queues a `Ready`. One whose entries one turn does not take is spread over several; only the last completes it.
    pub fn push_ready(&mut self, group: RaftGroupId, number: u64, write: Option<Write>, send_after: Vec<RaftMessage>) {
        let mut held = match &write {
            Some(write) if !write.entries.is_empty() => self.let_go(group),
            _ => Payload::default(),
        };
        let mut parts = write.map(|write| split(group, write, self.turn_bytes_max)).unwrap_or_default();
        let last = parts.pop();
        for (write, bytes) in parts {
            let done = Done { group, ready: None, send_after: Vec::new(), then: Then::Nothing };
            self.push(Item { group, write: Some(write), payload: held.split_off(bytes), done });
        }
        let (write, bytes) = last.map_or((None, 0), |(write, bytes)| (Some(write), bytes));
        let done = Done { group, ready: Some(number), send_after, then: Then::Nothing };
        self.push(Item { group, write, payload: held.split_off(bytes), done });
    }

    fn push(&mut self, item: Item) {
        self.payload += item.payload;
        self.waiting.push_back(item);
    }

    /// Takes what needs no turn of its own: while nothing is in flight, everything up to the first write. `overtaking`:
    /// a negative control, in which it waits for nothing.
    pub fn take_without_write(&mut self, overtaking: bool) -> Vec<Done> {
        let mut done = Vec::new();
        if overtaking {
            let (writes, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|item| item.write.is_some());
            self.waiting = writes;
            let rest: VecDeque<Item> = rest;
            done.extend(rest.into_iter().map(|item| Done { ready: None, ..item.done }));
        }
        while self.flying.is_none() && self.waiting.front().is_some_and(|item| item.write.is_none()) {
            let item = self.waiting.pop_front().expect("the queue was just seen not to be empty");
            done.push(item.done);
        }
        done
    }

    /// Starts the next turn, if none is in flight and something is to be written.
    pub fn start(&mut self) -> Option<Turn> {
        if self.flying.is_some() || self.waiting.is_empty() {
            return None;
        }
        let (mut turn, mut flying, mut payload) = (Turn::default(), Vec::new(), Payload::default());
        let mut turn_bytes = 0;
        while let Some(item) = self.waiting.front() {
            let bytes = item.write.as_ref().map_or(0, GroupWrite::log_bytes);
            if !turn.writes.is_empty() && turn_bytes + bytes > self.turn_bytes_max {
                break;
            }
            let item = self.waiting.pop_front().expect("the queue was just seen not to be empty");
            turn_bytes += bytes;
            payload += item.payload;
            turn.writes.extend(item.write);
            flying.push(item.done);
        }
        self.flying_payload = payload;
        self.flying = Some(flying);
        Some(turn)
    }

    /// The turn in flight is durable.
    pub fn complete(&mut self) -> Vec<Done> {
        self.payload -= std::mem::take(&mut self.flying_payload);
        self.flying.take().expect("a turn completes only while one is in flight")
    }

    /// A group is gone or must stay silent: nothing it still wanted written is written, nothing it wanted said is said.
    pub fn forget(&mut self, group: RaftGroupId) {
        self.let_go(group);
        self.waiting.retain(|item| {
            let stays = item.group != group;
            if !stays {
                self.payload -= item.payload;
            }
            stays
        });
        for done in self.flying.iter_mut().flatten().filter(|done| done.group == group) {
            done.ready = None;
            done.send_after.clear();
            done.then = Then::Nothing;
        }
    }
}

/// Cuts a write into parts of at most `bytes_max`, each with the hard state that is true once it is durable: a commit
/// index never points beyond the entries beside it.
fn split(group: RaftGroupId, write: Write, bytes_max: usize) -> Vec<(GroupWrite, usize)> {
    let parts = cut(write.entries, bytes_max);
    let count = parts.len();
    let finish = |(position, entries): (usize, Vec<LogEntry>)| {
        let mut hard_state = write.hard_state;
        if let Some(last) = entries.last().filter(|_| position + 1 < count) {
            hard_state.commit = hard_state.commit.min(last.id.index);
        }
        let payload = payload_bytes(&entries);
        let change = if entries.is_empty() { LogChange::None } else { LogChange::Append(entries) };
        (GroupWrite { group, hard_state, change }, payload)
    };
    parts.into_iter().enumerate().map(finish).collect()
}

/// Cuts entries into parts that take at most `bytes_max` of the log each, but for an entry that is larger by itself.
/// There is always a part.
fn cut(entries: Vec<LogEntry>, bytes_max: usize) -> Vec<Vec<LogEntry>> {
    let (mut parts, mut part_bytes) = (vec![Vec::new()], 0);
    for entry in entries {
        let part: &mut Vec<_> = parts.last_mut().expect("there is always a part");
        let bytes = wal::entry_bytes(&entry);
        if !part.is_empty() && part_bytes + bytes > bytes_max {
            parts.push(vec![entry]);
            part_bytes = bytes;
        } else {
            part.push(entry);
            part_bytes += bytes;
        }
    }
    parts
}

fn payload_bytes(entries: &[LogEntry]) -> usize {
    entries.iter().map(LogEntry::payload_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HardState, LogId};

    const TURN_BYTES_MAX: usize = 4096;

    /// Tiny entries: their headers in the log are more than what is in them.
    fn entries(count: u64) -> Vec<LogEntry> {
        (1..=count).map(|index| LogEntry { id: LogId::new(index, 1), ..LogEntry::default() }).collect()
    }

    fn turns(mut queue: TurnQueue) -> Vec<(Turn, Vec<Done>)> {
        let mut turns = Vec::new();
        while let Some(turn) = queue.start() {
            turns.push((turn, queue.complete()));
        }
        turns
    }

    #[test]
    fn a_repair_that_brings_more_than_a_turn_takes_is_spread_and_goes_on_after_the_last() {
        let (group, hard_state) = (RaftGroupId(1), HardState::default());
        let mut queue = TurnQueue::new(TURN_BYTES_MAX);
        queue.push_change(GroupWrite { group, hard_state, change: LogChange::Refill(entries(1000)) }, Then::Examine);
        let (mut brought, mut then) = (Vec::new(), Vec::new());
        for (turn, done) in turns(queue) {
            let [GroupWrite { change: LogChange::Refill(entries), .. }] = turn.writes.as_slice() else {
                panic!("one part of the repair is a turn: {turn:?}")
            };
            brought.extend(entries.iter().cloned());
            then.extend(done.iter().map(|done| done.then));
            assert!(turn.writes[0].log_bytes() <= TURN_BYTES_MAX + 120, "its section's header is beside it");
        }
        assert_eq!(brought, entries(1000));
        assert!(then.len() > 5 && then.pop() == Some(Then::Examine) && then.iter().all(|then| *then == Then::Nothing));
    }

    #[test]
    fn a_turn_of_many_groups_that_write_next_to_nothing_is_bounded_by_what_their_headers_take() {
        let mut queue = TurnQueue::new(TURN_BYTES_MAX);
        for group in (1..=200).map(RaftGroupId) {
            let write = GroupWrite { group, hard_state: HardState::default(), change: LogChange::None };
            queue.push_change(write, Then::Nothing);
        }
        let turns = turns(queue);
        assert!(turns.len() > 5);
        for (turn, _) in &turns {
            assert!(turn.writes.iter().map(GroupWrite::log_bytes).sum::<usize>() <= TURN_BYTES_MAX);
        }
        assert_eq!(turns.iter().map(|(turn, _)| turn.writes.len()).sum::<usize>(), 200);
    }
}
