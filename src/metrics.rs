//! What a node measures, named as Prometheus names things: base units, `_total` for what only grows.
//!
//! The rooms that know a value record it through the handles here, which are cheap to clone and to use. What is a state
//! rather than an event (lags, leaders, quarantines) is asked for when somebody looks, through one callback.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// What is recorded as it happens. Cloning shares the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds from a batch's arrival to its acknowledgement.
    pub produce_seconds: Histogram,
    /// Seconds from a fetch's arrival to its answer, its wait for records included.
    pub fetch_seconds: Histogram,
    /// Seconds of one synchronisation of the write-ahead log.
    pub fsync_seconds: Histogram,
    /// Seconds from an entry's proposal to its commit.
    pub commit_seconds: Histogram,
    /// Bytes written to the write-ahead log in one turn.
    pub turn_bytes: Histogram,
    /// Bytes of record batches that were acknowledged.
    pub produced_bytes: Counter,
    /// Bytes of record batches that were read by clients.
    pub fetched_bytes: Counter,
    /// Elections that this node has won.
    pub elections: Counter,
    /// Steps of repairs: how often what a quarantined replica asks for, or waits for, has become something else.
    pub repair_steps: Counter,
    /// Quarantined replicas that were repaired.
    pub repaired_replicas: Counter,
    /// Lost entries of the log that peers have given back.
    pub refilled_entries: Counter,
    /// Segments of the log that were begun in the file of one that was freed.
    pub reused_segments: Counter,
    /// Bytes of live entries that the log has copied out of old segments.
    pub copied_forward_bytes: Counter,
    /// Seconds from an offset commit's arrival to its acknowledgement.
    pub offset_commit_seconds: Histogram,
    /// Generations of consumer groups that were made up.
    pub group_rebalances: Counter,
}

/// How one replica of this node stands, for whoever looks at the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSample {
    /// The topic; empty for the cluster's metadata.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Whether this node leads it.
    pub leads: bool,
    /// Whether it is quarantined.
    pub quarantined: bool,
    /// The newest term it knows.
    pub term: u64,
    /// Entries that are in its log and not known to be committed.
    pub uncommitted_entries: u64,
    /// Entries that are committed and not applied.
    pub apply_lag_entries: u64,
    /// If it leads: for every other node, how many entries of the log that node's replica lacks.
    pub follower_lag_entries: Vec<(u32, u64)>,
}

/// How a node stands, for whoever looks at the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSample {
    /// Every replica on it.
    pub replicas: Vec<ReplicaSample>,
    /// Messages to other nodes that were dropped because a queue was full or the connection away.
    pub dropped_peer_messages: u64,
    /// Consumer groups that this node coordinates, by the name of their state.
    pub groups: Vec<(&'static str, u64)>,
    /// Members of these groups.
    pub group_members: u64,
    /// How far these groups are behind.
    pub group_lags: GroupLags,
}

/// How far consumer groups are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLags {
    /// At most [`LAG_SERIES_MAX`], so that nobody's groups fill the memory of who looks.
    pub shown: Vec<LagSample>,
    /// Groups of which more lags are known than are shown.
    pub cut_groups: u64,
    /// Stored offsets of partitions whose end this node does not know.
    pub unknown: u64,
}

/// How far a consumer group is behind in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagSample {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Offsets from the stored one to the high watermark.
    pub lag: u64,
}

/// Lags that are shown at most, each a series of its own.
pub const LAG_SERIES_MAX: usize = 10_000;

/// Asks how the node stands. Called when the metrics are looked at; may block briefly.
pub type Status = Arc<dyn Fn() -> NodeSample + Send + Sync>;

impl Metrics {
    /// The metrics of a node, and the registry that shows them.
    #[must_use]
    pub fn new(status: Status) -> (Self, Registry) {
        // 50 µs to 26 s: from a sync of a good disk to somebody's timeout.
        let seconds = || Histogram::new(exponential_buckets(50e-6, 2.0, 20));
        let metrics = Self {
            produce_seconds: seconds(),
            fetch_seconds: seconds(),
            fsync_seconds: seconds(),
            commit_seconds: seconds(),
            turn_bytes: Histogram::new(exponential_buckets(4096.0, 2.0, 16)), // 4 KiB to 128 MiB
            produced_bytes: Counter::default(),
            fetched_bytes: Counter::default(),
            elections: Counter::default(),
            repair_steps: Counter::default(),
            repaired_replicas: Counter::default(),
            refilled_entries: Counter::default(),
            reused_segments: Counter::default(),
            copied_forward_bytes: Counter::default(),
            offset_commit_seconds: seconds(),
            group_rebalances: Counter::default(),
        };
        let mut registry = Registry::with_prefix("ackord");
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Replicas(status)));
        (metrics, registry)
    }

    fn register(&self, registry: &mut Registry) {
        let histograms = [
            ("produce_seconds", "From a batch's arrival to its acknowledgement", &self.produce_seconds),
            ("fetch_seconds", "From a fetch's arrival to its answer, waiting included", &self.fetch_seconds),
            ("fsync_seconds", "One synchronisation of the write-ahead log", &self.fsync_seconds),
            ("commit_seconds", "From an entry's proposal to its commit", &self.commit_seconds),
            (
                "offset_commit_seconds",
                "From an offset commit's arrival to its acknowledgement",
                &self.offset_commit_seconds,
            ),
            ("turn_bytes", "Bytes written to the write-ahead log in one turn", &self.turn_bytes),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.clone());
        }
        let counters = [
            ("produced_bytes", "Bytes of record batches that were acknowledged", &self.produced_bytes),
            ("fetched_bytes", "Bytes of record batches that were read by clients", &self.fetched_bytes),
            ("elections", "Elections that this node has won", &self.elections),
            ("repair_steps", "Steps of repairs of quarantined replicas; the log names each", &self.repair_steps),
            ("repaired_replicas", "Quarantined replicas that were repaired from their peers", &self.repaired_replicas),
            ("refilled_entries", "Lost entries of the log that peers have given back", &self.refilled_entries),
            ("reused_segments", "Segments of the log begun in the file of one that was freed", &self.reused_segments),
            (
                "copied_forward_bytes",
                "Bytes of live entries that the log has copied out of old segments",
                &self.copied_forward_bytes,
            ),
            ("group_rebalances", "Generations of consumer groups made up while led here", &self.group_rebalances),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}

/// Shows the state of every replica.
struct Replicas(Status);

impl fmt::Debug for Replicas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Replicas")
    }
}

/// A gauge that every replica has: name, help, value.
type ReplicaGauge = (&'static str, &'static str, fn(&ReplicaSample) -> u64);

const REPLICA_GAUGES: &[ReplicaGauge] = &[
    ("replica_leads", "1 if this node leads the partition", |replica| u64::from(replica.leads)),
    ("replica_quarantined", "1 if the replica is quarantined", |replica| u64::from(replica.quarantined)),
    ("replica_term", "The newest term the replica knows", |replica| replica.term),
    ("replica_uncommitted_entries", "Entries in the log that are not known to be committed", |replica| {
        replica.uncommitted_entries
    }),
    ("replica_apply_lag_entries", "Entries that are committed and not applied", |replica| replica.apply_lag_entries),
];

impl Collector for Replicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let NodeSample { replicas, dropped_peer_messages, groups, group_members, group_lags } = (self.0)();
        let help = "Messages to other nodes that were dropped, because a queue was full or the connection away";
        encoder
            .encode_descriptor("dropped_peer_messages", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&dropped_peer_messages, None)?;
        let mut gauge =
            encoder.encode_descriptor("groups", "Consumer groups led here, by state", None, MetricType::Gauge)?;
        for (state, count) in groups {
            gauge.encode_family(&[("state", state)])?.encode_gauge(&gauge_value(count))?;
        }
        encoder
            .encode_descriptor("group_members", "Members of consumer groups led here", None, MetricType::Gauge)?
            .encode_gauge(&gauge_value(group_members))?;
        encode_lags(&mut encoder, &group_lags)?;
        for (name, help, value) in REPLICA_GAUGES {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for replica in &replicas {
                let partition = replica.partition.to_string();
                let labels = [("topic", replica.topic.as_str()), ("partition", partition.as_str())];
                gauge.encode_family(&labels)?.encode_gauge(&gauge_value(value(replica)))?;
            }
        }
        let help = "Entries of the leader's log that another node's replica lacks; told by the leader";
        let mut lag = encoder.encode_descriptor("follower_lag_entries", help, None, MetricType::Gauge)?;
        for replica in &replicas {
            for (node, entries) in &replica.follower_lag_entries {
                let (partition, node) = (replica.partition.to_string(), node.to_string());
                let labels =
                    [("topic", replica.topic.as_str()), ("partition", partition.as_str()), ("node", node.as_str())];
                lag.encode_family(&labels)?.encode_gauge(&gauge_value(*entries))?;
            }
        }
        Ok(())
    }
}

fn encode_lags(encoder: &mut DescriptorEncoder<'_>, lags: &GroupLags) -> fmt::Result {
    let help = "Offsets from a group's stored offset to the partition's high watermark, for groups led here and \
        partitions with a replica here; a following replica's high watermark may be a little behind the leader's";
    let mut gauge = encoder.encode_descriptor("group_lag_offsets", help, None, MetricType::Gauge)?;
    for LagSample { group, topic, partition, lag } in &lags.shown {
        let partition = partition.to_string();
        let labels = [("group", group.as_str()), ("topic", topic.as_str()), ("partition", partition.as_str())];
        gauge.encode_family(&labels)?.encode_gauge(&gauge_value(*lag))?;
    }
    let unknown = "Stored offsets of groups led here whose partition has no replica here: no lag is shown for them";
    let cut = format!("Groups led here whose lag is not shown in full: at most {LAG_SERIES_MAX} partitions are");
    for (name, help, value) in
        [("group_lag_unknown", unknown, lags.unknown), ("group_lag_cut_groups", cut.as_str(), lags.cut_groups)]
    {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&gauge_value(value))?;
    }
    Ok(())
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;

    #[test]
    fn every_metric_is_shown_under_its_documented_name() {
        let sample = ReplicaSample {
            topic: "orders".to_owned(),
            partition: 4,
            leads: true,
            apply_lag_entries: 7,
            follower_lag_entries: vec![(3, 12)],
            ..ReplicaSample::default()
        };
        let lag = LagSample { group: "a \"b\"\n".to_owned(), topic: "orders".to_owned(), partition: 4, lag: 9 };
        let group_lags = GroupLags { shown: vec![lag], cut_groups: 5, unknown: 6 };
        let groups = vec![("Stable", 2)];
        let node = NodeSample { replicas: vec![sample], groups, group_lags, ..NodeSample::default() };
        let (metrics, registry) = Metrics::new(Arc::new(move || node.clone()));
        metrics.produce_seconds.observe(0.002);
        metrics.produced_bytes.inc_by(10);
        metrics.elections.inc();
        let mut shown = String::new();
        text::encode(&mut shown, &registry).unwrap();
        for line in [
            "ackord_produce_seconds_count 1",
            "ackord_fsync_seconds_count 0",
            "ackord_turn_bytes_count 0",
            "ackord_produced_bytes_total 10",
            "ackord_elections_total 1",
            "ackord_repair_steps_total 0",
            "ackord_reused_segments_total 0",
            "ackord_copied_forward_bytes_total 0",
            "ackord_group_rebalances_total 0",
            "ackord_offset_commit_seconds_count 0",
            "ackord_groups{state=\"Stable\"} 2",
            "ackord_group_members 0",
            "ackord_group_lag_offsets{group=\"a \\\"b\\\"\\n\",topic=\"orders\",partition=\"4\"} 9",
            "ackord_group_lag_cut_groups 5",
            "ackord_group_lag_unknown 6",
            "ackord_dropped_peer_messages_total 0",
            "ackord_replica_leads{topic=\"orders\",partition=\"4\"} 1",
            "ackord_replica_apply_lag_entries{topic=\"orders\",partition=\"4\"} 7",
            "ackord_follower_lag_entries{topic=\"orders\",partition=\"4\",node=\"3\"} 12",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }
}
