//! Names, ids, epochs and messages between Kafka's schemas and the broker's vocabulary.

use crate::broker::{
    Cluster, Error, ErrorKind, GROUP_TEXT_BYTES_MAX, Isolation, MemberIdentity, Node, PartitionLeader, Result, TopicId,
    TopicName, TopicRef,
};
use crate::types::{LeaderEpoch, NodeId};
use kafka_protocol::messages::{self, BrokerId};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;
use std::time::Duration;

/// What Kafka writes where an id, an epoch or an offset is not known.
pub const UNKNOWN: i32 = -1;

/// What Kafka writes for "authorized operations were not asked for".
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// What may be done to something, where nobody is denied anything: a bit for each of Kafka's `AclOperation`s. "Unknown"
/// is no answer to who asks: kafka-python 2 takes it for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operations {
    /// Read, write, create, delete, alter, describe, describe and alter configs.
    Topic = 0b1101_1111_1000,
    /// Create, alter, describe, cluster action, describe and alter configs, idempotent write.
    Cluster = 0b1_1111_1010_0000,
    /// Read, delete, describe.
    Group = 0b1_0100_1000,
}

impl Operations {
    /// The answer, if it was asked for.
    #[must_use]
    pub const fn if_asked(self, asked: bool) -> i32 {
        if asked { self as i32 } else { OPERATIONS_UNKNOWN }
    }
}

/// Answers carry at most so much of a message for people.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A topic's name, copied out of the frame.
#[must_use]
pub fn topic(name: &messages::TopicName) -> TopicName {
    TopicName::from(name.0.as_str())
}

/// A topic's name for an answer.
#[must_use]
pub fn wire_topic(name: &TopicName) -> messages::TopicName {
    text(name.as_str()).into()
}

/// A topic by id if the client gave one, else by name.
#[must_use]
pub fn topic_ref(name: Option<&messages::TopicName>, id: uuid::Uuid) -> TopicRef {
    match name {
        Some(name) => TopicRef::Name(topic(name)),
        None => TopicRef::Id(TopicId(id)),
    }
}

/// A group's name, copied out of the frame.
pub fn group(name: &messages::GroupId) -> Result<String> {
    match name.len() {
        0 => Err(Error::new(ErrorKind::InvalidGroup, "a group has a name")),
        1..=GROUP_TEXT_BYTES_MAX => Ok(name.to_string()),
        _ => Err(Error::new(ErrorKind::InvalidGroup, "the group's name is too long")),
    }
}

/// A member of a group, copied out of the frame.
#[must_use]
pub fn member(id: &StrBytes, instance: Option<&StrBytes>) -> MemberIdentity {
    MemberIdentity { id: id.to_string(), instance: instance.map(|name| name.to_string()) }
}

/// What a client calls itself, from the header, cut to what a group keeps of it. A client id that is not UTF-8 hurts
/// nobody.
#[must_use]
pub fn client_id(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(text.floor_char_boundary(GROUP_TEXT_BYTES_MAX));
    text
}

/// Each once, in the order in which they are first named: who repeats a name must not make the answer any larger.
pub fn distinct<T: Ord + Clone>(named: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    named.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// Text for an answer.
#[must_use]
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// An error's sentence.
#[must_use]
pub fn message(error: &Error) -> Option<StrBytes> {
    let whole = error.text();
    let mut end = whole.len().min(MESSAGE_BYTES_MAX);
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    Some(text(&whole[..end]))
}

/// A node's number.
#[must_use]
pub fn broker_id(node: NodeId) -> BrokerId {
    BrokerId(i32::try_from(node.0).expect("node numbers end at 2^31 - 1"))
}

/// A node's number, or -1.
#[must_use]
pub fn broker_id_or_unknown(node: Option<NodeId>) -> BrokerId {
    node.map_or(BrokerId(UNKNOWN), broker_id)
}

/// The node of a broker's number; no node has a negative one.
#[must_use]
pub fn node(broker: BrokerId) -> Option<NodeId> {
    u32::try_from(broker.0).ok().map(NodeId)
}

/// An epoch; -1 says that the client knows none.
#[must_use]
pub fn epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

/// A duration in milliseconds; a negative one is none.
#[must_use]
pub fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A number of bytes; a negative one is none.
#[must_use]
pub fn bytes(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

/// What unfinished transactions mean to a reader.
#[must_use]
pub const fn isolation(level: i8) -> Isolation {
    if level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

/// The living nodes among these leaders, each once: what KIP-951 calls node endpoints.
pub fn endpoints(cluster: &Cluster, leaders: impl IntoIterator<Item = PartitionLeader>) -> impl Iterator<Item = &Node> {
    let wanted: BTreeSet<NodeId> = leaders.into_iter().map(|leader| leader.node).collect();
    cluster.nodes.iter().filter(move |node| wanted.contains(&node.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_cut_between_characters() {
        assert_eq!(client_id(b"rdkafka"), "rdkafka");
        assert_eq!(client_id(&[0xff]), "\u{fffd}");
        let long = "é".repeat(GROUP_TEXT_BYTES_MAX);
        assert_eq!(client_id(long.as_bytes()).len(), GROUP_TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "é".repeat(MESSAGE_BYTES_MAX);
        let cut = message(&Error::new(ErrorKind::Internal, format!("x{long}"))).expect("a message");
        assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.len() > MESSAGE_BYTES_MAX - 2);
    }
}
