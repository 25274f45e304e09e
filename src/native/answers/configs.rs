//! A topic's settings: describing and changing them.

use super::admin::only;
use super::{Failure, Outcome};
use crate::broker::{
    Broker, ConfigChanges, ConfigEffect, ConfigEntry, ConfigOperation, ConfigResource, ConfigSource, TopicName,
};
use crate::proto::native::{self, response};
use std::time::Duration;

/// Every setting of a topic.
pub(super) async fn describe<B: Broker>(broker: &B, asked: native::DescribeTopicConfigsRequest) -> Outcome {
    let entries = only(broker.describe_configs(vec![resource(&asked.topic)]).await)?;
    let configs = entries.into_iter().filter(|entry| !entry.sensitive).map(config).collect();
    Ok(response::Body::DescribeTopicConfigs(native::DescribeTopicConfigsResponse { configs }))
}

/// Changes settings of a topic, or only says whether it could.
pub(super) async fn alter<B: Broker>(broker: &B, asked: native::AlterTopicConfigsRequest, time: Duration) -> Outcome {
    let set = asked.set.into_iter().map(|config| (config.name, ConfigOperation::Set(config.value)));
    let reset = asked.reset.into_iter().map(|name| (name, ConfigOperation::Delete));
    let operations = set.chain(reset).collect();
    let changes = ConfigChanges::new(resource(&asked.topic), false, operations).map_err(Failure::from)?;
    only(broker.alter_configs(vec![changes], asked.validate_only, time).await)?;
    Ok(response::Body::AlterTopicConfigs(native::AlterTopicConfigsResponse {}))
}

fn resource(topic: &str) -> ConfigResource {
    ConfigResource::Topic(TopicName::from(topic))
}

fn config(entry: ConfigEntry) -> native::TopicConfig {
    let effect = match entry.effect {
        ConfigEffect::Honoured => native::ConfigEffect::Honoured,
        ConfigEffect::Accepted => native::ConfigEffect::Accepted,
        ConfigEffect::Fixed => native::ConfigEffect::Fixed,
    };
    native::TopicConfig {
        name: entry.name,
        value: entry.value.unwrap_or_default(),
        is_set: entry.source == ConfigSource::Topic,
        default_value: entry.inherited.map(|(_, value)| value).unwrap_or_default(),
        effect: effect.into(),
        documentation: entry.documentation.unwrap_or_default().to_owned(),
    }
}
