//! A node that lost its disk is replaced, by another node and by itself, while writes go on. Afterwards the new
//! replicas are needed for every majority, so they must really have what they vote for.

use crate::cluster::{TestCluster, wait_until};
use ackord::broker::{Broker, Role, TopicAnswer, TopicQuery};
use ackord::client::{
    Admin, Client, ClientOptions, GroupOffset, NewTopic, ProducerOptions, ReaderOptions, Record, Start,
};
use ackord::proto::peer::{self, frame::Body};
use ackord::proto::{PROTOCOL, id_bytes};
use ackord::server::identity;
use ackord::transport::wire;
use ackord::types::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 4;

/// Every record that was acknowledged, by partition and offset.
type Written = BTreeMap<(u32, i64), String>;

/// Somebody who writes numbered records to every partition until told to stop.
struct Writer {
    /// Says that it is enough.
    enough: Arc<AtomicBool>,
    /// Ends with what was acknowledged.
    task: JoinHandle<Written>,
}

impl Writer {
    fn start(cluster: &TestCluster, client: &Client, name: &'static str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (is_enough, client) = (Arc::clone(&enough), client.clone());
        let task = cluster.runtime.spawn(async move {
            let producer = client.producer(ProducerOptions::default()).expect("good options");
            let mut written = Written::new();
            for number in 0.. {
                if is_enough.load(Ordering::Relaxed) && number > 200 {
                    break;
                }
                let value = format!("{name} {number}");
                let record = Record { value: Some(value.clone().into()), ..Record::default() };
                let delivery = producer.send(TOPIC, Some(number % PARTITIONS), record).await.expect("there is room");
                let commit = delivery.await.expect("a majority is there all the time");
                assert_eq!(
                    written.insert((number % PARTITIONS, commit.offset), value),
                    None,
                    "an offset is given once"
                );
            }
            written
        });
        Self { enough, task }
    }

    fn finish(self, cluster: &TestCluster) -> Written {
        self.enough.store(true, Ordering::Relaxed);
        cluster.runtime.block_on(self.task).expect("everything it wrote was acknowledged")
    }
}

fn client(cluster: &TestCluster, positions: &[usize]) -> Client {
    let addresses: Vec<_> = positions.iter().map(|position| cluster.members[*position].native.to_string()).collect();
    let options = ClientOptions { timeout: Duration::from_secs(60), ..ClientOptions::default() };
    cluster.runtime.block_on(Client::connect(&addresses, options)).expect("a node answers")
}

fn create_topic(cluster: &TestCluster, admin: &Admin) {
    let topic = NewTopic { name: TOPIC.to_owned(), partitions: Some(PARTITIONS), ..NewTopic::default() };
    // A node that is not registered yet is no place for a replica.
    wait_until(|| {
        cluster
            .runtime
            .block_on(admin.nodes())
            .is_ok_and(|list| list.nodes.iter().all(|node| node.alive) && list.nodes.len() == 3)
    });
    cluster.runtime.block_on(admin.create_topic(&topic)).expect("three nodes are there");
}

fn read_everything(cluster: &TestCluster, client: &Client) -> Written {
    cluster.runtime.block_on(async {
        let mut found = Written::new();
        for partition in 0..PARTITIONS {
            let end = client.admin().offsets(TOPIC, partition).await.expect("it has a leader").high_watermark;
            let options = ReaderOptions::default();
            let mut reader = client.reader(TOPIC, partition, Start::Beginning, options).await.expect("it is there");
            while reader.position() < end {
                for record in reader.read().await.expect("it is readable") {
                    let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text");
                    found.insert((partition, record.offset), value);
                }
            }
        }
        found
    })
}

/// Every replica of a node votes, in as many groups as any other node has.
fn votes_everywhere(cluster: &TestCluster, position: usize, other: usize) -> bool {
    let replicas = |position: usize| {
        let broker = cluster.members[position].broker.as_ref().expect("it runs");
        cluster.runtime.block_on(broker.replicas())
    };
    let own = replicas(position);
    let votes = |role: Option<Role>| matches!(role, Some(Role::Leader | Role::Follower | Role::Candidate));
    own.len() == replicas(other).len() && own.iter().all(|replica| votes(replica.role))
}

/// What a node says to somebody who connects with the disk that was at `position` once.
fn greeted_as(cluster: &TestCluster, position: usize, by: usize) -> Body {
    let lost = cluster.members[position].config.data_dir.with_extension("lost");
    let node = cluster.members[position].config.node();
    let identity = identity::open(&lost, node, None).expect("its identity is there");
    let hello = peer::Hello {
        protocol: PROTOCOL,
        cluster_id: id_bytes(identity.cluster.0),
        from_node: node.0,
        to_node: cluster.members[by].config.node_id,
        incarnation: id_bytes(identity.incarnation.0),
        durable_turn: u64::MAX,
        life: id_bytes(1),
        first_turn: u64::MAX,
        losses: 0,
        in_doubt: false,
        registration: Some(peer::Registration { index: u64::MAX, address: String::new() }),
    };
    cluster.runtime.block_on(async {
        let address = cluster.members[by].config.listeners.peer.to_string();
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        wire::write_short(&mut stream, Body::Hello(hello)).await.expect("it reads");
        wire::read(&mut stream, wire::GREETING_BYTES_MAX, Duration::from_secs(10)).await.expect("it answers")
    })
}

fn assert_refused(cluster: &TestCluster, position: usize, by: usize) {
    match greeted_as(cluster, position, by) {
        Body::Refused(peer::Refused { reason }) => assert!(reason.contains("was replaced"), "{reason}"),
        other => panic!("the old disk was let in: {other:?}"),
    }
}

fn numbers(cluster: &TestCluster, admin: &Admin) -> Vec<u32> {
    let list = cluster.runtime.block_on(admin.nodes()).expect("a node answers");
    list.nodes.iter().map(|node| node.node).collect()
}

/// Groups of many coordinators.
fn groups() -> impl Iterator<Item = (String, i64)> {
    (0..20).map(|number| (format!("group-{number}"), number))
}

fn store_offsets(cluster: &TestCluster, admin: &Admin) {
    for (group, offset) in groups() {
        let stored = GroupOffset { topic: TOPIC.to_owned(), offset, ..GroupOffset::default() };
        cluster.runtime.block_on(admin.set_committed_offsets(&group, vec![stored])).expect("it is stored");
    }
}

fn assert_stored(cluster: &TestCluster, admin: &Admin) {
    for (group, offset) in groups() {
        let stored = cluster.runtime.block_on(admin.committed_offsets(&group)).expect("it has a coordinator");
        assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [offset], "{group}");
    }
}

fn delete_offsets(cluster: &TestCluster, admin: &Admin) {
    for (group, _) in groups() {
        let partitions = [(TOPIC.to_owned(), 0)];
        cluster.runtime.block_on(admin.delete_committed_offsets(&group, &partitions)).expect("it is done");
        let stored = cluster.runtime.block_on(admin.committed_offsets(&group)).expect("it has a coordinator");
        assert!(stored.is_empty(), "{group}: {stored:?}");
    }
}

/// Node `lost` of three dies with its disk, and node 4 replaces it.
fn another_node_replaces(lost: usize) {
    let mut cluster = TestCluster::start(3);
    let stay: Vec<usize> = (0..3).filter(|position| *position != lost).collect();
    let first = client(&cluster, &stay);
    let admin = first.admin();
    create_topic(&cluster, &admin);
    let mut written = Writer::start(&cluster, &first, "before").finish(&cluster);
    store_offsets(&cluster, &admin);

    let writer = Writer::start(&cluster, &first, "meanwhile");
    cluster.stop_node(lost);
    cluster.lose_disk(lost);
    let new = cluster.add_node();
    let (old_number, new_number) = (lost as u32 + 1, new as u32 + 1);
    wait_until(|| numbers(&cluster, &admin).contains(&new_number));
    let groups = cluster.runtime.block_on(admin.replace_node(old_number, new_number, false)).expect("it makes sense");
    assert!(groups > PARTITIONS, "the coordinators and the controller have replicas there, too");
    wait_until(|| !numbers(&cluster, &admin).contains(&old_number));
    assert!(cluster.runtime.block_on(admin.nodes()).expect("an answer").replacements.is_empty());
    wait_until(|| votes_everywhere(&cluster, new, stay[0]));
    written.extend(writer.finish(&cluster));

    // Without one of the first nodes, the new one is needed for every majority.
    cluster.stop_node(stay[0]);
    let rest = client(&cluster, &[stay[1], new]);
    written.extend(Writer::start(&cluster, &rest, "with the new node").finish(&cluster));
    assert_eq!(read_everything(&cluster, &rest), written);

    assert_stored(&cluster, &rest.admin());
    delete_offsets(&cluster, &rest.admin());

    assert_refused(&cluster, lost, stay[1]);
    assert_refused(&cluster, lost, new);
    cluster.find_disk(lost);
    cluster.start_node(lost);
    written.extend(Writer::start(&cluster, &rest, "beside the old disk").finish(&cluster));
    assert_eq!(read_everything(&cluster, &rest), written);
    assert_eq!(numbers(&cluster, &rest.admin()).len(), 3);
}

#[test]
fn a_lost_node_is_replaced_by_another_one() {
    let _tracing = tracing_subscriber::fmt().with_env_filter("info").with_test_writer().try_init();
    another_node_replaces(2);
}

/// Node 1 leads the controller's group, most likely, and a third of all others.
#[test]
fn a_lost_leader_is_replaced_by_another_node() {
    another_node_replaces(0);
}

/// Its leaderships are handed over before its replicas go.
#[test]
fn a_living_node_is_replaced_if_that_is_forced() {
    let mut cluster = TestCluster::start(3);
    let first = client(&cluster, &[0, 1]);
    let admin = first.admin();
    create_topic(&cluster, &admin);
    let new = cluster.add_node();
    wait_until(|| numbers(&cluster, &admin).contains(&4));
    let writer = Writer::start(&cluster, &first, "meanwhile");
    let replace = |force| cluster.runtime.block_on(admin.replace_node(3, 4, force));
    assert!(replace(false).is_err_and(|error| error.to_string().contains("alive")));
    assert!(replace(true).is_ok_and(|groups| groups > PARTITIONS));
    wait_until(|| numbers(&cluster, &admin) == [1, 2, 4]);
    let mut written = writer.finish(&cluster);
    cluster.stop_node(2);
    cluster.stop_node(1);
    let rest = client(&cluster, &[0, new]);
    written.extend(Writer::start(&cluster, &rest, "without the others").finish(&cluster));
    assert_eq!(read_everything(&cluster, &rest), written);
}

/// Node 3 is alive with a new disk; as long as its new replica has not taken the old one's place, it is not in sync.
fn assert_not_in_sync_too_early(cluster: &TestCluster) {
    let broker = cluster.members[0].broker.as_ref().expect("it runs");
    let lost = || {
        let metadata = broker.metadata();
        let topic = metadata.topic_named(TOPIC).expect("it is there");
        topic.partitions.iter().map(|partition| !partition.replacing.is_empty()).collect::<Vec<_>>()
    };
    let topics = broker.topics(&TopicQuery::All);
    let named = |answer: &&TopicAnswer| answer.topic.as_ref().is_ok_and(|topic| topic.name.as_str() == TOPIC);
    let topic = topics.iter().find(named).and_then(|answer| answer.topic.as_ref().ok()).expect("it is there");
    for (partition, lost) in topic.partitions.iter().zip(lost()) {
        // What is lost still was so before.
        assert!(!lost || partition.offline == [NodeId(3)], "{partition:?}");
    }
}

#[test]
fn a_node_with_a_new_disk_takes_its_own_place() {
    let mut cluster = TestCluster::start(3);
    let first = client(&cluster, &[0, 1]);
    let admin = first.admin();
    create_topic(&cluster, &admin);
    let mut written = Writer::start(&cluster, &first, "before").finish(&cluster);

    let writer = Writer::start(&cluster, &first, "meanwhile");
    let refused = cluster.runtime.block_on(admin.replace_node(3, 3, false)).expect_err("node 3 is alive");
    assert!(refused.to_string().contains("alive"), "{refused}");
    cluster.stop_node(2);
    cluster.lose_disk(2);
    let mut answer = Err(refused);
    wait_until(|| {
        answer = cluster.runtime.block_on(admin.replace_node(3, 3, false));
        answer.is_ok()
    });
    cluster.format_anew(2);
    cluster.start_node(2);
    let done = |cluster: &TestCluster| {
        let list = cluster.runtime.block_on(admin.nodes());
        list.is_ok_and(|list| list.replacements.is_empty() && list.nodes.len() == 3)
    };
    // It is interrupted on the way.
    wait_until(|| {
        assert_not_in_sync_too_early(&cluster);
        let list = cluster.runtime.block_on(admin.nodes()).expect("a node answers");
        list.replacements.iter().all(|open| open.groups_done > 0)
    });
    cluster.stop_node(2);
    cluster.start_node(2);
    wait_until(|| {
        assert_not_in_sync_too_early(&cluster);
        done(&cluster)
    });
    wait_until(|| votes_everywhere(&cluster, 2, 0));
    written.extend(writer.finish(&cluster));

    cluster.stop_node(0);
    let rest = client(&cluster, &[1, 2]);
    written.extend(Writer::start(&cluster, &rest, "with the new disk").finish(&cluster));
    assert_eq!(read_everything(&cluster, &rest), written);
    cluster.stop_node(2);
    cluster.start_node(2);
    assert_eq!(read_everything(&cluster, &rest), written, "after a restart");
    assert_refused(&cluster, 2, 1);
}
