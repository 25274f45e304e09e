//! The consumer groups of the broker in memory: one member at most per group, as much of the contract as the edge
//! notices. Tests can hold back joins, make it refuse, and see what was asked.

use super::{FakeBroker, NODE};
use ackord::broker::*;
use ackord::types::NodeId;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// The id that every new member is given.
pub const MEMBER: &str = "member-1";
/// The id of a member that is in every group, but in no answer to a join.
pub const OTHER: &str = "member-2";
/// The generation that every join makes up.
pub const GENERATION: i32 = 7;
/// The topic whose offsets can't be deleted: the groups subscribe to it.
pub const SUBSCRIBED: &str = "subscribed";
/// Longer texts are not stored with an offset.
const METADATA_BYTES_MAX: usize = 4096;

type Partitions = BTreeMap<(String, i32), CommittedOffset>;

/// What was asked, as far as tests want to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Join(JoinGroup),
    Sync(SyncGroup),
    Heartbeat(Heartbeat),
    Leave(String, Vec<MemberIdentity>),
    Commit(CommitOffsets),
    Fetch(FetchOffsets),
}

#[derive(Default)]
pub struct FakeGroups {
    /// Every request about groups is refused like this.
    pub refusal: Option<ErrorKind>,
    /// Every request that is in [`Asked`], in order.
    pub asked: Vec<Asked>,
    /// Each join and each sync takes one, and waits for it.
    pub gates: VecDeque<oneshot::Receiver<()>>,
    /// Joins and syncs that wait.
    pub waiting: Arc<Mutex<usize>>,
    /// What a leader is told.
    pub skip_assignment: bool,
    /// What was stored, by group.
    pub offsets: BTreeMap<String, Partitions>,
    /// Groups with a member, as they are listed and described.
    pub described: BTreeMap<String, DescribedGroup>,
}

/// Counts a request as waiting for as long as it lives.
struct Waiting(Arc<Mutex<usize>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        *self.0.lock().expect("not poisoned") -= 1;
    }
}

/// A group at work with one static member.
#[allow(dead_code, reason = "not every test has groups")]
pub fn described(group: &str, state: GroupState) -> DescribedGroup {
    let member = DescribedMember {
        identity: MemberIdentity { id: MEMBER.into(), instance: Some("desk".into()) },
        client_id: "test".into(),
        client_host: "/127.0.0.1".into(),
        metadata: Bytes::from_static(b"can"),
        assignment: Bytes::from_static(b"does"),
    };
    DescribedGroup {
        group: group.into(),
        state,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        generation: GENERATION,
        members: if state == GroupState::Empty { vec![] } else { vec![member] },
    }
}

impl FakeBroker {
    fn ask(&self, asked: Asked) -> Result<()> {
        self.state().groups.asked.push(asked);
        self.refuse()
    }

    fn refuse(&self) -> Result<()> {
        self.state().groups.refusal.map_or(Ok(()), |kind| Err(kind.into()))
    }

    async fn pass_the_gate(&self) {
        let (gate, waiting) = {
            let groups = &mut self.state().groups;
            (groups.gates.pop_front(), Arc::clone(&groups.waiting))
        };
        *waiting.lock().expect("not poisoned") += 1;
        let _waiting = Waiting(waiting);
        if let Some(gate) = gate {
            gate.await.expect("the test opens every gate");
        }
    }

    fn exists(&self, topic: &TopicName, partition: PartitionIndex) -> Result<()> {
        self.state().partition(topic, partition).map(drop)
    }
}

impl Groups for FakeBroker {
    fn coordinator(&self, _group: &str) -> Result<NodeId> {
        self.refuse().map(|()| NODE)
    }

    async fn join_group(&self, request: JoinGroup, memory: Option<Reservation>) -> Result<Joined> {
        self.ask(Asked::Join(request.clone()))?;
        if request.two_steps && request.member.id.is_empty() {
            return Ok(Joined::Again { member: MEMBER.into() });
        }
        drop(memory);
        self.pass_the_gate().await;
        let member = if request.member.id.is_empty() { MEMBER.to_owned() } else { request.member.id };
        let (protocol, metadata) = request.protocols.into_iter().next().ok_or(ErrorKind::InconsistentGroupProtocol)?;
        let other = MemberIdentity { id: OTHER.into(), instance: Some("desk".into()) };
        let own = MemberIdentity { id: member.clone(), instance: request.member.instance };
        let members = [own, other].map(|identity| GenerationMember { identity, metadata: metadata.clone() });
        Ok(Joined::In(Generation {
            generation: GENERATION,
            protocol_type: request.protocol_type,
            protocol,
            leader: member.clone(),
            member,
            skip_assignment: self.state().groups.skip_assignment,
            members: members.into(),
        }))
    }

    async fn sync_group(&self, request: SyncGroup, memory: Option<Reservation>) -> Result<Synced> {
        self.ask(Asked::Sync(request.clone()))?;
        drop(memory);
        self.pass_the_gate().await;
        let mut own = request.assignments.into_iter().filter(|(member, _)| *member == request.member.id);
        let assignment = own.next().map(|(_, assignment)| assignment).unwrap_or_default();
        Ok(Synced { protocol_type: "consumer".into(), protocol: "range".into(), assignment })
    }

    async fn heartbeat(&self, request: Heartbeat) -> Result<()> {
        self.ask(Asked::Heartbeat(request.clone()))?;
        if request.generation == GENERATION { Ok(()) } else { Err(ErrorKind::IllegalGeneration.into()) }
    }

    async fn leave_group(&self, group: String, members: Vec<MemberIdentity>) -> PerItem {
        self.ask(Asked::Leave(group, members.clone()))?;
        let leave = |member: MemberIdentity| match member.id.as_str() {
            MEMBER => Ok(()),
            _ => Err(ErrorKind::UnknownMember.into()),
        };
        Ok(members.into_iter().map(leave).collect())
    }

    async fn commit_offsets(&self, request: CommitOffsets) -> PerItem {
        self.ask(Asked::Commit(request.clone()))?;
        let store = |offset: OffsetToCommit| {
            self.exists(&offset.topic, offset.partition)?;
            if offset.position.metadata.len() > METADATA_BYTES_MAX {
                return Err(ErrorKind::OffsetMetadataTooLarge.into());
            }
            let groups = &mut self.state().groups;
            let stored = groups.offsets.entry(request.group.clone()).or_default();
            stored.insert((offset.topic.to_string(), offset.partition.0), offset.position);
            Ok(())
        };
        Ok(request.offsets.into_iter().map(store).collect())
    }

    async fn fetch_offsets(&self, request: FetchOffsets) -> Result<Vec<FetchedOffset>> {
        self.ask(Asked::Fetch(request.clone()))?;
        let stored = self.state().groups.offsets.get(&request.group).cloned().unwrap_or_default();
        let found = |topic: TopicName, partition: PartitionIndex| {
            let committed = stored.get(&(topic.to_string(), partition.0)).cloned();
            FetchedOffset { topic, partition, committed }
        };
        Ok(match request.partitions {
            Some(asked) => asked.into_iter().map(|(topic, partition)| found(topic, partition)).collect(),
            None => stored.keys().map(|(topic, index)| found(topic.as_str().into(), PartitionIndex(*index))).collect(),
        })
    }

    async fn delete_offsets(&self, group: String, partitions: Vec<(TopicName, PartitionIndex)>) -> PerItem {
        self.refuse()?;
        let delete = |(topic, partition): (TopicName, PartitionIndex)| {
            self.exists(&topic, partition)?;
            if topic.as_str() == SUBSCRIBED {
                return Err(ErrorKind::SubscribedToTopic.into());
            }
            if let Some(stored) = self.state().groups.offsets.get_mut(&group) {
                stored.remove(&(topic.to_string(), partition.0));
            }
            Ok(())
        };
        Ok(partitions.into_iter().map(delete).collect())
    }

    fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        self.refuse()?;
        let list = |group: &DescribedGroup| ListedGroup {
            group: group.group.clone(),
            protocol_type: group.protocol_type.clone(),
            state: group.state,
        };
        Ok(self.state().groups.described.values().map(list).collect())
    }

    fn describe_groups(&self, groups: &[String]) -> Vec<Result<DescribedGroup>> {
        let describe = |group: &String| {
            self.refuse()?;
            let dead = DescribedGroup {
                group: group.clone(),
                state: GroupState::Dead,
                protocol_type: String::new(),
                protocol: String::new(),
                generation: 0,
                members: vec![],
            };
            Ok(self.state().groups.described.get(group).cloned().unwrap_or(dead))
        };
        groups.iter().map(describe).collect()
    }

    async fn delete_groups(&self, groups: Vec<String>) -> Vec<Result<()>> {
        let delete = |group: String| {
            self.refuse()?;
            let groups = &mut self.state().groups;
            match groups.described.get(&group) {
                None => Err(ErrorKind::UnknownGroup.into()),
                Some(described) if described.members.is_empty() => {
                    groups.described.remove(&group);
                    Ok(())
                }
                Some(_) => Err(ErrorKind::GroupNotEmpty.into()),
            }
        };
        groups.into_iter().map(delete).collect()
    }
}
