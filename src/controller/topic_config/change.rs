//! Changes of settings: what is asked for becomes what is stored, or a rejection that says why.
//!
//! A change is applied to a topic whole or not at all, and doing it twice is doing it once: so whoever waits for a
//! change to arrive can tell that it has from its being without effect.

use super::Kind::{Boolean, Int, List, Long, Ratio, Word};
use super::table::MIN_INSYNC_REPLICAS;
use super::{CONFIG_VALUE_BYTES_MAX, Effect, Kind, TopicConfig, majority, topic_config};
use crate::controller::command::{ConfigChanges, ConfigOperation, Reason, Rejection, reject};
use std::collections::BTreeMap;

/// The configs of a new topic with this many replicas.
pub(in crate::controller) fn initial(
    configs: Vec<(String, Option<String>)>,
    replicas: usize,
) -> Result<BTreeMap<String, String>, Rejection> {
    let operations = configs.into_iter().map(|(name, value)| (name, ConfigOperation::Set(value))).collect();
    altered(BTreeMap::new(), operations, replicas)
}

/// The configs of a topic after these changes.
pub(in crate::controller) fn changed(
    changes: ConfigChanges,
    configs: &BTreeMap<String, String>,
    replicas: usize,
) -> Result<BTreeMap<String, String>, Rejection> {
    let before = if changes.replace { BTreeMap::new() } else { configs.clone() };
    altered(before, changes.operations, replicas)
}

/// Whether configs show that these changes have been made: making them again would change nothing.
#[must_use]
pub fn is_made(changes: &ConfigChanges, configs: &BTreeMap<String, String>, replicas: usize) -> bool {
    changed(changes.clone(), configs, replicas).is_ok_and(|after| after == *configs)
}

/// `configs` after these operations, in order.
fn altered(
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
        let what = format!("{name}: {value:?} is not {}", config.kind.expectation());
        return reject(Reason::InvalidConfig, what);
    };
    match config.effect {
        Effect::Only(permitted, reason) if value != permitted => {
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

impl Kind {
    /// What a value must be, in words.
    #[must_use]
    pub fn expectation(self) -> String {
        match self {
            Boolean => "true or false".to_owned(),
            Int(least, i64::MAX) | Long(least, i64::MAX) => format!("a number of at least {least}"),
            Int(least, most) | Long(least, most) => format!("a number from {least} to {most}"),
            Ratio => "a number from 0 to 1".to_owned(),
            Word(known) => format!("one of {}", known.join(", ")),
            List([]) => "a list of words".to_owned(),
            List(known) => format!("a list of {}", known.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TOPIC_CONFIGS, TopicSettings, effective};
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

    /// Values that a setting takes and that are not its default.
    fn other_values(config: &TopicConfig) -> Vec<String> {
        let candidates: Vec<String> = match config.kind {
            Boolean => vec!["true".to_owned(), "false".to_owned()],
            Int(least, _) | Long(least, _) => (0..3).map(|more| (least + more).to_string()).collect(),
            Ratio => vec!["0.25".to_owned()],
            Word(words) | List(words) => words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let taken = candidates.into_iter().filter(|value| set(config.name, value).is_ok());
        taken.filter(|value| value != config.default).collect()
    }

    /// The table's word for what a setting does, against what partitions are given to work with.
    #[test]
    fn honoured_settings_are_read_and_others_are_not() {
        let defaults = TopicSettings::of(&BTreeMap::new());
        for config in TOPIC_CONFIGS.iter().filter(|config| config.name != MIN_INSYNC_REPLICAS) {
            let values = other_values(config);
            let read = values.iter().any(|value| TopicSettings::of(&set(config.name, value).unwrap()) != defaults);
            assert_eq!(read, config.effect == Effect::Honoured, "{}: {values:?}", config.name);
            if let Effect::Only(permitted, _) = config.effect {
                assert_eq!((values, permitted), (vec![], config.default), "{} has one value", config.name);
            }
        }
    }

    /// What a waiting administrator relies on: a change that has arrived changes nothing any more.
    #[test]
    fn a_change_that_is_made_shows() {
        let list = "leader.replication.throttled.replicas";
        let before = BTreeMap::from([(list.to_owned(), "0:1,0:2".to_owned())]);
        let operations = [
            ("retention.ms", ConfigOperation::Set(Some(" 042".to_owned()))),
            ("segment.ms", ConfigOperation::Delete),
            (list, ConfigOperation::Append(Some("0:3".to_owned()))),
            (list, ConfigOperation::Subtract(Some("0:1".to_owned()))),
        ];
        let operations = operations.map(|(name, operation)| (name.to_owned(), operation)).to_vec();
        let mut changes = ConfigChanges { name: "t".to_owned(), replace: false, operations };
        assert!(!is_made(&changes, &before, 3));
        let after = changed(changes.clone(), &before, 3).unwrap();
        assert!(is_made(&changes, &after, 3));
        assert!(!is_made(&changes, &BTreeMap::new(), 3));
        changes = ConfigChanges { replace: true, operations: changes.operations[..1].to_vec(), ..changes };
        assert!(!is_made(&changes, &after, 3), "what isn't named is still there");
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
