//! Consumer groups and their offsets, as a member or an administrator asks about them.
//!
//! Every request is answered by the node that coordinates the group, or refused with `NotCoordinator`. A request that
//! changed something is answered once that is committed. Member ids, protocol names, metadata and assignments are the
//! clients' own; the broker only keeps them.

use super::{PartitionIndex, Reservation, Result, TopicName};
use crate::types::{LeaderEpoch, NodeId, Offset};
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// The longest name of a group, of a member or of a protocol, and the longest client id, in bytes; edges refuse longer
/// names and cut client ids. What a member says about itself is repeated to others, and they may speak versions of
/// Kafka's protocol whose texts end here.
pub const GROUP_TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// Which member speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberIdentity {
    /// Its id, as the coordinator gave it; empty if it has none yet.
    pub id: String,
    /// A static member's name (KIP-345).
    pub instance: Option<String>,
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    /// The group.
    pub group: String,
    /// The member.
    pub member: MemberIdentity,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Silence after which it is given up.
    pub session_timeout: Duration,
    /// How long it may take to join again when the group rebalances.
    pub rebalance_timeout: Duration,
    /// "consumer", or what else it is.
    pub protocol_type: String,
    /// What it can do, in the order of its preference, with its metadata for each.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member has to join twice: the first answer is then [`Joined::Again`] (KIP-394).
    pub two_steps: bool,
    /// Whether the client understands `skip_assignment` (KIP-814).
    pub can_skip_assignment: bool,
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Join again under this id.
    Again {
        /// The id.
        member: String,
    },
    /// In.
    In(Generation),
}

/// A generation of a group, as one of its members is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: String,
    /// What the members agreed on.
    pub protocol: String,
    /// The id of the member that assigns the work.
    pub leader: String,
    /// The id of the one that is told.
    pub member: String,
    /// The leader came back and need not assign again (KIP-814).
    pub skip_assignment: bool,
    /// All members, for the leader only.
    pub members: Vec<GenerationMember>,
}

/// What a leader learns of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationMember {
    /// The member.
    pub identity: MemberIdentity,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    /// The group.
    pub group: String,
    /// The generation the member believes in.
    pub generation: i32,
    /// The member.
    pub member: MemberIdentity,
    /// The kind of group the client takes it for, where it says so (KIP-559).
    pub protocol_type: Option<String>,
    /// The protocol it takes for chosen, where it says so (KIP-559).
    pub protocol: Option<String>,
    /// The leader's assignments, by member id; empty from everybody else.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's share of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: String,
    /// What the members agreed on.
    pub protocol: String,
    /// The share, as the leader wrote it.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: String,
    /// The generation the member believes in.
    pub generation: i32,
    /// The member.
    pub member: MemberIdentity,
}

/// OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffsets {
    /// The group.
    pub group: String,
    /// The generation the member believes in; −1 from who is no member and only stores offsets.
    pub generation: i32,
    /// The member.
    pub member: MemberIdentity,
    /// What is to be stored.
    pub offsets: Vec<OffsetToCommit>,
    /// Whether nothing is stored if one of them is refused.
    pub all_or_none: bool,
}

/// An offset to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// What is stored.
    pub position: CommittedOffset,
}

/// A stored offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to be read.
    pub offset: Offset,
    /// The leader epoch of the last record read, if known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Whatever the client wants to remember with it.
    pub metadata: String,
}

/// OffsetFetch, of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOffsets {
    /// The group.
    pub group: String,
    /// Which partitions; none: all that have an offset.
    pub partitions: Option<Vec<(TopicName, PartitionIndex)>>,
    /// Whether offsets of unfinished transactions are waited for (KIP-447). There are none yet.
    pub require_stable: bool,
}

/// A partition's stored offset; `None` if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// What was stored.
    pub committed: Option<CommittedOffset>,
}

/// Where a group is, as Kafka names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Members join.
    PreparingRebalance,
    /// The leader has yet to assign the work.
    CompletingRebalance,
    /// At work.
    Stable,
    /// There is no such group.
    Dead,
}

impl GroupState {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// "consumer", or what else its members are; empty if it only ever stored offsets.
    pub protocol_type: String,
    /// Where it is.
    pub state: GroupState,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Its name.
    pub group: String,
    /// Where it is.
    pub state: GroupState,
    /// "consumer", or what else its members are.
    pub protocol_type: String,
    /// What the members agreed on; empty unless the group is stable.
    pub protocol: String,
    /// Its generation.
    pub generation: i32,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub identity: MemberIdentity,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Its metadata for the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its share of the work; empty unless the group is stable.
    pub assignment: Bytes,
}

/// What became of each item of a request, in its order; or why all of it was refused.
pub type PerItem = Result<Vec<Result<()>>>;

/// A node as the consumer groups that it coordinates may use it.
pub trait Groups: Send + Sync + 'static {
    /// The node that coordinates a consumer group.
    fn coordinator(&self, group: &str) -> Result<NodeId>;

    /// Joins a group; answers when the next generation is made up. Dropping the future takes nothing back.
    ///
    /// `memory` is what the request occupies. It is given back before the other members are waited for, which may take
    /// minutes: else those who wait could leave no room for the request that they wait for.
    fn join_group(
        &self,
        request: JoinGroup,
        memory: Option<Reservation>,
    ) -> impl Future<Output = Result<Joined>> + Send;

    /// Brings the leader's assignments, and waits for the member's own. `memory` as of [`Self::join_group`].
    fn sync_group(
        &self,
        request: SyncGroup,
        memory: Option<Reservation>,
    ) -> impl Future<Output = Result<Synced>> + Send;

    /// Says that a member is alive, and learns whether it has to join again.
    fn heartbeat(&self, request: Heartbeat) -> impl Future<Output = Result<()>> + Send;

    /// Takes members out of a group.
    fn leave_group(&self, group: String, members: Vec<MemberIdentity>) -> impl Future<Output = PerItem> + Send;

    /// Stores offsets. Durable once answered, like a record. Partitions that do not exist, and texts longer than the
    /// node allows, are refused one by one (`UnknownTopicOrPartition`, `OffsetMetadataTooLarge`); the others are stored
    /// all the same, unless it is to be all or none.
    fn commit_offsets(&self, request: CommitOffsets) -> impl Future<Output = PerItem> + Send;

    /// What was stored. Never older than what was answered as stored. One answer per partition asked about, in the
    /// request's order; if it asks for all, by topic and partition.
    fn fetch_offsets(&self, request: FetchOffsets) -> impl Future<Output = Result<Vec<FetchedOffset>>> + Send;

    /// Drops stored offsets of partitions that the group does not read.
    fn delete_offsets(
        &self,
        group: String,
        partitions: Vec<(TopicName, PartitionIndex)>,
    ) -> impl Future<Output = PerItem> + Send;

    /// The groups that this node coordinates, by name.
    fn list_groups(&self) -> Result<Vec<ListedGroup>>;

    /// Groups in full. One that does not exist is `Dead`, and no error.
    fn describe_groups(&self, groups: &[String]) -> Vec<Result<DescribedGroup>>;

    /// Deletes groups without members, with their offsets.
    fn delete_groups(&self, groups: Vec<String>) -> impl Future<Output = Vec<Result<()>>> + Send;
}
