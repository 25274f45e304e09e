//! Settings of a real cluster's topics: changed at any node, known to all of them, kept across restarts, and honoured.

use crate::cluster::TestCluster;
use ackord::client::{
    Client, ClientOptions, ConfigChanges, Error, NewTopic, ProducerOptions, ReaderOptions, Record, Start,
};
use ackord::proto::native::ErrorCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TOPIC: &str = "orders";

/// Tries again, at most for half a minute.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client that knows one node only; the cluster's others it learns of.
async fn connect(cluster: &TestCluster, position: usize) -> Client {
    let address = cluster.members[position].native.to_string();
    Client::connect(&[address], ClientOptions::default()).await.expect("the node answers")
}

async fn create(client: &Client) {
    let new =
        NewTopic { name: TOPIC.to_owned(), partitions: Some(1), replication_factor: Some(3), ..NewTopic::default() };
    // A cluster that has just started may not know all of its nodes yet.
    until("the topic is created", async || client.admin().create_topic(&new).await.is_ok()).await;
}

fn set(name: &str, value: &str) -> ConfigChanges {
    ConfigChanges { set: vec![(name.to_owned(), value.to_owned())], delete: vec![] }
}

fn delete(name: &str) -> ConfigChanges {
    ConfigChanges { set: vec![], delete: vec![name.to_owned()] }
}

/// What a setting comes to at the node that is asked, and whether it was set.
async fn value(client: &Client, name: &str) -> (String, bool) {
    let configs = client.admin().topic_configs(TOPIC).await.expect("the settings");
    let config = configs.into_iter().find(|config| config.name == name).expect("it has a name");
    (config.value, config.is_set)
}

/// Writes a record of this many bytes and this time.
async fn write(client: &Client, bytes: usize, timestamp_ms: i64) -> Result<i64, Error> {
    let options = ProducerOptions { linger: Duration::ZERO, batch_bytes: 1, ..ProducerOptions::default() };
    let producer = client.producer(options).expect("sensible options");
    let record = Record { timestamp_ms: Some(timestamp_ms), ..Record::new(None::<Vec<u8>>, vec![b'x'; bytes]) };
    let commit = producer.send(TOPIC, Some(0), record).await?.await?;
    Ok(commit.offset)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis().try_into().expect("not so late")
}

#[test]
fn settings_are_changed_at_any_node_and_survive_a_restart_of_all() {
    let mut cluster = TestCluster::start(3);
    let runtime = cluster.runtime.handle().clone();
    runtime.block_on(async {
        create(&connect(&cluster, 0).await).await;
        for position in 0..3 {
            // Two of the three nodes have to bring it to the controller; each then knows it itself.
            let client = connect(&cluster, position).await;
            until("the node knows the topic", async || client.admin().topic(TOPIC).await.is_ok()).await;
            let mut wanted = (String::new(), true);
            for change in 0..20 {
                wanted.0 = format!("{}", 1_000 * change + position);
                client.admin().alter_topic(TOPIC, &set("retention.ms", &wanted.0), false).await.expect("it is altered");
                assert_eq!(value(&client, "retention.ms").await, wanted, "at the node that was asked");
            }
            for other in 0..3 {
                let client = connect(&cluster, other).await;
                until("every node knows it", async || value(&client, "retention.ms").await == wanted).await;
            }
        }
        let admin = connect(&cluster, 1).await.admin();
        admin.alter_topic(TOPIC, &set("retention.ms", "7"), true).await.expect("it could be");
        let both = ConfigChanges { delete: vec!["retention.ms".to_owned()], ..set("min.insync.replicas", "3") };
        let refused = admin.alter_topic(TOPIC, &both, false).await.expect_err("the quorum rules");
        assert_eq!((refused.code(), refused.is_definite()), (Some(ErrorCode::Refused), true));
        assert!(refused.to_string().contains("the quorum rules"), "{refused}");
    });
    (0..3).for_each(|position| cluster.stop_node(position));
    (0..3).for_each(|position| cluster.start_node(position));
    runtime.block_on(async {
        let client = connect(&cluster, 2).await;
        until("the topic is there", async || client.admin().topic(TOPIC).await.is_ok()).await;
        until("as it was set", async || value(&client, "retention.ms").await == ("19002".to_owned(), true)).await;
        client.admin().alter_topic(TOPIC, &delete("retention.ms"), false).await.expect("it is altered");
        assert_eq!(value(&client, "retention.ms").await, ("604800000".to_owned(), false));
        assert_eq!(value(&client, "min.insync.replicas").await, ("2".to_owned(), false), "the majority");
    });
}

#[test]
fn what_partitions_take_follows_the_settings() {
    let cluster = TestCluster::start(3);
    cluster.runtime.block_on(async {
        let client = connect(&cluster, 0).await;
        create(&client).await;
        let alter = async |changes| client.admin().alter_topic(TOPIC, &changes, false).await.expect("it is altered");
        let refused = async |bytes, time, code| {
            until("it is refused", async || match write(&client, bytes, time).await {
                Ok(_) => false,
                Err(error) => error.code() == Some(code),
            })
            .await;
        };
        let taken = async |bytes, time| until("it is taken", async || write(&client, bytes, time).await.is_ok()).await;
        let hour = 3_600_000;

        taken(10_000, now_ms()).await;
        alter(set("max.message.bytes", "5000")).await;
        refused(10_000, now_ms(), ErrorCode::TooLarge).await;
        taken(1_000, now_ms()).await;
        alter(delete("max.message.bytes")).await;
        taken(10_000, now_ms()).await;

        refused(1, now_ms() + 2 * hour, ErrorCode::InvalidBatch).await;
        alter(set("message.timestamp.after.max.ms", "10800000")).await;
        taken(1, now_ms() + 2 * hour).await;

        taken(1, now_ms() - 2 * hour).await;
        alter(set("message.timestamp.before.max.ms", "3600000")).await;
        refused(1, now_ms() - 2 * hour, ErrorCode::InvalidBatch).await;
        alter(delete("message.timestamp.before.max.ms")).await;

        alter(set("message.timestamp.type", "LogAppendTime")).await;
        until("the leader's time is kept", async || {
            let offset = write(&client, 1, 1_000).await.expect("it is written");
            let start = Start::Offset(offset);
            let mut reader = client.reader(TOPIC, 0, start, ReaderOptions::default()).await.expect("a reader");
            let read = reader.read().await.expect("it is there");
            read[0].timestamp_ms > now_ms() - hour
        })
        .await;
    });
}
