//! DescribeConfigs (key 32), versions 1 to 4: the settings of topics and nodes, defaults included.

use super::Api;
use crate::broker::{Broker, ConfigEntry, ConfigResource, ConfigSource, ConfigType, Error, ErrorKind, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, always, since};
use crate::kafka::translate;
use crate::types::NodeId;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::DescribeConfigs,
    (1, 4),
    Shape::of(&[
        always(Kind::Array(&Kind::Struct(&RESOURCE))), // resources
        always(INT8),                                  // include synonyms
        since(3, INT8),                                // include documentation
    ]),
);
const RESOURCE: Shape = Shape::of(&[
    always(INT8),                             // resource type
    always(Kind::Text),                       // resource name
    always(Kind::NullableArray(&Kind::Text)), // configuration keys
]);

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Describes each resource once, however often it was named: an answer must not grow with repetitions.
pub async fn answer<B: Broker>(broker: &B, mut request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut seen = BTreeSet::new();
    request.resources.retain(|asked| seen.insert((asked.resource_type, asked.resource_name.clone())));
    let resources: Vec<Result<ConfigResource>> =
        request.resources.iter().map(|asked| resource(asked.resource_type, &asked.resource_name)).collect();
    let valid = resources.iter().filter_map(|resource| resource.as_ref().ok().cloned()).collect::<Vec<_>>();
    let asked = valid.len();
    let described = broker.describe_configs(valid).await;
    assert_eq!(described.len(), asked, "one answer per resource");
    let mut described = described.into_iter();
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let results = request.resources.into_iter().zip(resources).map(|(asked, resource)| {
        let entries = resource.and_then(|_| described.next().expect("counted above"));
        let wire = DescribeConfigsResult::default().with_resource_type(asked.resource_type);
        let wire = match entries {
            Ok(entries) => {
                let wanted = entries.iter().filter(|entry| is_wanted(entry, asked.configuration_keys.as_deref()));
                wire.with_configs(wanted.map(|entry| config(entry, synonyms, documentation)).collect())
            }
            Err(error) => {
                wire.with_error_code(error_codes::code(&error)).with_error_message(translate::message(&error))
            }
        };
        wire.with_resource_name(asked.resource_name)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What a request names by type and name.
pub(super) fn resource(kind: i8, name: &StrBytes) -> Result<ConfigResource> {
    match kind {
        TOPIC => Ok(ConfigResource::Topic(name.as_str().into())),
        BROKER if name.is_empty() => Ok(ConfigResource::Node(None)),
        BROKER => {
            let id = name.parse::<u32>();
            let id = id.map_err(|_| Error::new(ErrorKind::InvalidRequest, "a broker is named by its number"))?;
            Ok(ConfigResource::Node(Some(NodeId(id))))
        }
        _ => Err(Error::new(ErrorKind::InvalidRequest, "only topics and brokers have settings")),
    }
}

/// No keys and null both mean every key.
fn is_wanted(entry: &ConfigEntry, keys: Option<&[StrBytes]>) -> bool {
    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key.as_str() == entry.name))
}

fn config(entry: &ConfigEntry, with_synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(translate::text(&entry.name))
        .with_value(shown_value(entry))
        .with_read_only(entry.read_only)
        .with_config_source(config_source(entry.source))
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(if with_synonyms { synonyms(entry) } else { vec![] })
        .with_config_type(config_type(entry.kind))
        .with_documentation(entry.documentation.filter(|_| documentation).map(translate::text))
}

/// Where the value comes from, and where it would come from without that (KIP-226): what is set on the topic, then what
/// it inherits under the name that the setting has among a node's.
fn synonyms(entry: &ConfigEntry) -> Vec<DescribeConfigsSynonym> {
    let synonym = |name: &str, value, source| {
        DescribeConfigsSynonym::default()
            .with_name(translate::text(name))
            .with_value(value)
            .with_source(config_source(source))
    };
    let own = synonym(&entry.name, shown_value(entry), entry.source);
    match &entry.inherited {
        Some((name, value)) => {
            let value = Some(translate::text(value)).filter(|_| !is_secret(entry));
            let inherited = synonym(name, value, ConfigSource::Default);
            if entry.source == ConfigSource::Default { vec![inherited] } else { vec![own, inherited] }
        }
        None => vec![own],
    }
}

fn is_secret(entry: &ConfigEntry) -> bool {
    entry.sensitive || entry.kind == ConfigType::Password
}

/// A setting's value, unless it is a secret.
pub(super) fn shown_value(entry: &ConfigEntry) -> Option<StrBytes> {
    entry.value.as_deref().filter(|_| !is_secret(entry)).map(translate::text)
}

/// Kafka's number for a source (DescribeConfigsResponse.ConfigSource).
pub(super) const fn config_source(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => 1,
        ConfigSource::Node => 2,
        ConfigSource::Cluster => 3,
        ConfigSource::File => 4,
        ConfigSource::Default => 5,
    }
}

/// Kafka's number for a type (DescribeConfigsResponse.ConfigType).
const fn config_type(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::Text => 2,
        ConfigType::Int => 3,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
        ConfigType::Password => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::ConfigEffect;

    fn entry(sensitive: bool) -> ConfigEntry {
        ConfigEntry {
            name: "retention.ms".into(),
            value: Some("1".into()),
            source: ConfigSource::Default,
            kind: ConfigType::Long,
            read_only: false,
            sensitive,
            effect: ConfigEffect::Honoured,
            inherited: Some(("log.retention.ms".into(), "7".into())),
            documentation: Some("how long"),
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = config(&entry(true), true, true);
        assert_eq!((shown.value, shown.synonyms[0].value.clone()), (None, None));
        let set = ConfigEntry { source: ConfigSource::Topic, ..entry(true) };
        assert!(config(&set, true, true).synonyms.iter().all(|synonym| synonym.value.is_none()));
        assert!(config(&entry(false), false, false).value.is_some());
    }

    #[test]
    fn synonyms_say_what_is_set_and_what_it_hides() {
        let shown = |source| {
            let shown = config(&ConfigEntry { source, ..entry(false) }, true, false).synonyms;
            let shown =
                shown.iter().map(|synonym| format!("{}:{}={:?}", synonym.source, &*synonym.name, synonym.value));
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(ConfigSource::Default), "5:log.retention.ms=Some(\"7\")");
        assert_eq!(shown(ConfigSource::Topic), "1:retention.ms=Some(\"1\") 5:log.retention.ms=Some(\"7\")");
    }

    #[test]
    fn keys_choose_and_no_keys_choose_all() {
        let key = |key: &str| [translate::text(key)];
        assert!(is_wanted(&entry(false), None));
        assert!(is_wanted(&entry(false), Some(&[])));
        assert!(is_wanted(&entry(false), Some(&key("retention.ms"))));
        assert!(!is_wanted(&entry(false), Some(&key("retention.bytes"))));
    }
}
