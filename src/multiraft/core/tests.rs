//! The core, driven by hand: what it takes, and what it refuses or drops.

use super::*;
use crate::machine::Outcome;
use crate::raft::{Replica, Role};
use crate::types::Term;
use bytes::Bytes;
use effect::Source;

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
        assert_eq!(world.core.replica(GROUP).map(Replica::role), Some(Role::Leader));
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
        let proposals = payloads.into_iter().map(|data| self.proposal(None, data)).collect();
        self.tell(Input::Propose { group: GROUP, proposals });
        first..self.tickets
    }

    fn proposal(&mut self, source: Option<Source>, data: Bytes) -> Proposal {
        self.tickets += 1;
        Proposal { ticket: Ticket(self.tickets - 1), source, context: Bytes::new(), data }
    }

    /// One round of proposals by these; their tickets.
    fn propose_by<const COUNT: usize>(&mut self, sources: [Source; COUNT]) -> [u64; COUNT] {
        let first = self.tickets;
        let proposals = sources.map(|source| self.proposal(Some(source), Bytes::new())).into();
        self.tell(Input::Propose { group: GROUP, proposals });
        std::array::from_fn(|position| first + position as u64)
    }

    fn refusal(&self, ticket: u64) -> Option<Refused> {
        match self.replies.get(&ticket) {
            Some(Reply::Refused(refused)) => Some(*refused),
            _ => None,
        }
    }

    fn say(&mut self, kind: MessageKind, term: u64) {
        self.hear(OTHER, kind, term);
    }

    fn hear(&mut self, from: ReplicaId, kind: MessageKind, term: u64) {
        let message = RaftMessage { kind, from, to: OWN, term: Term(term), ..RaftMessage::default() };
        self.tell(Input::Messages(vec![(GROUP, message)]));
        self.write();
    }

    /// The other voter votes for this one, which leads in `term` then.
    fn elect(&mut self, term: u64) {
        let role = |world: &Self| world.core.replica(GROUP).map(Replica::role);
        while role(self) != Some(Role::Candidate) {
            self.tell(Input::Tick);
        }
        self.say(MessageKind::RequestPreVoteResponse, term);
        self.say(MessageKind::RequestVoteResponse, term);
        assert_eq!(role(self), Some(Role::Leader), "{:?}", self.core.replica(GROUP).map(Replica::term));
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

/// Room is given back when a proposal is given up, and the log still holds what was proposed.
#[test]
fn what_was_given_up_takes_room_until_it_is_written() {
    let options = CoreOptions { admitted_bytes_max: 1 << 20, ..CoreOptions::default() };
    let (mut world, data) = (World::new(options, &[OWN, OTHER]), Bytes::from(vec![7; 600 << 10]));
    let (group, membership) = (RaftGroupId(2), Membership::of_voters([OWN]));
    world.tell(Input::Create { group, replica: OWN, membership, preferred: true });
    world.write();
    world.elect(2);
    let [first, second, third] = [(); 3].map(|()| world.proposal(None, data.clone()));
    let tickets = [&first, &second, &third].map(|proposal| proposal.ticket.0);
    world.tell(Input::Propose { group: GROUP, proposals: vec![first] });
    let message = RaftMessage { from: OTHER, to: OWN, term: Term(3), ..RaftMessage::default() };
    world.tell(Input::Messages(vec![(GROUP, RaftMessage { kind: MessageKind::Heartbeat, ..message })]));
    (0..10).for_each(|_| world.tell(Input::Tick));
    assert_eq!(world.replies.get(&tickets[0]), Some(&Reply::Undecided));
    world.tell(Input::Propose { group, proposals: vec![second] });
    assert_eq!(world.refusal(tickets[1]), Some(Refused::Busy));
    assert_eq!(world.core.queued(), Payload { proposed: 600 << 10, brought: 0 });
    world.write();
    world.tell(Input::Propose { group, proposals: vec![third] });
    assert_eq!(world.refusal(tickets[2]), None);
}

/// What a follower holds of its leader's entries is bounded although no mailbox admits them: whether they come one by
/// one or all in one round.
#[test]
fn a_follower_whose_disk_stands_still_drops_entries() {
    for at_once in [false, true] {
        let mut world = World::new(CoreOptions { queued_bytes_max: 1 << 20, ..CoreOptions::default() }, &[OWN, OTHER]);
        for messages in large_entries().chunks(if at_once { 100 } else { 1 }) {
            world.tell(Input::Messages(messages.to_vec()));
        }
        let last = world.core.replica(GROUP).map(|replica| replica.log().last().index);
        let taken = (1 << 20) / (100 << 10) + 1;
        assert_eq!(last, Some(LogIndex(1 + taken)), "up to the limit, and the one that crosses it");
        assert_eq!(world.core.queued(), Payload { proposed: 0, brought: taken as usize * (100 << 10) });
        world.write();
        assert_eq!(world.core.queued(), Payload::default());
    }
}

/// The same for what its state machines have not applied, beside what may be admitted here.
#[test]
fn a_follower_whose_state_machines_stand_still_drops_entries() {
    let options = CoreOptions { admitted_bytes_max: 1 << 20, unapplied_bytes_max: 1 << 20, ..CoreOptions::default() };
    let mut world = World::new(options, &[OWN, OTHER]);
    for (group, message) in large_entries() {
        let commit = message.index.next();
        world.tell(Input::Messages(vec![(group, RaftMessage { commit, ..message })]));
        world.write();
    }
    let taken = (2 << 20) / (100 << 10) + 1;
    assert_eq!(world.core.unapplied_bytes(), taken * (100 << 10), "up to the limit, and the one that crosses it");
    assert_eq!(world.core.replica(GROUP).map(|replica| replica.log().last().index.0), Some(1 + taken as u64));
}

/// A hundred entries of a leader in term 2, each in a message of its own.
fn large_entries() -> Vec<(RaftGroupId, RaftMessage)> {
    let data = Bytes::from(vec![7; 100 << 10]);
    let message = |number| {
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
        (GROUP, message)
    };
    (1..=100).map(message).collect()
}

const WRITER: Source = Source(1);
const ANOTHER: Source = Source(2);

/// What a producer had sent before it could know that an earlier batch was refused, is refused as well, although there
/// is room again.
#[test]
fn nothing_overtakes_what_was_refused() {
    let mut world = World::alone(CoreOptions::default());
    world.tell(Input::Space { of: Room::Disk, writable: false });
    let [first] = world.propose_by([WRITER]);
    assert_eq!(world.refusal(first), Some(Refused::NoSpace));
    world.tell(Input::Space { of: Room::Disk, writable: true });
    let [second, other, third] = world.propose_by([WRITER, ANOTHER, WRITER]);
    world.work();
    assert_eq!(world.refusal(second), Some(Refused::OutOfTurn));
    assert_eq!(world.refusal(third), Some(Refused::OutOfTurn));
    assert!(world.applied(other..other + 1), "whom nothing was refused goes on");

    // The first refusal is known; what was refused because of it is not yet.
    let known = Input::RefusalKnown { group: GROUP, source: WRITER };
    world.tell(known.clone());
    let [fourth] = world.propose_by([WRITER]);
    assert_eq!(world.refusal(fourth), Some(Refused::OutOfTurn));
    for _ in [second, third, fourth] {
        world.tell(known.clone());
    }
    let [again, next] = world.propose_by([WRITER, WRITER]);
    world.work();
    assert!(world.applied(again..next + 1));
}

/// An office was lost with a batch whose fate is open, and won again: a later batch of the same producer waits until it
/// is known, because the first may be refused yet.
#[test]
fn nothing_overtakes_what_is_undecided() {
    let mut world = World::new(CoreOptions::default(), &[OWN, OTHER]);
    world.elect(2);
    let [first] = world.propose_by([WRITER]);
    world.say(MessageKind::Heartbeat, 3);
    assert_eq!(world.replies, BTreeMap::new());
    // The new leader hands its office back.
    world.say(MessageKind::TimeoutNow, 3);
    world.say(MessageKind::RequestVoteResponse, 4);
    assert_eq!(world.core.replica(GROUP).map(Replica::role), Some(Role::Leader));
    let [second, other] = world.propose_by([WRITER, ANOTHER]);
    assert_eq!(world.refusal(second), Some(Refused::OutOfTurn));
    assert_eq!(world.refusal(other), None);
    assert_eq!(world.replies.get(&first), None, "still open");
}

#[test]
fn what_a_lost_office_leaves_open_is_answered_in_time() {
    let mut world = World::new(CoreOptions::default(), &[OWN, OTHER]);
    world.elect(2);
    let [first] = world.propose_by([WRITER]);
    (0..9).for_each(|_| world.tell(Input::Tick));
    world.say(MessageKind::Heartbeat, 3);
    (0..9).for_each(|_| world.tell(Input::Tick));
    assert_eq!(world.replies.get(&first), None);
    world.tell(Input::Tick);
    assert_eq!(world.replies.get(&first), Some(&Reply::Undecided));

    // Whoever sent it does not know yet that it has to be sent again.
    world.elect(4);
    let [second] = world.propose_by([WRITER]);
    assert_eq!(world.refusal(second), Some(Refused::OutOfTurn));
}

/// raft-rs forgets who was active whenever it counts them, which showed live followers as gone for a moment.
#[test]
fn followers_that_answer_are_active_all_the_time_and_others_are_not() {
    let third = ReplicaId::new(NodeId(3), 0);
    let mut world = World::new(CoreOptions::default(), &[OWN, OTHER, third]);
    world.elect(2);
    world.hear(third, MessageKind::HeartbeatResponse, 2);
    for tick in 1..=60 {
        world.tell(Input::Tick);
        if tick % 3 == 0 {
            world.say(MessageKind::HeartbeatResponse, 2);
        }
        let followers = world.core.replica(GROUP).map(Replica::followers).unwrap_or_default();
        let active: Vec<_> = followers.iter().map(|follower| (follower.replica, follower.recently_active)).collect();
        assert_eq!(active, [(OTHER, true), (third, tick <= 20)], "after {tick} ticks");
    }
}
