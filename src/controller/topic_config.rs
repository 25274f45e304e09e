//! Topic configs: one table of names, defaults and what may be set, from which validation, storage and the answers of
//! DescribeConfigs come.
//!
//! Names and defaults are Kafka 4.1's. A config either does what it says, or is accepted because nothing a client can
//! see depends on it, or is refused with the reason: a promise that is not kept must not be taken.

use super::command::{ConfigOperation, Reason, Rejection, reject};
use std::collections::BTreeMap;

/// Longest value, in bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4096;
/// Largest record batch that a topic may allow, in bytes. Bounds what one request can pin in memory.
pub const MESSAGE_BYTES_LIMIT: i64 = 64 << 20;

/// One topic config.
#[derive(Debug)]
pub struct TopicConfig {
    /// Kafka's name of it.
    pub name: &'static str,
    /// The type that DescribeConfigs says.
    pub kind: Kind,
    /// What holds when it isn't set. For `min.insync.replicas` the majority of the replicas takes its place.
    pub default: &'static str,
    /// What becomes of a value.
    pub effect: Effect,
}

/// The type of a config's value, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A 32-bit number in this range.
    Int(i64, i64),
    /// A 64-bit number in this range.
    Long(i64, i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any of these words, separated by commas; no words: any text.
    List(&'static [&'static str]),
}

/// What setting a config does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its name says.
    Honoured,
    /// It is kept and shown. Nothing that a client can see depends on it here.
    Accepted,
    /// Only this value is taken, for the given reason.
    Only(&'static str, &'static str),
}

use Effect::{Accepted, Honoured, Only};
use Kind::{Boolean, Int, List, Long, Ratio, Word};

const fn config(name: &'static str, kind: Kind, default: &'static str, effect: Effect) -> TopicConfig {
    TopicConfig { name, kind, default, effect }
}

const FOREVER: &str = "9223372036854775807";
const INT_MAX: i64 = i32::MAX as i64;
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const NO_TIERS: &str = "there is no remote storage";

/// Every config that has a name, sorted by it.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    config("cleanup.policy", List(&["delete", "compact"]), "delete", Only("delete", "compaction is not there yet")),
    // Batches are stored and sent as their producers made them, whatever codec they chose.
    config("compression.gzip.level", Int(-1, 9), "-1", Accepted),
    config("compression.lz4.level", Int(1, 17), "9", Accepted),
    config("compression.type", Word(CODECS), "producer", Accepted),
    config("compression.zstd.level", Int(-131_072, 22), "3", Accepted),
    config("delete.retention.ms", Long(0, i64::MAX), "86400000", Accepted),
    config("file.delete.delay.ms", Long(0, i64::MAX), "60000", Accepted),
    // Stronger than asked: every acknowledged record has been flushed.
    config("flush.messages", Long(1, i64::MAX), FOREVER, Accepted),
    config("flush.ms", Long(0, i64::MAX), FOREVER, Accepted),
    config("follower.replication.throttled.replicas", List(&[]), "", Accepted),
    config("index.interval.bytes", Int(0, INT_MAX), "4096", Accepted),
    config("leader.replication.throttled.replicas", List(&[]), "", Accepted),
    config("local.retention.bytes", Long(-2, i64::MAX), "-2", Only("-2", NO_TIERS)),
    config("local.retention.ms", Long(-2, i64::MAX), "-2", Only("-2", NO_TIERS)),
    config("max.compaction.lag.ms", Long(1, i64::MAX), FOREVER, Accepted),
    config("max.message.bytes", Int(0, MESSAGE_BYTES_LIMIT), "1048588", Honoured),
    config("message.timestamp.after.max.ms", Long(0, i64::MAX), "3600000", Honoured),
    config("message.timestamp.before.max.ms", Long(0, i64::MAX), FOREVER, Honoured),
    config("message.timestamp.type", Word(&["CreateTime", "LogAppendTime"]), "CreateTime", Honoured),
    config("min.cleanable.dirty.ratio", Ratio, "0.5", Accepted),
    config("min.compaction.lag.ms", Long(0, i64::MAX), "0", Accepted),
    // The quorum decides; see `check_min_insync_replicas`.
    config(MIN_INSYNC_REPLICAS, Int(1, INT_MAX), "2", Honoured),
    config("preallocate", Boolean, "false", Accepted),
    config("remote.log.copy.disable", Boolean, "false", Only("false", NO_TIERS)),
    config("remote.log.delete.on.disable", Boolean, "false", Only("false", NO_TIERS)),
    config("remote.storage.enable", Boolean, "false", Only("false", NO_TIERS)),
    config("retention.bytes", Long(-1, i64::MAX), "-1", Honoured),
    config("retention.ms", Long(-1, i64::MAX), "604800000", Honoured),
    // One log for all partitions: a partition has no segments of its own.
    config("segment.bytes", Int(14, INT_MAX), "1073741824", Accepted),
    config("segment.index.bytes", Int(4, INT_MAX), "10485760", Accepted),
    config("segment.jitter.ms", Long(0, i64::MAX), "0", Accepted),
    config("segment.ms", Long(1, i64::MAX), "604800000", Accepted),
    config(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Only("false", "a replica without every acknowledged record never becomes leader"),
    ),
];

/// The config of this name.
#[must_use]
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    let found = TOPIC_CONFIGS.binary_search_by(|config| config.name.cmp(name)).ok()?;
    Some(&TOPIC_CONFIGS[found])
}

/// How many replicas must have a record before it is acknowledged.
#[must_use]
pub const fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// The values that a partition works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Largest record batch, in bytes (`max.message.bytes`).
    pub batch_bytes_max: usize,
    /// Whether the leader stamps records with its own time (`message.timestamp.type` is LogAppendTime).
    pub log_append_time: bool,
    /// How far a record's timestamp may lie in the future, in milliseconds (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: i64,
    /// How far it may lie in the past, in milliseconds (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: i64,
    /// How long records are kept, in milliseconds; `None`: for ever (`retention.ms`).
    pub retention_ms: Option<i64>,
    /// How many bytes of records each partition keeps; `None`: all (`retention.bytes`).
    pub retention_bytes: Option<i64>,
}

impl TopicSettings {
    /// What the stored configs, and the defaults of the others, come to.
    #[must_use]
    pub fn of(configs: &BTreeMap<String, String>) -> Self {
        Self::read(configs).expect("configs are validated when they are set, and again when they are loaded")
    }

    /// The same for configs that may not have been validated.
    pub(super) fn read(configs: &BTreeMap<String, String>) -> Option<Self> {
        let value = |name: &str| match configs.get(name) {
            Some(value) => value.as_str(),
            None => topic_config(name).expect("the names below are in the table").default,
        };
        let number = |name: &str| value(name).parse::<i64>().ok();
        let unless_negative = |number: i64| Some(number).filter(|number| *number >= 0);
        Some(Self {
            batch_bytes_max: usize::try_from(number("max.message.bytes")?).ok()?,
            log_append_time: value("message.timestamp.type") == "LogAppendTime",
            timestamp_after_max_ms: number("message.timestamp.after.max.ms")?,
            timestamp_before_max_ms: number("message.timestamp.before.max.ms")?,
            retention_ms: unless_negative(number("retention.ms")?),
            retention_bytes: unless_negative(number("retention.bytes")?),
        })
    }
}

/// The value that a config has on a topic with these configs and this many replicas, and whether it was set there.
#[must_use]
pub fn effective(config: &TopicConfig, configs: &BTreeMap<String, String>, replicas: usize) -> (String, bool) {
    match configs.get(config.name) {
        Some(value) => (value.clone(), true),
        None if config.name == MIN_INSYNC_REPLICAS => (majority(replicas).to_string(), false),
        None => (config.default.to_owned(), false),
    }
}

/// The configs of a new topic with this many replicas.
pub(super) fn initial(
    configs: Vec<(String, Option<String>)>,
    replicas: usize,
) -> Result<BTreeMap<String, String>, Rejection> {
    let operations = configs.into_iter().map(|(name, value)| (name, ConfigOperation::Set(value))).collect();
    altered(BTreeMap::new(), operations, replicas)
}

/// `configs` after these operations, in order.
pub(super) fn altered(
    mut configs: BTreeMap<String, String>,
    operations: Vec<(String, ConfigOperation)>,
    replicas: usize,
) -> Result<BTreeMap<String, String>, Rejection> {
    for (name, operation) in operations {
        let Some(config) = topic_config(&name) else {
            return reject(Reason::InvalidConfig, format!("unknown topic config {name}"));
        };
        let value = match operation {
            ConfigOperation::Delete => None,
            ConfigOperation::Set(value) => Some(given(&name, value)?),
            ConfigOperation::Append(value) => Some(appended(config, &configs, &given(&name, value)?)?),
            ConfigOperation::Subtract(value) => Some(subtracted(config, &configs, &given(&name, value)?)?),
        };
        match value {
            Some(value) => configs.insert(name, validated(config, &value, replicas)?),
            None => configs.remove(&name),
        };
    }
    Ok(configs)
}

fn given(name: &str, value: Option<String>) -> Result<String, Rejection> {
    match value {
        Some(value) if value.len() <= CONFIG_VALUE_BYTES_MAX => Ok(value),
        Some(_) => reject(Reason::InvalidConfig, format!("{name}: longer than {CONFIG_VALUE_BYTES_MAX} bytes")),
        None => reject(Reason::InvalidConfig, format!("{name} has no value; delete it to get its default back")),
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn current<'a>(config: &TopicConfig, configs: &'a BTreeMap<String, String>) -> Result<&'a str, Rejection> {
    match config.kind {
        List(_) => Ok(configs.get(config.name).map_or(config.default, String::as_str)),
        _ => reject(Reason::InvalidConfig, format!("{} is not a list", config.name)),
    }
}

fn appended(config: &TopicConfig, configs: &BTreeMap<String, String>, more: &str) -> Result<String, Rejection> {
    let mut list: Vec<&str> = words(current(config, configs)?).collect();
    for word in words(more) {
        if !list.contains(&word) {
            list.push(word);
        }
    }
    Ok(list.join(","))
}

fn subtracted(config: &TopicConfig, configs: &BTreeMap<String, String>, less: &str) -> Result<String, Rejection> {
    let list: Vec<&str> =
        words(current(config, configs)?).filter(|word| !words(less).any(|gone| gone == *word)).collect();
    Ok(list.join(","))
}

/// The value as it is stored, or why it can't be.
fn validated(config: &TopicConfig, value: &str, replicas: usize) -> Result<String, Rejection> {
    let name = config.name;
    let Some(value) = normalised(config.kind, value.trim()) else {
        let what = format!("{name}: {value:?} is not {}", expectation(config.kind));
        return reject(Reason::InvalidConfig, what);
    };
    match config.effect {
        Only(permitted, reason) if value != permitted => {
            reject(Reason::InvalidConfig, format!("{name} can only be {permitted}: {reason}"))
        }
        _ if name == MIN_INSYNC_REPLICAS => check_min_insync_replicas(value, replicas),
        _ => Ok(value),
    }
}

/// Raft acknowledges with the majority: fewer than that is satisfied as well, more is never waited for.
fn check_min_insync_replicas(value: String, replicas: usize) -> Result<String, Rejection> {
    let majority = majority(replicas);
    match value.parse::<usize>() {
        Ok(wanted) if wanted <= majority => Ok(value),
        _ => {
            let what = format!(
                "min.insync.replicas can be at most {majority} with {replicas} replicas: a record is acknowledged when \
                 the majority has it on disk, the quorum rules"
            );
            reject(Reason::InvalidConfig, what)
        }
    }
}

fn normalised(kind: Kind, value: &str) -> Option<String> {
    match kind {
        Boolean => ["true", "false"].into_iter().find(|word| value.eq_ignore_ascii_case(word)).map(str::to_owned),
        Int(least, most) | Long(least, most) => {
            value.parse().ok().filter(|number| (least..=most).contains(number)).map(|number: i64| number.to_string())
        }
        Ratio => value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).map(|ratio: f64| ratio.to_string()),
        Word(known) => known.contains(&value).then(|| value.to_owned()),
        List(known) => {
            let list: Vec<&str> = words(value).collect();
            let legal = known.is_empty() || (!list.is_empty() && list.iter().all(|word| known.contains(word)));
            legal.then(|| list.join(","))
        }
    }
}

fn expectation(kind: Kind) -> String {
    match kind {
        Boolean => "true or false".to_owned(),
        Int(least, most) | Long(least, most) => format!("a number from {least} to {most}"),
        Ratio => "a number from 0 to 1".to_owned(),
        Word(known) => format!("one of {}", known.join(", ")),
        List(known) => format!("a list of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<BTreeMap<String, String>, Rejection> {
        initial(vec![(name.to_owned(), Some(value.to_owned()))], 3)
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_can_be_set() {
        assert!(TOPIC_CONFIGS.is_sorted_by(|left, right| left.name < right.name));
        for config in TOPIC_CONFIGS {
            let stored = set(config.name, config.default).unwrap();
            assert_eq!(stored[config.name], config.default, "a default is written as it is stored");
        }
    }

    #[test]
    fn what_is_not_kept_is_refused_with_a_reason() {
        for (name, value) in [
            ("unclean.leader.election.enable", "true"),
            ("remote.storage.enable", "TRUE"),
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("cleanup.policy", ""),
            ("min.insync.replicas", "3"),
            ("min.insync.replicas", "0"),
            ("no.such.config", "1"),
            ("message.format.version", "3.0"),
            ("max.message.bytes", "lots"),
            ("max.message.bytes", "-1"),
            ("max.message.bytes", "999999999"),
            ("retention.ms", "9223372036854775808"),
            ("message.timestamp.type", "logappendtime"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("compression.type", &"x".repeat(5000)),
        ] {
            let rejection = set(name, value).expect_err(name);
            assert_eq!(rejection.reason, Reason::InvalidConfig);
            assert!(rejection.message.contains(name), "{}", rejection.message);
        }
        assert!(initial(vec![("retention.ms".to_owned(), None)], 3).is_err(), "null is no value");
    }

    #[test]
    fn values_are_stored_as_they_will_be_shown() {
        assert_eq!(set("preallocate", " True ").unwrap()["preallocate"], "true");
        assert_eq!(set("retention.ms", "0042").unwrap()["retention.ms"], "42");
        assert_eq!(set("cleanup.policy", " delete ,").unwrap()["cleanup.policy"], "delete");
        assert_eq!(set("min.insync.replicas", "2").unwrap()["min.insync.replicas"], "2");
    }

    #[test]
    fn lists_grow_and_shrink_and_others_do_not() {
        let name = "leader.replication.throttled.replicas".to_owned();
        let add = |value: &str| (name.clone(), ConfigOperation::Append(Some(value.to_owned())));
        let take = |value: &str| (name.clone(), ConfigOperation::Subtract(Some(value.to_owned())));
        let steps = vec![add("0:1"), add("0:2,0:1"), take("0:1,9:9")];
        assert_eq!(altered(BTreeMap::new(), steps, 3).unwrap()[&name], "0:2");
        let on_a_number = vec![("retention.ms".to_owned(), ConfigOperation::Append(Some("1".to_owned())))];
        assert_eq!(altered(BTreeMap::new(), on_a_number, 3).unwrap_err().reason, Reason::InvalidConfig);
        let emptied = vec![("cleanup.policy".to_owned(), ConfigOperation::Subtract(Some("delete".to_owned())))];
        assert_eq!(altered(BTreeMap::new(), emptied, 3).unwrap_err().reason, Reason::InvalidConfig);
    }

    #[test]
    fn what_is_shown_is_what_was_set_or_what_holds() {
        let shown = |name: &str, configs: &BTreeMap<String, String>, replicas| {
            effective(topic_config(name).unwrap(), configs, replicas)
        };
        let configs = set("retention.ms", "5").unwrap();
        assert_eq!(shown("retention.ms", &configs, 3), ("5".to_owned(), true));
        assert_eq!(shown("segment.ms", &configs, 3), ("604800000".to_owned(), false));
        for (replicas, majority) in [(1, "1"), (2, "2"), (3, "2"), (5, "3")] {
            assert_eq!(shown("min.insync.replicas", &configs, replicas), (majority.to_owned(), false));
        }
    }

    #[test]
    fn settings_follow_the_configs_and_their_deletion() {
        let defaults = TopicSettings::of(&BTreeMap::new());
        assert_eq!((defaults.batch_bytes_max, defaults.retention_bytes), (1_048_588, None));
        assert_eq!(defaults.retention_ms, Some(604_800_000));
        let set = |name: &str, value: &str| (name.to_owned(), ConfigOperation::Set(Some(value.to_owned())));
        let steps = vec![set("retention.ms", "-1"), set("message.timestamp.type", "LogAppendTime")];
        let configs = altered(BTreeMap::new(), steps, 3).unwrap();
        let settings = TopicSettings::of(&configs);
        assert_eq!((settings.retention_ms, settings.log_append_time), (None, true));
        let undone = altered(configs, vec![("retention.ms".to_owned(), ConfigOperation::Delete)], 3).unwrap();
        assert_eq!(TopicSettings::of(&undone).retention_ms, Some(604_800_000));
    }
}
