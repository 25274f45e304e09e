//! Counts the elements of a message's repeated fields before it is decoded.
//!
//! prost bounds how deep messages nest, not how many elements a list has: an empty element is two bytes on the wire and
//! a whole struct in memory, so a frame within its length could ask for a hundred times as much.

use super::FrameError;

/// How many elements a repeated field may have, all its occurrences in a frame together.
pub(super) struct Limit {
    /// The field numbers that lead to it.
    pub(super) path: &'static [u32],
    /// Its name, for the error.
    field: &'static str,
    /// The most elements.
    max: usize,
    /// Whether the elements are numbers, packed or not: a packed one takes at least a byte of its list's content.
    numbers: bool,
}

const fn limit(path: &'static [u32], field: &'static str, max: usize) -> Limit {
    Limit { path, field, max, numbers: false }
}

/// For a list of numbers, of which `max` is counted in packed bytes.
const fn numbers(path: &'static [u32], field: &'static str, max: usize) -> Limit {
    Limit { path, field, max, numbers: true }
}

/// Of a `native::Request`.
pub(super) const REQUEST: &[Limit] = &[
    limit(&[11, 2, 1], "produce.records", 100_000),
    limit(&[11, 2, 1, 3], "produce.records.headers", 200_000),
    limit(&[17, 1], "topics", 20_000),
    limit(&[20, 4], "create_topic.assignment", 10_000),
    numbers(&[20, 4, 1], "create_topic.assignment.nodes", 1_000_000),
    limit(&[20, 5], "create_topic.configs", 1_000),
    limit(&[22, 3], "create_partitions.assignment", 10_000),
    numbers(&[22, 3, 1], "create_partitions.assignment.nodes", 1_000_000),
    limit(&[23, 2], "alter_topic_configs.set", 1_000),
    limit(&[23, 3], "alter_topic_configs.reset", 1_000),
    limit(&[41, 7], "join_group.protocols", 100),
    limit(&[42, 4], "sync_group.assignments", 10_000),
    limit(&[45, 4], "commit_offsets.offsets", 100_000),
    limit(&[47, 2], "delete_offsets.partitions", 100_000),
];

/// Of a `native::Response`.
pub(super) const RESPONSE: &[Limit] = &[
    limit(&[12, 1], "read.records", 1_000_000),
    limit(&[12, 1, 3], "read.records.headers", 1_000_000),
    limit(&[13, 1, 3], "get.record.headers", 200_000),
    limit(&[15, 2, 10], "partition_status.replica.followers", 1_000),
    limit(&[16, 3], "cluster_status.nodes", 1_000),
    limit(&[19, 1], "replicas", 100_000),
    limit(&[19, 1, 10], "replicas.followers", 1_000_000),
    limit(&[17, 1], "topics", 20_000),
    limit(&[17, 1, 3], "topics.partitions", 200_000),
    numbers(&[17, 1, 3, 3], "topics.partitions.replicas", 10_000_000),
    numbers(&[17, 1, 3, 4], "topics.partitions.in_sync", 10_000_000),
    limit(&[17, 1, 4], "topics.configs", 1_000_000),
    limit(&[27, 1], "list_nodes.nodes", 1_000),
    limit(&[27, 2], "list_nodes.replacements", 1_000),
    limit(&[26, 1], "describe_topic_configs.configs", 1_000),
    limit(&[41, 5], "join_group.members", 10_000),
    limit(&[46, 1], "committed_offsets.offsets", 1_000_000),
    limit(&[48, 1], "list_groups.groups", 1_000_000),
    limit(&[49, 5], "describe_group.members", 10_000),
];

/// Of a `peer::Frame`.
pub(super) const PEER_FRAME: &[Limit] = &[
    limit(&[4, 1], "raft.messages", 65_536),
    limit(&[4, 1, 8], "raft.messages.entries", 262_144),
    numbers(&[4, 1, 16, 3, 1], "raft.messages.snapshot.membership.voters", 65_536),
    numbers(&[4, 1, 16, 3, 2], "raft.messages.snapshot.membership.learners", 65_536),
    numbers(&[4, 1, 16, 3, 3], "raft.messages.snapshot.membership.voters_outgoing", 65_536),
    numbers(&[4, 1, 16, 3, 4], "raft.messages.snapshot.membership.learners_next", 65_536),
    limit(&[5, 1], "leaders.leaders", 262_144),
    limit(&[6, 9, 2], "snapshot.records.batches", 65_536),
    limit(&[10, 4, 3], "repair.want_entries.anchors", 16),
    limit(&[10, 5, 1], "repair.entries.entries", 262_144),
    numbers(&[10, 8, 3, 1], "repair.state.membership.voters", 65_536),
    numbers(&[10, 8, 3, 2], "repair.state.membership.learners", 65_536),
    numbers(&[10, 8, 3, 3], "repair.state.membership.voters_outgoing", 65_536),
    numbers(&[10, 8, 3, 4], "repair.state.membership.learners_next", 65_536),
    numbers(&[10, 12, 4, 1], "repair.floor.membership.voters", 65_536),
    numbers(&[10, 12, 4, 2], "repair.floor.membership.learners", 65_536),
    numbers(&[10, 12, 4, 3], "repair.floor.membership.voters_outgoing", 65_536),
    numbers(&[10, 12, 4, 4], "repair.floor.membership.learners_next", 65_536),
];

/// Whether a message keeps its limits.
pub(super) fn check(body: &[u8], limits: &[Limit]) -> Result<(), FrameError> {
    for limit in limits {
        let mut left = limit.max;
        count(body, limit, limit.path, &mut left)?;
    }
    Ok(())
}

/// Takes the elements that `path` leads to from `left`.
fn count(mut body: &[u8], limit: &Limit, path: &[u32], left: &mut usize) -> Result<(), FrameError> {
    let Some((wanted, deeper)) = path.split_first() else { return Ok(()) };
    while !body.is_empty() {
        let (field, content) = next_field(&mut body)?;
        if field != u64::from(*wanted) {
            continue;
        }
        if deeper.is_empty() {
            let elements = content.filter(|_| limit.numbers).map_or(1, <[u8]>::len);
            let too_many = FrameError::TooMany { field: limit.field, max: limit.max };
            *left = left.checked_sub(elements).ok_or(too_many)?;
        }
        count(content.unwrap_or_default(), limit, deeper, left)?;
    }
    Ok(())
}

/// Takes one field from `body`: its number, and its content when that has a length of its own.
fn next_field<'a>(body: &mut &'a [u8]) -> Result<(u64, Option<&'a [u8]>), FrameError> {
    let key = varint(body)?;
    let content = match key & 7 {
        0 => {
            varint(body)?;
            None
        }
        1 => take(body, 8).map(|_| None)?,
        2 => {
            let length = varint(body)?;
            Some(take(body, usize::try_from(length).unwrap_or(usize::MAX))?)
        }
        5 => take(body, 4).map(|_| None)?,
        other => return Err(FrameError::Malformed(format!("wire type {other}"))),
    };
    Ok((key >> 3, content))
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Result<&'a [u8], FrameError> {
    let (taken, rest) =
        body.split_at_checked(length).ok_or_else(|| FrameError::Malformed("it ends within a field".to_owned()))?;
    *body = rest;
    Ok(taken)
}

fn varint(body: &mut &[u8]) -> Result<u64, FrameError> {
    prost::encoding::decode_varint(body).map_err(|error| FrameError::Malformed(error.to_string()))
}
