//! A node whose log has lost turns, and what it makes of the groups that the controller wants on it.

use crate::world::{World, topic};
use ackord::controller::command::{Answer, Command};
use ackord::controller::view::MetadataView;
use ackord::server::groups::Known;
use ackord::types::{LogIndex, NodeId, RaftGroupId};
use std::collections::BTreeSet;

const NODE: NodeId = NodeId(1);

fn groups(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<RaftGroupId> {
    numbers.into_iter().map(RaftGroupId).collect()
}

#[test]
fn what_a_log_may_have_forgotten_is_adopted_and_what_comes_later_is_born() {
    let mut world = World::of_nodes(1);
    world.create(topic("t", 2, 1)).unwrap();
    // Its log remembers the first group, and ends at 5; the controller's state here is not there yet.
    let mut known = Known::new(NODE, groups([1]), groups([]), true);
    let empty = MetadataView::empty(world.view().cluster().id);
    known.look(LogIndex(5), LogIndex(4), &empty);
    let work = known.take_work(&empty, &world.view());
    assert_eq!(work.adopt.iter().map(|plan| plan.group.0).collect::<Vec<_>>(), [1, 2]);
    assert!(work.create.is_empty() && !known.settle(&groups([1, 2])), "more may have been here");

    known.look(LogIndex(9), LogIndex(5), &world.view());
    assert!(known.is_unsettled() && !known.settle(&groups([0, 1])), "the second is not here again");
    let before = world.view();
    world.create(topic("later", 1, 1)).unwrap();
    let work = known.take_work(&before, &world.view());
    assert_eq!(work.create.iter().map(|(plan, _)| plan.group.0).collect::<Vec<_>>(), [3]);
    assert!(work.adopt.is_empty() && !known.settle(&groups([1, 2])), "the third is about to be");
    assert!(known.settle(&groups([0, 1, 2, 3])));
    assert!(!known.is_unsettled() && !known.settle(&groups([0, 1, 2, 3])), "the log is told once");
}

#[test]
fn a_log_that_has_forgotten_nothing_has_nothing_to_settle() {
    let mut known = Known::new(NODE, groups([]), groups([]), false);
    let world = World::of_nodes(1);
    known.look(LogIndex(1), LogIndex(1), &world.view());
    assert!(!known.is_unsettled() && !known.settle(&groups([])));
}

/// A replica that moves here later is a new one, whatever the number of its group.
#[test]
fn what_moves_here_once_all_is_known_is_born() {
    let mut world = World::of_nodes(3);
    world.create(topic("t", 3, 1)).unwrap();
    let settled = world.view();
    let host = settled.topic_named("t").unwrap().partitions[0].replicas[0].node();
    let node = (1..4).map(NodeId).find(|node| *node != host).expect("there are three");
    let empty = MetadataView::empty(settled.cluster().id);
    let mut known = Known::new(node, groups([]), groups([]), true);
    known.look(LogIndex(1), LogIndex(1), &settled);
    let here: BTreeSet<_> = known.take_work(&empty, &settled).adopt.iter().map(|plan| plan.group).collect();
    assert!(known.settle(&here) && !here.contains(&RaftGroupId(1)));
    let disk = settled.broker(host).map(|broker| broker.incarnation);
    let moved = Command::ReplaceNode { old: host, new: node, disk, live: Vec::new(), force: false };
    assert!(matches!(world.run(&moved), Answer::Replacing(Ok(_))));
    let work = known.take_work(&settled, &world.view());
    assert!(work.create.iter().any(|(plan, _)| plan.group == RaftGroupId(1)) && work.adopt.is_empty());
}
