//! A broker in memory: no Raft, as much of the contract as clients notice. Tests can hold back its admissions and
//! outcomes, make it refuse, and lose answers. Several of them are the nodes of one cluster: they share their records,
//! and one of them leads.

#[path = "fake_groups.rs"]
pub mod groups;

use ackord::broker::*;
use ackord::types::{LeaderEpoch, LogId, LogIndex, NodeId, Offset, RaftGroupId, Term};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// The first node, which leads until a test says otherwise.
pub const NODE: NodeId = NodeId(1);
/// The only epoch.
pub const EPOCH: LeaderEpoch = LeaderEpoch(3);
/// A rack, so that nullable fields are not always null.
const RACK: &str = "rack-a";

/// One stored batch.
#[derive(Clone)]
pub struct Stored {
    pub base: i64,
    pub records: i64,
    pub bytes: Bytes,
}

/// A producer's id, a batch's first sequence, its last one, and where it is.
type Remembered = (i64, i32, i32, i64);

#[derive(Default)]
pub struct FakePartition {
    pub batches: Vec<Stored>,
    pub next: i64,
    /// How many entries its log has, the tries of duplicates included.
    pub entries: u64,
    /// Every idempotent batch, in order.
    pub sequences: Vec<Remembered>,
}

/// What happens to a produce instead of success.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Whether it is written all the same.
    pub written: bool,
    /// What its producer is told.
    pub error: ErrorKind,
}

pub struct FakeTopic {
    pub id: TopicId,
    /// What was set on it.
    pub configs: BTreeMap<String, String>,
    pub partitions: Vec<FakePartition>,
}

#[derive(Default)]
pub struct State {
    pub topics: BTreeMap<String, FakeTopic>,
    /// Each produce takes one and is not admitted before it fires.
    pub admissions: VecDeque<oneshot::Receiver<()>>,
    /// Each produce takes one, and its outcome waits for it.
    pub outcomes: VecDeque<oneshot::Receiver<()>>,
    /// Every produce and fetch is refused like this.
    pub refusal: Option<Error>,
    /// Every batch is stored, and its outcome is this failure.
    pub failure: Option<Error>,
    /// The next fetch is answered with this, whatever it asks for.
    pub fetched: Option<Vec<Result<FetchedPartition>>>,
    /// Each produce takes one. `None` lets it succeed.
    pub fates: VecDeque<Option<Fate>>,
    /// Who leads, other than the first node.
    pub leader: Option<NodeId>,
    /// Consumer groups.
    pub groups: groups::FakeGroups,
    addresses: BTreeMap<NodeId, Address>,
    producers: i64,
}

pub struct FakeBroker {
    node: NodeId,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    /// Where the memory of fetched batches is counted.
    pub fetch_memory: ByteBudget,
}

impl FakeBroker {
    pub fn new() -> Self {
        let new = Self {
            node: NODE,
            state: Arc::default(),
            changed: watch::Sender::new(0),
            fetch_memory: ByteBudget::new(64 << 20),
        };
        new.listens_on(0);
        new
    }

    /// Another node of the same cluster.
    #[allow(dead_code, reason = "not every test has several nodes")]
    pub fn other(&self, node: NodeId) -> Self {
        let (state, changed) = (Arc::clone(&self.state), self.changed.clone());
        let new = Self { node, state, changed, fetch_memory: self.fetch_memory.clone() };
        new.listens_on(0);
        new
    }

    /// Tells clients where the node is.
    pub fn listens_on(&self, port: u16) {
        self.state().addresses.insert(self.node, Address { host: "127.0.0.1".into(), port });
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub fn add_topic(&self, name: &str, partitions: usize) {
        self.state().add_topic(name, partitions);
    }

    fn not_leader(&self, state: &State) -> Result<()> {
        let leader = state.leader();
        if leader == self.node {
            return Ok(());
        }
        Err(Error::not_leader(Some(PartitionLeader { node: leader, epoch: EPOCH })))
    }

    /// What is stored in a partition.
    pub fn stored(&self, topic: &str, partition: usize) -> Vec<Stored> {
        self.state().topics[topic].partitions[partition].batches.clone()
    }

    fn read(&self, request: &Fetch) -> (Vec<Result<FetchedPartition>>, usize, bool) {
        let mut state = self.state();
        if let Err(error) = self.not_leader(&state) {
            return (vec![Err(error); request.partitions.len()], 0, true);
        }
        let mut allowance = FetchAllowance::new(request.max_bytes);
        let (mut bytes, mut failed) = (0, false);
        let partitions = request.partitions.iter().map(|asked| {
            let found = state.fetch(asked, &mut allowance);
            failed |= found.is_err();
            bytes += found.iter().flat_map(|found| &found.batches).map(|batch| batch.bytes.len()).sum::<usize>();
            found
        });
        (partitions.collect(), bytes, failed)
    }
}

impl State {
    fn leader(&self) -> NodeId {
        self.leader.unwrap_or(NODE)
    }

    fn add_topic(&mut self, name: &str, partitions: usize) -> TopicId {
        let id = TopicId(uuid::Uuid::new_v4());
        let partitions = std::iter::repeat_with(FakePartition::default).take(partitions).collect();
        self.topics.insert(name.into(), FakeTopic { id, configs: BTreeMap::new(), partitions });
        id
    }

    fn partition(&mut self, topic: &TopicName, partition: PartitionIndex) -> Result<&mut FakePartition> {
        let index = usize::try_from(partition.0).map_err(|_| ErrorKind::UnknownTopicOrPartition)?;
        let topic = self.topics.get_mut(topic.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
        topic.partitions.get_mut(index).ok_or(ErrorKind::UnknownTopicOrPartition.into())
    }

    fn append(&mut self, request: &Produce) -> Result<Produced> {
        let batch = &request.records;
        let damaged = || Error::from(ErrorKind::CorruptRecord);
        let field = |at: usize| Some(u32::from_be_bytes(*batch.get(at..)?.first_chunk()?));
        if batch.len() < 61 || batch[16] != 2 || field(17) != Some(crc32c::crc32c(&batch[21..])) {
            return Err(damaged());
        }
        let records = i64::from(field(23).ok_or_else(damaged)?) + 1;
        let producer = i64::from_be_bytes(*batch[43..].first_chunk().expect("a whole header"));
        let first = field(53).ok_or_else(damaged)?.cast_signed();
        let partition = self.partition(&request.topic, request.partition)?;
        let duplicate = match producer {
            -1 => None,
            _ => partition.judge(producer, first)?,
        };
        partition.entries += 1;
        let base = duplicate.unwrap_or(partition.next);
        if duplicate.is_none() {
            partition.next += records;
            partition.batches.push(Stored { base, records, bytes: batch.clone() });
            let last = first.wrapping_add(i32::try_from(records - 1).expect("few"));
            partition.sequences.push((producer, first, last, base));
        }
        let term = Term(u64::from(EPOCH.0.unsigned_abs()));
        Ok(Produced {
            base_offset: Offset(base),
            log_start: Offset(0),
            append_time_ms: None,
            position: LogId { index: LogIndex(partition.entries), term },
            duplicate: duplicate.is_some(),
        })
    }

    fn fetch(&mut self, asked: &FetchPartition, allowance: &mut FetchAllowance) -> Result<FetchedPartition> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let partition = self.partition(&asked.topic, asked.partition)?;
        if asked.offset.0 < 0 || asked.offset.0 > partition.next {
            return Err(ErrorKind::OffsetOutOfRange.into());
        }
        let end = Offset(partition.next);
        let mut left = asked.max_bytes;
        let batches = partition.batches.iter().filter(|batch| batch.base + batch.records > asked.offset.0);
        let batches = batches.take_while(|batch| allowance.take(batch.bytes.len(), &mut left)).map(|batch| {
            FetchedBatch { base_offset: Offset(batch.base), leader_epoch: EPOCH, bytes: batch.bytes.clone() }
        });
        Ok(FetchedPartition {
            batches: batches.collect(),
            high_watermark: end,
            last_stable: end,
            log_start: Offset(0),
            diverging: None,
        })
    }

    fn topic_by(&self, topic: &TopicRef) -> Option<String> {
        match topic {
            TopicRef::Name(name) => self.topics.contains_key(name.as_str()).then(|| name.to_string()),
            TopicRef::Id(id) => self.topics.iter().find(|(_, topic)| topic.id == *id).map(|(name, _)| name.clone()),
        }
    }
}

impl FakePartition {
    /// Where the batch is if it is there already, or why it can't be written (KIP-98).
    fn judge(&self, producer: i64, first: i32) -> Result<Option<i64>> {
        let mut own = self.sequences.iter().filter(|known| known.0 == producer);
        if let Some(known) = own.clone().find(|known| known.1 == first) {
            return Ok(Some(known.3));
        }
        let next = own.next_back().map_or(0, |last| last.2 + 1);
        if first == next { Ok(None) } else { Err(ErrorKind::OutOfOrderSequence.into()) }
    }
}

fn describe(name: &str, topic: &FakeTopic, leader: NodeId) -> Topic {
    let partition = |index| Partition {
        index: PartitionIndex(index),
        leader: Some(PartitionLeader { node: leader, epoch: EPOCH }),
        replicas: vec![NODE],
        in_sync: vec![NODE],
        offline: vec![],
    };
    let count = i32::try_from(topic.partitions.len()).expect("few");
    Topic { name: name.into(), id: topic.id, internal: false, partitions: (0..count).map(partition).collect() }
}

/// The one setting that every topic has.
const SETTING: &str = "max.message.bytes";

fn setting(name: &str, set: Option<&String>) -> ConfigEntry {
    let default = if name == SETTING { "1048588" } else { "none" };
    ConfigEntry {
        name: name.into(),
        value: Some(set.map_or(default, String::as_str).into()),
        source: if set.is_some() { ConfigSource::Topic } else { ConfigSource::Default },
        kind: ConfigType::Int,
        read_only: false,
        sensitive: false,
        effect: ConfigEffect::Honoured,
        inherited: Some(("message.max.bytes".into(), default.into())),
        documentation: Some("the largest batch"),
    }
}

/// The topic's settings afterwards. One is refused, whatever its value; all others are lists.
fn altered(changes: &ConfigChanges, before: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut configs = if changes.replace { BTreeMap::new() } else { before.clone() };
    for (name, operation) in &changes.operations {
        let list = configs.get(name).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
        let list: Vec<String> = match operation {
            _ if name == "no.such.config" => return Err(ErrorKind::InvalidConfig.into()),
            ConfigOperation::Set(value) => vec![value.clone()],
            ConfigOperation::Delete => vec![],
            ConfigOperation::Append(value) => [list, vec![value.clone()]].concat(),
            ConfigOperation::Subtract(value) => list.into_iter().filter(|word| word != value).collect(),
        };
        match list.is_empty() {
            true => configs.remove(name),
            false => configs.insert(name.clone(), list.join(",")),
        };
    }
    Ok(configs)
}

impl Broker for FakeBroker {
    fn node(&self) -> NodeId {
        self.node
    }

    fn cluster(&self, _edge: Edge) -> Cluster {
        let state = self.state();
        let node =
            |(id, address): (&NodeId, &Address)| Node { id: *id, address: address.clone(), rack: Some(RACK.into()) };
        let nodes = state.addresses.iter().map(node).collect();
        Cluster { id: "fake-cluster".into(), controller: Some(NODE), nodes }
    }

    fn topics(&self, query: &TopicQuery) -> Vec<TopicAnswer> {
        let mut state = self.state();
        let TopicQuery::These { topics, create_missing } = query else {
            let all = state.topics.iter();
            return all
                .map(|(name, topic)| TopicAnswer {
                    asked: TopicRef::Name(name.as_str().into()),
                    topic: Ok(describe(name, topic, state.leader())),
                })
                .collect();
        };
        let mut answers = Vec::new();
        for asked in topics {
            let topic = match state.topic_by(asked) {
                Some(name) => Ok(describe(&name, &state.topics[&name], state.leader())),
                None => match asked {
                    TopicRef::Id(_) => Err(ErrorKind::UnknownTopicId.into()),
                    TopicRef::Name(name) => {
                        if *create_missing {
                            state.add_topic(name.as_str(), 1);
                        }
                        Err(ErrorKind::UnknownTopicOrPartition.into())
                    }
                },
            };
            answers.push(TopicAnswer { asked: asked.clone(), topic });
        }
        answers
    }

    async fn produce(&self, request: Produce) -> Result<ProduceOutcome> {
        let admission = self.state().admissions.pop_front();
        if let Some(admission) = admission {
            admission.await.expect("the test opens every gate");
        }
        let mut state = self.state();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        self.not_leader(&state)?;
        let fate = state.fates.pop_front().flatten();
        if let Some(Fate { written: false, error }) = fate {
            return match Error::from(error) {
                definite if definite.kind.certainty() == Certainty::Definite => Err(definite),
                indefinite => Ok(Box::pin(async move { Err(indefinite) })),
            };
        }
        let produced = state.append(&request)?;
        self.changed.send_modify(|count| *count += 1);
        let outcome = state.outcomes.pop_front();
        let failure = state.failure.clone();
        Ok(Box::pin(async move {
            if let Some(outcome) = outcome {
                outcome.await.expect("the test opens every gate");
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            match fate {
                Some(lost) => Err(lost.error.into()),
                None => Ok(produced),
            }
        }))
    }

    async fn fetch(&self, request: Fetch) -> FetchAnswer {
        if let Some(partitions) = self.state().fetched.take() {
            return FetchAnswer { partitions, held: None };
        }
        let deadline = Instant::now() + request.max_wait;
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (partitions, bytes, failed) = self.read(&request);
            let waited = bytes < request.min_bytes && !failed && Instant::now() < deadline;
            if !waited || timeout_at(deadline, changed.changed()).await.is_err() {
                return FetchAnswer { partitions, held: Some(self.fetch_memory.reserve(bytes).await) };
            }
        }
    }

    async fn list_offsets(&self, targets: Vec<OffsetTarget>) -> Vec<Result<Option<OffsetAt>>> {
        let mut state = self.state();
        let find = |target: OffsetTarget| {
            self.not_leader(&state)?;
            let partition = state.partition(&target.topic, target.partition)?;
            let time = |batch: &Stored| i64::from_be_bytes(*batch.bytes[35..].first_chunk().expect("a whole header"));
            let at = |offset: i64, timestamp_ms| OffsetAt {
                offset: Offset(offset),
                timestamp_ms,
                leader_epoch: Some(EPOCH),
            };
            Ok(match target.query {
                OffsetQuery::Latest => Some(at(partition.next, None)),
                OffsetQuery::Earliest => Some(at(0, None)),
                OffsetQuery::AtTime(from) => {
                    let found = partition.batches.iter().find(|batch| time(batch) >= from);
                    found.map(|batch| at(batch.base, Some(time(batch))))
                }
                OffsetQuery::HighestTimestamp => {
                    let found = partition.batches.iter().max_by_key(|batch| time(batch));
                    found.map(|batch| at(batch.base, Some(time(batch))))
                }
            })
        };
        targets.into_iter().map(find).collect()
    }

    async fn end_of_epochs(&self, queries: Vec<EpochQuery>) -> Vec<Result<Option<EndOfEpoch>>> {
        let mut state = self.state();
        let find = |query: EpochQuery| {
            let end = Offset(state.partition(&query.topic, query.partition)?.next);
            Ok((query.epoch >= EPOCH).then_some(EndOfEpoch { epoch: EPOCH, end }))
        };
        queries.into_iter().map(find).collect()
    }

    async fn delete_records(&self, targets: Vec<DeleteRecords>, _timeout: Duration) -> Vec<Result<Offset>> {
        let mut state = self.state();
        let mut delete = |target: DeleteRecords| {
            self.not_leader(&state)?;
            let partition = state.partition(&target.topic, target.partition)?;
            let end = Offset(partition.next);
            let before = target.before.unwrap_or(end);
            match (Offset(0)..=end).contains(&before) {
                true => Ok(before),
                false => Err(Error::out_of_range(before, Offset(0), end)),
            }
        };
        targets.into_iter().map(&mut delete).collect()
    }

    async fn new_producer(&self) -> Result<ProducerIdentity> {
        let mut state = self.state();
        state.producers += 1;
        Ok(ProducerIdentity { id: state.producers, epoch: 0 })
    }

    async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        _timeout: Duration,
    ) -> Vec<Result<CreatedTopic>> {
        let mut state = self.state();
        let create = |topic: NewTopic| {
            let name = topic.name.as_str();
            if state.topics.contains_key(name) {
                return Err(ErrorKind::TopicExists.into());
            }
            let partitions = match topic.partitions {
                Partitions::Count { partitions, .. } => partitions.unwrap_or(1),
                Partitions::Assigned(assigned) => assigned.len() as u32,
            };
            if partitions > 100 {
                return Err(ErrorKind::InvalidPartitions.into());
            }
            let id = match validate_only {
                true => TopicId::default(),
                false => state.add_topic(name, partitions as usize),
            };
            Ok(CreatedTopic { id, partitions, replication_factor: 1, configs: vec![setting(SETTING, None)] })
        };
        topics.into_iter().map(create).collect()
    }

    async fn delete_topics(&self, topics: Vec<TopicRef>, _timeout: Duration) -> Vec<Result<DeletedTopic>> {
        let mut state = self.state();
        let delete = |topic: TopicRef| {
            let unknown = match topic {
                TopicRef::Name(_) => ErrorKind::UnknownTopicOrPartition,
                TopicRef::Id(_) => ErrorKind::UnknownTopicId,
            };
            let name = state.topic_by(&topic).ok_or(unknown)?;
            let id = state.topics.remove(&name).expect("just found").id;
            Ok(DeletedTopic { name: name.as_str().into(), id })
        };
        topics.into_iter().map(delete).collect()
    }

    async fn grow_topics(&self, topics: Vec<Growth>, validate_only: bool, _timeout: Duration) -> Vec<Result<()>> {
        let mut state = self.state();
        let grow = |growth: Growth| {
            let topic = state.topics.get_mut(growth.topic.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
            let wanted = growth.partitions as usize;
            if wanted <= topic.partitions.len() || wanted > 100 {
                return Err(Error::new(ErrorKind::InvalidPartitions, "a topic only grows, and to 100 at most"));
            }
            if !validate_only {
                topic.partitions.resize_with(wanted, FakePartition::default);
            }
            Ok(())
        };
        topics.into_iter().map(grow).collect()
    }

    async fn describe_configs(&self, resources: Vec<ConfigResource>) -> Vec<Result<Vec<ConfigEntry>>> {
        let state = self.state();
        let describe = |resource| match resource {
            ConfigResource::Topic(name) => {
                let topic = state.topics.get(name.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
                let others = topic.configs.iter().filter(|(name, _)| *name != SETTING);
                let others = others.map(|(name, value)| setting(name, Some(value)));
                Ok(std::iter::once(setting(SETTING, topic.configs.get(SETTING))).chain(others).collect())
            }
            ConfigResource::Node(_) => Ok(vec![setting(SETTING, None)]),
        };
        resources.into_iter().map(describe).collect()
    }

    async fn alter_configs(
        &self,
        changes: Vec<ConfigChanges>,
        validate_only: bool,
        _timeout: Duration,
    ) -> Vec<Result<()>> {
        let mut state = self.state();
        let alter = |changes: ConfigChanges| {
            let ConfigResource::Topic(name) = &changes.resource else { return Err(ErrorKind::InvalidRequest.into()) };
            let topic = state.topics.get_mut(name.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
            let configs = altered(&changes, &topic.configs)?;
            if !validate_only {
                topic.configs = configs;
            }
            Ok(())
        };
        changes.into_iter().map(alter).collect()
    }

    fn nodes(&self) -> NodeList {
        let node = |id| NodeReport { id, rack: None, alive: true, controller_voter: true, replicas: 3, leaders: 1 };
        let open = ReplacementReport { old: NodeId(3), new: NodeId(4), groups: 5, done: 2 };
        NodeList { nodes: vec![node(NODE)], replacements: vec![open] }
    }

    async fn replace_node(&self, asked: ReplaceNode, _timeout: Duration) -> Result<u32> {
        match asked {
            ReplaceNode { old: NodeId(3), new: NodeId(4), force: false } => Ok(5),
            _ => Err(Error::new(ErrorKind::InvalidRequest, "node 3 is alive")),
        }
    }

    async fn replicas(&self) -> Vec<ReplicaReport> {
        let state = self.state();
        let mut reports = Vec::new();
        for (name, topic) in &state.topics {
            for (index, partition) in topic.partitions.iter().enumerate() {
                let index = PartitionIndex(i32::try_from(index).expect("few"));
                let last = LogIndex(partition.entries);
                let leads = state.leader() == self.node;
                let follower =
                    FollowerReport { node: NodeId(9), matched: last, lag: 0, reachable: true, needs_snapshot: false };
                reports.push(ReplicaReport {
                    group: RaftGroupId(reports.len() as u64 + 1),
                    partition: Some((name.as_str().into(), index)),
                    quarantine: None,
                    repair: None,
                    role: Some(if leads { Role::Leader } else { Role::Follower }),
                    term: Term(3),
                    leader: Some(state.leader()),
                    last,
                    commit: last,
                    applied: last,
                    log_start: Offset(0),
                    followers: if leads { vec![follower] } else { vec![] },
                });
            }
        }
        reports
    }
}
