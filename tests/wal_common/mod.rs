//! What all tests of the log share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod files;
pub mod place;
pub mod world;

use ackord::sim::Random;
use ackord::types::{EntryKind, HardState, LogEntry, LogId, LogIndex, NodeId, RaftGroupId, ReplicaId, Term};
use ackord::wal::disk::Disk;
use ackord::wal::{GroupWrite, Identity, Log, LogChange, LogError, Options, Recovery, Turn};
use bytes::Bytes;
pub use place::Place;

pub const OWNER: Identity = Identity { cluster: 0xac0d, node: NodeId(3) };
pub const SEGMENT: u64 = 256 << 10;
pub const BLOCK: u64 = 4096;

/// Small segments, little retained.
pub fn options() -> Options {
    Options {
        segment_bytes: SEGMENT,
        retain_bytes: 4 * SEGMENT,
        slack_bytes: 2 * SEGMENT,
        spares: 2,
        recycled_max: 0,
        create: true,
        omit: ackord::wal::Omissions::default(),
    }
}

pub fn try_open<D: Disk>(disk: &D, options: Options, seed: u64) -> Result<(Log<D>, Recovery), LogError> {
    let mut random = Random::new(seed);
    Log::open(disk.clone(), OWNER, options, move || random.next_u128())
}

pub fn open<D: Disk>(disk: &D) -> (Log<D>, Recovery) {
    let seed = disk.list().expect("a list").len() as u64 * 7919;
    try_open(disk, options(), seed).expect("the log opens")
}

pub fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(ReplicaId::new(NodeId(1), 0)), commit: LogIndex(commit) }
}

/// The entry at `index`; its payload tells (group, index, term), so that a wrong one shows.
pub fn entry(group: u64, index: u64, term: u64, bytes: usize) -> LogEntry {
    let mut random = Random::new(group << 40 ^ index << 8 ^ term);
    let mut data = [0; 64].map(|_: u8| random.next_u64() as u8).repeat(bytes.div_ceil(64));
    data.truncate(bytes);
    let kind = if index.is_multiple_of(17) { EntryKind::ConfChange } else { EntryKind::Normal };
    let context = Bytes::from(format!("{group}/{index}@{term}"));
    LogEntry { id: LogId::new(index, term), kind, context, data: Bytes::from(data) }
}

pub fn append(group: u64, first: u64, count: u64, term: u64, bytes: usize) -> GroupWrite {
    let entries = (first..first + count).map(|index| entry(group, index, term, bytes)).collect();
    GroupWrite { group: RaftGroupId(group), hard_state: state(term, first - 1), change: LogChange::Append(entries) }
}

pub fn born(group: u64) -> GroupWrite {
    let change = LogChange::Born { start: LogId::new(1, 1) };
    GroupWrite { group: RaftGroupId(group), hard_state: state(1, 1), change }
}

pub fn only_state(group: u64, term: u64, commit: u64) -> GroupWrite {
    GroupWrite { group: RaftGroupId(group), hard_state: state(term, commit), change: LogChange::None }
}

pub fn change(group: u64, term: u64, commit: u64, change: LogChange) -> GroupWrite {
    GroupWrite { group: RaftGroupId(group), hard_state: state(term, commit), change }
}

pub fn turn(writes: impl IntoIterator<Item = GroupWrite>) -> Turn {
    Turn { writes: writes.into_iter().collect() }
}

/// All entries the log holds of a group.
pub fn all<D: Disk>(log: &Log<D>, group: u64) -> Vec<LogEntry> {
    let recovery = log.groups();
    let known = &recovery.groups[&RaftGroupId(group)];
    log.entries(RaftGroupId(group), known.first_index(), known.last.index.next(), u64::MAX).expect("readable")
}

/// Asserts that the log holds exactly these entries of a group, as `entry` makes them.
pub fn assert_holds<D: Disk>(log: &Log<D>, group: u64, ids: &[(u64, u64)], bytes: usize) {
    let expected: Vec<_> = ids.iter().map(|&(index, term)| entry(group, index, term, bytes)).collect();
    assert_eq!(all(log, group), expected, "group {group}");
}

/// Ends the process that holds the log, keeping what it wrote.
pub fn kill<P: Place>(disk: &P, log: Log<P>) {
    drop(log);
    disk.kill();
}

pub fn damage_of(recovery: &Recovery, group: u64) -> Option<&str> {
    recovery.groups[&RaftGroupId(group)].damage.as_ref().map(|damage| damage.reason.as_str())
}
