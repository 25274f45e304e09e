//! Nodes whose replicas move to another node, or to another disk of the same one.

use crate::world::{Memory, World, open, reason, registration, topic};
use ackord::broker::node::members::{Keeper, Led, Work};
use ackord::controller::command::{Answer, Command, Finished, Layout, NewTopic, Reason, Rejection, TopicReference};
use ackord::controller::view::{GroupChanges, MetadataView, Partition};
use ackord::machine::StateMachine;
use ackord::multiraft::core::membership::WantedMembers;
use ackord::storage::WriteBatch;
use ackord::types::{CONTROLLER_GROUP, Incarnation, Membership, NodeId, RaftGroupId, ReplicaId, Term};

const fn replica(node: u32, generation: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), generation)
}

fn nodes(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Nodes 1 to 5, of which the first is the controller's only voter; topic `t` is on nodes 1, 2 and 3.
fn world() -> World {
    let mut world = World::of_nodes(5);
    let layout = Layout::Manual(vec![nodes(&[1, 2, 3]), nodes(&[3, 1, 2])]);
    world.create(NewTopic { layout, ..topic("t", 0, 0) }).unwrap();
    world
}

fn replace(world: &mut World, old: u32, new: u32, live: &[u32]) -> Result<u32, Rejection> {
    let (old, new) = (NodeId(old), NodeId(new));
    let disk = world.view().broker(old).map(|broker| broker.incarnation);
    match world.run(&Command::ReplaceNode { old, new, disk, live: nodes(live), force: false }) {
        Answer::Replacing(result) => result,
        other => panic!("{other:?}"),
    }
}

fn join(world: &mut World, node: u32, incarnation: Incarnation) -> Result<ReplicaId, Rejection> {
    match world.run(&Command::JoinController { node: NodeId(node), incarnation }) {
        Answer::Joining(result) => result.map(|joining| {
            let members = world.view().cluster().controllers.members.clone();
            assert_eq!(joining.has_begun, members.replicas.contains(&joining.replica));
            assert!(members.replicas.iter().chain(&members.wanted()).all(|voter| joining.peers.contains(voter)));
            joining.replica
        }),
        other => panic!("{other:?}"),
    }
}

fn register(world: &mut World, node: u32, incarnation: u128) -> Result<(), Rejection> {
    let registration =
        ackord::controller::command::Registration { incarnation: Incarnation(incarnation), ..registration(node) };
    match world.run(&Command::RegisterBroker(registration)) {
        Answer::Done(result) => result,
        other => panic!("{other:?}"),
    }
}

fn finish(world: &mut World, finished: &[(u64, ReplicaId, ReplicaId)]) {
    let finished =
        finished.iter().map(|(group, old, new)| Finished { group: RaftGroupId(*group), old: *old, new: *new });
    let command = Command::FinishReplacements { finished: finished.collect() };
    assert_eq!(world.run(&command), Answer::Done(Ok(())));
}

/// Every group has the members that are wanted, and says so.
fn finish_all(world: &mut World) {
    let view = world.view();
    let open =
        view.all_groups().flat_map(|group| group.replacing.iter().map(|pair| (group.group.0, pair.old, pair.new)));
    finish(world, &open.collect::<Vec<_>>());
}

fn partition(view: &MetadataView, number: usize) -> Partition {
    view.topic_named("t").expect("the topic").partitions[number].clone()
}

#[test]
fn another_node_takes_the_place_of_a_lost_one() {
    let mut world = world();
    assert_eq!(replace(&mut world, 3, 4, &[1, 2, 4, 5]), Ok(2));
    let before = world.view();
    for number in 0..2 {
        let changed = partition(&before, number);
        assert!(changed.replicas.contains(&replica(3, 0)), "it counts until the new one does");
        assert!(changed.wanted().contains(&replica(4, 0)) && !changed.wanted().contains(&replica(3, 0)));
    }
    let plans = before.changes_since(&MetadataView::empty(before.cluster().id), NodeId(4)).create;
    assert_eq!(plans.len(), 2);
    assert!(plans.iter().all(|plan| plan.members == Membership::of_joining(replica(4, 0))));
    assert_eq!(before.unfinished(&before.cluster().replacements[0]), 2);

    finish(&mut world, &[(1, replica(3, 0), replica(4, 0))]);
    assert!(world.view().broker(NodeId(3)).is_some(), "one group is left");
    finish(&mut world, &[(1, replica(3, 0), replica(4, 0)), (2, replica(3, 0), replica(4, 0))]);
    let after = world.view();
    assert_eq!(partition(&after, 0).replicas, [replica(1, 0), replica(2, 0), replica(4, 0)]);
    assert_eq!(partition(&after, 1).replicas, [replica(4, 0), replica(1, 0), replica(2, 0)], "in its place");
    assert!(partition(&after, 0).is_lost(replica(3, 0)) && !partition(&after, 0).is_lost(replica(4, 0)));
    assert!(after.broker(NodeId(3)).is_none() && after.cluster().replacements.is_empty());
    let incarnation = registration(3).incarnation;
    assert_eq!(after.cluster().retired, [incarnation]);
    assert_eq!(reason(register(&mut world, 3, incarnation.0)), Reason::DuplicateBroker, "the old disk is back");
    assert_eq!(register(&mut world, 3, 77), Ok(()));

    // A node that was away all the time is still born with the members that the others were born with.
    let plans = after.changes_since(&MetadataView::empty(after.cluster().id), NodeId(2)).create;
    let first = Membership::of_voters([1, 2, 3].map(|node| replica(node, 0)));
    assert!(plans.iter().all(|plan| plan.members == first));
    // And one that follows gives the replica away.
    assert_eq!(after.changes_since(&before, NodeId(3)).tombstone, [RaftGroupId(1), RaftGroupId(2)]);
    assert!(after.gave_up(RaftGroupId(1), NodeId(3)) && !after.gave_up(RaftGroupId(1), NodeId(4)));
    let unknown = MetadataView::empty(after.cluster().id);
    assert!(!before.gave_up(RaftGroupId(1), NodeId(4)) && !unknown.gave_up(RaftGroupId(1), NodeId(3)));
}

/// A leader with an older copy of the metadata has taken the lost replica back, with nothing left to be replaced.
#[test]
fn a_leader_changes_back_what_an_older_copy_has_wanted() {
    let group = RaftGroupId(1);
    let mut world = world();
    let [with_old, with_new] = [3, 4].map(|node| Membership::of_voters([1, 2, node].map(|node| replica(node, 0))));
    let led = |term, members| Led { group, term: Term(term), members };
    let mut keeper = Keeper::default();
    let before = world.view();
    assert!(keeper.is_due(&before, [(group, Term(1))]), "nobody has looked yet");
    assert_eq!(keeper.look(&before, [led(1, &with_old)]), Work::default());
    assert!(!keeper.is_due(&before, [(group, Term(1))]));
    assert_eq!(replace(&mut world, 3, 4, &[1, 2, 4, 5]), Ok(2));
    finish(&mut world, &[(1, replica(3, 0), replica(4, 0)), (2, replica(3, 0), replica(4, 0))]);
    let after = world.view();
    assert!(after.cluster().replacements.is_empty() && keeper.is_due(&after, [(group, Term(1))]), "a newer copy");
    let wanted = WantedMembers { voters: with_new.voters.clone(), learners: Vec::new() };
    let work = keeper.look(&after, [led(1, &with_old)]);
    assert_eq!(work, Work { change: vec![(group, wanted)], finished: Vec::new() });
    assert!(keeper.is_due(&after, [(group, Term(1))]), "until it is done");
    assert_eq!(keeper.look(&after, [led(1, &with_new)]), Work::default());
    assert!(!keeper.is_due(&after, [(group, Term(1))]) && keeper.is_due(&after, [(group, Term(2))]), "a new leader");
    assert!(!keeper.is_due(&after, []), "it leads nothing");
}

#[test]
fn a_node_that_was_formatted_anew_takes_its_own_place() {
    let mut world = world();
    assert_eq!(reason(register(&mut world, 3, 77)), Reason::DuplicateBroker, "not before it is replaced");
    assert_eq!(replace(&mut world, 3, 3, &[1, 2]), Ok(2));
    let old = registration(3).incarnation;
    assert_eq!(world.view().cluster().retired, [old]);
    assert_eq!(replace(&mut world, 3, 3, &[1, 2]), Ok(2), "asked again, nothing changes");
    assert_eq!(reason(register(&mut world, 3, old.0)), Reason::DuplicateBroker);
    assert_eq!(register(&mut world, 3, 77), Ok(()));
    let (node, disk) = (NodeId(3), Some(old));
    let repeated = Command::ReplaceNode { old: node, new: node, disk, live: nodes(&[1, 2]), force: true };
    assert_eq!(world.run(&repeated), Answer::Replacing(Ok(2)), "a repetition does not give up the next disk");
    assert_eq!(world.view().cluster().retired, [old]);
    let view = world.view();
    assert_eq!(partition(&view, 0).replica_on(NodeId(3)), Some(replica(3, 1)));
    assert!(partition(&view, 0).is_lost(replica(3, 0)) && !partition(&view, 0).is_lost(replica(3, 1)));

    // The second disk is lost, too, before it had caught up.
    assert_eq!(replace(&mut world, 3, 3, &[1, 2]), Ok(2));
    assert_eq!(register(&mut world, 3, 78), Ok(()));
    finish(&mut world, &[(1, replica(3, 0), replica(3, 1))]);
    let view = world.view();
    assert_eq!(
        view.unfinished(&view.cluster().replacements[0]),
        2,
        "a report of what is not wanted any more changes nothing"
    );
    finish_all(&mut world);
    assert_eq!(partition(&world.view(), 0).replicas, [replica(1, 0), replica(2, 0), replica(3, 2)]);
    assert!(partition(&world.view(), 0).is_lost(replica(3, 1)));
    assert!(world.view().cluster().replacements.is_empty());
    assert_eq!(world.view().broker(NodeId(3)).map(|broker| broker.incarnation), Some(Incarnation(78)));
}

#[test]
fn a_replacement_that_is_lost_itself_is_replaced() {
    let mut world = world();
    replace(&mut world, 3, 4, &[1, 2, 4, 5]).unwrap();
    finish(&mut world, &[(1, replica(3, 0), replica(4, 0))]);
    assert_eq!(reason(replace(&mut world, 3, 5, &[1, 2, 5])), Reason::InvalidRequest, "node 4 is to be replaced");
    assert_eq!(replace(&mut world, 4, 5, &[1, 2, 5]), Ok(2));
    assert_eq!(partition(&world.view(), 0).wanted(), [replica(1, 0), replica(2, 0), replica(5, 0)]);
    assert_eq!(partition(&world.view(), 1).wanted(), [replica(5, 0), replica(1, 0), replica(2, 0)]);
    finish_all(&mut world);
    let view = world.view();
    assert!(view.broker(NodeId(3)).is_none() && view.broker(NodeId(4)).is_none());
    assert!(view.cluster().replacements.is_empty());
    assert_eq!(view.cluster().retired.len(), 2);
}

/// Node 4 has taken node 3's place and votes already, which nobody has reported, when it is to go itself. Until its
/// group has others in its place it keeps what it has acknowledged.
#[test]
fn a_replica_is_not_given_up_before_another_one_is_in_its_place() {
    let mut world = world();
    replace(&mut world, 3, 4, &[1, 2, 4, 5]).unwrap();
    replace(&mut world, 4, 5, &[1, 2, 5]).unwrap();
    let (view, group) = (world.view(), RaftGroupId(1));
    assert!(!view.gave_up(group, NodeId(4)) && !view.is_lost(group, replica(4, 0)));
    assert!(partition(&view, 0).peers().voters.contains(&replica(4, 0)), "it may have what another one lost");
    finish(&mut world, &[(1, replica(3, 0), replica(4, 0))]);
    assert!(!world.view().gave_up(group, NodeId(4)), "a report from before");
    finish_all(&mut world);
    assert!([3, 4].into_iter().all(|node| world.view().gave_up(group, NodeId(node))));
    assert!(world.view().cluster().replacements.is_empty());
}

/// Node 3's disk is lost and is to be replaced, and then the whole node is; and it comes back with another disk before
/// that is done. Born as the voter that it was, it would have forgotten whom it had voted for.
#[test]
fn a_disk_that_comes_late_is_not_taken_for_the_lost_one() {
    let mut world = world();
    replace(&mut world, 3, 3, &[1, 2, 4, 5]).unwrap();
    replace(&mut world, 3, 4, &[1, 2, 4, 5]).unwrap();
    assert_eq!(register(&mut world, 3, 77), Ok(()));
    let view = world.view();
    let plans = view.changes_since(&MetadataView::empty(view.cluster().id), NodeId(3)).create;
    assert!(plans.iter().all(|plan| plan.members == Membership::of_joining(replica(3, 1))), "{plans:?}");
    finish_all(&mut world);
    assert!(world.view().gave_up(RaftGroupId(1), NodeId(3)));
}

/// A node learns who the others of its groups are whenever they change: one that is repaired asks them.
#[test]
fn a_node_hears_of_the_others_of_its_groups() {
    let mut world = world();
    let before = world.view();
    replace(&mut world, 3, 4, &[1, 2, 4, 5]).unwrap();
    let during = world.view();
    let of = |changes: GroupChanges| (changes.create.len(), changes.others, changes.tombstone.len());
    let (0, others, 0) = of(during.changes_since(&before, NodeId(2))) else { panic!("node 2 has what it had") };
    let known = [1, 2, 3, 4].map(|node| replica(node, 0));
    assert!(others.len() == 2 && others.iter().all(|plan| plan.peers == Membership::of_voters(known)), "{others:?}");
    finish_all(&mut world);
    assert_eq!(of(world.view().changes_since(&during, NodeId(2))).1.len(), 2);
    assert_eq!(of(world.view().changes_since(&world.view(), NodeId(2))).1, []);
}

/// Of a partition whose only replica was lost nothing can be replaced; its topic is deleted in the end.
#[test]
fn a_replacement_ends_with_the_topics_that_it_waits_for() {
    let mut world = world();
    replace(&mut world, 3, 4, &[1, 2, 4, 5]).unwrap();
    world.run(&Command::DeleteTopics { topics: vec![TopicReference::Name("t".to_owned())] });
    assert!(world.view().cluster().replacements.is_empty() && world.view().broker(NodeId(3)).is_none());
}

/// Node 4 was to take node 3's place, and its disk is lost before it registers with the next one.
#[test]
fn a_node_that_is_to_take_a_place_may_lose_its_disk() {
    let mut world = world();
    assert_eq!(replace(&mut world, 3, 4, &[1, 2, 4, 5]), Ok(2));
    assert_eq!(replace(&mut world, 4, 4, &[1, 2, 5]), Ok(2));
    assert_eq!(partition(&world.view(), 0).replica_on(NodeId(4)), Some(replica(4, 1)));
    // It does not come back at all.
    assert_eq!(replace(&mut world, 4, 5, &[1, 2, 5]), Ok(2));
    assert!((0..2).all(|generation| partition(&world.view(), 0).is_lost(replica(4, generation)) == (generation == 0)));
    finish_all(&mut world);
    assert!(world.view().cluster().replacements.is_empty());
    assert_eq!(partition(&world.view(), 0).replicas, [replica(1, 0), replica(2, 0), replica(5, 0)]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = world();
    let before = world.view();
    assert_eq!(reason(replace(&mut world, 9, 4, &[])), Reason::UnknownBroker);
    assert_eq!(reason(replace(&mut world, 3, 9, &[])), Reason::UnknownBroker);
    assert_eq!(reason(replace(&mut world, 3, 2, &[1, 2])), Reason::InvalidReplicaAssignment, "it has replicas itself");
    assert_eq!(reason(replace(&mut world, 3, 4, &[1, 3])), Reason::InvalidRequest, "node 3 is alive");
    assert_eq!(before, world.view());
    let forced = |disk: Option<Incarnation>| {
        let (old, new) = (NodeId(3), NodeId(4));
        Command::ReplaceNode { old, new, disk, live: nodes(&[3]), force: true }
    };
    let another_disk = world.run(&forced(Some(Incarnation(77))));
    assert!(matches!(another_disk, Answer::Replacing(Err(_))), "{another_disk:?}");
    assert_eq!(before, world.view());
    let forced = forced(Some(registration(3).incarnation));
    assert_eq!(world.run(&forced), Answer::Replacing(Ok(2)));
    assert_eq!(reason(replace(&mut world, 2, 3, &[1])), Reason::InvalidRequest, "node 3 is leaving");
    let on_leaving = NewTopic { layout: Layout::Manual(vec![nodes(&[3])]), ..topic("new", 0, 0) };
    assert_eq!(reason(world.create(on_leaving)), Reason::InvalidReplicaAssignment);
    for node in [3, 4] {
        let unregister = world.run(&Command::UnregisterBroker { node: NodeId(node) });
        assert!(matches!(unregister, Answer::Done(Err(_))), "node {node} has replicas, or is to have some");
    }
    // A node that has nothing needs no replacement: it is gone at once.
    assert_eq!(replace(&mut world, 5, 1, &[1]), Ok(0));
    assert!(world.view().broker(NodeId(5)).is_none());
}

#[test]
fn the_controllers_own_group_is_replaced_like_the_others() {
    let mut world = world();
    let incarnation = |node| registration(node).incarnation;
    assert_eq!(join(&mut world, 1, incarnation(1)), Ok(replica(1, 0)), "it votes, and may have to be repaired");
    assert_eq!(reason(join(&mut world, 4, Incarnation(1))), Reason::UnknownBroker);
    assert_eq!(join(&mut world, 4, incarnation(4)), Ok(replica(4, 0)));
    assert_eq!(join(&mut world, 4, incarnation(4)), Ok(replica(4, 0)), "asked again");
    assert_eq!(join(&mut world, 2, incarnation(2)), Ok(replica(2, 0)));
    let learners = |world: &World| world.view().cluster().controllers.learners.clone();
    assert_eq!(learners(&world), [replica(2, 0), replica(4, 0)]);

    assert_eq!(replace(&mut world, 1, 4, &[2, 3, 4, 5]), Ok(3));
    let members = |world: &World| world.view().cluster().controllers.members.clone();
    assert_eq!(members(&world).wanted(), [replica(4, 0)], "the learner is promoted");
    assert_eq!(learners(&world), [replica(2, 0)]);
    assert_eq!(join(&mut world, 4, incarnation(4)), Ok(replica(4, 0)));
    finish(&mut world, &[(CONTROLLER_GROUP.0, replica(1, 0), replica(4, 0))]);
    assert_eq!(members(&world).replicas, [replica(4, 0)]);
    assert!(members(&world).is_lost(replica(1, 0)));

    // A node with a copy only is formatted anew: it gets its next number.
    replace(&mut world, 2, 2, &[4]).unwrap();
    assert_eq!(learners(&world), []);
    register(&mut world, 2, 77).unwrap();
    assert_eq!(join(&mut world, 2, Incarnation(77)), Ok(replica(2, 1)));

    // What is stored, and what a snapshot carries, is the whole of it; and a node that joins takes it.
    assert_eq!(open(&world.engine).view(), world.view());
    let engine = Memory::default();
    let join = || ackord::controller::Controller::join(&engine, crate::world::CLUSTER, replica(9, 0)).unwrap();
    let joining = join().expect("there was nothing");
    assert!(join().is_none(), "what is there stays");
    assert_eq!(joining.membership(), &Membership::of_joining(replica(9, 0)));
    let mut joining = open(&engine);
    assert_eq!(joining.membership(), &Membership::of_joining(replica(9, 0)), "it is stored");
    joining.install(&world.controller.snapshot(), &mut WriteBatch::default()).unwrap();
    assert_eq!(joining.view(), world.view());
}
