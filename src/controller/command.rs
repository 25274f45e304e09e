//! What can be asked of the controller: commands as they stand in the Raft log, and the answers.
//!
//! A command carries everything that applying it needs and that replicas could disagree on: random ids, timestamps, and
//! which nodes were alive when it was proposed.

use super::view::Listener;
use crate::machine::codec::{self, CodecError};
use crate::types::{Incarnation, NodeId, RaftGroupId, ReplicaId, TopicId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The longest encoded command, in bytes. Whoever proposes checks it, so that one request can't fill the log.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// What decoding a command may claim: its strings and lists are larger in memory than on the wire.
const COMMAND_MEMORY_MAX: usize = 16 * COMMAND_BYTES_MAX;
/// The same for an answer, which repeats names and configs.
const ANSWER_MEMORY_MAX: usize = 64 * COMMAND_BYTES_MAX;

/// A change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Command {
    /// A node is there, or is there again with other addresses.
    RegisterBroker(Registration),
    /// A node is gone for good. Refused while it still has replicas.
    UnregisterBroker { node: NodeId },
    /// New topics, each for itself.
    CreateTopics { topics: Vec<NewTopic>, live: Vec<NodeId>, now_ms: i64, validate_only: bool },
    /// Topics to delete, with all their records.
    DeleteTopics { topics: Vec<TopicReference> },
    /// More partitions for existing topics.
    CreatePartitions { topics: Vec<MorePartitions>, live: Vec<NodeId>, validate_only: bool },
    /// Changes of topic configs, each topic's all or nothing.
    AlterTopicConfigs { topics: Vec<ConfigChanges>, validate_only: bool },
    /// A block of producer ids for one node (KIP-730).
    AllocateProducerIds { node: NodeId, incarnation: Incarnation },
    /// From now on the features of this level may be used.
    RaiseFeatureLevel { level: u32 },
    /// A node is lost, or its disk is: `new` takes its replicas; the same number stands for the node with another disk.
    /// `disk` is what `old` was registered with when this was asked for: a repetition never gives up the next disk.
    /// Refused while the old one is among the `live`, unless forced.
    ReplaceNode { old: NodeId, new: NodeId, disk: Option<Incarnation>, live: Vec<NodeId>, force: bool },
    /// These groups have the members that replacements wanted for them.
    FinishReplacements { finished: Vec<Finished> },
    /// A registered node without a replica of the controller's group asks which one it is to have.
    JoinController { node: NodeId, incarnation: Incarnation },
}

/// A group in which one replica has taken another one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Finished {
    /// The group.
    pub group: RaftGroupId,
    /// The replica that is gone.
    pub old: ReplicaId,
    /// The one that votes in its place.
    pub new: ReplicaId,
}

/// A node's registration.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Registration {
    /// Its number.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Where it stands.
    pub rack: Option<String>,
    /// Where it is reached.
    pub listeners: Vec<Listener>,
    /// The highest feature level its program understands.
    pub feature_level_max: u32,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NewTopic {
    /// Its identity, drawn at random by the proposer.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// How to lay it out.
    pub layout: Layout,
    /// Its configs; a null value is refused, as in Kafka.
    pub configs: Vec<(String, Option<String>)>,
}

/// How many partitions and replicas a new topic has.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Layout {
    /// The controller places this many replicas of each partition; the proposer has filled in the cluster's defaults.
    Counted { partitions: i32, replication_factor: i16 },
    /// The nodes of each partition's replicas, preferred leader first.
    Manual(Vec<Vec<NodeId>>),
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum TopicReference {
    /// By its name.
    Name(String),
    /// By its id.
    Id(TopicId),
}

/// A topic's growth.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MorePartitions {
    /// The topic.
    pub name: String,
    /// How many partitions it is to have then.
    pub count: i32,
    /// The nodes of each new partition's replicas; none: the controller places them.
    pub assignment: Option<Vec<Vec<NodeId>>>,
}

/// Changes of one topic's configs.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ConfigChanges {
    /// The topic.
    pub name: String,
    /// Whether everything that is not named goes back to its default (the older AlterConfigs).
    pub replace: bool,
    /// In order.
    pub operations: Vec<(String, ConfigOperation)>,
}

/// A change of one config (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum ConfigOperation {
    /// Gives it a value; null is refused.
    Set(Option<String>),
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append(Option<String>),
    /// Takes from a list.
    Subtract(Option<String>),
}

/// What a command came to. Always in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Answer {
    /// Commands about a node or the cluster.
    Done(Result<(), Rejection>),
    /// CreateTopics.
    Created(Vec<(String, Result<CreatedTopic, Rejection>)>),
    /// DeleteTopics; the topic's name and id as far as they are known.
    Deleted(Vec<DeletedTopic>),
    /// CreatePartitions and AlterTopicConfigs, by topic name.
    Changed(Vec<(String, Result<(), Rejection>)>),
    /// AllocateProducerIds.
    ProducerIds(Result<ProducerIds, Rejection>),
    /// ReplaceNode: how many groups get a new replica.
    Replacing(Result<u32, Rejection>),
    /// JoinController.
    Joining(Result<Joining, Rejection>),
}

/// A topic that was made, or, with validate_only, would be.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct CreatedTopic {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// What was set on it, normalised.
    pub configs: BTreeMap<String, String>,
}

/// What became of a deletion.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct DeletedTopic {
    /// What was asked for.
    pub reference: TopicReference,
    /// The deleted topic's name and id.
    pub result: Result<(String, TopicId), Rejection>,
}

/// A block of producer ids that no other node is ever given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ProducerIds {
    /// The first id.
    pub first: i64,
    /// How many.
    pub count: i32,
}

/// How a node begins that has no copy of the metadata yet.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Joining {
    /// Its replica of the controller's group.
    pub replica: ReplicaId,
    /// That one is among those that vote: it has begun, and what it promised is not to be forgotten.
    pub has_begun: bool,
    /// The voters that the group has or is to have: if the replica is to be repaired, they are asked.
    pub peers: Vec<ReplicaId>,
}

/// Why something was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Rejection {
    /// What a client's program looks at.
    pub reason: Reason,
    /// What a person reads.
    pub message: String,
}

/// The reasons for a refusal; each is one error code of Kafka's, mapped at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Reason {
    /// INVALID_TOPIC_EXCEPTION (17).
    InvalidTopic,
    /// TOPIC_ALREADY_EXISTS (36).
    TopicAlreadyExists,
    /// UNKNOWN_TOPIC_OR_PARTITION (3).
    UnknownTopic,
    /// UNKNOWN_TOPIC_ID (100).
    UnknownTopicId,
    /// INVALID_PARTITIONS (37).
    InvalidPartitions,
    /// INVALID_REPLICATION_FACTOR (38).
    InvalidReplicationFactor,
    /// INVALID_REPLICA_ASSIGNMENT (39).
    InvalidReplicaAssignment,
    /// INVALID_CONFIG (40).
    InvalidConfig,
    /// INVALID_REQUEST (42).
    InvalidRequest,
    /// POLICY_VIOLATION (44): one of the cluster's limits.
    PolicyViolation,
    /// DUPLICATE_BROKER_REGISTRATION (101): the node's number belongs to another incarnation.
    DuplicateBroker,
    /// BROKER_ID_NOT_REGISTERED (102).
    UnknownBroker,
    /// INVALID_UPDATE_VERSION (95).
    InvalidFeatureLevel,
}

/// The version under which the commands about replacements are written, so that a node that does not know them says so.
const REPLACEMENTS: u8 = 2;

/// Shorthand of the handlers.
pub(super) fn reject<T>(reason: Reason, message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { reason, message: message.into() })
}

impl Command {
    /// As it stands in a log entry's data; too long a command must not be proposed.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        let bytes = codec::encode_as(self.version(), self);
        if bytes.len() > COMMAND_BYTES_MAX { Err(CodecError::TooLong(bytes.len())) } else { Ok(bytes.into()) }
    }

    /// Reads `encode`'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(CodecError::TooLong(bytes.len()));
        }
        let version = bytes.first().copied().filter(|version| *version == REPLACEMENTS).unwrap_or(codec::VERSION);
        let command: Self = codec::decode_as::<_, COMMAND_MEMORY_MAX>(version, bytes)?;
        match command.version() == version {
            true => Ok(command),
            false => Err(CodecError::Malformed(format!("no command of version {version}"))),
        }
    }

    fn version(&self) -> u8 {
        match self {
            Self::ReplaceNode { .. } | Self::FinishReplacements { .. } | Self::JoinController { .. } => REPLACEMENTS,
            _ => codec::VERSION,
        }
    }
}

impl Answer {
    /// As it is in `Outcome::Answer`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    /// Reads `encode`'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode::<_, ANSWER_MEMORY_MAX>(bytes)
    }
}
