//! Consumer groups that this node coordinates.
//!
//! A group belongs to one partition of the internal topic [`coordinator::TOPIC`], and to the node that leads that
//! partition's Raft group. What changes a group is proposed there and answered once it is applied; what members wait
//! for, they find in the published state. What only the leader knows (who was heard of when) is [`led`]'s.
//!
//! * `join`, `sync`, `members`: members, from their first request to their leaving.
//! * `offsets`: what groups have stored.
//! * `admin`: what operators see and delete.
//! * `keeper`: the task that proposes what time brings about.
//! * `topics`: offsets of topics that were deleted.
//! * `lag`: how far groups are behind, for the metrics.

mod admin;
mod join;
mod keeper;
mod lag;
mod led;
mod members;
mod offsets;
mod sync;
mod topics;

use super::{Inner, NodeBroker, now_ms};
use crate::broker::{
    CommitOffsets, DescribedGroup, Error, ErrorKind, FetchOffsets, FetchedOffset, Groups, Heartbeat, JoinGroup, Joined,
    ListedGroup, MemberIdentity, PartitionIndex, PerItem, Reservation, Result, SyncGroup, Synced, TopicName,
};
use crate::coordinator::command::{Action, Answer, Command, Rejection};
use crate::coordinator::group::{Group, Phase};
use crate::coordinator::{self, partition_of};
use crate::machine::Outcome;
use crate::multiraft::core::effect::{Refused, Reply};
use crate::multiraft::handle::Pending;
use crate::storage::Engine;
use crate::types::{NodeId, RaftGroupId, Term};
use bytes::Bytes;
pub(super) use led::Led;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What a node's operator decides about consumer groups.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Shortest session timeout that a member may ask for.
    pub session_timeout_min: Duration,
    /// Longest session timeout that a member may ask for.
    pub session_timeout_max: Duration,
    /// How long an empty group waits for more members than the first.
    pub initial_rebalance_delay: Duration,
    /// Most members of a group.
    pub members_max: u32,
    /// How long the offsets of a group without members are kept.
    pub offsets_retention: Duration,
    /// How often is looked for such offsets.
    pub offsets_check_interval: Duration,
    /// Longest text stored with an offset, in bytes.
    pub offset_metadata_bytes: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            members_max: 10_000,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            offsets_check_interval: Duration::from_secs(10 * 60),
            offset_metadata_bytes: 4096,
        }
    }
}

/// How long a change of a group may take to be admitted, committed and applied.
const DECISION_WAIT: Duration = Duration::from_secs(10);

/// A consumer group's coordinator on this node, while it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Its Raft group.
    raft: RaftGroupId,
    /// The term in which this node leads it.
    term: Term,
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// The Raft groups of all coordinators; none before the internal topic is made.
    fn coordinators(&self) -> Vec<RaftGroupId> {
        let metadata = self.views.metadata();
        let topic = metadata.topic_named(coordinator::TOPIC);
        topic.into_iter().flat_map(|topic| &topic.partitions).map(|partition| partition.group).collect()
    }

    /// The Raft group that coordinates a consumer group.
    fn coordinator_of(&self, group: &str) -> Result<RaftGroupId> {
        let metadata = self.views.metadata();
        let topic = metadata.topic_named(coordinator::TOPIC).ok_or(ErrorKind::CoordinatorNotAvailable)?;
        let count = u32::try_from(topic.partitions.len()).map_err(|_| ErrorKind::CoordinatorNotAvailable)?;
        let partition = topic.partitions.get(partition_of(group, count) as usize);
        Ok(partition.ok_or(ErrorKind::CoordinatorNotAvailable)?.group)
    }

    /// Where this node coordinates, or why it does not.
    fn place_of(&self, raft: RaftGroupId) -> Result<Place> {
        let status = self.handle.board().status(raft);
        if let Some(reason) = status.quarantined {
            let error = format!("this node's replica of the coordinator is quarantined: {reason}");
            return Err(Error::new(ErrorKind::NotCoordinator, error));
        }
        let leadership = status.leadership;
        match leadership.leader {
            _ if leadership.serving => Ok(Place { raft, term: leadership.term }),
            Some(leader) if leader.node() == self.node => Err(ErrorKind::CoordinatorLoading.into()),
            _ => Err(ErrorKind::NotCoordinator.into()),
        }
    }

    /// Where this node coordinates a consumer group of this name.
    fn place(&self, group: &str) -> Result<Place> {
        if group.len() > coordinator::NAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidGroup, "the group's name is too long"));
        }
        self.place_of(self.coordinator_of(group)?)
    }

    /// The same for what only groups with a name have.
    fn place_of_named(&self, group: &str) -> Result<Place> {
        match group {
            "" => Err(Error::new(ErrorKind::InvalidGroup, "a group with members has a name")),
            _ => self.place(group),
        }
    }

    /// Hands a command in; its place in the coordinator's order is then fixed.
    async fn admit(&self, place: &Place, action: Action, deadline: Instant) -> Result<Pending> {
        let command = Command { now_ms: now_ms(), action };
        let bytes = command.encode().map_err(|error| Error::new(ErrorKind::InvalidRequest, error.to_string()))?;
        match timeout_at(deadline, self.handle.propose(place.raft, Bytes::new(), bytes)).await {
            Ok(admitted) => admitted.map_err(refused),
            Err(_) => Err(refused(Refused::Busy)),
        }
    }

    /// Waits for a command's answer, and takes in what became of the consumer group that it is about: also when who
    /// asked has gone meanwhile, or a member would be in the group that nobody watches over.
    async fn answer(
        self: &Arc<Self>,
        place: &Place,
        group: Option<&str>,
        pending: Pending,
        deadline: Instant,
    ) -> Result<Answer> {
        let (inner, place, group) = (Arc::clone(self), place.clone(), group.map(str::to_owned));
        let waiting = tokio::spawn(async move {
            let reply = pending.wait().await;
            if let Some(group) = group {
                inner.led.touch(&inner.surroundings(), &place, &group, |_, _| ());
            }
            reply
        });
        match timeout_at(deadline, waiting).await {
            Ok(Ok(Reply::Applied { outcome: Outcome::Answer(answer), .. })) => Answer::decode(&answer)
                .map_err(|error| Error::new(ErrorKind::Internal, format!("the coordinator's answer: {error}"))),
            Ok(Ok(Reply::Refused(why))) => Err(refused(why)),
            Ok(Ok(Reply::Undecided)) | Err(_) => Err(ErrorKind::CoordinatorLost.into()),
            Ok(Ok(Reply::Applied { .. } | Reply::ReadAt(_))) => Err(ErrorKind::Internal.into()),
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ErrorKind::CoordinatorLost.into()), // the node stops
            },
        }
    }

    /// Has a command decided that is about one consumer group, or none in particular.
    async fn decide_on(self: &Arc<Self>, place: &Place, group: Option<&str>, action: Action) -> Result<Answer> {
        let deadline = Instant::now() + DECISION_WAIT;
        let pending = self.admit(place, action, deadline).await?;
        self.answer(place, group, pending, deadline).await
    }

    /// What [`Led`] needs to look around.
    fn surroundings(&self) -> led::Surroundings<'_> {
        led::Surroundings { views: &self.views, metrics: &self.metrics }
    }

    /// Waits until `look` finds an answer in a group, for as long as this node coordinates it.
    async fn wait_for<T>(
        &self,
        place: &Place,
        group: &str,
        deadline: Instant,
        look: impl Fn(Option<&Arc<Group>>) -> Option<Result<T>>,
    ) -> Result<T> {
        let mut status = self.handle.board().watch(place.raft);
        let Some(mut view) = self.views.watch_group(place.raft, group) else {
            return look(None).unwrap_or(Err(ErrorKind::NotCoordinator.into()));
        };
        loop {
            let leadership = status.borrow_and_update().leadership;
            if !leadership.serving || leadership.term != place.term {
                return Err(ErrorKind::NotCoordinator.into());
            }
            if let Some(answer) = look(view.borrow_and_update().as_ref()) {
                return answer;
            }
            let is_there = tokio::select! {
                changed = status.changed() => changed.is_ok(),
                changed = view.changed() => changed.is_ok(),
                () = sleep_until(deadline) => false,
            };
            if !is_there {
                return Err(ErrorKind::NotCoordinator.into());
            }
        }
    }
}

/// Why a command was certainly not done.
fn refused(why: Refused) -> Error {
    match why {
        Refused::NoReplica | Refused::NotLeader | Refused::Overwritten => ErrorKind::NotCoordinator.into(),
        Refused::Busy | Refused::OutOfTurn => ErrorKind::Overloaded.into(),
        Refused::NoSpace => ErrorKind::StorageUnavailable.into(),
    }
}

/// An answer to another command than the one that was asked.
fn unexpected() -> Error {
    Error::new(ErrorKind::Internal, "the coordinator answered another question")
}

fn rejected(why: Rejection) -> Error {
    match why {
        Rejection::UnknownMember => ErrorKind::UnknownMember,
        Rejection::IllegalGeneration => ErrorKind::IllegalGeneration,
        Rejection::RebalanceInProgress => ErrorKind::RebalanceInProgress,
        Rejection::FencedInstance => ErrorKind::FencedInstance,
        Rejection::InconsistentProtocol => ErrorKind::InconsistentGroupProtocol,
        Rejection::GroupFull => ErrorKind::GroupFull,
        Rejection::NonEmptyGroup => ErrorKind::GroupNotEmpty,
        Rejection::UnknownGroup => ErrorKind::UnknownGroup,
        Rejection::SubscribedToTopic => ErrorKind::SubscribedToTopic,
        Rejection::CoordinatorFull => {
            let message = "the coordinator has as many groups and offsets as it may have: delete some";
            return Error::new(ErrorKind::CoordinatorNotAvailable, message);
        }
    }
    .into()
}

/// Checks that a member is in its group under the id that it has, as Kafka's `validateMember` does.
fn check_member(group: &Group, member: &MemberIdentity) -> Result<()> {
    match &member.instance {
        Some(instance) => match group.members.values().find(|known| known.instance.as_ref() == Some(instance)) {
            Some(known) if known.id == member.id => Ok(()),
            Some(_) => Err(ErrorKind::FencedInstance.into()),
            None => Err(ErrorKind::UnknownMember.into()),
        },
        None if group.members.contains_key(&member.id) => Ok(()),
        None => Err(ErrorKind::UnknownMember.into()),
    }
}

impl<E: Engine + Clone + 'static> Groups for NodeBroker<E> {
    fn coordinator(&self, group: &str) -> Result<NodeId> {
        let leader = self.0.leader(self.0.coordinator_of(group)?);
        Ok(leader.ok_or(ErrorKind::CoordinatorNotAvailable)?.node)
    }

    async fn join_group(&self, request: JoinGroup, memory: Option<Reservation>) -> Result<Joined> {
        join::join(Arc::clone(&self.0), request, memory).await
    }

    async fn sync_group(&self, request: SyncGroup, memory: Option<Reservation>) -> Result<Synced> {
        sync::sync(Arc::clone(&self.0), request, memory).await
    }

    async fn heartbeat(&self, request: Heartbeat) -> Result<()> {
        members::heartbeat(&self.0, &request)
    }

    async fn leave_group(&self, group: String, members: Vec<MemberIdentity>) -> PerItem {
        members::leave(&self.0, group, members).await
    }

    async fn commit_offsets(&self, request: CommitOffsets) -> PerItem {
        offsets::commit(&self.0, request).await
    }

    async fn fetch_offsets(&self, request: FetchOffsets) -> Result<Vec<FetchedOffset>> {
        offsets::fetch(&self.0, request).await
    }

    async fn delete_offsets(&self, group: String, partitions: Vec<(TopicName, PartitionIndex)>) -> PerItem {
        offsets::delete(&self.0, group, partitions).await
    }

    fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        self.0.list_groups()
    }

    fn describe_groups(&self, groups: &[String]) -> Vec<Result<DescribedGroup>> {
        groups.iter().map(|group| self.0.describe_group(group)).collect()
    }

    async fn delete_groups(&self, groups: Vec<String>) -> Vec<Result<()>> {
        admin::delete_groups(&self.0, groups).await
    }
}
