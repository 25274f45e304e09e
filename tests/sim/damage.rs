//! Damage to disks and databases, of a kind that can be found: below what the log has proven durable. What is damaged
//! in the very last turn, together with a power cut, looks like a torn write, and nobody promises to notice it.

use crate::chance::{Chance, MILLISECOND};
use crate::faults::Fault;
use crate::observe::Observation;
use crate::sabotage::{self, Sabotage};
use crate::world::{Event, World};
use ackord::sim::{Random, SimDisk};
use ackord::storage::{Engine, Family};
use ackord::types::{NodeId, RaftGroupId};
use ackord::wal::disk::Disk;

/// The unit of damage, in bytes.
const PAGE: u64 = 4096;
/// What a disk writes whole, in bytes.
const SECTOR: u64 = 512;

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
    /// Some sectors of some pages are as they were before.
    Torn,
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
pub const HARMS: [Harm; 10] = [
    Harm::Flip,
    Harm::Zero,
    Harm::Unreadable,
    Harm::Misdirected,
    Harm::LostWrite,
    Harm::Torn,
    Harm::Cut,
    Harm::Lose,
    Harm::Swap,
    Harm::Older,
];

/// What a part of a file can suffer, and what becomes of a whole one.
const HARMS_OF_PAGES: usize = 6;
/// Those that can be told from an older state of the log where nothing later follows.
const HARMS_OF_NEWEST: usize = 9;

/// Rows that can be damaged. Of the index by time there is none before a partition has 4 MiB.
pub const ROWS: [Family; 5] = [Family::Records, Family::Producers, Family::Groups, Family::Meta, Family::Controller];

/// The files of a log, in order.
pub fn segments(disk: &SimDisk) -> Vec<String> {
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
    /// Damages a fragile node, or a forgetful one.
    pub fn damage(&mut self, fault: Fault) -> bool {
        let forgetful = self.shape.forgetful.filter(|_| fault == Fault::DamageState);
        let Some(node) = forgetful.or_else(|| self.pick_fragile()) else { return false };
        let position = Self::position(node);
        if self.nodes[position].right.is_some() || self.nodes[position].refused.is_some() {
            return false;
        }
        self.nodes[position].harms.clear();
        match fault {
            Fault::DamageRunning => self.damage_running(position),
            Fault::DamageNewest => self.damage_newest(position),
            Fault::DamageState => self.damage_state(position),
            Fault::LoseSync => {
                let count = self.chances.nemesis.between(1, 6);
                self.nodes[position].disk.lose_sync(count);
                true
            }
            _ => self.damage_down(position),
        }
    }

    /// Tells that a disk was damaged.
    pub fn note_damage(&mut self, node: NodeId, what: &str) {
        self.coverage.hit(&format!("damage {what}"));
        self.trace.note(self.now, "damage", &[node.0.into()], || format!("node {node}: {what}"));
        self.watch.tell(&Observation::Damaged { node });
        let here = self.node_mut(node);
        here.damaged = true;
        here.older.believed = true;
        here.harms.insert(what.to_owned());
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
            let small = matches!(harm, Harm::Flip | Harm::Zero | Harm::Unreadable);
            let count = if small { names.len() } else { names.len().saturating_sub(1) };
            self.harm(position, harm, &names[..count], u64::MAX);
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
        let harm = *self.chances.nemesis.pick(&HARMS[..HARMS_OF_PAGES]);
        self.harm(position, harm, &names, u64::MAX);
        self.coverage.hit("damage under a running process");
        true
    }

    /// The segment that is written to, in front of its newest turn, which proves that all this was durable. That one
    /// stays as it is, sealed or not; under a running process, or one that has just ended.
    fn damage_newest(&mut self, position: usize) -> bool {
        let here = &self.nodes[position];
        let (node, Some(process)) = (here.id, here.process.as_ref()) else { return false };
        let (number, proven) = process.log.log.proven();
        let names = segments(&here.disk);
        let random = &mut self.chances.nemesis;
        let (runs, power_cut, times) = (random.one_in(3), random.one_in(2), random.between(1, 4));
        // A log of which nothing is left can't be repaired, only replaced.
        let harms = if runs || names.len() < 3 { HARMS_OF_PAGES } else { HARMS_OF_NEWEST };
        let newest = names.last().filter(|name| name.contains(&format!("{number:016}"))).cloned();
        let Some(newest) = newest.filter(|_| proven > 0) else { return false };
        if !runs {
            self.end_process(position, power_cut);
            let after = self.chances.nemesis.between(10 * MILLISECOND, 500 * MILLISECOND);
            self.schedule(after, Event::Start { node });
        }
        for _ in 0..times {
            let harm = *self.chances.nemesis.pick(&HARMS[..harms]);
            if !self.harm(position, harm, std::slice::from_ref(&newest), proven) {
                continue;
            }
            self.coverage.hit(&format!("newest segment: {harm:?}"));
            if HARMS[HARMS_OF_PAGES..].contains(&harm) {
                break;
            }
        }
        true
    }

    /// Does it to one of these files, to a page that lies before `below`. Whether it could be done.
    fn harm(&mut self, position: usize, harm: Harm, names: &[String], below: u64) -> bool {
        let here = &self.nodes[position];
        let (node, disk, random) = (here.id, here.disk.clone(), &mut self.chances.nemesis);
        if names.is_empty() {
            return false;
        }
        let name = random.pick(names).clone();
        let contents = disk.contents(&name);
        let within = &contents[..contents.len().min(usize::try_from(below).unwrap_or(usize::MAX))];
        let Some(page) = used_page(within, random) else { return false };
        let older = here.copies.iter().find(|copy| segments(&copy.disk).contains(&name));
        let older = older.map(|copy| copy.disk.contents(&name));
        let before = |at: u64, length: u64| {
            let then = older.as_ref().and_then(|older| older.get(at as usize..(at + length) as usize));
            then.map_or(vec![0; length as usize], <[u8]>::to_vec)
        };
        match harm {
            Harm::Flip => disk.flip(&name, page + random.below(PAGE), random.below(8) as u8),
            Harm::Zero => disk.zero(&name, page, PAGE),
            Harm::Unreadable => disk.make_unreadable(&name, page),
            Harm::Misdirected => {
                let Some(other) = used_page(within, random).filter(|other| *other != page) else { return false };
                disk.overwrite(&name, other, &contents[page as usize..(page + PAGE) as usize]);
            }
            Harm::LostWrite => disk.overwrite(&name, page, &before(page, PAGE)),
            Harm::Torn => {
                let end = (page + random.between(1, 3) * PAGE).min(within.len() as u64);
                for sector in (page..end).step_by(SECTOR as usize).filter(|_| random.one_in(2)) {
                    disk.overwrite(&name, sector, &before(sector, SECTOR.min(end - sector)));
                }
            }
            Harm::Cut => disk.cut(&name, page + random.below(PAGE)),
            Harm::Lose => disk.lose(&name),
            Harm::Swap => {
                let mut others = segments(&disk);
                others.pop();
                others.retain(|other| *other != name);
                let Some(other) = others.first().map(|_| random.pick(&others)) else { return false };
                let there = disk.contents(other);
                disk.put(&name, &there);
                disk.put(other, &contents);
            }
            Harm::Older => {
                let Some(older) = older else { return false };
                disk.put(&name, &older);
            }
        }
        self.note_damage(node, &format!("{harm:?}"));
        self.trace.note(self.now, "damage", &[page], || format!("{name} at {page}"));
        true
    }

    /// Rows of a group that are next to each other can't be read any more, or the whole database can't be opened.
    fn damage_state(&mut self, position: usize) -> bool {
        let here = &self.nodes[position];
        let (node, Some(process)) = (here.id, here.process.as_ref()) else { return false };
        let (engine, random) = (here.engine.clone(), &mut self.chances.nemesis);
        let groups: Vec<_> = process.core.group_ids().collect();
        // A control leaves out what would show by whole groups that are not there.
        let kinds = if self.shape.sabotage == Sabotage::TrustRows { 3 } else { ROWS.len() as u64 + 1 };
        // There is most to read of records.
        let what = if random.one_in(4) { 0 } else { random.below(kinds) as usize };
        let (runs, power_cut) = (random.one_in(2), random.one_in(2));
        let Some(family) = ROWS.get(what) else {
            self.end_process(position, power_cut);
            engine.condemn("its files are gone");
            self.note_damage(node, "Database");
            self.schedule(50 * MILLISECOND, Event::Start { node });
            return true;
        };
        let keys = |group: &RaftGroupId| engine.durable_keys(*family, &group.0.to_be_bytes());
        let filled: Vec<_> = groups.iter().map(keys).filter(|keys| !keys.is_empty()).collect();
        let Some(keys) = filled.first().map(|_| random.pick(&filled)) else { return false };
        let first = random.below(keys.len() as u64) as usize;
        let lost: Vec<_> = keys[first..].iter().take(random.magnitude(1, 100) as usize).cloned().collect();
        if self.shape.sabotage == Sabotage::TrustRows {
            sabotage::lose_rows(&engine, *family, &lost);
        } else {
            engine.damage(*family, &lost);
        }
        self.note_damage(node, &format!("{family:?}"));
        if !runs {
            self.end_process(position, power_cut);
            self.schedule(50 * MILLISECOND, Event::Start { node });
        }
        true
    }
}
