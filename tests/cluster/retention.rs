//! Retention and DeleteRecords on a real cluster: log starts move, readers are told, replicas agree across restarts.

use crate::cluster::{TestCluster, kcat, wait_for, wait_until};
use ackord::broker::node::NodeBroker;
use ackord::broker::{
    Broker, ConnectionId, DeleteRecords, ErrorKind, Fetch, FetchPartition, Isolation, NewTopic, OffsetQuery,
    OffsetTarget, PartitionIndex, Partitions, Produce, Result, TopicName,
};
use ackord::record::writer::BatchWriter;
use ackord::server::data::SharedEngine;
use ackord::types::Offset;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: usize = 1 << 20;
const PARTITION: PartitionIndex = PartitionIndex(0);
const SHORT_INTERVAL: &str = "[retention]\ncheck_interval_ms = 200";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis().try_into().expect("not so late")
}

/// A cluster, and one topic of one partition.
struct Setup {
    cluster: TestCluster,
    topic: TopicName,
}

impl Setup {
    fn start(limits: &str, configs: &[(&str, &str)]) -> Self {
        let setup = Self { cluster: TestCluster::start_with(3, limits), topic: TopicName::from("kept") };
        let new = NewTopic {
            name: setup.topic.clone(),
            partitions: Partitions::Count { partitions: Some(1), replication_factor: Some(3) },
            configs: configs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect(),
        };
        // A cluster that has just started may not know all of its nodes yet.
        wait_until(|| {
            let broker = setup.broker(0);
            let created = broker.create_topics(vec![new.clone()], false, Duration::from_secs(10));
            let created = setup.cluster.runtime.block_on(created).pop().expect("an answer");
            created.is_ok() || created.is_err_and(|error| error.kind == ErrorKind::TopicExists)
        });
        setup
    }

    fn broker(&self, position: usize) -> &NodeBroker<SharedEngine> {
        self.cluster.members[position].broker.as_ref().expect("the node runs")
    }

    /// Asks every node until one of them, the leader, answers.
    fn ask<T>(&self, ask: &impl AsyncFn(&NodeBroker<SharedEngine>) -> Result<T>) -> Result<T> {
        wait_for(|| {
            let mut answers = (0..3).map(|position| self.cluster.runtime.block_on(ask(self.broker(position))));
            answers.find(|answer| answer.as_ref().err().is_none_or(|error| !error.kind.is_retriable()))
        })
    }

    /// Writes a record of a MiB.
    fn write(&self, timestamp_ms: i64) {
        let value = vec![b'x'; MIB - 1_000];
        let batch = BatchWriter::new(timestamp_ms).record(None, Some(&value), timestamp_ms).finish();
        let written = self.ask(&async |broker| {
            let produce = Produce {
                topic: self.topic.clone(),
                partition: PARTITION,
                records: batch.clone().into_bytes(),
                timeout: Duration::from_secs(10),
                connection: ConnectionId(1),
            };
            broker.produce(produce).await?.await
        });
        written.expect("the record is written");
    }

    fn offset(&self, query: OffsetQuery) -> i64 {
        let target = OffsetTarget {
            topic: self.topic.clone(),
            partition: PARTITION,
            current_epoch: None,
            isolation: Isolation::ReadUncommitted,
            query,
        };
        let found = self.ask(&async |broker| broker.list_offsets(vec![target.clone()]).await.pop().expect("an answer"));
        found.expect("a log has ends").expect("a log has ends").offset.0
    }

    /// The offset of the first batch that a reader from `offset` on is given; or why there is none, and where the log
    /// starts.
    fn read(&self, offset: i64) -> std::result::Result<i64, (ErrorKind, Option<Offset>)> {
        let fetch = Fetch {
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: MIB,
            isolation: Isolation::ReadUncommitted,
            partitions: vec![FetchPartition {
                topic: self.topic.clone(),
                partition: PARTITION,
                offset: Offset(offset),
                current_epoch: None,
                last_epoch: None,
                max_bytes: MIB,
            }],
        };
        let found = self.ask(&async |broker| broker.fetch(fetch.clone()).await.partitions.pop().expect("an answer"));
        found.map(|found| found.batches[0].base_offset.0).map_err(|error| (error.kind, error.log_start))
    }

    fn delete(&self, before: Option<i64>) -> Result<i64> {
        let target = DeleteRecords { topic: self.topic.clone(), partition: PARTITION, before: before.map(Offset) };
        let time = Duration::from_secs(10);
        let deleted =
            self.ask(&async |broker| broker.delete_records(vec![target.clone()], time).await.pop().expect("an answer"));
        deleted.map(|start| start.0)
    }

    /// Where every replica says that the log starts.
    fn log_starts(&self) -> BTreeSet<i64> {
        let of = |position: usize| {
            let reports = self.cluster.runtime.block_on(self.broker(position).replicas());
            let own = reports
                .into_iter()
                .find(|report| report.partition.as_ref().is_some_and(|(topic, _)| *topic == self.topic));
            own.map_or(-1, |report| report.log_start.0)
        };
        (0..3).map(of).collect()
    }

    fn restart(&mut self) {
        (0..3).for_each(|position| self.cluster.stop_node(position));
        (0..3).for_each(|position| self.cluster.start_node(position));
    }
}

/// Nobody waits for the interval: the default is five minutes.
#[test]
fn a_partition_is_kept_to_its_size_while_it_grows() {
    let mut setup = Setup::start("", &[("retention.bytes", "8388608")]);
    (0..40).for_each(|_| setup.write(now_ms()));
    let end = setup.offset(OffsetQuery::Latest);
    assert_eq!(end, 40);
    // 8 MiB, the run that would be too much to take away, the one that is not full, and as much growth as is too little
    // to be looked at. Another look may still be on its way.
    let start = wait_for(|| {
        let starts: Vec<_> = setup.log_starts().into_iter().collect();
        let start = *starts.first().filter(|start| starts.len() == 1 && **start >= end - 20)?;
        let below = Err((ErrorKind::OffsetOutOfRange, Some(Offset(start))));
        (setup.read(start - 1) == below && setup.read(start) == Ok(start)).then_some(start)
    });
    assert!(start <= end - 8, "{start} leaves less than the limit");
    setup.restart();
    // A node that begins to lead looks at once, and may take what had not grown enough to be looked at.
    let agreed = |setup: &Setup| setup.log_starts().into_iter().collect::<Vec<_>>();
    wait_until(|| matches!(agreed(&setup)[..], [one] if one >= start));
    let again = setup.offset(OffsetQuery::Earliest);
    assert!((start..=end - 8).contains(&again), "{again} after {start}");
    assert_eq!(setup.read(again), Ok(again));
}

#[test]
fn records_go_when_their_time_has_come() {
    let setup = Setup::start(SHORT_INTERVAL, &[("retention.ms", "3600000")]);
    let old = now_ms() - 2 * 3_600_000;
    (0..3).for_each(|_| setup.write(old));
    (0..2).for_each(|_| setup.write(now_ms()));
    wait_until(|| setup.offset(OffsetQuery::Earliest) == 3);
    assert_eq!(setup.read(2), Err((ErrorKind::OffsetOutOfRange, Some(Offset(3)))));
    assert_eq!(setup.read(3), Ok(3));
}

#[test]
fn records_are_deleted_on_demand() {
    let mut setup = Setup::start("", &[("retention.ms", "-1")]);
    (0..6).for_each(|_| setup.write(now_ms()));
    assert_eq!(setup.delete(Some(2)), Ok(2));
    assert_eq!(setup.delete(Some(1)), Ok(2), "what is gone is gone");
    let beyond = setup.delete(Some(7)).expect_err("beyond the end");
    assert_eq!((beyond.kind, beyond.log_start), (ErrorKind::OffsetOutOfRange, Some(Offset(2))));
    assert_eq!(setup.delete(Some(-2)).expect_err("no offset").kind, ErrorKind::OffsetOutOfRange);
    assert_eq!(setup.read(1), Err((ErrorKind::OffsetOutOfRange, Some(Offset(2)))));
    let bootstrap = setup.cluster.bootstrap();
    let reset = ["-C", "-b", &bootstrap, "-t", "kept", "-o", "0", "-e", "-q", "-f", "%o\n"];
    let (done, read, error) = kcat(&[&reset[..], &["-X", "auto.offset.reset=earliest"]].concat(), "");
    assert!(done, "{error}");
    assert_eq!(read, "2\n3\n4\n5\n", "a client goes on at the log's start: {error}");
    assert_eq!(setup.delete(None), Ok(6));
    setup.restart();
    wait_until(|| setup.log_starts() == BTreeSet::from([6]));
    setup.write(now_ms());
    assert_eq!(setup.read(6), Ok(6), "offsets go on");
}
