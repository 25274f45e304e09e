//! Members of consumer groups of the Rust client, and the commands that look at groups, on real nodes.

#[path = "support/cluster.rs"]
mod cluster;

use ackord::broker::Groups;
use ackord::client::{
    Client, ClientOptions, GroupMember, MemberOptions, NewTopic, Producer, ProducerOptions, Record, Start,
};
use ackord::metrics::{GroupLags, LAG_SERIES_MAX};
use bytes::Bytes;
use cluster::{TestCluster, wait_until};
use futures_util::FutureExt;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const GROUP: &str = "readers";
const TOPIC: &str = "orders";
const PARTITIONS: u32 = 4;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a member is asked for records at a time. Asking is dropped often, and nothing may get lost by it.
const ASK: Duration = Duration::from_millis(30);
const QUICK: &str = "[groups]\ncoordinators = 3\ninitial_rebalance_delay_ms = 200";

/// A cluster with a topic, and its clients.
struct World {
    /// The nodes.
    cluster: TestCluster,
    /// Of the Rust client.
    client: Client,
    /// Writes records.
    producer: Producer,
    /// How many records each partition has.
    written: BTreeMap<u32, i64>,
}

/// A record as a member got it: who, which partition, which offset.
type Delivered = (&'static str, u32, i64);

/// A member that reads until it is told to leave.
struct Reading {
    /// Tells it.
    stop: oneshot::Sender<()>,
    /// Ends when it has left.
    task: JoinHandle<()>,
}

fn options() -> MemberOptions {
    let (heartbeat, commit_every) = (Duration::from_millis(100), Some(Duration::from_millis(300)));
    MemberOptions { heartbeat, commit_every, start: Start::Beginning, ..MemberOptions::default() }
}

impl World {
    fn new(nodes: u32, settings: &str) -> Self {
        let cluster = TestCluster::start_with(nodes, settings);
        let addresses: Vec<_> = cluster.members.iter().map(|member| member.native.to_string()).collect();
        let (client, producer) = cluster.runtime.block_on(async {
            let client = Client::connect(&addresses, ClientOptions::default()).await.expect("the nodes run");
            let producer = client.producer(ProducerOptions::default()).expect("the options are in range");
            (client, producer)
        });
        let topic = NewTopic { name: TOPIC.to_owned(), partitions: Some(PARTITIONS), ..NewTopic::default() };
        let topic = NewTopic { replication_factor: Some(nodes as u16), ..topic };
        // Until the nodes are registered, there is nowhere to put it.
        wait_until(|| cluster.runtime.block_on(client.admin().create_topic(&topic)).is_ok());
        Self { cluster, client, producer, written: BTreeMap::new() }
    }

    /// Writes so many records to each of these partitions.
    fn write(&mut self, partitions: std::ops::Range<u32>, count: i64) {
        for partition in partitions {
            let written = self.written.entry(partition).or_default();
            for offset in *written..*written + count {
                let value = Bytes::from(format!("{partition}@{offset}"));
                let record = Record::new(None::<Bytes>, value);
                let sent = self.producer.send(TOPIC, Some(partition), record);
                drop(self.cluster.runtime.block_on(sent).expect("it is sent"));
            }
            *written += count;
        }
        self.cluster.runtime.block_on(self.producer.flush());
    }

    fn member(&self) -> GroupMember {
        self.client.group_member(GROUP, &[TOPIC], options())
    }

    fn read(&self, who: &'static str, delivered: &mpsc::UnboundedSender<Delivered>) -> Reading {
        let (stop, stopped) = oneshot::channel();
        let task = self.cluster.runtime.spawn(read(self.member(), who, delivered.clone(), stopped));
        Reading { stop, task }
    }

    fn leave(&self, reading: Reading) {
        reading.stop.send(()).expect("it still reads");
        self.cluster.runtime.block_on(reading.task).expect("it has left");
    }

    /// Takes deliveries until every record that was written was delivered; each must have been delivered once.
    fn expect_all_once(
        &self,
        deliveries: &mut mpsc::UnboundedReceiver<Delivered>,
        seen: &mut BTreeSet<(u32, i64)>,
    ) -> BTreeSet<&'static str> {
        let mut readers = BTreeSet::new();
        while seen.len() < self.written.values().sum::<i64>() as usize {
            let next = self.cluster.runtime.block_on(async { timeout(PATIENCE, deliveries.recv()).await });
            let (who, partition, offset) = next.expect("it is delivered in time").expect("somebody reads");
            assert!(seen.insert((partition, offset)), "{partition}@{offset} was delivered again, to {who}");
            readers.insert(who);
        }
        readers
    }

    /// Runs the program at this cluster.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let addresses: Vec<_> = self.cluster.members.iter().map(|member| member.native.to_string()).collect();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ackord"))
            .args(arguments)
            .args(["--bootstrap", &addresses.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).ok(); // it may end without reading
        child.wait_with_output().expect("it ends")
    }

    /// What a command says that must fail.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).expect("it writes UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat(), "");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    /// What `group describe` says: the state, the members, and offset, end and lag of each partition.
    fn describe(&self) -> (String, usize, Vec<[Option<i64>; 3]>) {
        let described = self.json(&["group", "describe", GROUP]);
        let partition = |one: &Value| ["offset", "end", "lag"].map(|name| one[name].as_i64());
        let partitions = described["partitions"].as_array().expect("a list").iter().map(partition).collect();
        let members = described["members"].as_array().expect("a list").len();
        (described["state"].as_str().expect("a text").to_owned(), members, partitions)
    }

    /// Whether the group, which may not be there yet, is at work with so many members.
    fn is_stable_with(&self, members: usize) -> bool {
        let group = self.cluster.runtime.block_on(self.client.admin().group(GROUP)).expect("it is coordinated");
        group.state == "Stable" && group.members.len() == members
    }

    /// The lags that each node shows.
    fn lags(&self) -> Vec<GroupLags> {
        let nodes = self.cluster.members.iter().filter_map(|member| member.broker.as_ref());
        nodes.map(|broker| broker.group_lags(LAG_SERIES_MAX)).collect()
    }

    /// The lags of all partitions, in order; every node but one shows none.
    fn shown_lags(&self) -> Vec<u64> {
        let lags = self.lags();
        let shown: Vec<_> = lags.iter().filter(|lags| !lags.shown.is_empty()).collect();
        assert!(shown.len() <= 1 && lags.iter().all(|lags| (lags.unknown, lags.cut_groups) == (0, 0)), "{lags:?}");
        let named = |lags: &&GroupLags| {
            assert!(lags.shown.iter().all(|lag| lag.group == GROUP && lag.topic == TOPIC), "{lags:?}");
            assert!(lags.shown.iter().map(|lag| lag.partition).eq(0..PARTITIONS), "{lags:?}");
            lags.shown.iter().map(|lag| lag.lag).collect()
        };
        shown.first().map(named).unwrap_or_default()
    }
}

async fn read(
    mut member: GroupMember,
    who: &'static str,
    delivered: mpsc::UnboundedSender<Delivered>,
    mut stopped: oneshot::Receiver<()>,
) {
    while stopped.try_recv().is_err() {
        let Ok(chunk) = timeout(ASK, member.next()).await else { continue };
        let chunk = chunk.expect("the group can be read");
        for record in &chunk.records {
            let expected = format!("{}@{}", chunk.partition, record.offset);
            assert_eq!(record.value.as_deref(), Some(expected.as_bytes()));
            delivered.send((who, chunk.partition, record.offset)).expect("the test listens");
        }
        member.processed(&chunk, chunk.records.len());
    }
    member.close().await.expect("it leaves");
}

#[test]
fn two_members_share_a_topic_and_every_record_is_delivered_once() {
    let mut world = World::new(3, QUICK);
    let (delivered, mut deliveries) = mpsc::unbounded_channel();
    let mut seen = BTreeSet::new();
    world.write(0..PARTITIONS, 100);
    let (one, other) = (world.read("one", &delivered), world.read("other", &delivered));
    world.expect_all_once(&mut deliveries, &mut seen);
    // One may have read everything before the other was in. Now both are.
    wait_until(|| world.is_stable_with(2));
    let described = world.json(&["group", "describe", GROUP]);
    let partitions = described["partitions"].as_array().unwrap().clone();
    let mut shares: BTreeMap<_, usize> = BTreeMap::new();
    partitions.iter().for_each(|one| *shares.entry(one["member"].as_str().expect("a reader")).or_default() += 1);
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [2, 2], "{described}");
    world.write(0..PARTITIONS, 100);
    assert_eq!(world.expect_all_once(&mut deliveries, &mut seen), BTreeSet::from(["one", "other"]));

    world.leave(one);
    world.write(0..PARTITIONS, 100);
    world.expect_all_once(&mut deliveries, &mut seen);
    wait_until(|| world.is_stable_with(1));
    world.leave(other);
    assert!(deliveries.try_recv().is_err(), "nothing was delivered again");
    assert_eq!(world.describe(), ("Empty".to_owned(), 0, vec![[Some(300), Some(300), Some(0)]; 4]));

    // Who comes later goes on where they were.
    world.write(0..PARTITIONS, 50);
    let later = world.read("later", &delivered);
    assert_eq!(world.expect_all_once(&mut deliveries, &mut seen), BTreeSet::from(["later"]));
    world.leave(later);
}

#[test]
fn commands_and_metrics_tell_how_far_a_group_is_and_move_it() {
    let mut world = World::new(3, QUICK);
    assert!(world.failure(&["group", "describe", GROUP]).contains("no group readers"));
    assert!(world.shown_lags().is_empty());
    let (delivered, mut deliveries) = mpsc::unbounded_channel();
    world.write(0..PARTITIONS, 20);
    let reading = world.read("one", &delivered);
    world.expect_all_once(&mut deliveries, &mut BTreeSet::new());
    assert!(world.failure(&["group", "reset-offsets", GROUP, "--to", "earliest", "--execute"]).contains("Stable"));
    assert!(world.failure(&["group", "delete", GROUP]).contains("not empty"));
    world.leave(reading);
    wait_until(|| world.shown_lags() == [0, 0, 0, 0]);

    world.write(1..3, 10);
    wait_until(|| world.shown_lags() == [0, 10, 10, 0]);
    let behind = |offset, end| [Some(offset), Some(end), Some(end - offset)];
    let expected = vec![behind(20, 20), behind(20, 30), behind(20, 30), behind(20, 20)];
    assert_eq!(world.describe(), ("Empty".to_owned(), 0, expected.clone()));

    let reset = ["group", "reset-offsets", GROUP, "--topic", "orders:1", "--topic", "orders:3", "--to", "offset:5"];
    world.json(&reset);
    assert_eq!(world.describe().2, expected, "that only showed what it would do");
    let moved = world.json(&[&reset[..], &["--execute"]].concat());
    assert_eq!(
        (moved["partitions"][0]["before"].as_i64(), moved["partitions"][0]["after"].as_i64()),
        (Some(20), Some(5))
    );
    assert_eq!(world.describe().2, [behind(20, 20), behind(5, 30), behind(20, 30), behind(5, 20)]);
    wait_until(|| world.shown_lags() == [0, 25, 10, 15]);

    let listed = world.json(&["group", "list"]);
    assert_eq!((listed[0]["group"].as_str(), listed[0]["state"].as_str()), (Some(GROUP), Some("Empty")));
    assert!(world.run(&["group", "delete", GROUP], "").status.success());
    assert_eq!(world.json(&["group", "list"]), Value::Array(vec![]));
    wait_until(|| world.shown_lags().is_empty());
}

#[test]
fn members_go_on_when_the_node_that_coordinates_them_stops() {
    let mut world = World::new(3, QUICK);
    let (delivered, mut deliveries) = mpsc::unbounded_channel();
    let mut seen = BTreeSet::new();
    let readers = [world.read("one", &delivered), world.read("other", &delivered)];
    wait_until(|| world.is_stable_with(2));
    let generation = |world: &World| world.json(&["group", "describe", GROUP])["generation"].as_i64();
    let before = generation(&world);
    let broker = world.cluster.members[0].broker.clone().expect("it runs");
    let coordinator = broker.coordinator(GROUP).expect("it is known").0 as usize - 1;
    drop(broker);
    world.cluster.stop_node(coordinator);
    world.write(0..PARTITIONS, 50);
    assert_eq!(world.expect_all_once(&mut deliveries, &mut seen), BTreeSet::from(["one", "other"]));
    assert_eq!(generation(&world), before, "nobody had to join again");
    world.cluster.start_node(coordinator);
    for reading in readers {
        world.leave(reading);
    }
    assert_eq!(world.describe().2, vec![[Some(50), Some(50), Some(0)]; 4]);
}

#[test]
fn a_join_that_is_dropped_on_the_way_leaves_no_member_behind() {
    let world = World::new(1, "[groups]\ncoordinators = 1\ninitial_rebalance_delay_ms = 2000");
    world.cluster.runtime.block_on(async {
        // These ask for an id, on a connection that is there already, and are gone before the answer.
        world.client.admin().group(GROUP).await.expect("nobody is in it yet");
        for _ in 0..3 {
            let mut gone = world.client.member_requests(GROUP, &[TOPIC], &options());
            assert!(gone.join().now_or_never().is_none(), "an answer takes longer");
        }
        let mut member = world.member();
        for _ in 0..5 {
            assert!(timeout(Duration::from_millis(200), member.next()).await.is_err(), "there are no records");
        }
        let all = async {
            while member.assigned().is_empty() {
                drop(timeout(ASK, member.next()).await);
            }
        };
        // Members that are not there would be waited for until their sessions end.
        let in_time = options().session_timeout / 2;
        let done = timeout(in_time, all).await;
        assert!(done.is_ok(), "it gets its share in time: {:?}", world.client.admin().group(GROUP).await);
        assert_eq!(member.assigned()[TOPIC], [0, 1, 2, 3]);
        assert_eq!(world.client.admin().group(GROUP).await.expect("it is there").members.len(), 1);
        member.close().await.expect("it leaves");
    });
}

#[test]
fn the_bench_of_groups_measures_what_it_says() {
    let world = World::new(1, "[groups]\ncoordinators = 3\ninitial_rebalance_delay_ms = 100");
    let pid = std::process::id().to_string();
    let arguments = ["bench", "groups", "--groups", "4", "--members", "3", "--partitions", "6", "--topic", TOPIC];
    let times = ["--for", "1s", "--heartbeat", "100ms", "--commit-every", "100ms", "--failover", "--json"];
    let output = world.run(&[&arguments[..], &times, &["--pids", &pid]].concat(), "\n\n\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("Kill a node").count(), 2, "{said}");
    let runs: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let count = |run: &Value, at: [&str; 3]| run[at[0]][at[1]][at[2]].as_u64().expect("a number");
    for (run, groups) in runs.iter().zip([1, 4]) {
        assert_eq!((run["groups"].as_u64(), run["left_behind"].as_u64()), (Some(groups), Some(0)), "{run}");
        let joins = count(run, ["joining", "joins", "count"]);
        assert!(joins >= 3 * groups, "{run}");
        // Of ten heartbeats and stored offsets of each member in a second, some are held up on a busy machine.
        for kind in ["heartbeats", "commits"] {
            let (done, expected) = (count(run, ["stable", kind, "count"]), 3 * groups * 10);
            assert!((expected / 10..=expected * 13 / 10).contains(&done), "{kind}: {run}");
        }
        assert_eq!(
            (&run["stable"]["failed"], &run["failover"]["meanwhile"]["failed"]),
            (&0.into(), &0.into()),
            "{run}"
        );
        assert!(run["processes"][0]["resident_after_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{run}");
    }
    assert_eq!(runs.len(), 2);
    assert_eq!(world.json(&["group", "list"]), Value::Array(vec![]), "nothing is left behind");
}
