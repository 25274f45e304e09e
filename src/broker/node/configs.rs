//! Settings: what holds for topics and for this node, and changes of topics' settings.

use super::Inner;
use super::admin::rejected;
use crate::broker::admin::{
    ConfigChanges, ConfigEffect, ConfigEntry, ConfigOperation, ConfigResource, ConfigSource, ConfigType,
};
use crate::broker::{Error, ErrorKind, Result, TopicName};
use crate::controller::command::{self, Answer, Command};
use crate::controller::topic_config::{self, Effect, Kind, TOPIC_CONFIGS, TopicConfig};
use crate::controller::view::MetadataView;
use crate::storage::Engine;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long an answer waits for this node's own copy of the metadata. What is decided arrives within milliseconds; it
/// never shows if somebody else changes it back at once.
const OWN_COPY_PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn describe<E: Engine + Clone + 'static>(
    inner: &Inner<E>,
    resource: &ConfigResource,
) -> Result<Vec<ConfigEntry>> {
    match resource {
        ConfigResource::Topic(name) => {
            let metadata = inner.views.metadata();
            let topic = metadata.topic_named(name.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
            Ok(entries(&topic.configs, topic.replication_factor()))
        }
        // Nothing is ever set for all nodes at run time, and defaults belong to the single nodes, as in Kafka.
        ConfigResource::Node(None) => Ok(Vec::new()),
        ConfigResource::Node(Some(node)) if *node == inner.node => Ok(node_entries(inner)),
        ConfigResource::Node(_) => Err(Error::new(ErrorKind::InvalidRequest, "ask the node itself for its settings")),
    }
}

/// The settings of a topic with these configs and this many replicas.
pub(super) fn entries(configs: &BTreeMap<String, String>, replicas: usize) -> Vec<ConfigEntry> {
    let entry = |config: &TopicConfig| {
        let (value, is_set) = topic_config::effective(config, configs, replicas);
        let (default, _) = topic_config::effective(config, &BTreeMap::new(), replicas);
        let inherits = if config.inherits.is_empty() { config.name } else { config.inherits };
        ConfigEntry {
            name: config.name.to_owned(),
            value: Some(value),
            source: if is_set { ConfigSource::Topic } else { ConfigSource::Default },
            kind: kind(config),
            read_only: false,
            sensitive: false,
            effect: effect(config),
            inherited: Some((inherits.to_owned(), default)),
            documentation: documentation(config),
        }
    };
    TOPIC_CONFIGS.iter().map(entry).collect()
}

const fn kind(config: &TopicConfig) -> ConfigType {
    match config.kind {
        Kind::Boolean => ConfigType::Boolean,
        Kind::Int(..) => ConfigType::Int,
        Kind::Long(..) => ConfigType::Long,
        Kind::Ratio => ConfigType::Double,
        Kind::Word(_) => ConfigType::Text,
        Kind::List(..) => ConfigType::List,
    }
}

const fn effect(config: &TopicConfig) -> ConfigEffect {
    match config.effect {
        Effect::Honoured => ConfigEffect::Honoured,
        Effect::Accepted => ConfigEffect::Accepted,
        Effect::Only(..) => ConfigEffect::Fixed,
    }
}

/// What a setting means and what comes of it, made once.
fn documentation(config: &TopicConfig) -> Option<&'static str> {
    static TEXTS: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
        let text = |config: &TopicConfig| match config.effect {
            Effect::Honoured => config.meaning.to_owned(),
            Effect::Accepted => format!("Without effect here. {}", config.meaning),
            Effect::Only(permitted, reason) => format!("{} It can only be {permitted}: {reason}.", config.meaning),
        };
        TOPIC_CONFIGS.iter().map(|config| (config.name, text(config))).collect()
    });
    TEXTS.get(config.name).map(String::as_str)
}

/// What this node's file says, and what topics inherit from every node.
fn node_entries<E: Engine + Clone + 'static>(inner: &Inner<E>) -> Vec<ConfigEntry> {
    let entry = |name: &str, value: String, kind, source| ConfigEntry {
        name: name.to_owned(),
        value: Some(value),
        source,
        kind,
        read_only: true,
        sensitive: false,
        effect: ConfigEffect::Honoured,
        inherited: None,
        documentation: None,
    };
    let settings = &inner.settings;
    let from_file = [
        ("auto.create.topics.enable", settings.auto_create_topics.to_string(), ConfigType::Boolean),
        ("broker.id", inner.node.to_string(), ConfigType::Int),
        ("default.replication.factor", settings.default_replication_factor.to_string(), ConfigType::Int),
        ("node.id", inner.node.to_string(), ConfigType::Int),
        ("num.partitions", settings.default_partitions.to_string(), ConfigType::Int),
    ];
    let mut entries: Vec<ConfigEntry> =
        from_file.into_iter().map(|(name, value, kind)| entry(name, value, kind, ConfigSource::File)).collect();
    if let Some(rack) = inner.views.metadata().broker(inner.node).and_then(|broker| broker.rack.clone()) {
        entries.push(entry("broker.rack", rack, ConfigType::Text, ConfigSource::File));
    }
    entries.push(entry("delete.topic.enable", "true".to_owned(), ConfigType::Boolean, ConfigSource::Default));
    // What has no effect on a topic is no setting of the node's either; the majority has no number before there are
    // replicas.
    let inherited = TOPIC_CONFIGS.iter().filter(|config| {
        !config.inherits.is_empty() && config.effect != Effect::Accepted && !topic_config::depends_on_replicas(config)
    });
    entries.extend(inherited.map(|config| {
        let described = entry(config.inherits, config.default.to_owned(), kind(config), ConfigSource::Default);
        ConfigEntry { documentation: documentation(config), effect: effect(config), ..described }
    }));
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    entries
}

pub(super) async fn alter<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    changes: Vec<ConfigChanges>,
    validate_only: bool,
    timeout: Duration,
) -> Vec<Result<()>> {
    let deadline = Instant::now() + timeout;
    let wanted: Vec<Result<command::ConfigChanges>> = changes.into_iter().map(topic_changes).collect();
    let topics: Vec<_> = wanted.iter().filter_map(|changes| changes.as_ref().ok().cloned()).collect();
    let decided =
        if topics.is_empty() { Vec::new() } else { decide(&inner, topics.clone(), validate_only, timeout).await };
    if !validate_only {
        let made = topics.iter().zip(&decided).filter(|(_, result)| result.is_ok());
        let deadline = deadline.min(Instant::now() + OWN_COPY_PATIENCE);
        for (changes, _) in made {
            inner.wait_for_configs(changes, deadline).await;
        }
    }
    let mut decided = decided.into_iter();
    let answer = |changes: Result<_>| changes.and_then(|_| decided.next().expect("one for each topic"));
    wanted.into_iter().map(answer).collect()
}

async fn decide<E: Engine + Clone + 'static>(
    inner: &Inner<E>,
    topics: Vec<command::ConfigChanges>,
    validate_only: bool,
    timeout: Duration,
) -> Vec<Result<()>> {
    let count = topics.len();
    let command = Command::AlterTopicConfigs { topics, validate_only };
    match inner.controller.decide(&command, timeout).await {
        Ok(Answer::Changed(changed)) if changed.len() == count => {
            changed.into_iter().map(|(_, result)| result.map_err(rejected)).collect()
        }
        Ok(_) => vec![Err(ErrorKind::Internal.into()); count],
        Err(error) => vec![Err(error); count],
    }
}

/// The changes in the controller's words.
fn topic_changes(changes: ConfigChanges) -> Result<command::ConfigChanges> {
    let name = match changes.resource {
        ConfigResource::Topic(name) => topic_name(&name)?,
        ConfigResource::Node(_) => {
            let what = "a node's settings are in its file: change them there, and restart the node";
            return Err(Error::new(ErrorKind::InvalidRequest, what));
        }
    };
    let operation = |(name, operation): (String, ConfigOperation)| {
        let operation = match operation {
            ConfigOperation::Set(value) => command::ConfigOperation::Set(Some(value)),
            ConfigOperation::Delete => command::ConfigOperation::Delete,
            ConfigOperation::Append(value) => command::ConfigOperation::Append(Some(value)),
            ConfigOperation::Subtract(value) => command::ConfigOperation::Subtract(Some(value)),
        };
        (name, operation)
    };
    let operations = changes.operations.into_iter().map(operation).collect();
    Ok(command::ConfigChanges { name, replace: changes.replace, operations })
}

fn topic_name(name: &TopicName) -> Result<String> {
    match name.as_str() {
        "" => Err(Error::new(ErrorKind::InvalidRequest, "topics have no common settings; name one")),
        name => Ok(name.to_owned()),
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// Waits until this node's copy of the metadata has the changes, so that who asks it next finds them.
    async fn wait_for_configs(&self, changes: &command::ConfigChanges, deadline: Instant) {
        let arrived = |view: &Arc<MetadataView>| match view.topic_named(&changes.name) {
            Some(topic) => topic_config::is_made(changes, &topic.configs, topic.replication_factor()),
            None => true, // deleted meanwhile
        };
        let mut metadata = self.views.watch_metadata();
        let _late = timeout_at(deadline, metadata.wait_for(arrived)).await;
    }
}
