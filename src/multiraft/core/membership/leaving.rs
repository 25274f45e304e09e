//! A leader that is elected in the middle of the change that removes it.

use super::*;

impl World {
    fn deliver_one(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let (to, messages) = self.messages.remove(0);
        if !self.away.contains(&to.0) {
            self.tell(to.0, Input::Messages(messages));
        }
    }
}

/// Whoever is to go may be elected in the middle of the change. It ends it, leaves, and steps down, though it has
/// entries on the way that are later than its end.
#[test]
fn a_leader_that_goes_steps_down() {
    let mut led = 0;
    for deaths in 0..60 {
        let mut world = World::of_voters(&[1, 2, 3]);
        world.write(0);
        world.join(replica(4, 0));
        let (goal, leader) = (wanted(&[1, 2, 4], &[]), world.lead());
        for _ in 0..deaths {
            if world.messages.is_empty() {
                world.tell(leader, Input::ChangeMembers { group: GROUP, wanted: goal.clone() });
                world.tell(leader, Input::Tick);
            } else {
                world.deliver_one();
            }
        }
        world.messages.clear();
        world.away.insert(leader);
        // The others have not heard of a leader for long enough, and the third is the one that campaigns.
        for node in [2, 4].into_iter().filter(|node| *node != leader) {
            (0..10).for_each(|_| world.tell(node, Input::Tick));
        }
        world.messages.clear();
        (0..20).for_each(|_| world.tell(3, Input::Tick));
        for ticket in 100..200 {
            led += usize::from(world.leader() == Some(3) && world.replica(3).membership().is_joint());
            let data = Bytes::copy_from_slice(b"on the way");
            let proposal = Proposal { ticket: Ticket(ticket), source: None, context: Bytes::new(), data };
            world.tell(3, Input::Propose { group: GROUP, proposals: vec![proposal] });
            world.deliver_one();
        }
        world.settle();
        world.away.clear();
        world.change(&goal);
        world.away.insert(3);
        (0..40).for_each(|_| world.tick()); // whoever led before it has heard of a newer term
        world.write(1);
        assert!(world.acknowledged(0..2), "after {deaths} messages");
    }
    assert!(led > 0, "the one that is to go never led: the test lost its teeth");
}
