//! Topic configs: one table of names, defaults and what may be set, from which validation, storage and the answers of
//! DescribeConfigs come.
//!
//! Names and defaults are Kafka 4.1's. A config either does what it says, or is accepted because nothing a client can
//! see depends on it, or is refused with the reason: a promise that is not kept must not be taken.

mod change;
mod table;

pub use change::is_made;
pub(super) use change::{changed, initial};
pub use table::TOPIC_CONFIGS;

use std::collections::BTreeMap;
use table::MIN_INSYNC_REPLICAS;

/// Longest value, in bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4096;
/// Largest record batch that a topic may allow, in bytes. Bounds what one request can pin in memory.
pub const MESSAGE_BYTES_LIMIT: i64 = 64 << 20;

/// One topic config.
#[derive(Debug)]
pub struct TopicConfig {
    /// Kafka's name of it.
    pub name: &'static str,
    /// Kafka's name of the node's setting that a topic without it inherits; empty if there is none.
    pub inherits: &'static str,
    /// The type that DescribeConfigs says.
    pub kind: Kind,
    /// What holds when it isn't set. For `min.insync.replicas` the majority of the replicas takes its place.
    pub default: &'static str,
    /// What becomes of a value.
    pub effect: Effect,
    /// What it is for; of one that is only accepted, why nothing depends on it.
    pub meaning: &'static str,
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

/// Whether the config's default follows from the number of replicas.
#[must_use]
pub fn depends_on_replicas(config: &TopicConfig) -> bool {
    config.name == MIN_INSYNC_REPLICAS
}

/// The value that a config has on a topic with these configs and this many replicas, and whether it was set there.
#[must_use]
pub fn effective(config: &TopicConfig, configs: &BTreeMap<String, String>, replicas: usize) -> (String, bool) {
    match configs.get(config.name) {
        Some(value) => (value.clone(), true),
        None if depends_on_replicas(config) => (majority(replicas).to_string(), false),
        None => (config.default.to_owned(), false),
    }
}
