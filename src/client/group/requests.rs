//! A member's requests, one by one: for who decides alone when to send which, and what to read.

use super::assignment::{self, Share, Subscriber};
use super::member::MemberOptions;
use super::{expect_answer, must_rejoin};
use crate::client::error::{Error, Result};
use crate::client::routing::{Repeat, Router};
use crate::proto::native::{self, ErrorCode, request, response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A member of a consumer group that does nothing by itself: it does not even say that it is alive. Members for whom
/// that is done are [`GroupMember`](super::member::GroupMember)s. A clone is the same member, and knows what this one
/// knew of its generation.
#[derive(Clone)]
pub struct MemberRequests {
    /// Whom to ask.
    router: Arc<Router>,
    /// The group.
    group: String,
    /// The topics it reads.
    topics: Vec<String>,
    /// A static member's name.
    instance: Option<String>,
    /// Silence after which it is given up.
    session_timeout: Duration,
    /// How long it may take to join again.
    rebalance_timeout: Duration,
    /// Its id, empty until it has one. Shared, so that it can leave while a clone joins.
    id: Arc<Mutex<String>>,
    /// The generation that it joined last, −1 before.
    generation: i32,
}

impl MemberRequests {
    pub(in crate::client) fn new(
        router: Arc<Router>,
        group: &str,
        topics: &[impl AsRef<str>],
        options: &MemberOptions,
    ) -> Self {
        let topics: BTreeSet<_> = topics.iter().map(|topic| topic.as_ref().to_owned()).collect();
        Self {
            router,
            group: group.to_owned(),
            topics: topics.into_iter().collect(),
            instance: options.instance.clone(),
            session_timeout: options.session_timeout,
            rebalance_timeout: options.rebalance_timeout,
            id: Arc::default(),
            generation: -1,
        }
    }

    /// Joins the group, or joins it again, and returns its share: partitions by topic. Takes as long as the other
    /// members need to join, too. Dropped on the way and called again, it goes on under the same id.
    pub async fn join(&mut self) -> Result<BTreeMap<String, Vec<u32>>> {
        loop {
            match self.try_join().await {
                Err(error) if self.has_lost_its_place(&error) => {}
                done => return done,
            }
        }
    }

    /// Whether an answer says that it has to join again.
    pub fn has_lost_its_place(&mut self, error: &Error) -> bool {
        if error.code() == Some(ErrorCode::UnknownMember) {
            self.id().clear();
        }
        must_rejoin(error)
    }

    /// The generation that it joined last, −1 before.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether the coordinator may know it.
    pub(super) fn is_known(&self) -> bool {
        !self.id().is_empty()
    }

    async fn try_join(&mut self) -> Result<Share> {
        let mut joined = self.join_once().await?;
        self.id().clone_from(&joined.member);
        if joined.leader.is_empty() {
            joined = self.join_once().await?;
            self.id().clone_from(&joined.member);
        }
        self.generation = joined.generation;
        let assignments = if joined.leader == joined.member { self.assign(&joined).await? } else { Vec::new() };
        let body = request::Body::SyncGroup(native::SyncGroupRequest {
            group: self.group.clone(),
            generation: joined.generation,
            member: self.identity(),
            assignments,
        });
        let synced = expect_answer!(self.ask(body, self.patience()).await?, SyncGroup)?;
        let share = assignment::read_share(synced.assignment);
        share.ok_or_else(|| Error::protocol("an assignment of another kind"))
    }

    async fn join_once(&self) -> Result<native::JoinGroupResponse> {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let protocol = native::GroupProtocol {
            name: assignment::RANGE.to_owned(),
            metadata: assignment::subscription(&self.topics),
        };
        let body = request::Body::JoinGroup(native::JoinGroupRequest {
            group: self.group.clone(),
            member: self.identity(),
            client_name: self.router.options.name.clone(),
            session_timeout_ms: millis(self.session_timeout),
            rebalance_timeout_ms: millis(self.rebalance_timeout),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
        });
        expect_answer!(self.ask(body, self.patience()).await?, JoinGroup)
    }

    /// The leader's work: deals the partitions out.
    async fn assign(&self, joined: &native::JoinGroupResponse) -> Result<Vec<native::GroupAssignment>> {
        let mut subscribers = Vec::with_capacity(joined.members.len());
        let mut counts = BTreeMap::new();
        for other in &joined.members {
            let member = other.member.clone().unwrap_or_default();
            let topics = assignment::read_subscription(other.metadata.clone());
            let topics = topics.ok_or_else(|| Error::protocol("a subscription of another kind"))?;
            for topic in &topics {
                if !counts.contains_key(topic) {
                    counts.insert(topic.clone(), self.router.partition_count(topic).await?);
                }
            }
            subscribers.push(Subscriber { member: member.id, instance: member.instance, topics });
        }
        let shares = assignment::ranges(&subscribers, &counts).into_iter();
        let assignment = |(member, share): (String, Share)| native::GroupAssignment {
            member,
            assignment: assignment::share(&share),
        };
        Ok(shares.map(assignment).collect())
    }

    /// Says that it is alive.
    pub async fn heartbeat(&self) -> Result<()> {
        let (group, generation) = (self.group.clone(), self.generation);
        let body = request::Body::Heartbeat(native::HeartbeatRequest { group, generation, member: self.identity() });
        expect_answer!(self.ask(body, self.session_timeout).await?, Heartbeat).map(drop)
    }

    /// Stores offsets, all of them or none.
    pub async fn commit(&self, offsets: Vec<native::GroupOffset>) -> Result<()> {
        let (group, generation, member) = (self.group.clone(), self.generation, self.identity());
        let commit = native::CommitOffsetsRequest { group, generation, member, offsets };
        let answer = self.ask(request::Body::CommitOffsets(commit), self.router.options.timeout).await?;
        expect_answer!(answer, CommitOffsets).map(drop)
    }

    /// What the group has stored.
    pub async fn committed(&self) -> Result<Vec<native::GroupOffset>> {
        let body = request::Body::CommittedOffsets(native::CommittedOffsetsRequest { group: self.group.clone() });
        Ok(expect_answer!(self.ask(body, self.router.options.timeout).await?, CommittedOffsets)?.offsets)
    }

    /// Leaves, so that the others need not wait for its silence.
    pub async fn leave(&self) -> Result<()> {
        let body = native::LeaveGroupRequest { group: self.group.clone(), member: self.identity() };
        let answer = self.ask(request::Body::LeaveGroup(body), self.router.options.timeout).await?;
        expect_answer!(answer, LeaveGroup).map(drop)
    }

    fn identity(&self) -> Option<native::GroupMember> {
        Some(native::GroupMember { id: self.id().clone(), instance: self.instance.clone() })
    }

    fn id(&self) -> MutexGuard<'_, String> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it waits for the others.
    fn patience(&self) -> Duration {
        self.rebalance_timeout + self.router.options.timeout
    }

    async fn ask(&self, body: request::Body, timeout: Duration) -> Result<response::Body> {
        self.router.ask_coordinator(&self.group, body, Repeat::Harmless, timeout).await
    }
}
