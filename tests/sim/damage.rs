//! Damage to disks and databases, of a kind that can be found: below what the log has proven durable. What is damaged
//! in the very last turn, together with a power cut, looks like a torn write, and nobody promises to notice it.

use crate::chance::{Chance, MILLISECOND};
use crate::faults::Fault;
use crate::observe::Observation;
use crate::world::{Event, World};
use ackord::multiraft::apply::machine::Machine;
use ackord::sim::{Random, SimDisk};
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{NodeId, RaftGroupId};
use ackord::wal::disk::Disk;

/// The unit of damage, in bytes.
const PAGE: u64 = 4096;

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A bit turns over.
    Flip,
    /// A page is zero.
    Zero,
    /// A block can't be read.
    Unreadable,
    /// A chunk is written to another place, too.
    Misdirected,
    /// A page is as it was before.
    LostWrite,
    /// A file is cut off.
    Cut,
    /// A file is gone.
    Lose,
    /// Two files have changed places.
    Swap,
    /// A file is as it was before.
    Older,
}

/// Every kind.
pub const HARMS: [Harm; 9] = [
    Harm::Flip,
    Harm::Zero,
    Harm::Unreadable,
    Harm::Misdirected,
    Harm::LostWrite,
    Harm::Cut,
    Harm::Lose,
    Harm::Swap,
    Harm::Older,
];

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.list().expect("the disk works");
    let mut names: Vec<_> =
        names.into_iter().filter(|name| name.starts_with("segment-") && name.ends_with(".wal")).collect();
    names.sort_unstable();
    names
}

/// A page of a file that holds something.
fn used_page(contents: &[u8], random: &mut Random) -> Option<u64> {
    // A file that was cut off may end within a page: only whole ones can be copied elsewhere.
    let pages = contents.chunks_exact(PAGE as usize).enumerate();
    let used: Vec<_> = pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0)).map(|(place, _)| place).collect();
    used.first().map(|_| *random.pick(&used) as u64 * PAGE)
}

impl World {
    /// Damages a fragile node.
    pub fn damage(&mut self, fault: Fault) -> bool {
        let Some(node) = self.pick_fragile() else { return false };
        let position = Self::position(node);
        if self.nodes[position].right.is_some() || self.nodes[position].refused.is_some() {
            return false;
        }
        match fault {
            Fault::DamageRunning => self.damage_running(position),
            Fault::DamageState => self.damage_state(position),
            _ => self.damage_down(position),
        }
    }

    fn note_damage(&mut self, node: NodeId, what: &str) {
        self.coverage.hit(&format!("damage {what}"));
        self.trace.note(self.now, "damage", &[node.0.into()], || format!("node {node}: {what}"));
        self.watch.tell(&Observation::Damaged { node });
        self.node_mut(node).damaged = true;
        self.node_mut(node).older.believed = true;
    }

    /// The node is down, and has been shut down in order before, so that everything in its log is proven.
    fn damage_down(&mut self, position: usize) -> bool {
        let node = self.nodes[position].id;
        self.end_process(position, true);
        if !self.shut_down_in_order(position) {
            self.schedule(MILLISECOND, Event::Start { node });
            return false;
        }
        for _ in 0..self.chances.nemesis.between(1, 3) {
            let names = segments(&self.nodes[position].disk);
            let harm = *self.chances.nemesis.pick(&HARMS);
            self.harm(position, harm, &names);
        }
        let after = self.chances.nemesis.between(10 * MILLISECOND, 500 * MILLISECOND);
        self.schedule(after, Event::Start { node });
        true
    }

    /// Starts the log and ends it in order.
    fn shut_down_in_order(&mut self, position: usize) -> bool {
        let (disk, options) = (self.nodes[position].disk.clone(), self.shape.log.clone());
        let sealed = self.nodes[position].open_log(&disk, options).and_then(|(mut log, _)| log.seal());
        disk.kill();
        sealed.is_ok()
    }

    /// Only segments that are written no more: what is read from them is what was proven.
    fn damage_running(&mut self, position: usize) -> bool {
        let mut names = segments(&self.nodes[position].disk);
        names.pop();
        if self.nodes[position].process.is_none() || names.is_empty() {
            return false;
        }
        let harm = *self.chances.nemesis.pick(&HARMS[..5]);
        self.harm(position, harm, &names);
        self.coverage.hit("damage under a running process");
        true
    }

    /// Does it to one of these files; to the newest of a log only what a single page can suffer.
    fn harm(&mut self, position: usize, harm: Harm, names: &[String]) {
        let here = &self.nodes[position];
        let (node, disk, random) = (here.id, here.disk.clone(), &mut self.chances.nemesis);
        let small = matches!(harm, Harm::Flip | Harm::Zero | Harm::Unreadable);
        let count = if small { names.len() } else { names.len().saturating_sub(1) };
        if count == 0 {
            return;
        }
        let name = random.pick(&names[..count]).clone();
        let contents = disk.contents(&name);
        let Some(page) = used_page(&contents, random) else { return };
        let older = here.copies.iter().find(|copy| segments(&copy.disk).contains(&name));
        let older = older.map(|copy| copy.disk.contents(&name));
        match harm {
            Harm::Flip => disk.flip(&name, page + random.below(PAGE), random.below(8) as u8),
            Harm::Zero => disk.zero(&name, page, PAGE),
            Harm::Unreadable => disk.make_unreadable(&name, page),
            Harm::Misdirected => {
                let Some(other) = used_page(&contents, random).filter(|other| *other != page) else { return };
                // A file that was cut off may end within a page.
                let chunk = |at: u64| contents.get(at as usize..(at + PAGE) as usize);
                let (Some(from), Some(_)) = (chunk(page), chunk(other)) else { return };
                disk.overwrite(&name, other, from);
            }
            Harm::LostWrite => {
                let before = older.map_or(vec![0; PAGE as usize], |older| {
                    older.get(page as usize..(page + PAGE) as usize).map_or(vec![0; PAGE as usize], <[u8]>::to_vec)
                });
                disk.overwrite(&name, page, &before);
            }
            Harm::Cut => disk.cut(&name, page + random.below(PAGE)),
            Harm::Lose => disk.lose(&name),
            Harm::Swap => {
                let other = random.pick(&names[..count]).clone();
                let there = disk.contents(&other);
                disk.put(&name, &there);
                disk.put(&other, &contents);
            }
            Harm::Older => {
                let Some(older) = older else { return };
                disk.put(&name, &older);
            }
        }
        self.note_damage(node, &format!("{harm:?}"));
        self.trace.note(self.now, "damage", &[page], || format!("{name} at {page}"));
    }

    /// A group's state loses the row that says what it is.
    fn damage_state(&mut self, position: usize) -> bool {
        let node = self.nodes[position].id;
        let Some(process) = self.nodes[position].process.as_ref() else { return false };
        let is_partition = |group: &RaftGroupId| matches!(process.applier.machine(*group), Some(Machine::Partition(_)));
        let groups: Vec<_> = process.core.group_ids().filter(is_partition).collect();
        let Some(group) = groups.first().map(|_| *self.chances.nemesis.pick(&groups)) else { return false };
        self.end_process(position, true);
        let engine = &self.nodes[position].engine;
        let mut batch = WriteBatch::default();
        batch.delete(Family::Meta, [&group.0.to_be_bytes()[..], &[0]].concat());
        engine.write(batch).and_then(|()| engine.flush()).expect("the simulated database writes");
        self.note_damage(node, "State");
        self.schedule(50 * MILLISECOND, Event::Start { node });
        true
    }
}
