//! The coordinator's rows in the database.
//!
//! One row for each group, one for each member, one for each stored offset; a changed member or offset overwrites its
//! row alone. Keys begin with the Raft group's number and a letter for the kind; names in them are behind their
//! lengths, so that no name's rows begin like another's.

use super::LOOK_STEP_MS_MAX;
use super::command::{Action, Command};
use super::group::{Group, Member};
use super::offsets::{Committed, Stored};
use super::state::State;
use crate::machine::codec;
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::{LogId, Membership, RaftGroupId};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What decoding one row may claim, in bytes: the largest is a member with its metadata, as one request brought it.
const ROW_MEMORY_MAX: usize = 128 << 20;

const GROUP: u8 = b'g';
const MEMBER: u8 = b'm';
const OFFSET: u8 = b'o';

/// Which entries are in the rows, and what else holds for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Applied {
    /// The last entry.
    pub position: LogId,
    /// The members of the Raft group.
    pub membership: Membership,
    /// The coordinator's time, in milliseconds since 1970: what has become too old is told by it. The first command's,
    /// and then moved by looks for old offsets; 0 before the first command.
    pub time_ms: i64,
}

impl Applied {
    /// The time at which a command takes place. No earlier than the coordinator's own: an offset is not taken for older
    /// than it is. A clock that is ahead makes it stay for longer, until it is stored again.
    pub fn now_ms(&mut self, command: &Command) -> i64 {
        if self.time_ms == 0 {
            self.time_ms = command.now_ms;
        }
        if matches!(command.action, Action::ExpireOffsets { .. }) {
            let furthest_ms = self.time_ms.saturating_add(LOOK_STEP_MS_MAX);
            self.time_ms = command.now_ms.clamp(self.time_ms, furthest_ms);
        }
        command.now_ms.max(self.time_ms)
    }
}

fn meta_key(raft: RaftGroupId) -> Vec<u8> {
    [&raft.0.to_be_bytes()[..], &[2]].concat()
}

/// The beginning of the keys of one kind.
fn kind_key(raft: RaftGroupId, kind: u8) -> Vec<u8> {
    [&raft.0.to_be_bytes()[..], &[kind]].concat()
}

/// Adds a name behind its length.
fn push_name(key: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("the state holds no longer names than the protocol has");
    key.extend(length.to_be_bytes());
    key.extend(name.as_bytes());
}

fn key(raft: RaftGroupId, kind: u8, names: &[&str]) -> Vec<u8> {
    let mut key = kind_key(raft, kind);
    names.iter().for_each(|name| push_name(&mut key, name));
    key
}

fn group_key(raft: RaftGroupId, group: &str) -> Vec<u8> {
    key(raft, GROUP, &[group])
}

fn member_key(raft: RaftGroupId, group: &str, member: &str) -> Vec<u8> {
    key(raft, MEMBER, &[group, member])
}

fn offset_key(raft: RaftGroupId, group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut key = key(raft, OFFSET, &[group, topic]);
    key.extend(partition.to_be_bytes());
    key
}

/// The first key beyond all that begin with `prefix`.
fn beyond(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&u8::MAX) {
        prefix.pop();
    }
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// A name behind its length, and what follows it.
fn take_name(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

/// The names and the partition of an offset's key, behind the kind.
fn parse_offset_key(key: &[u8]) -> Option<(&str, &str, i32)> {
    let (group, rest) = take_name(key)?;
    let (topic, rest) = take_name(rest)?;
    Some((group, topic, i32::from_be_bytes(rest.try_into().ok()?)))
}

pub(super) fn put_applied(batch: &mut WriteBatch, raft: RaftGroupId, applied: &Applied) {
    batch.put(Family::Meta, meta_key(raft), codec::encode(applied));
}

pub(super) fn put_offset(
    batch: &mut WriteBatch,
    raft: RaftGroupId,
    (group, topic, partition): (&str, &str, i32),
    committed: &Committed,
) {
    batch.put(Family::Groups, offset_key(raft, group, topic, partition), codec::encode(committed));
}

pub(super) fn delete_offset(batch: &mut WriteBatch, raft: RaftGroupId, group: &str, topic: &str, partition: i32) {
    batch.delete(Family::Groups, offset_key(raft, group, topic, partition));
}

/// Writes what of a group changed from `before` to `after`.
pub(super) fn put_group(
    batch: &mut WriteBatch,
    raft: RaftGroupId,
    name: &str,
    before: Option<&Group>,
    after: Option<&Group>,
) {
    let earlier = |id: &String| before.and_then(|group| group.members.get(id));
    match after {
        Some(group) => {
            batch.put(Family::Groups, group_key(raft, name), codec::encode(&group.without_members()));
            for (id, member) in &group.members {
                if !earlier(id).is_some_and(|earlier| Arc::ptr_eq(earlier, member) || earlier == member) {
                    batch.put(Family::Groups, member_key(raft, name, id), codec::encode(member.as_ref()));
                }
            }
        }
        None => batch.delete(Family::Groups, group_key(raft, name)),
    }
    for id in before.into_iter().flat_map(|group| group.members.keys()) {
        if !after.is_some_and(|group| group.members.contains_key(id)) {
            batch.delete(Family::Groups, member_key(raft, name, id));
        }
    }
}

/// Removes every row.
pub(super) fn delete_all(batch: &mut WriteBatch, raft: RaftGroupId) {
    let prefix = raft.0.to_be_bytes().to_vec();
    batch.delete_range(Family::Groups, prefix.clone(), beyond(prefix));
    batch.delete(Family::Meta, meta_key(raft));
}

/// Replaces every row by those of `state`.
pub(super) fn replace_all(batch: &mut WriteBatch, raft: RaftGroupId, state: &State) {
    delete_all(batch, raft);
    for (name, group) in state.groups() {
        put_group(batch, raft, name, None, Some(group));
    }
    for (group, topic, partition, committed) in state.offsets() {
        put_offset(batch, raft, (group, topic, partition), committed);
    }
}

/// Reads `Applied`, if the engine holds a coordinator of that number. The inner error is a sentence about damage.
pub(super) fn load_applied(
    engine: &dyn Engine,
    raft: RaftGroupId,
) -> Result<Option<Result<Applied, String>>, EngineError> {
    let row = engine.get(Family::Meta, &meta_key(raft))?;
    Ok(row.map(|row| decode_row(&meta_key(raft), &row)))
}

/// Reads the state that the engine holds. The inner error is a sentence about damage.
pub(super) fn load(engine: &dyn Engine, raft: RaftGroupId) -> Result<Result<State, String>, EngineError> {
    let mut state = State::default();
    // In this order: members belong to groups that are there.
    for kind in [GROUP, MEMBER, OFFSET] {
        let scanned = scan(engine, &kind_key(raft, kind), |key, row| load_row(&mut state, kind, key, row))?;
        if let Err(reason) = scanned {
            return Ok(Err(reason));
        }
    }
    let settled = state.settle();
    Ok(settled.map(|()| state))
}

fn load_row(state: &mut State, kind: u8, key: &[u8], row: &[u8]) -> Result<(), String> {
    let names = key.get(9..).unwrap_or_default();
    let malformed = || format!("the key {key:02x?} is malformed");
    match kind {
        GROUP => state.load_group(decode_row(key, row)?),
        MEMBER => {
            let (group, rest) = take_name(names).ok_or_else(malformed)?;
            let member: Member = decode_row(key, row)?;
            if take_name(rest) != Some((member.id.as_str(), &[])) {
                return Err(malformed());
            }
            state.load_member(group, member)
        }
        _ => {
            let (group, topic, partition) = parse_offset_key(names).ok_or_else(malformed)?;
            state.load_offset(group, topic, partition, decode_row(key, row)?)
        }
    }
}

/// Every key that begins with `prefix`, until one is found to be damaged.
fn scan(
    engine: &dyn Engine,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
) -> Result<Result<(), String>, EngineError> {
    let mut result = Ok(());
    engine.scan(Family::Groups, prefix, &beyond(prefix.to_vec()), &mut |key, row| {
        result = visit(key, row);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(result)
}

/// One offset.
pub(super) fn read_offset(
    engine: &dyn Engine,
    raft: RaftGroupId,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<Result<Option<Committed>, String>, EngineError> {
    let key = offset_key(raft, group, topic, partition);
    Ok(engine.get(Family::Groups, &key)?.map(|row| decode_row(&key, &row)).transpose())
}

/// All offsets of a group, by topic and partition.
pub(super) fn read_offsets(
    engine: &dyn Engine,
    raft: RaftGroupId,
    group: &str,
) -> Result<Result<Vec<Stored>, String>, EngineError> {
    let mut offsets = Vec::new();
    let scanned = scan(engine, &key(raft, OFFSET, &[group]), |key, row| {
        let parsed = key.get(9..).and_then(parse_offset_key);
        let (_, topic, partition) = parsed.ok_or_else(|| format!("the key {key:02x?} is malformed"))?;
        offsets.push((topic.to_owned(), partition, decode_row(key, row)?));
        Ok(())
    })?;
    Ok(scanned.map(|()| offsets))
}

fn decode_row<T: bincode::Decode<()>>(key: &[u8], row: &[u8]) -> Result<T, String> {
    codec::decode::<_, ROW_MEMORY_MAX>(row).map_err(|error| format!("row {key:02x?}: {error}"))
}
