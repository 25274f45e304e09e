//! The coordinator's state in memory: groups and their offsets, what they weigh, and what changed.
//!
//! A group is replaced as a whole; its rows are written once at the end of an apply, from the difference between what
//! it was before and what it is then. Offsets are many and small: each is written where it changes.

use super::command::Rejection;
use super::group::{Group, Member};
use super::offsets::Committed;
use super::{NAME_BYTES_MAX, STATE_BYTES_MAX, rows};
use crate::storage::WriteBatch;
use crate::types::RaftGroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One group's offsets, by topic and partition.
pub(super) type Offsets = BTreeMap<String, BTreeMap<i32, Committed>>;

/// What a group weighs beyond its names, in bytes; more than its fixed fields take in a snapshot.
const GROUP_BYTES: usize = 256;
/// The same of a member.
const MEMBER_BYTES: usize = 256;
/// The same of an offset, of a protocol in a member's list, and of an id that was handed out.
const ITEM_BYTES: usize = 96;

/// All groups and offsets.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// By name.
    groups: BTreeMap<String, Arc<Group>>,
    /// By group. A group with offsets is always in `groups`.
    offsets: BTreeMap<String, Offsets>,
    /// What all of it weighs.
    bytes: usize,
    /// Groups that were changed since their rows were written, as they were then.
    before: BTreeMap<String, Option<Arc<Group>>>,
}

/// What a group weighs without its offsets. A leader and a protocol are a member's id and a name in its list: counted
/// with the member, so that making up a generation weighs nothing. Only while a generation is being prepared there may
/// be no member left that knows the last one's protocol.
fn group_bytes(group: &Group) -> usize {
    let known = |protocol: &&String| group.members.values().any(|member| member.metadata(protocol).is_some());
    let protocol = group.protocol.as_ref().filter(|protocol| !known(protocol)).map_or(0, String::len);
    let protocol_type = group.protocol_type.as_ref().map_or(0, String::len);
    let pending: usize = group.pending.iter().map(|id| id.len() + ITEM_BYTES).sum();
    let members: usize = group.members.values().map(|member| member_bytes(member)).sum();
    GROUP_BYTES + group.name.len() + protocol_type + protocol + pending + members
}

fn member_bytes(member: &Member) -> usize {
    let protocols = member.protocols.iter().map(|(name, metadata)| 2 * name.len() + metadata.len() + ITEM_BYTES);
    let instance = member.instance.as_ref().map_or(0, String::len);
    let names = 3 * member.id.len() + instance + member.client_id.len() + member.client_host.len();
    MEMBER_BYTES + names + protocols.sum::<usize>() + member.assignment.len()
}

/// What an offset weighs. The group's name is in its key, too.
fn offset_bytes(group: &str, topic: &str, committed: &Committed) -> usize {
    ITEM_BYTES + group.len() + topic.len() + committed.metadata.len()
}

impl State {
    /// Every group, by name.
    pub fn groups(&self) -> &BTreeMap<String, Arc<Group>> {
        &self.groups
    }

    /// One group.
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }

    /// Every offset, with group, topic and partition.
    pub fn offsets(&self) -> impl Iterator<Item = (&str, &str, i32, &Committed)> {
        let topics = self.offsets.iter().flat_map(|(group, topics)| topics.iter().map(move |topic| (group, topic)));
        topics.flat_map(|(group, (topic, partitions))| {
            partitions.iter().map(|(number, committed)| (group.as_str(), topic.as_str(), *number, committed))
        })
    }

    /// The same, as they lie here.
    pub fn all_offsets(&self) -> &BTreeMap<String, Offsets> {
        &self.offsets
    }

    /// One group's offsets.
    pub fn offsets_of(&self, group: &str) -> Option<&Offsets> {
        self.offsets.get(group)
    }

    /// What all of it weighs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets a group, whose rows `write_groups` will write.
    pub fn set_group(&mut self, group: Group) {
        self.bytes += group_bytes(&group);
        let name = group.name.clone();
        let earlier = self.groups.insert(name.clone(), Arc::new(group));
        self.bytes -= earlier.as_deref().map_or(0, group_bytes);
        self.before.entry(name).or_insert(earlier);
    }

    /// What the state would weigh with this group in the place of the one of its name.
    pub fn bytes_with(&self, group: &Group) -> usize {
        let earlier = self.groups.get(&group.name).map_or(0, |earlier| group_bytes(earlier));
        self.bytes - earlier + group_bytes(group)
    }

    /// Removes a group that has no offsets.
    pub fn remove_group(&mut self, name: &str) {
        assert!(!self.offsets.contains_key(name), "its offsets go first");
        if let Some(earlier) = self.groups.remove(name) {
            self.bytes -= group_bytes(&earlier);
            self.before.entry(name.to_owned()).or_insert(Some(earlier));
        }
    }

    /// Stores an offset of a group that is there. The caller writes its row.
    pub fn set_offset(&mut self, group: &str, topic: &str, partition: i32, committed: Committed) {
        assert!(self.groups.contains_key(group), "offsets belong to groups");
        self.bytes += offset_bytes(group, topic, &committed);
        let topics = self.offsets.entry(group.to_owned()).or_default();
        let earlier = topics.entry(topic.to_owned()).or_default().insert(partition, committed);
        self.bytes -= earlier.map_or(0, |earlier| offset_bytes(group, topic, &earlier));
    }

    /// Drops an offset, and says whether there was one. The caller deletes its row.
    pub fn remove_offset(&mut self, group: &str, topic: &str, partition: i32) -> bool {
        let Some(topics) = self.offsets.get_mut(group) else { return false };
        let Some(partitions) = topics.get_mut(topic) else { return false };
        let Some(earlier) = partitions.remove(&partition) else { return false };
        self.bytes -= offset_bytes(group, topic, &earlier);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.offsets.remove(group);
        }
        true
    }

    /// Writes the rows of the groups that changed since it was last called, and says which did.
    pub fn write_groups(&mut self, raft: RaftGroupId, batch: &mut WriteBatch) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (name, before) in std::mem::take(&mut self.before) {
            let after = self.groups.get(&name);
            if before.as_ref() != after {
                rows::put_group(batch, raft, &name, before.as_deref(), after.map(AsRef::as_ref));
                changed.insert(name);
            }
        }
        changed
    }

    /// Checks what was read from rows or a snapshot, and weighs it.
    pub fn settle(&mut self) -> Result<(), String> {
        for group in self.groups.values() {
            let led = group.leader.iter().all(|leader| group.members.contains_key(leader));
            let apart = group.pending.iter().all(|id| !group.members.contains_key(id));
            let empty = group.members.is_empty();
            if !led || !apart || group.is_empty() != empty || group.leader.is_none() != empty {
                return Err(format!("group {:?} contradicts itself", group.name));
            }
        }
        let groups: usize = self.groups.values().map(|group| group_bytes(group)).sum();
        let offsets: usize = self.offsets().map(|(group, topic, _, row)| offset_bytes(group, topic, row)).sum();
        self.bytes = groups + offsets;
        if self.bytes > STATE_BYTES_MAX {
            return Err(format!("the state weighs {} bytes, more than it may", self.bytes));
        }
        Ok(())
    }

    /// Adds a group from a row or a snapshot.
    pub fn load_group(&mut self, group: Group) -> Result<(), String> {
        let strangers = group.members.iter().filter(|(id, member)| **id != member.id).count();
        if strangers > 0 || !group.members.keys().chain([&group.name]).all(|name| name.len() <= NAME_BYTES_MAX) {
            return Err(format!("group {:?} has members under other names, or names that are too long", group.name));
        }
        match self.groups.insert(group.name.clone(), Arc::new(group)) {
            None => Ok(()),
            Some(group) => Err(format!("group {:?} is there twice", group.name)),
        }
    }

    /// Adds a member from a row.
    pub fn load_member(&mut self, group: &str, member: Member) -> Result<(), String> {
        let Some(group) = self.groups.get_mut(group) else {
            return Err(format!("member {:?} belongs to no group", member.id));
        };
        Arc::make_mut(group).members.insert(member.id.clone(), Arc::new(member));
        Ok(())
    }

    /// Adds an offset from a row or a snapshot.
    pub fn load_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        committed: Committed,
    ) -> Result<(), String> {
        if !self.groups.contains_key(group) || topic.len() > NAME_BYTES_MAX {
            return Err(format!("an offset of group {group:?}, which is not there, or of a topic that can't be"));
        }
        let topics = self.offsets.entry(group.to_owned()).or_default();
        topics.entry(topic.to_owned()).or_default().insert(partition, committed);
        Ok(())
    }
}

/// A change of the state and its rows at once.
pub(super) struct Editor<'a> {
    /// The state as changed so far.
    pub state: &'a mut State,
    /// The rows' changes.
    pub batch: &'a mut WriteBatch,
    /// The Raft group.
    pub raft: RaftGroupId,
    /// When the change takes place, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Editor<'_> {
    /// Changes a group that is there, by a change that makes nothing heavier.
    pub fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut Group, i64) -> T) -> Option<T> {
        let mut group = Group::clone(self.state.group(name)?);
        let answer = change(&mut group, self.now_ms);
        self.set(group);
        Some(answer)
    }

    /// Changes a group, which may be new, by a change that may make it heavier: all of it is dropped if that would be
    /// too much.
    pub fn grow<T>(
        &mut self,
        mut group: Group,
        change: impl FnOnce(&mut Group, i64) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let answer = change(&mut group, self.now_ms);
        let bytes = self.state.bytes_with(&group);
        if bytes > STATE_BYTES_MAX && bytes > self.state.bytes() {
            return answer.and(Err(Rejection::CoordinatorFull));
        }
        // What is refused makes no group, but may have changed one.
        if answer.is_ok() || self.state.group(&group.name).is_some() {
            self.set(group);
        }
        answer
    }

    fn set(&mut self, group: Group) {
        if self.state.group(&group.name).is_none_or(|earlier| **earlier != group) {
            self.state.set_group(group);
        }
    }

    /// Stores offsets of a group, which may be new, each topic and partition once; none if they would be too heavy.
    pub fn set_offsets(&mut self, group: Group, offsets: Vec<(String, i32, Committed)>) -> Result<(), Rejection> {
        let name = group.name.clone();
        let stored = |topic: &String, partition| self.state.offsets_of(&name)?.get(topic)?.get(partition);
        let mut bytes = self.state.bytes_with(&group);
        for (topic, partition, committed) in &offsets {
            let earlier = stored(topic, partition).map_or(0, |earlier| offset_bytes(&name, topic, earlier));
            bytes = bytes + offset_bytes(&name, topic, committed) - earlier;
        }
        if bytes > STATE_BYTES_MAX && bytes > self.state.bytes() {
            return Err(Rejection::CoordinatorFull);
        }
        self.set(group);
        for (topic, partition, committed) in offsets {
            rows::put_offset(self.batch, self.raft, (&name, &topic, partition), &committed);
            self.state.set_offset(&name, &topic, partition, committed);
        }
        Ok(())
    }

    /// Drops the offsets of a group that `which` names by topic and partition.
    pub fn remove_offsets(&mut self, group: &str, which: impl Fn(&str, &Committed) -> bool) {
        let topics = self.state.offsets_of(group).into_iter().flatten();
        let all = topics.flat_map(|(topic, partitions)| partitions.iter().map(move |row| (topic, row)));
        let chosen = all.filter(|(topic, (_, committed))| which(topic, committed));
        let chosen: Vec<_> = chosen.map(|(topic, (partition, _))| (topic.clone(), *partition)).collect();
        for (topic, partition) in chosen {
            self.remove_offset(group, &topic, partition);
        }
    }

    /// Drops an offset, if it is there.
    pub fn remove_offset(&mut self, group: &str, topic: &str, partition: i32) {
        if self.state.remove_offset(group, topic, partition) {
            rows::delete_offset(self.batch, self.raft, group, topic, partition);
        }
    }
}
