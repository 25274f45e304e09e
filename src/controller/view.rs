//! The cluster's metadata as of one applied position: what readers are given, and what the state machine changes.
//!
//! A view is immutable once it is shared: the state machine copies it on its next change. Brokers and topics are behind
//! `Arc`s, so a copy costs a pointer each, and two views tell by comparing pointers what changed between them.

use crate::types::{
    CONTROLLER_GROUP, COORDINATOR_TOPIC, ClusterId, GroupKind, Incarnation, LogIndex, Membership, NodeId, RaftGroupId,
    ReplicaId, TopicId,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What belongs to the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// The level of features that every node of the cluster understands and may use.
    pub feature_level: u32,
    /// The number of the next group to be made. Groups below it exist or have been deleted for good.
    pub next_group: RaftGroupId,
    /// The first producer id that no block has handed out.
    pub next_producer_id: i64,
    /// The controller's own group.
    pub controllers: ControllerGroup,
    /// Disks that were replaced: whoever comes with one of them is refused.
    pub retired: Vec<Incarnation>,
    /// Nodes whose replicas are being replaced.
    pub replacements: Vec<NodeReplacement>,
}

/// Who is to have the controller's group. Its leader sees to it that they have.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ControllerGroup {
    /// Its voters, and what replaces them.
    pub members: Partition,
    /// The replicas of all other nodes, which receive the metadata and do not vote. Sorted.
    pub learners: Vec<ReplicaId>,
}

/// A node whose replicas are being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NodeReplacement {
    /// The node that is lost, or whose disk is.
    pub old: NodeId,
    /// The node that takes its replicas; the same one if only its disk is another.
    pub new: NodeId,
    /// How many groups had a replica there.
    pub groups: u32,
}

/// A node as it registered itself.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Broker {
    /// Its number.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Where it stands; replicas of a partition are spread over racks.
    pub rack: Option<String>,
    /// Where it is reached, at most one of each kind.
    pub listeners: Vec<Listener>,
    /// The highest feature level its program understands.
    pub feature_level_max: u32,
    /// The entry that registered it last: Kafka's broker epoch.
    pub registered: LogIndex,
}

/// An address that a node advertises.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Listener {
    /// The protocol that is spoken there.
    pub kind: ListenerKind,
    /// Name or address, as others resolve it.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub enum ListenerKind {
    /// The Kafka wire protocol.
    Kafka,
    /// The native protocol.
    Native,
    /// Metrics and health.
    Http,
    /// Raft messages and snapshots between nodes.
    Peer,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name; unique among living topics.
    pub name: String,
    /// When it was made, in milliseconds since 1970, by the proposer's clock.
    pub created_ms: i64,
    /// By partition number.
    pub partitions: Vec<Partition>,
    /// What was set on it, normalised; everything else has its default.
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    /// Whether it belongs to the cluster itself: clients neither write, grow nor delete it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.kind() != GroupKind::Partition
    }

    /// What its partitions replicate.
    #[must_use]
    pub fn kind(&self) -> GroupKind {
        if self.name == COORDINATOR_TOPIC { GroupKind::Coordinator } else { GroupKind::Partition }
    }

    /// How many replicas each partition has; partitions under reassignment may differ for a while.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }
}

/// A partition's group and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Partition {
    /// Its Raft group.
    pub group: RaftGroupId,
    /// Its voters, the preferred leader first. A voter that is being replaced is among them until that is done.
    pub replicas: Vec<ReplicaId>,
    /// Which of them are being replaced, and by whom. One that was to come, and whose place another one is to take
    /// now, is there beside the one that it was to replace: it may be a voter already.
    pub replacing: Vec<Replacement>,
    /// The voters that the group was born with; empty as long as they are `replicas`.
    pub born: Vec<ReplicaId>,
    /// The newest replica of each node that was a member, or was to be, and is no more. Sorted.
    pub removed: Vec<ReplicaId>,
}

/// A replica that takes another one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Replacement {
    /// The one that goes.
    pub old: ReplicaId,
    /// The one that comes.
    pub new: ReplicaId,
}

/// Groups that were made by one command have consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GroupRange {
    /// Whose partitions they are.
    topic: TopicId,
    /// The partition of the range's first group.
    first_partition: usize,
    /// How many.
    count: u64,
}

/// Whether a group is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupFate {
    /// No command applied so far has made it.
    Unborn,
    /// It is the partition of this number.
    Alive(Arc<Topic>, usize),
    /// It was deleted and never comes back.
    Deleted,
}

/// A group that a node is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub group: RaftGroupId,
    /// The node's own replica in it.
    pub replica: ReplicaId,
    /// The members the group is born with, if this is one of its first replicas. One that joins later begins without
    /// knowing any but itself (`Membership::of_joining`).
    pub members: Membership,
    /// Every replica that the group has or is to have, as voters: one that is to be repaired asks them, too.
    pub peers: Membership,
    /// What it replicates.
    pub kind: GroupKind,
    /// Its topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: usize,
}

/// What a node has to do to get from one view to a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    /// Groups to create here.
    pub create: Vec<GroupPlan>,
    /// Groups that stay here, and whose other replicas are others now.
    pub others: Vec<GroupPlan>,
    /// Groups to tombstone here.
    pub tombstone: Vec<RaftGroupId>,
}

/// The cluster's metadata as of one applied position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataView {
    /// What belongs to the cluster as a whole.
    cluster: Cluster,
    /// The registered nodes.
    brokers: BTreeMap<NodeId, Arc<Broker>>,
    /// All topics.
    topics: BTreeMap<TopicId, Arc<Topic>>,
    /// By `collision_key`: unique, because names that collide are refused.
    names: BTreeMap<Arc<str>, TopicId>,
    /// By the first group of each range.
    groups: BTreeMap<RaftGroupId, GroupRange>,
}

/// What two names have in common that Kafka will not have beside each other: its metrics turn '.' into '_'.
pub(super) fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

impl MetadataView {
    /// The view of a cluster without nodes and topics. Group 0 is the controller itself.
    #[must_use]
    pub fn empty(id: ClusterId) -> Self {
        let members = Partition::born(CONTROLLER_GROUP, Vec::new());
        Self::of(Cluster {
            id,
            feature_level: 1,
            next_group: RaftGroupId(1),
            next_producer_id: 0,
            controllers: ControllerGroup { members, learners: Vec::new() },
            retired: Vec::new(),
            replacements: Vec::new(),
        })
    }

    /// The view of this cluster before its nodes and topics have been read.
    pub(super) fn of(cluster: Cluster) -> Self {
        let (brokers, topics) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, brokers, topics, names: BTreeMap::new(), groups: BTreeMap::new() }
    }

    /// What belongs to the cluster as a whole.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The registered nodes, by number.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// One registered node.
    #[must_use]
    pub fn broker(&self, node: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&node)
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topic of this id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// The topic of exactly this name.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topic_colliding_with(name).filter(|topic| topic.name == name)
    }

    /// The topic whose name is this one, or differs from it only in '.' and '_'.
    #[must_use]
    pub fn topic_colliding_with(&self, name: &str) -> Option<&Arc<Topic>> {
        self.names.get(collision_key(name).as_str()).and_then(|id| self.topics.get(id))
    }

    /// Whether this group is to be, and which partition it is.
    #[must_use]
    pub fn group(&self, group: RaftGroupId) -> GroupFate {
        if group >= self.cluster.next_group {
            return GroupFate::Unborn;
        }
        match self.groups.range(..=group).next_back() {
            Some((first, range)) if group.0 - first.0 < range.count => {
                let partition = range.first_partition + usize::try_from(group.0 - first.0).expect("below count");
                GroupFate::Alive(Arc::clone(&self.topics[&range.topic]), partition)
            }
            _ => GroupFate::Deleted,
        }
    }

    /// How many partitions all topics have together.
    #[must_use]
    pub fn partition_count(&self) -> u64 {
        self.groups.values().map(|range| range.count).sum()
    }

    /// What `node` has to do when its state goes from `earlier` to this view. Costs as much as what changed, and a
    /// pointer's comparison for each topic that did not.
    ///
    /// A node that starts compares with `MetadataView::empty`, creates what it does not have yet, and asks `group`
    /// about each one that it has.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self, node: NodeId) -> GroupChanges {
        let mut changes = GroupChanges::default();
        for topic in self.topics.values() {
            let known = match earlier.topics.get(&topic.id) {
                Some(before) if Arc::ptr_eq(before, topic) => continue,
                Some(before) => before.partitions.as_slice(),
                None => &[],
            };
            for (number, partition) in topic.partitions.iter().enumerate() {
                let before = known.get(number);
                let replica = before.and_then(|before| before.replica_on(node));
                if replica == partition.replica_on(node) {
                    let is_as_before = |before: &Partition| {
                        (&before.replicas, &before.replacing) == (&partition.replicas, &partition.replacing)
                    };
                    if replica.is_some() && !before.is_some_and(is_as_before) {
                        changes.others.extend(plan(topic, number, partition, node));
                    }
                    continue;
                }
                changes.tombstone.extend(replica.map(|_| partition.group));
                changes.create.extend(plan(topic, number, partition, node));
            }
        }
        for topic in earlier.topics.values().filter(|topic| !self.topics.contains_key(&topic.id)) {
            let hosted = topic.partitions.iter().filter(|partition| partition.replica_on(node).is_some());
            changes.tombstone.extend(hosted.map(|partition| partition.group));
        }
        changes
    }

    /// Whether a node is being replaced by another one: it takes no new replicas.
    #[must_use]
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.cluster.replacements.iter().any(|replacement| replacement.old == node && replacement.new != node)
    }

    /// Whether `node` had a replica of a group that exists, or was to have one, and is not to have it any more. Never
    /// true in an earlier view and false in a later one, as long as the node's disk is the same.
    #[must_use]
    pub fn gave_up(&self, group: RaftGroupId, node: NodeId) -> bool {
        let GroupFate::Alive(topic, partition) = self.group(group) else { return false };
        let partition = &topic.partitions[partition];
        partition.replica_on(node).is_none() && partition.removed.iter().any(|replica| replica.node() == node)
    }

    /// Whether a replica was lost with its disk.
    #[must_use]
    pub fn is_lost(&self, group: RaftGroupId, replica: ReplicaId) -> bool {
        match self.group(group) {
            _ if group == CONTROLLER_GROUP => self.cluster.controllers.members.is_lost(replica),
            GroupFate::Alive(topic, partition) => topic.partitions[partition].is_lost(replica),
            GroupFate::Unborn | GroupFate::Deleted => false,
        }
    }

    /// Every group with its replicas, the controller's own included.
    pub fn all_groups(&self) -> impl Iterator<Item = &Partition> {
        let partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        std::iter::once(&self.cluster.controllers.members).chain(partitions)
    }

    /// Whether a group is to replace one of its replicas by this one.
    #[must_use]
    pub fn awaits(&self, group: RaftGroupId, pair: Replacement) -> bool {
        match self.group(group) {
            _ if group == CONTROLLER_GROUP => self.cluster.controllers.members.replacing.contains(&pair),
            GroupFate::Alive(topic, partition) => topic.partitions[partition].replacing.contains(&pair),
            GroupFate::Unborn | GroupFate::Deleted => false,
        }
    }

    /// In how many groups the replacement of a node's replica is not complete. A node with another disk may have been
    /// about to take the place of a third one.
    #[must_use]
    pub fn unfinished(&self, node: &NodeReplacement) -> usize {
        let concerns =
            |pair: &Replacement| pair.old.node() == node.old || (node.old == node.new && pair.new.node() == node.new);
        self.all_groups().filter(|partition| partition.replacing.iter().any(concerns)).count()
    }

    pub(super) fn set_cluster(&mut self, cluster: Cluster) {
        assert!(cluster.next_group >= self.cluster.next_group, "group numbers are never given out twice");
        assert!(cluster.next_producer_id >= self.cluster.next_producer_id, "producer ids are never given out twice");
        self.cluster = cluster;
    }

    pub(super) fn set_broker(&mut self, broker: Broker) {
        self.brokers.insert(broker.node, Arc::new(broker));
    }

    pub(super) fn remove_broker(&mut self, node: NodeId) {
        self.brokers.remove(&node);
    }

    /// Adds or replaces a topic; a replaced one keeps its name and the partitions it had.
    pub(super) fn set_topic(&mut self, topic: Topic) {
        let known = self.topics.get(&topic.id).map_or(0, |before| before.partitions.len());
        let named = self.names.insert(collision_key(&topic.name).into(), topic.id);
        assert!(named.is_none_or(|before| before == topic.id), "topic {} has another topic's name", topic.id);
        let mut range: Option<(RaftGroupId, GroupRange)> = None;
        for (number, partition) in topic.partitions.iter().enumerate().skip(known) {
            assert!(partition.group < self.cluster.next_group, "{} was never given out", partition.group);
            match &mut range {
                Some((first, range)) if first.0 + range.count == partition.group.0 => range.count += 1,
                _ => {
                    let next = GroupRange { topic: topic.id, first_partition: number, count: 1 };
                    let done = range.replace((partition.group, next));
                    self.groups.extend(done);
                }
            }
        }
        self.groups.extend(range);
        self.topics.insert(topic.id, Arc::new(topic));
    }

    pub(super) fn remove_topic(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.remove(&id) {
            self.names.remove(collision_key(&topic.name).as_str());
            for partition in &topic.partitions {
                self.groups.remove(&partition.group); // where it begins a range
            }
        }
    }
}

impl Partition {
    /// A partition with its first replicas.
    #[must_use]
    pub fn born(group: RaftGroupId, replicas: Vec<ReplicaId>) -> Self {
        Self { group, replicas, replacing: Vec::new(), born: Vec::new(), removed: Vec::new() }
    }

    /// Whether no replica of it was ever replaced, or is to be.
    #[must_use]
    pub fn is_as_born(&self) -> bool {
        self.replacing.is_empty() && self.born.is_empty() && self.removed.is_empty()
    }

    /// The voters that the group was born with.
    #[must_use]
    pub fn first_replicas(&self) -> &[ReplicaId] {
        if self.born.is_empty() { &self.replicas } else { &self.born }
    }

    /// The replica that `node` has of this partition: its newest, of those that are there, come or go. One that was
    /// lost with an earlier disk is none of them, even while it counts as a voter.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.present().filter(|replica| replica.node() == node).max_by_key(|replica| replica.generation())
    }

    /// Every replica that is there, comes or goes; some of them twice.
    pub(super) fn present(&self) -> impl Iterator<Item = ReplicaId> {
        let open = self.replacing.iter().flat_map(|pair| [pair.old, pair.new]);
        self.replicas.iter().copied().chain(open)
    }

    /// Every replica that the group has or is to have, as voters.
    #[must_use]
    pub fn peers(&self) -> Membership {
        Membership::of_voters(self.present())
    }

    /// The voters that there are to be once every replacement is complete.
    #[must_use]
    pub fn wanted(&self) -> Vec<ReplicaId> {
        let instead = |replica: &ReplicaId| {
            let pair = self.replacing.iter().find(|pair| pair.old == *replica);
            pair.map_or(*replica, |pair| pair.new)
        };
        self.replicas.iter().map(instead).collect()
    }

    /// Whether a replica was lost with its disk, though its node may have another one: nothing that is said in its
    /// name is to be heard.
    #[must_use]
    pub fn is_lost(&self, replica: ReplicaId) -> bool {
        let has_later = |known: &ReplicaId| known.node() == replica.node() && known.generation() > replica.generation();
        self.removed.iter().any(|gone| *gone == replica || has_later(gone))
            || self.replacing.iter().any(|pair| has_later(&pair.old) || has_later(&pair.new))
    }
}

fn plan(topic: &Topic, number: usize, partition: &Partition, node: NodeId) -> Option<GroupPlan> {
    let replica = partition.replica_on(node)?;
    let first = partition.first_replicas();
    let members = match first.contains(&replica) {
        true => Membership::of_voters(first.iter().copied()),
        false => Membership::of_joining(replica),
    };
    let (peers, kind) = (partition.peers(), topic.kind());
    Some(GroupPlan { group: partition.group, replica, members, peers, kind, topic: topic.id, partition: number })
}
