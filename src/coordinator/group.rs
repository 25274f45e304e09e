//! One consumer group: its members, its generation, and where it is between two generations.
//!
//! The generation and who was in it never go back. A group is *preparing* a generation while members join, *completing*
//! it until its leader has assigned the work, then *stable*; without members it is *empty*.

use super::command::Rejection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a group is.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Phase {
    /// No members; offsets may be left.
    #[default]
    Empty,
    /// Members join the next generation.
    Preparing {
        /// Counts the times the group began to prepare, so that a timeout that comes late is told from this one's.
        round: u64,
        /// The group was empty, and waits a moment for more members than the first (KIP-134).
        first: bool,
    },
    /// The generation is made up, its leader has yet to assign the work.
    Completing,
    /// Every member of the generation can have its assignment.
    Stable,
}

/// A consumer group, as every replica has it. What is not in it (who was heard when, who waits on which connection) is
/// the leader's own business and not remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// The newest generation that was made up; 0 before the first.
    pub generation: i32,
    /// What kind of members it has: "consumer". None before the first member.
    pub protocol_type: Option<String>,
    /// What the generation's members agreed on.
    pub protocol: Option<String>,
    /// The member that assigns the work of the generation.
    pub leader: Option<String>,
    /// By id. Behind pointers, so that a copy of the group to change costs little.
    pub members: BTreeMap<String, Arc<Member>>,
    /// Ids that were handed out (KIP-394) and have not joined yet.
    pub pending: BTreeSet<String>,
    /// Preparations begun so far.
    pub rounds: u64,
    /// Joins so far, for [`Member::joins`].
    pub joins: u64,
    /// Since when it has been where it is, by the proposers' clocks, in milliseconds since 1970.
    pub since_ms: i64,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// A static member's name (KIP-345).
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Silence after which it is given up, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// What it can do, in the order of its preference, with its metadata for each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Its share of the work of `generation`; empty until the leader has assigned it.
    pub assignment: Vec<u8>,
    /// The newest generation it was made part of; 0 before the first.
    pub generation: i32,
    /// Whether it has joined the generation that is being prepared.
    pub joined: bool,
    /// The group's count of joins when it last joined: tells a timeout of this life from one of an earlier.
    pub joins: u64,
}

impl Group {
    /// A group without members, since `now_ms`.
    pub(super) fn new(name: String, now_ms: i64) -> Self {
        Self { name, since_ms: now_ms, ..Self::default() }
    }

    /// Whether it has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    /// The member that has a static member's name.
    #[must_use]
    pub fn member_of_instance(&self, instance: &str) -> Option<&Arc<Member>> {
        self.members.values().find(|member| member.instance.as_deref() == Some(instance))
    }

    /// Whether this member is in the group, and still the one that has its static name.
    pub fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), Rejection> {
        if let Some(instance) = instance {
            let current = self.member_of_instance(instance).ok_or(Rejection::UnknownMember)?;
            if current.id != member {
                return Err(Rejection::FencedInstance);
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(Rejection::UnknownMember) }
    }

    /// The members that have joined the generation that is being prepared.
    pub(super) fn joined(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values().filter(|member| member.joined)
    }

    /// The same without its members: what is in the group's own row.
    pub(super) fn without_members(&self) -> Self {
        Self {
            name: self.name.clone(),
            phase: self.phase.clone(),
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: BTreeMap::new(),
            pending: self.pending.clone(),
            ..*self
        }
    }
}

impl Member {
    /// Its metadata for a protocol, if it knows it.
    #[must_use]
    pub fn metadata(&self, protocol: &str) -> Option<&[u8]> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.as_slice())
    }
}
