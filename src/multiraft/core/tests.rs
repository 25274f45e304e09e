//! The core, driven by hand: what it takes, and what it refuses or drops.

use super::*;
use crate::machine::Outcome;
use crate::types::Term;
use bytes::Bytes;

const GROUP: RaftGroupId = RaftGroupId(1);
const OWN: ReplicaId = ReplicaId::new(NodeId(1), 0);
const OTHER: ReplicaId = ReplicaId::new(NodeId(2), 0);

/// A core, and what it wants done and is told only when a test says so.
struct World {
    core: Core,
    appending: bool,
    applying: Vec<Vec<LogEntry>>,
    replies: BTreeMap<u64, Reply>,
    tickets: u64,
}

impl World {
    fn new(options: CoreOptions, voters: &[ReplicaId]) -> Self {
        let (core, replies) = (Core::new(options, Vec::new()), BTreeMap::new());
        let mut world = Self { core, appending: false, applying: Vec::new(), replies, tickets: 0 };
        let membership = Membership::of_voters(voters.iter().copied());
        world.tell(Input::Create { group: GROUP, replica: OWN, membership, preferred: voters.len() == 1 });
        world.work();
        world
    }

    /// The only voter of its group: it leads.
    fn alone(options: CoreOptions) -> Self {
        let world = Self::new(options, &[OWN]);
        assert_eq!(world.core.replica(GROUP).map(Replica::role), Some(crate::raft::Role::Leader));
        world
    }

    fn tell(&mut self, input: Input) {
        self.core.handle(input);
        for effect in self.core.poll() {
            match effect {
                Effect::Append(_) => self.appending = true,
                Effect::Apply { entries, .. } => self.applying.push(entries),
                Effect::Reply { ticket, reply } => {
                    assert_eq!(self.replies.insert(ticket.0, reply), None, "one answer each");
                }
                _ => {}
            }
        }
    }

    /// Makes everything durable that is to be.
    fn write(&mut self) {
        while std::mem::take(&mut self.appending) {
            self.tell(Input::Appended);
        }
    }

    /// Does everything that is to be done.
    fn work(&mut self) {
        self.write();
        while let Some(entries) = (!self.applying.is_empty()).then(|| self.applying.remove(0)) {
            let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
            let outcomes = entries.into_iter().map(|entry| (entry.id, Outcome::None)).collect();
            self.tell(Input::Applied { group: GROUP, outcomes, bytes });
            self.write();
        }
    }

    /// One round of proposals; their tickets.
    fn propose(&mut self, payloads: impl IntoIterator<Item = Bytes>) -> std::ops::Range<u64> {
        let first = self.tickets;
        let mut proposal = |data| {
            self.tickets += 1;
            Proposal { ticket: Ticket(self.tickets - 1), context: Bytes::new(), data }
        };
        let proposals: Vec<_> = payloads.into_iter().map(&mut proposal).collect();
        self.tell(Input::Propose { group: GROUP, proposals });
        first..self.tickets
    }

    fn applied(&self, tickets: std::ops::Range<u64>) -> bool {
        tickets.into_iter().all(|ticket| matches!(self.replies.get(&ticket), Some(Reply::Applied { .. })))
    }
}

/// A proposal that the mailbox had room for and the core had not would be refused, and a later one taken once there was
/// room again: a producer's records would change places.
#[test]
fn what_was_admitted_is_never_refused_for_want_of_room() {
    let options = CoreOptions { admitted_bytes_max: 256 << 20, ..CoreOptions::default() };
    let large = Bytes::from(vec![7; (1 << 20) - PROPOSAL_OVERHEAD_BYTES]);
    let (many, empty) = ((256 << 20) / PROPOSAL_OVERHEAD_BYTES, Bytes::new());
    for (count, payload) in [(256, large), (many, empty)] {
        let mut world = World::alone(options.clone());
        // Nothing is durable meanwhile, and then nothing is applied.
        for _ in 0..256 {
            world.propose(std::iter::repeat_n(payload.clone(), count / 256));
        }
        assert_eq!(world.replies, BTreeMap::new());
        world.write();
        assert_eq!(world.replies, BTreeMap::new());
        world.work();
        assert!(world.applied(0..count as u64));
    }
}

#[test]
fn more_than_was_to_be_admitted_is_refused() {
    let options = CoreOptions { admitted_bytes_max: 1 << 20, ..CoreOptions::default() };
    let mut world = World::alone(options);
    world.propose([Bytes::from(vec![7; 600 << 10])]);
    let beyond = world.propose([Bytes::from(vec![7; 600 << 10])]);
    assert_eq!(world.replies.get(&beyond.start), Some(&Reply::Refused(Refused::Busy)));
    let beyond = world.propose(std::iter::repeat_n(Bytes::new(), (1 << 20) / PROPOSAL_OVERHEAD_BYTES));
    assert_eq!(world.replies.get(&beyond.start), Some(&Reply::Refused(Refused::Busy)));
}

/// What a follower holds of its leader's entries is bounded although no mailbox admits them.
#[test]
fn a_follower_whose_disk_stands_still_drops_entries() {
    let options = CoreOptions { admitted_bytes_max: 1 << 20, queued_bytes_max: 1 << 20, ..CoreOptions::default() };
    let mut world = World::new(options, &[OWN, OTHER]);
    let data = Bytes::from(vec![7; 100 << 10]);
    for number in 1..=100 {
        let entry = LogEntry { id: LogId::new(number + 1, 2), data: data.clone(), ..LogEntry::default() };
        let (index, log_term) = (LogIndex(number), Term(if number == 1 { 1 } else { 2 }));
        let message = RaftMessage {
            from: OTHER,
            to: OWN,
            term: Term(2),
            index,
            log_term,
            commit: LogIndex(1),
            entries: vec![entry],
            ..RaftMessage::default()
        };
        world.tell(Input::Messages(vec![(GROUP, message)]));
    }
    let last = world.core.replica(GROUP).map(|replica| replica.log().last().index);
    let taken = (2 << 20) / (100 << 10) + 1;
    assert_eq!(last, Some(LogIndex(1 + taken)), "up to the limit, and the one that crosses it");
}
