//! Consumer groups on real nodes: real clocks, real disks, one process.

#[path = "support/cluster.rs"]
mod cluster;

use ackord::broker::node::NodeBroker;
use ackord::broker::{
    Broker, ByteBudget, CommitOffsets, CommittedOffset, ErrorKind, FetchOffsets, Generation, GroupState, Groups,
    Heartbeat, JoinGroup, Joined, MemberIdentity, NewTopic, OffsetToCommit, PartitionIndex, Partitions, PerItem,
    SyncGroup, Synced, TopicName, TopicRef,
};
use ackord::server::data::SharedEngine;
use ackord::types::Offset;
use bytes::Bytes;
use cluster::{TestCluster, kcat};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

type Node = NodeBroker<SharedEngine>;
type Outcome<T> = ackord::broker::Result<T>;

/// Settings under which a story takes seconds: quick sessions, and no more coordinators than are needed.
const QUICK: &str = "[groups]\ncoordinators = 3\nmin_session_timeout_ms = 500\ninitial_rebalance_delay_ms = 200";

/// How long anything may take that has to happen in the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client repeats: nobody coordinates yet, or another node does.
fn is_passing(kind: ErrorKind) -> bool {
    use ErrorKind::{CoordinatorLoading, CoordinatorLost, CoordinatorNotAvailable, NotCoordinator};
    let elsewhere = matches!(kind, CoordinatorLoading | CoordinatorLost | CoordinatorNotAvailable | NotCoordinator);
    // A log that was just opened makes room for itself first.
    elsewhere || matches!(kind, ErrorKind::Overloaded | ErrorKind::StorageUnavailable)
}

/// A client of the whole cluster, which asks the nodes in turn until one of them coordinates the group.
struct Client {
    /// The nodes that run.
    nodes: Vec<Node>,
}

impl Client {
    fn new(cluster: &TestCluster) -> Self {
        Self { nodes: cluster.members.iter().filter_map(|member| member.broker.clone()).collect() }
    }

    async fn ask<T, F: Future<Output = Outcome<T>>>(&self, ask: impl Fn(Node) -> F) -> Outcome<T> {
        let deadline = Instant::now() + PATIENCE;
        for node in self.nodes.iter().cycle() {
            match ask(node.clone()).await {
                Err(error) if is_passing(error.kind) && Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                answer => return answer,
            }
        }
        unreachable!("there are nodes")
    }

    async fn join(&self, member: &str, instance: Option<&str>, session_ms: u64) -> Outcome<Joined> {
        let request = a_join(member, instance, session_ms);
        self.ask(|node| {
            let request = request.clone();
            async move { node.join_group(request, None).await }
        })
        .await
    }

    /// Joins as somebody new: twice, as the coordinator wants it.
    async fn join_new(&self, session_ms: u64) -> Generation {
        match self.join("", None, session_ms).await.expect("an id is given") {
            Joined::Again { member } => self.join_as(&member, session_ms).await,
            Joined::In(generation) => panic!("nobody joins at once: {generation:?}"),
        }
    }

    async fn join_as(&self, member: &str, session_ms: u64) -> Generation {
        match self.join(member, None, session_ms).await.expect("it may join") {
            Joined::In(generation) => generation,
            Joined::Again { member } => panic!("{member} has its id"),
        }
    }

    async fn sync(&self, joined: &Generation, shares: &[(&str, &'static str)]) -> Outcome<Synced> {
        let request = SyncGroup {
            group: "readers".to_owned(),
            generation: joined.generation,
            member: identity(&joined.member, None),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: shares.iter().map(|(member, share)| ((*member).to_owned(), Bytes::from(*share))).collect(),
        };
        self.ask(|node| {
            let request = request.clone();
            async move { node.sync_group(request, None).await }
        })
        .await
    }

    async fn heartbeat(&self, joined: &Generation) -> Outcome<()> {
        let (group, generation) = ("readers".to_owned(), joined.generation);
        let request = Heartbeat { group, generation, member: identity(&joined.member, None) };
        self.ask(|node| {
            let request = request.clone();
            async move { node.heartbeat(request).await }
        })
        .await
    }

    async fn commit(&self, by: Option<&Generation>, offsets: &[(&str, i32, i64)]) -> PerItem {
        let request = CommitOffsets {
            group: "readers".to_owned(),
            generation: by.map_or(-1, |by| by.generation),
            member: identity(by.map_or("", |by| &by.member), None),
            offsets: offsets.iter().map(to_commit).collect(),
            all_or_none: false,
        };
        self.ask(|node| {
            let request = request.clone();
            async move { node.commit_offsets(request).await }
        })
        .await
    }

    async fn stored(&self) -> Vec<(String, i32, i64)> {
        let ask = |node: Node| async move {
            node.fetch_offsets(FetchOffsets { group: "readers".to_owned(), partitions: None, require_stable: true })
                .await
        };
        let fetched = self.ask(ask).await.expect("stored offsets can be read");
        let known = |fetched: ackord::broker::FetchedOffset| {
            let committed = fetched.committed.expect("there is one");
            (fetched.topic.as_str().to_owned(), fetched.partition.0, committed.offset.0)
        };
        fetched.into_iter().map(known).collect()
    }

    async fn create(&self, topic: &str) {
        let new = NewTopic {
            name: TopicName::from(topic),
            partitions: Partitions::Count { partitions: Some(2), replication_factor: None },
            configs: Vec::new(),
        };
        // Until the nodes are registered, there is nowhere to put it.
        until("the topic is created", || async {
            self.nodes[0].create_topics(vec![new.clone()], false, PATIENCE).await.remove(0).is_ok()
        })
        .await;
    }

    async fn delete(&self, topic: &str) {
        let named = vec![TopicRef::Name(TopicName::from(topic))];
        self.nodes[0].delete_topics(named, PATIENCE).await.remove(0).expect("the topic is deleted");
    }

    async fn describe(&self) -> (GroupState, usize) {
        let ask = |node: Node| async move { node.describe_groups(&["readers".to_owned()]).remove(0) };
        let described = self.ask(ask).await.expect("a group can be described");
        (described.state, described.members.len())
    }
}

fn a_join(member: &str, instance: Option<&str>, session_ms: u64) -> JoinGroup {
    JoinGroup {
        group: "readers".to_owned(),
        member: identity(member, instance),
        client_id: "test".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: Duration::from_millis(session_ms),
        rebalance_timeout: Duration::from_secs(20),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from(format!("what {member} reads")))],
        two_steps: true,
        can_skip_assignment: true,
    }
}

fn identity(id: &str, instance: Option<&str>) -> MemberIdentity {
    MemberIdentity { id: id.to_owned(), instance: instance.map(str::to_owned) }
}

fn to_commit((topic, partition, offset): &(&str, i32, i64)) -> OffsetToCommit {
    let position = CommittedOffset { offset: Offset(*offset), leader_epoch: None, metadata: String::new() };
    OffsetToCommit { topic: TopicName::from(*topic), partition: PartitionIndex(*partition), position }
}

/// Waits for what must come to be true.
async fn until<F: Future<Output = bool>>(what: &str, mut is_true: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn kind<T: std::fmt::Debug>(outcome: Outcome<T>) -> ErrorKind {
    outcome.expect_err("it is refused").kind
}

#[test]
fn members_share_the_work_and_one_that_falls_silent_loses_its_share() {
    let cluster = TestCluster::start_with(1, QUICK);
    let client = Client::new(&cluster);
    cluster.runtime.block_on(async {
        // Both are there before the empty group has waited for long enough.
        let (one, other) = tokio::join!(client.join_new(30_000), client.join_new(1_000));
        assert_eq!((one.generation, other.generation), (1, 1));
        let (leader, follower) = if one.leader == one.member { (&one, &other) } else { (&other, &one) };
        assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
        let shares = [(leader.member.as_str(), "left"), (follower.member.as_str(), "right")];
        let (led, followed) = tokio::join!(client.sync(leader, &shares), client.sync(follower, &[]));
        assert_eq!((&led.unwrap().assignment[..], &followed.unwrap().assignment[..]), (&b"left"[..], &b"right"[..]));
        client.heartbeat(&one).await.expect("the group is stable");
        assert_eq!(client.describe().await, (GroupState::Stable, 2));

        // The one with the short session says nothing more; the other is told to join again, and is alone.
        until("the silent member is given up", || async {
            matches!(client.heartbeat(&one).await, Err(error) if error.kind == ErrorKind::RebalanceInProgress)
        })
        .await;
        assert_eq!(kind(client.heartbeat(&other).await), ErrorKind::UnknownMember);
        let alone = client.join_as(&one.member, 30_000).await;
        assert_eq!((alone.generation, alone.members.len()), (2, 1));
        assert_eq!(kind(client.sync(&one, &[]).await), ErrorKind::IllegalGeneration);
        client.sync(&alone, &[(&alone.member, "all")]).await.expect("it has everything");
        client.create("orders").await;
        let stored = client.commit(Some(&one), &[("orders", 0, 1)]).await;
        assert_eq!(kind(stored), ErrorKind::IllegalGeneration);
        client.commit(Some(&alone), &[("orders", 0, 1)]).await.unwrap().remove(0).expect("it is a member");
    });
}

#[test]
fn a_member_that_waits_gives_the_memory_of_its_request_back() {
    let cluster =
        TestCluster::start_with(1, "[groups]\nmin_session_timeout_ms = 500\ninitial_rebalance_delay_ms = 600000");
    let client = Client::new(&cluster);
    cluster.runtime.block_on(async {
        let memory = ByteBudget::new(100);
        let mut waits = pin!(client.ask(|node| {
            let (request, memory) = (JoinGroup { two_steps: false, ..a_join("", None, 30_000) }, memory.clone());
            async move { node.join_group(request, Some(memory.reserve(100).await)).await }
        }));
        tokio::select! {
            joined = &mut waits => panic!("nobody else has come: {joined:?}"),
            () = until("it waits", || async { client.describe().await.1 == 1 }) => {}
        }
        assert_eq!(memory.available(), 100);
    });
}

#[test]
fn a_member_whose_connection_drops_while_it_joins_does_not_stay() {
    let cluster =
        TestCluster::start_with(1, "[groups]\nmin_session_timeout_ms = 500\ninitial_rebalance_delay_ms = 3000");
    let client = Client::new(&cluster);
    cluster.runtime.block_on(async {
        let stays = client.join_new(30_000);
        let Ok(Joined::Again { member }) = client.join("", None, 1_000).await else { panic!("an id is given") };
        let goes = timeout(Duration::from_millis(500), client.join("", Some("static"), 1_000));
        let gone = timeout(Duration::from_millis(500), client.join(&member, None, 1_000));
        let (stays, goes, gone) = tokio::join!(stays, goes, gone);
        assert!(goes.is_err() && gone.is_err(), "they wait for more members when their connections drop");
        // Their sessions end long before the empty group has waited for long enough.
        assert_eq!(stays.members.iter().map(|member| &member.identity.id).collect::<Vec<_>>(), [&stays.member]);
    });
}

#[test]
fn offsets_are_stored_one_by_one_and_read_back() {
    let cluster = TestCluster::start_with(1, QUICK);
    let client = Client::new(&cluster);
    cluster.runtime.block_on(async {
        client.create("orders").await;
        let stored = client.commit(None, &[("orders", 0, 7), ("orders", 2, 7), ("nowhere", 0, 7), ("orders", 1, 8)]);
        let kinds: Vec<_> =
            stored.await.unwrap().into_iter().map(|stored| stored.err().map(|error| error.kind)).collect();
        let unknown = Some(ErrorKind::UnknownTopicOrPartition);
        assert_eq!(kinds, [None, unknown, unknown, None]);
        assert_eq!(client.stored().await, [("orders".to_owned(), 0, 7), ("orders".to_owned(), 1, 8)]);
        assert_eq!(client.describe().await, (GroupState::Empty, 0));

        let whole = client.ask(|node| async move {
            let (group, member) = ("readers".to_owned(), identity("", None));
            let offsets = [("orders", 0, 9), ("nowhere", 0, 9)].iter().map(to_commit).collect();
            node.commit_offsets(CommitOffsets { group, generation: -1, member, offsets, all_or_none: true }).await
        });
        let refused = whole.await.unwrap().into_iter().filter(Result::is_err).count();
        assert_eq!((refused, client.stored().await[0].2), (1, 7), "nothing is stored if it is all or none");

        let dropped = client.ask(|node| async move {
            let partitions =
                vec![(TopicName::from("nowhere"), PartitionIndex(0)), (TopicName::from("orders"), PartitionIndex(0))];
            node.delete_offsets("readers".to_owned(), partitions).await
        });
        let dropped: Vec<_> =
            dropped.await.unwrap().into_iter().map(|each| each.err().map(|error| error.kind)).collect();
        assert_eq!(dropped, [unknown, None]);
        assert_eq!(client.stored().await, [("orders".to_owned(), 1, 8)]);
        let listed = client.ask(|node| async move { node.list_groups() }).await.unwrap();
        assert_eq!(listed.iter().map(|listed| listed.group.as_str()).collect::<Vec<_>>(), ["readers"]);

        let names = ["readers", "unheard of", ""].map(str::to_owned).to_vec();
        let deleted = client.nodes[0].delete_groups(names).await;
        let kinds: Vec<_> = deleted.into_iter().map(|deleted| deleted.err().map(|error| error.kind)).collect();
        assert_eq!(kinds, [None, Some(ErrorKind::UnknownGroup), Some(ErrorKind::UnknownGroup)]);
        assert_eq!(client.describe().await, (GroupState::Dead, 0));
        assert_eq!(client.stored().await, []);
    });
}

#[test]
fn offsets_go_with_their_topic_and_those_of_its_successor_stay() {
    let mut cluster = TestCluster::start_with(1, QUICK);
    let client = Client::new(&cluster);
    cluster.runtime.block_on(async {
        client.create("kept").await;
        client.commit(None, &[("kept", 0, 1)]).await.unwrap().remove(0).unwrap();
        for round in 0..10 {
            client.create("passing").await;
            client.commit(None, &[("passing", 0, round)]).await.unwrap().remove(0).unwrap();
            client.delete("passing").await;
            client.create("passing").await;
            client.commit(None, &[("passing", 1, round)]).await.unwrap().remove(0).unwrap();
            let expected = [("kept".to_owned(), 0, 1), ("passing".to_owned(), 1, round)];
            assert_eq!(client.stored().await, expected, "round {round}");
            client.delete("passing").await;
            until("nothing of the topic is left", || async { client.stored().await.len() == 1 }).await;
        }
    });
    drop(client); // it holds the node's database
    cluster.stop_node(0);
    cluster.start_node(0);
    let client = Client::new(&cluster);
    assert_eq!(cluster.runtime.block_on(client.stored()), [("kept".to_owned(), 0, 1)]);
}

#[test]
fn a_group_survives_its_coordinator() {
    let mut cluster = TestCluster::start_with(3, QUICK);
    let client = Client::new(&cluster);
    let joined = cluster.runtime.block_on(async {
        client.create("orders").await;
        let joined = client.join_new(30_000).await;
        client.sync(&joined, &[(&joined.member, "all")]).await.expect("it has everything");
        joined
    });
    drop(client);
    for round in 0..3 {
        let client = Client::new(&cluster);
        let coordinator = cluster.runtime.block_on(async {
            let stored = client.commit(Some(&joined), &[("orders", 0, round)]).await;
            stored.unwrap().remove(0).unwrap();
            client.ask(|node| async move { node.coordinator("readers") }).await.unwrap()
        });
        let position = coordinator.0 as usize - 1;
        let deposed = cluster.members[position].broker.clone().expect("it runs");
        drop(client); // it holds the nodes' databases
        cluster.stop_node(position);
        let client = Client::new(&cluster);
        cluster.runtime.block_on(async {
            assert_eq!(client.stored().await, [("orders".to_owned(), 0, round)], "what was answered as stored");
            client.heartbeat(&joined).await.expect("the generation goes on");
            let asked = FetchOffsets { group: "readers".to_owned(), partitions: None, require_stable: true };
            let stale = kind(deposed.fetch_offsets(asked).await);
            assert!(is_passing(stale), "a deposed coordinator answers nothing: {stale:?}");
        });
        drop((client, deposed));
        cluster.start_node(position);
    }
}

/// librdkafka, unchanged: it joins, reads, commits when it closes, and goes on where it was.
#[test]
fn kcat_reads_as_a_member_of_a_group() {
    let cluster = TestCluster::start_with(3, "[groups]\ninitial_rebalance_delay_ms = 0");
    let bootstrap = cluster.bootstrap();
    let produce = |lines: &str| {
        let arguments = ["-P", "-b", &bootstrap, "-t", "orders", "-X", "message.timeout.ms=20000", "-E"];
        let (done, _, error) = kcat(&arguments, lines);
        assert!(done, "{error}");
    };
    let read = || {
        let earliest = "auto.offset.reset=earliest";
        let (done, read, error) = kcat(&["-b", &bootstrap, "-G", "readers", "-X", earliest, "-e", "-q", "orders"], "");
        assert!(done, "{error}");
        read
    };
    produce("one\ntwo\n");
    assert_eq!(read(), "one\ntwo\n");
    produce("three\n");
    assert_eq!(read(), "three\n");
    let group = cluster.runtime.block_on(Client::new(&cluster).describe());
    assert_eq!(group, (GroupState::Empty, 0), "it has left");
}
