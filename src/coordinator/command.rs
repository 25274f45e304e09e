//! What is asked of a coordinator: commands as they stand in the Raft log (`LogEntry::data`), and the answers.
//!
//! A command carries everything that replicas could disagree on: the leader's clock, and the member ids that it drew at
//! random. Whether a timeout has run out is decided by the leader's [`super::sessions`] and arrives here as a command;
//! the state machine only decides whether it still matters.

use crate::machine::codec::{self, CodecError};
use bytes::Bytes;

/// The longest encoded command, in bytes: what a request of the Kafka protocol can bring, and something for the rest.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;

/// One entry of a coordinator's log.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Command {
    /// The leader's clock when it proposed, in milliseconds since 1970. The coordinator's own time never goes back, and
    /// moves by [`super::LOOK_STEP_MS_MAX`] at a time.
    pub now_ms: i64,
    /// What is to be done.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Action {
    /// JoinGroup: a member joins, or joins again.
    Join(Join),
    /// SyncGroup of the group's leader: the assignment of its generation.
    Assign(Assign),
    /// LeaveGroup.
    Leave { group: String, members: Vec<Leaver> },
    /// Members whose session has run out, or who did not ask for their assignment in time.
    Expire { group: String, members: Vec<Expired> },
    /// The time in which members could join has run out: whoever is there makes up the next generation. If nobody is,
    /// but static members have not been given up yet, another round begins.
    FinishJoin { group: String, round: u64 },
    /// OffsetCommit.
    Commit(Commit),
    /// OffsetDelete. Of a group that subscribes to the topic only if it is empty.
    DeleteOffsets { group: String, partitions: Vec<(String, i32)> },
    /// DeleteGroups.
    DeleteGroups { groups: Vec<String> },
    /// Drops offsets of groups that have been empty for so long, and groups that have nothing left. Moves the time.
    ExpireOffsets { retention_ms: i64 },
    /// Drops all offsets of topics that were deleted.
    ForgetTopics { topics: Vec<String> },
}

/// A member that joins.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Join {
    /// The group.
    pub group: String,
    /// The member, as it knows itself; empty if it is new.
    pub member: String,
    /// The id for a new member, drawn at random by the proposer.
    pub new_member: String,
    /// A static member's name (KIP-345).
    pub instance: Option<String>,
    /// Whether a new dynamic member is only told its id, and has to join again under it (KIP-394).
    pub two_steps: bool,
    /// Whether the client understands that a static leader which comes back need not assign again (KIP-814).
    pub can_skip_assignment: bool,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Silence after which it is given up, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// What kind of group it takes it for: "consumer".
    pub protocol_type: String,
    /// What it can do, in the order of its preference, with its metadata for each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Whether an empty group waits for more members before its first generation (`group.initial.rebalance.delay.ms`).
    pub delay_first: bool,
    /// Most members of a group (`group.max.size`).
    pub members_max: u32,
}

/// An assignment of a generation.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Assign {
    /// The group.
    pub group: String,
    /// The generation it is for.
    pub generation: i32,
    /// Who says so.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// By member.
    pub assignments: Vec<(String, Vec<u8>)>,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Leaver {
    /// Its id; may be empty for a static member.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
}

/// A member that was not heard of in time.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Expired {
    /// Its id.
    pub member: String,
    /// [`super::group::Member::joins`] when its time ran out; if it has joined again since, it stays. 0 for an id that
    /// was handed out and has not joined.
    pub joins: u64,
}

/// Offsets to be stored.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// The member; empty together with generation −1 from who only stores offsets.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// The generation the member believes in.
    pub generation: i32,
    /// What is stored, by topic and partition.
    pub offsets: Vec<(String, i32, NewOffset)>,
}

/// An offset to be stored.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NewOffset {
    /// The next offset to be read.
    pub offset: i64,
    /// The leader epoch of the last record read, −1 if unknown.
    pub leader_epoch: i32,
    /// Whatever the client wants to remember with it.
    pub metadata: String,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Answer {
    /// Join.
    Joined(Result<Joined, Rejection>),
    /// Assign, FinishJoin, ExpireOffsets, ForgetTopics, Expire.
    Done(Result<(), Rejection>),
    /// Leave: one for each, in the order of the request.
    Left(Vec<Result<(), Rejection>>),
    /// Commit: one for all offsets.
    Committed(Result<(), Rejection>),
    /// DeleteOffsets: one for each partition, in the order of the request, or one refusal for all.
    OffsetsDeleted(Result<Vec<Result<(), Rejection>>, Rejection>),
    /// DeleteGroups: one for each, in the order of the request.
    GroupsDeleted(Vec<Result<(), Rejection>>),
}

/// A member that may take part.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Joined {
    /// It is to join again under this id (MEMBER_ID_REQUIRED).
    Again { member: String },
    /// It is in.
    In {
        /// Its id.
        member: String,
        /// Its answer can be given once the group has come to this generation or beyond, or has lost the member.
        generation: i32,
        /// It is the leader of the generation that goes on, and need not assign again (KIP-814).
        skip_assignment: bool,
        /// Who is to be named as the leader if not the group's: a static leader that came back under a new id and does
        /// not understand `skip_assignment` is told its old one and no members, so that it does not assign again.
        leader: Option<String>,
    },
}

/// Why a command changed nothing (for this member, offset or group). Definite. Each is one error code of Kafka's. The
/// one exception is `GroupFull` for a member that comes too late to a full preparation: it is out of the group then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Rejection {
    /// UNKNOWN_MEMBER_ID (25).
    UnknownMember,
    /// ILLEGAL_GENERATION (22).
    IllegalGeneration,
    /// REBALANCE_IN_PROGRESS (27).
    RebalanceInProgress,
    /// FENCED_INSTANCE_ID (82): another member has taken the static member's place.
    FencedInstance,
    /// INCONSISTENT_GROUP_PROTOCOL (23).
    InconsistentProtocol,
    /// GROUP_MAX_SIZE_REACHED (81).
    GroupFull,
    /// NON_EMPTY_GROUP (68).
    NonEmptyGroup,
    /// GROUP_ID_NOT_FOUND (69).
    UnknownGroup,
    /// GROUP_SUBSCRIBED_TO_TOPIC (86).
    SubscribedToTopic,
    /// The coordinator's state has reached its limit, or a name is longer than the protocol's; told as POLICY_VIOLATION
    /// (44), or COORDINATOR_NOT_AVAILABLE (15) where clients know no other.
    CoordinatorFull,
}

impl Command {
    /// As it stands in a log entry's data; too long a command must not be proposed.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        let bytes = codec::encode(self);
        if bytes.len() > COMMAND_BYTES_MAX { Err(CodecError::TooLong(bytes.len())) } else { Ok(bytes.into()) }
    }

    /// Reads `encode`'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(CodecError::TooLong(bytes.len()));
        }
        codec::decode::<_, { 4 * COMMAND_BYTES_MAX }>(bytes)
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
        codec::decode::<_, { 4 * COMMAND_BYTES_MAX }>(bytes)
    }
}
