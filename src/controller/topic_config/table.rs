//! The table itself: every setting that has a name, with its bounds, its default, and what becomes of a value.

use super::Effect::{Accepted, Honoured, Only};
use super::Kind::{Boolean, Int, List, Long, Ratio, Word};
use super::{Effect, Kind, MESSAGE_BYTES_LIMIT, TopicConfig};

const FOREVER: &str = "9223372036854775807";
const INT_MAX: i64 = i32::MAX as i64;
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const NO_TIERS: &str = "there is no remote storage";
const UNCLEAN: &str = "a replica without every acknowledged record never becomes leader";
const COMPACTS: &str = "Belongs to compaction, which does not exist yet.";
const NO_SEGMENTS: &str = "All partitions of a node share one log: a partition has no segments of its own.";
const NO_THROTTLE: &str = "Replication is not throttled.";
const AS_PRODUCED: &str = "Batches are stored and sent as their producers compressed them.";
const FLUSHED: &str = "Stronger than asked: an acknowledged record has been flushed on a majority of its replicas.";

pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A row: name, the node's setting that Kafka takes the default from (empty: none), type, default, effect, meaning.
const fn row(
    (name, inherits): (&'static str, &'static str),
    kind: Kind,
    default: &'static str,
    effect: Effect,
    meaning: &'static str,
) -> TopicConfig {
    TopicConfig { name, inherits, kind, default, effect, meaning }
}

/// Every config that has a name, sorted by it.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    row(
        ("cleanup.policy", "log.cleanup.policy"),
        List(&["delete", "compact"]),
        "delete",
        Only("delete", "compaction is not there yet"),
        "What becomes of old records: they are deleted, by `retention.ms` and `retention.bytes`.",
    ),
    row(("compression.gzip.level", "compression.gzip.level"), Int(-1, 9), "-1", Accepted, AS_PRODUCED),
    row(("compression.lz4.level", "compression.lz4.level"), Int(1, 17), "9", Accepted, AS_PRODUCED),
    row(("compression.type", "compression.type"), Word(CODECS), "producer", Accepted, AS_PRODUCED),
    row(("compression.zstd.level", "compression.zstd.level"), Int(-131_072, 22), "3", Accepted, AS_PRODUCED),
    row(("delete.retention.ms", "log.cleaner.delete.retention.ms"), Long(0, i64::MAX), "86400000", Accepted, COMPACTS),
    row(
        ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
        Long(0, i64::MAX),
        "60000",
        Accepted,
        "A partition has no files of its own; what is deleted can't be read from that moment on.",
    ),
    row(("flush.messages", "log.flush.interval.messages"), Long(1, i64::MAX), FOREVER, Accepted, FLUSHED),
    row(("flush.ms", "log.flush.interval.ms"), Long(0, i64::MAX), FOREVER, Accepted, FLUSHED),
    row(("follower.replication.throttled.replicas", ""), List(&[]), "", Accepted, NO_THROTTLE),
    row(
        ("index.interval.bytes", "log.index.interval.bytes"),
        Int(0, INT_MAX),
        "4096",
        Accepted,
        "Every batch is indexed by its offset.",
    ),
    row(("leader.replication.throttled.replicas", ""), List(&[]), "", Accepted, NO_THROTTLE),
    row(
        ("local.retention.bytes", "log.local.retention.bytes"),
        Long(-2, i64::MAX),
        "-2",
        Only("-2", NO_TIERS),
        "How much a partition keeps beside its remote storage: all that `retention.bytes` keeps.",
    ),
    row(
        ("local.retention.ms", "log.local.retention.ms"),
        Long(-2, i64::MAX),
        "-2",
        Only("-2", NO_TIERS),
        "How long a partition keeps what is in its remote storage: as long as `retention.ms` says.",
    ),
    row(("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"), Long(1, i64::MAX), FOREVER, Accepted, COMPACTS),
    row(
        ("max.message.bytes", "message.max.bytes"),
        Int(0, MESSAGE_BYTES_LIMIT),
        "1048588",
        Honoured,
        "The largest record batch that is taken, in bytes as its producer compressed it.",
    ),
    row(
        ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
        Long(0, i64::MAX),
        "3600000",
        Honoured,
        "How far a record's time may lie after the leader's, in milliseconds; not looked at with LogAppendTime.",
    ),
    row(
        ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
        Long(0, i64::MAX),
        FOREVER,
        Honoured,
        "How far a record's time may lie before the leader's, in milliseconds; not looked at with LogAppendTime.",
    ),
    row(
        ("message.timestamp.type", "log.message.timestamp.type"),
        Word(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        Honoured,
        "Whose time a record carries: its producer's, or the leader's when it takes the batch.",
    ),
    row(("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"), Ratio, "0.5", Accepted, COMPACTS),
    row(("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"), Long(0, i64::MAX), "0", Accepted, COMPACTS),
    row(
        (MIN_INSYNC_REPLICAS, "min.insync.replicas"),
        Int(1, INT_MAX),
        "2",
        Honoured,
        "How many replicas have a record before it is acknowledged: always a majority of them, whatever `acks` says. \
         Less than the majority is satisfied by it, more is refused. The default is the majority.",
    ),
    row(("preallocate", "log.preallocate"), Boolean, "false", Accepted, "The node's log is always preallocated."),
    row(
        ("remote.log.copy.disable", ""),
        Boolean,
        "false",
        Only("false", NO_TIERS),
        "Whether records are no longer copied to remote storage.",
    ),
    row(
        ("remote.log.delete.on.disable", ""),
        Boolean,
        "false",
        Only("false", NO_TIERS),
        "Whether turning remote storage off deletes what is there.",
    ),
    row(
        ("remote.storage.enable", ""),
        Boolean,
        "false",
        Only("false", NO_TIERS),
        "Whether records are copied to remote storage.",
    ),
    row(
        ("retention.bytes", "log.retention.bytes"),
        Long(-1, i64::MAX),
        "-1",
        Honoured,
        "How many bytes of records each partition keeps; -1: all. The oldest are deleted.",
    ),
    row(
        ("retention.ms", "log.retention.ms"),
        Long(-1, i64::MAX),
        "604800000",
        Honoured,
        "How long records are kept, in milliseconds; -1: for ever.",
    ),
    row(("segment.bytes", "log.segment.bytes"), Int(14, INT_MAX), "1073741824", Accepted, NO_SEGMENTS),
    row(("segment.index.bytes", "log.index.size.max.bytes"), Int(4, INT_MAX), "10485760", Accepted, NO_SEGMENTS),
    row(("segment.jitter.ms", "log.roll.jitter.ms"), Long(0, i64::MAX), "0", Accepted, NO_SEGMENTS),
    row(("segment.ms", "log.roll.ms"), Long(1, i64::MAX), "604800000", Accepted, NO_SEGMENTS),
    row(
        ("unclean.leader.election.enable", "unclean.leader.election.enable"),
        Boolean,
        "false",
        Only("false", UNCLEAN),
        "Whether a replica that lacks acknowledged records may become leader.",
    ),
];
