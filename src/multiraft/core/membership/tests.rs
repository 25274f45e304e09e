//! The decision on its own, for every order of events; and real groups that change their members.

use super::*;
use crate::machine::Outcome;
use crate::multiraft::core::CoreOptions;
use crate::multiraft::core::effect::{Effect, Input, Proposal, Reply, Ticket};
use crate::raft::{RaftMessage, Replica, Role, SnapshotMeta};
use crate::types::{LogId, NodeId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: RaftGroupId = RaftGroupId(1);

const fn replica(node: u32, generation: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), generation)
}

fn of(nodes: &[u32]) -> Vec<ReplicaId> {
    nodes.iter().map(|node| replica(*node, 0)).collect()
}

fn wanted(voters: &[u32], learners: &[u32]) -> WantedMembers {
    WantedMembers { voters: of(voters), learners: of(learners) }
}

fn members(voters: &[u32], learners: &[u32]) -> Membership {
    Membership { voters: of(voters), learners: of(learners), ..Membership::default() }
}

fn progress(node: u32, matched: u64) -> FollowerProgress {
    FollowerProgress {
        replica: replica(node, 0),
        matched: LogIndex(matched),
        recently_active: matched > 0,
        snapshot: false,
    }
}

const LAST: LogIndex = LogIndex(10_000);

/// What node 1 does as the leader; node 0 as a follower's number: it is away.
fn step(present: &Membership, wanted: &WantedMembers, followers: &[FollowerProgress]) -> Step {
    next_step(present, wanted, (replica(1, 0), LAST), followers)
}

fn learn(node: u32) -> Step {
    Step::Change(MemberChange { learn: of(&[node]), ..MemberChange::default() })
}

fn exchange(vote: &[u32], remove: &[u32]) -> Step {
    Step::Change(MemberChange { vote: of(vote), remove: of(remove), ..MemberChange::default() })
}

#[test]
fn a_lost_voter_is_replaced_step_by_step() {
    let goal = wanted(&[1, 2, 4], &[]);
    let followers = |matched| [progress(2, LAST.0), progress(3, 0), progress(4, matched)];
    assert_eq!(step(&members(&[1, 2, 3], &[]), &goal, &followers(0)), learn(4));
    let joined = members(&[1, 2, 3], &[4]);
    assert_eq!(step(&joined, &goal, &followers(0)), Step::Wait, "nothing is heard of it");
    assert_eq!(step(&joined, &goal, &followers(LAST.0 - CAUGHT_UP_ENTRIES - 1)), Step::Wait, "it is behind");
    let mut fetching = followers(LAST.0);
    fetching[2].snapshot = true;
    assert_eq!(step(&joined, &goal, &fetching), Step::Wait, "it waits for a snapshot");
    assert_eq!(step(&joined, &goal, &followers(LAST.0 - CAUGHT_UP_ENTRIES)), exchange(&[4], &[3]));
    let joint = Membership { voters_outgoing: of(&[1, 2, 3]), auto_leave: true, ..members(&[1, 2, 4], &[]) };
    assert_eq!(step(&joint, &goal, &followers(LAST.0)), Step::Change(MemberChange::default()));
    assert_eq!(step(&members(&[1, 2, 4], &[]), &goal, &followers(LAST.0)), Step::Done);
}

#[test]
fn a_leader_that_goes_hands_its_office_over_first() {
    let goal = wanted(&[2, 3, 4], &[]);
    let joined = members(&[1, 2, 3], &[4]);
    let followers = [progress(2, LAST.0 - 5), progress(3, LAST.0), progress(4, LAST.0)];
    assert_eq!(step(&joined, &goal, &followers), Step::HandOver(replica(3, 0)), "to the one that has most");
    let alone = [progress(4, LAST.0)];
    assert_eq!(step(&members(&[1], &[4]), &wanted(&[4], &[]), &alone), exchange(&[4], &[]), "there is no heir yet");
    assert_eq!(step(&members(&[1, 4], &[]), &wanted(&[4], &[]), &alone), Step::HandOver(replica(4, 0)));
}

#[test]
fn a_change_that_would_stop_the_group_waits() {
    // Node 2 is not heard of for a moment: with node 4 in place of node 3 there must be a majority.
    let followers = [progress(2, 0), progress(3, LAST.0), progress(4, LAST.0)];
    let goal = wanted(&[1, 2, 4, 5, 6], &[]);
    let present = members(&[1, 2, 3, 5, 6], &[4]);
    assert_eq!(step(&present, &goal, &followers), Step::Wait, "three of five would be away");
    let more = [followers.as_slice(), &[progress(5, LAST.0)]].concat();
    assert_eq!(step(&present, &goal, &more), exchange(&[4], &[3]));
}

#[test]
fn replicas_that_nobody_wants_any_more_go() {
    let followers = [progress(2, LAST.0), progress(4, 0), progress(5, LAST.0)];
    // Node 4 was to replace node 3 and was lost, too.
    let goal = wanted(&[1, 2, 5], &[]);
    assert_eq!(step(&members(&[1, 2, 3], &[4]), &goal, &followers), learn(5));
    assert_eq!(step(&members(&[1, 2, 3], &[4, 5]), &goal, &followers), exchange(&[5], &[3]));
    let gone = Step::Change(MemberChange { remove: of(&[4]), ..MemberChange::default() });
    assert_eq!(step(&members(&[1, 2, 5], &[4]), &goal, &followers), gone);
    // It had taken the place of node 3 already when it was lost.
    assert_eq!(step(&members(&[1, 2, 4], &[5]), &goal, &followers), exchange(&[5], &[4]));
    // Two are lost and one replacement is ready: one of them goes.
    let two = wanted(&[1, 2, 5, 6, 7], &[]);
    let followers = [progress(2, LAST.0), progress(5, LAST.0), progress(6, LAST.0), progress(7, 0)];
    assert_eq!(step(&members(&[1, 2, 3, 4, 5], &[6, 7]), &two, &followers), exchange(&[6], &[3]));
}

#[test]
fn learners_stay_learners() {
    let goal = wanted(&[1], &[2, 3]);
    let followers = [progress(2, LAST.0), progress(3, LAST.0)];
    assert_eq!(step(&members(&[1], &[2]), &goal, &followers), learn(3));
    assert_eq!(step(&members(&[1], &[2, 3]), &goal, &followers), Step::Done);
}

/// A small generator of numbers: the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a group is, for the decision alone: changes take effect at once, joint ones are left at once.
fn take(present: &mut Membership, change: &MemberChange) {
    for gone in change.remove.iter().chain(&change.vote).chain(&change.learn) {
        present.voters.retain(|member| member != gone);
        present.learners.retain(|member| member != gone);
    }
    present.voters.extend(&change.vote);
    present.learners.extend(&change.learn);
    present.voters.sort_unstable();
    present.learners.sort_unstable();
}

/// Whatever is wanted, from whatever there is, with nodes that come and go and goals that change on the way: in the end
/// the members are the wanted ones; no change leaves fewer voters than were there or are wanted, every change leaves a
/// majority of active voters, and none that lags ever votes.
#[test]
fn it_ends_with_the_wanted_members_whatever_happens_on_the_way() {
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let mut pick = |count: u64, from: u64| {
            let mut nodes = BTreeSet::new();
            while (nodes.len() as u64) < count {
                nodes.insert(from + dice.below(9));
            }
            nodes.into_iter().map(|node| replica(node as u32, 0)).collect::<Vec<_>>()
        };
        let (first, second) = (pick(1 + seed % 5, 1), pick(1 + (seed / 5) % 5, 1));
        let goals = [pick(1 + (seed / 25) % 5, 1), second];
        let mut present = Membership { voters: first, ..Membership::default() };
        let mut leader = present.voters[0];
        for (round, voters) in goals.into_iter().enumerate() {
            let goal = WantedMembers { voters, learners: Vec::new() };
            for turn in 0.. {
                assert!(turn < 500, "seed {seed}: {present:?} never becomes {goal:?}");
                // Everybody is well after a while, or nothing could be demanded; the first goal may be given up.
                let chaos = turn < 30;
                let mut know = |member: ReplicaId| FollowerProgress {
                    replica: member,
                    matched: LogIndex(if chaos && dice.below(3) == 0 { 1 } else { LAST.0 }),
                    recently_active: !chaos || dice.below(3) > 0,
                    snapshot: chaos && dice.below(5) == 0,
                };
                let followers: Vec<_> = present.all().filter(|one| *one != leader).map(&mut know).collect();
                let step = next_step(&present, &goal, (leader, LAST), &followers);
                match step {
                    Step::Done => break,
                    Step::Wait => {}
                    Step::HandOver(heir) => {
                        assert!(present.voters.contains(&heir) && goal.voters.contains(&heir), "seed {seed}");
                        leader = heir;
                    }
                    Step::Change(change) => {
                        let before = present.voters.clone();
                        assert!(!change.remove.contains(&leader), "seed {seed}: the leader removes itself");
                        for new in &change.vote {
                            let known = followers.iter().find(|one| one.replica == *new).expect("a learner");
                            assert!(known.recently_active && !known.snapshot && known.matched == LAST, "seed {seed}");
                        }
                        take(&mut present, &change);
                        assert!(present.voters.len() >= before.len().min(goal.voters.len()), "seed {seed}: {change:?}");
                        let active = |voter: &&ReplicaId| {
                            let mut known = followers.iter().filter(|one| one.replica == **voter);
                            **voter == leader || known.any(|one| one.recently_active)
                        };
                        let majority = 2 * present.voters.iter().filter(active).count() > present.voters.len();
                        assert!(majority || present.voters == before, "seed {seed}: {change:?}");
                    }
                }
                if chaos && dice.below(10) == 0 {
                    leader = present.voters[dice.below(present.voters.len() as u64) as usize];
                }
                if chaos && round == 0 && turn == 20 {
                    break;
                }
            }
            if round == 1 {
                assert!(goal.are(&present), "seed {seed}");
            }
        }
    }
}

/// A node with one group: everything it wants done is done at once, but for messages.
struct Node {
    core: Core,
    /// What the state machine has: the newest entry, and the members as of it.
    state: (LogId, Membership),
    /// Payloads applied, by index; what a snapshot brings is not among them.
    applied: BTreeMap<LogIndex, Bytes>,
}

/// Nodes, and messages on their way.
struct World {
    nodes: BTreeMap<u32, Node>,
    /// Nodes that do nothing and hear nothing.
    away: BTreeSet<u32>,
    /// To whom, what.
    messages: Vec<(NodeId, Vec<(RaftGroupId, RaftMessage)>)>,
    /// Answers to proposals.
    replies: BTreeMap<u64, Reply>,
    /// Snapshots installed, by node.
    installed: BTreeMap<u32, usize>,
}

impl World {
    fn of_voters(nodes: &[u32]) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            away: BTreeSet::new(),
            messages: Vec::new(),
            replies: BTreeMap::new(),
            installed: BTreeMap::new(),
        };
        let membership = Membership::of_voters(of(nodes));
        nodes.iter().for_each(|node| world.add(*node, replica(*node, 0), membership.clone()));
        world.settle();
        world
    }

    fn add(&mut self, node: u32, replica: ReplicaId, membership: Membership) {
        let start = if membership.is_joining() { LogId::default() } else { LogId::new(1, 1) };
        let core = Core::new(CoreOptions::default(), Vec::new());
        self.nodes.insert(node, Node { core, state: (start, membership.clone()), applied: BTreeMap::new() });
        self.tell(node, Input::Create { group: GROUP, replica, membership, preferred: node == 1 });
    }

    fn join(&mut self, replica: ReplicaId) {
        self.add(replica.node().0, replica, Membership::of_joining(replica));
    }

    fn tell(&mut self, node: u32, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = (!inputs.is_empty()).then(|| inputs.remove(0)) {
            let host = self.nodes.get_mut(&node).expect("a node of this world");
            host.core.handle(input);
            for effect in host.core.poll() {
                match effect {
                    Effect::Send { to, messages } => self.messages.push((to, messages)),
                    Effect::Append(_) => inputs.push(Input::Appended),
                    Effect::Apply { group, entries, memberships } => {
                        let bytes = entries.iter().map(crate::types::LogEntry::payload_bytes).sum();
                        let last = entries.last().map(|entry| entry.id).expect("something is applied");
                        let members = memberships.last().map_or(host.state.1.clone(), |(_, members)| members.clone());
                        host.state = (last, members);
                        host.applied.extend(entries.iter().map(|entry| (entry.id.index, entry.data.clone())));
                        let outcomes = entries.into_iter().map(|entry| (entry.id, Outcome::None)).collect();
                        inputs.push(Input::Applied { group, outcomes, bytes });
                    }
                    Effect::BuildSnapshot { group } => {
                        let (at, membership) = host.state.clone();
                        inputs.push(Input::SnapshotBuilt { group, meta: SnapshotMeta { at, membership } });
                    }
                    Effect::FetchSnapshot { group, meta, .. } => {
                        inputs.push(Input::SnapshotFetched { group, at: meta.at, generation: Some(1) });
                    }
                    Effect::InstallSnapshot { group, meta, .. } => {
                        host.state = (meta.at, meta.membership);
                        *self.installed.entry(node).or_default() += 1;
                        inputs.push(Input::SnapshotInstalled { group, at: meta.at });
                    }
                    Effect::Reply { ticket, reply } => {
                        self.replies.insert(ticket.0, reply);
                    }
                    Effect::ReadEntries { .. } => panic!("everything is in memory"),
                    Effect::Quarantined { reason, .. } => panic!("node {node}: {reason}"),
                    _ => {} // nobody here needs it
                }
            }
        }
    }

    /// Delivers until nothing is on its way.
    fn settle(&mut self) {
        while !self.messages.is_empty() {
            for (to, messages) in std::mem::take(&mut self.messages) {
                if self.nodes.contains_key(&to.0) && !self.away.contains(&to.0) {
                    self.tell(to.0, Input::Messages(messages));
                }
            }
        }
    }

    fn tick(&mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            if !self.away.contains(&node) {
                self.tell(node, Input::Tick);
            }
        }
        self.settle();
    }

    fn replica(&self, node: u32) -> &Replica {
        self.nodes[&node].core.replica(GROUP).expect("it takes part")
    }

    /// Who leads in the newest term.
    fn leader(&self) -> Option<u32> {
        let leads = |node: &&u32| !self.away.contains(node) && self.replica(**node).role() == Role::Leader;
        self.nodes.keys().filter(leads).max_by_key(|node| self.replica(**node).term()).copied()
    }

    /// Lets time pass until somebody leads.
    fn lead(&mut self) -> u32 {
        for _ in 0..200 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.tick();
        }
        panic!("nobody leads");
    }

    fn write(&mut self, ticket: u64) {
        let leader = self.lead();
        let data = Bytes::copy_from_slice(&ticket.to_be_bytes());
        let proposal = Proposal { ticket: Ticket(ticket), source: None, context: Bytes::new(), data };
        self.tell(leader, Input::Propose { group: GROUP, proposals: vec![proposal] });
        self.settle();
    }

    /// The driver's part: says what is wanted at every tick, until the leader has it.
    fn change(&mut self, wanted: &WantedMembers) -> usize {
        for round in 0..400 {
            let leader = self.lead();
            if wanted.are(self.replica(leader).membership()) {
                return round;
            }
            self.tell(leader, Input::ChangeMembers { group: GROUP, wanted: wanted.clone() });
            self.settle();
            self.tick();
        }
        let leader = self.lead();
        panic!("{:?} did not become {wanted:?}", self.replica(leader).membership());
    }

    fn acknowledged(&self, tickets: std::ops::Range<u64>) -> bool {
        tickets.into_iter().all(|ticket| matches!(self.replies.get(&ticket), Some(Reply::Applied { .. })))
    }
}

#[test]
fn a_lost_node_is_replaced_by_a_new_one_that_then_counts() {
    let mut world = World::of_voters(&[1, 2, 3]);
    (0..20).for_each(|ticket| world.write(ticket));
    world.away.insert(3);
    world.join(replica(4, 0));
    world.change(&wanted(&[1, 2, 4], &[]));
    assert_eq!(world.installed.get(&4), Some(&1), "it began with a snapshot");
    (20..40).for_each(|ticket| world.write(ticket));
    // Without node 1, the new replica is needed for every majority.
    world.away.insert(1);
    (40..60).for_each(|ticket| world.write(ticket));
    assert!(world.acknowledged(0..60));
    let newest = world.nodes[&4].applied.values().last().cloned();
    assert_eq!(newest.as_deref(), Some(59_u64.to_be_bytes().as_slice()));
    // The lost one is back with its old promises: nobody listens to it, and it can't disturb anybody.
    world.away.remove(&3);
    let term = world.replica(2).term();
    (0..100).for_each(|_| world.tick());
    assert_eq!(world.replica(2).term(), term);
}

#[test]
fn a_node_that_was_formatted_anew_comes_back_under_its_next_replica() {
    let mut world = World::of_voters(&[1, 2, 3]);
    (0..5).for_each(|ticket| world.write(ticket));
    world.join(replica(3, 1)); // the old disk is gone, and with it the old replica
    let goal = WantedMembers { voters: vec![replica(1, 0), replica(2, 0), replica(3, 1)], learners: Vec::new() };
    world.change(&goal);
    world.away.insert(2);
    (5..10).for_each(|ticket| world.write(ticket));
    assert!(world.acknowledged(0..10));
}

#[test]
fn a_leader_is_replaced_after_it_has_handed_its_office_over() {
    let mut world = World::of_voters(&[1, 2, 3]);
    let first = world.lead();
    world.join(replica(4, 0));
    let rest: Vec<u32> = (1..=4).filter(|node| *node != first).collect();
    world.change(&wanted(&rest, &[]));
    assert_ne!(world.lead(), first);
    world.away.insert(first);
    (0..5).for_each(|ticket| world.write(ticket));
    assert!(world.acknowledged(0..5));
}

#[test]
fn the_only_replica_of_a_group_moves() {
    let mut world = World::of_voters(&[1]);
    (0..5).for_each(|ticket| world.write(ticket));
    world.join(replica(2, 0));
    world.change(&wanted(&[2], &[]));
    world.away.insert(1);
    (5..10).for_each(|ticket| world.write(ticket));
    assert!(world.acknowledged(0..10));
}

/// The leader dies at every point of the change in turn: its successor finishes what it left open, a joint
/// configuration included.
#[test]
fn a_new_leader_finishes_what_its_predecessor_left_open() {
    let mut joint = 0;
    for deaths in 0..60 {
        let mut world = World::of_voters(&[1, 2, 3, 5, 6]);
        (0..5).for_each(|ticket| world.write(ticket));
        world.away.insert(3);
        world.join(replica(4, 0));
        let goal = wanted(&[1, 2, 4, 5, 6], &[]);
        let leader = world.lead();
        let mut delivered = 0;
        'life: for _ in 0..20 {
            world.tell(leader, Input::ChangeMembers { group: GROUP, wanted: goal.clone() });
            world.tell(leader, Input::Tick);
            while !world.messages.is_empty() {
                let (to, messages) = world.messages.remove(0);
                if delivered == deaths {
                    break 'life;
                }
                if world.nodes.contains_key(&to.0) && !world.away.contains(&to.0) {
                    delivered += 1;
                    world.tell(to.0, Input::Messages(messages));
                }
            }
        }
        let open = |node: &u32| world.replica(*node).membership().is_joint();
        joint += usize::from([1, 2, 4, 5, 6].iter().filter(|node| **node != leader).any(open));
        world.messages.clear();
        world.away.insert(leader);
        world.change(&goal);
        (5..10).for_each(|ticket| world.write(ticket));
        assert!(world.acknowledged(0..10), "after {deaths} messages");
    }
    assert!(joint > 0, "no leader died within a joint configuration: the test lost its teeth");
}

/// Two who decide at once, as two leaders of different terms may, and who want different things.
#[test]
fn a_goal_that_changes_on_the_way_is_reached() {
    let mut world = World::of_voters(&[1, 2, 3]);
    world.away.insert(3);
    world.join(replica(4, 0));
    world.join(replica(5, 0));
    for steps in 0..12 {
        let leader = world.lead();
        let goal = if steps % 2 == 0 { wanted(&[1, 2, 4], &[]) } else { wanted(&[1, 2, 5], &[]) };
        world.tell(leader, Input::ChangeMembers { group: GROUP, wanted: goal });
        world.settle();
        (0..steps).for_each(|_| world.tick());
    }
    world.change(&wanted(&[1, 2, 5], &[]));
    world.away.insert(4);
    (0..5).for_each(|ticket| world.write(ticket));
    assert!(world.acknowledged(0..5));
}

/// One thing that happens to `node`: time, a goal, a write, an absence, or a message that is late, repeated or lost.
fn happen(world: &mut World, dice: &mut Dice, node: u32, lost: u32, goals: &[WantedMembers; 2], ticket: u64) {
    match dice.below(20) {
        0..=3 => world.tell(node, Input::Tick),
        4 => world.tell(node, Input::ChangeMembers { group: GROUP, wanted: goals[dice.below(2) as usize].clone() }),
        5 => {
            let data = Bytes::copy_from_slice(&ticket.to_be_bytes());
            let proposal = Proposal { ticket: Ticket(ticket), source: None, context: Bytes::new(), data };
            world.tell(node, Input::Propose { group: GROUP, proposals: vec![proposal] });
        }
        // At most one is away besides the lost one, and not for ever.
        6 if dice.below(8) == 0 && world.away.len() > 1 => world.away.retain(|node| *node == lost),
        6 if dice.below(8) == 0 && world.away.len() == 1 => drop(world.away.insert(node)),
        _ if world.messages.is_empty() => {}
        fate => {
            let place = dice.below(world.messages.len().min(6) as u64) as usize;
            let (to, messages) = match fate {
                7 => world.messages[place].clone(),
                _ => world.messages.remove(place),
            };
            if fate != 8 && world.nodes.contains_key(&to.0) && !world.away.contains(&to.0) {
                world.tell(to.0, Input::Messages(messages));
            }
        }
    }
}

/// Whatever was acknowledged is in the log of everybody who has applied its place.
fn check_acknowledged(world: &World, seed: u64) {
    for (ticket, reply) in &world.replies {
        let Reply::Applied { at, .. } = reply else { continue };
        for (node, host) in &world.nodes {
            let other = host.applied.get(&at.index).is_some_and(|data| **data != ticket.to_be_bytes());
            assert!(!other, "seed {seed}: node {node} has something else than {ticket} at {at}");
        }
    }
}

/// Messages that are lost, repeated and late, nodes that are away for a while and one that is for ever, leaders that
/// want different things, writes all the time: nothing acknowledged is lost, and in the end the members are the wanted
/// ones. Returns whether voters had changed before the end.
fn chaos(seed: u64) -> bool {
    let mut dice = Dice(seed);
    let voters: &[u32] = if seed.is_multiple_of(2) { &[1, 2, 3] } else { &[1, 2, 3, 4, 5] };
    let mut world = World::of_voters(voters);
    (0..3).for_each(|ticket| world.write(ticket));
    let lost = voters[dice.below(voters.len() as u64) as usize];
    world.away.insert(lost);
    let goals = [8, 9].map(|new| {
        let stay = voters.iter().copied().filter(|node| *node != lost);
        wanted(&stay.chain([new]).collect::<Vec<_>>(), &[])
    });
    [8, 9].into_iter().for_each(|node| world.join(replica(node, 0)));
    for ticket in 3..1_503 {
        let nodes: Vec<u32> = world.nodes.keys().copied().filter(|node| !world.away.contains(node)).collect();
        let node = nodes[dice.below(nodes.len() as u64) as usize];
        happen(&mut world, &mut dice, node, lost, &goals, ticket);
    }
    let has_changed = world.nodes.values().any(|node| node.state.1.voters.iter().any(|voter| voter.node().0 >= 8));
    world.away.retain(|node| *node == lost);
    let goal = &goals[dice.below(2) as usize];
    world.change(goal);
    world.write(u64::MAX);
    (0..200).for_each(|_| world.tick());
    assert!(matches!(world.replies.get(&u64::MAX), Some(Reply::Applied { .. })), "seed {seed}: nothing can be written");
    check_acknowledged(&world, seed);
    let newest = world.nodes.values().map(|node| node.state.0).max_by_key(|at| at.index).expect("nodes");
    for voter in &goal.voters {
        let state = &world.nodes[&voter.node().0].state;
        assert_eq!((state.0, &state.1.voters), (newest, &goal.voters), "seed {seed}: node {}", voter.node());
    }
    has_changed
}

#[test]
fn members_change_in_chaos_and_nothing_acknowledged_is_lost() {
    let changed = (0..150).filter(|seed| chaos(*seed)).count();
    assert!(changed > 50, "voters changed in only {changed} runs before they were left alone");
}

#[path = "leaving.rs"]
mod leaving;
