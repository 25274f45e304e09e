//! DescribeConfigs (key 32), versions 1 to 4: the settings of topics and nodes, defaults included.

use super::Api;
use crate::broker::{Broker, ConfigEntry, ConfigResource, ConfigSource, ConfigType, Error, ErrorKind, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, always, since};
use crate::kafka::translate;
use crate::types::NodeId;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
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
    let resources: Vec<Result<ConfigResource>> = request.resources.iter().map(resource).collect();
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

fn resource(asked: &DescribeConfigsResource) -> Result<ConfigResource> {
    match asked.resource_type {
        TOPIC => Ok(ConfigResource::Topic(asked.resource_name.as_str().into())),
        BROKER if asked.resource_name.is_empty() => Ok(ConfigResource::Node(None)),
        BROKER => {
            let id = asked.resource_name.parse::<u32>();
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

fn config(entry: &ConfigEntry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym::default()
        .with_name(translate::text(&entry.name))
        .with_value(shown_value(entry))
        .with_source(config_source(entry.source));
    DescribeConfigsResourceResult::default()
        .with_name(translate::text(&entry.name))
        .with_value(shown_value(entry))
        .with_read_only(entry.read_only)
        .with_config_source(config_source(entry.source))
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(if synonyms { vec![synonym] } else { vec![] })
        .with_config_type(config_type(entry.kind))
        .with_documentation(entry.documentation.as_deref().filter(|_| documentation).map(translate::text))
}

/// A setting's value, unless it is a secret.
pub(super) fn shown_value(entry: &ConfigEntry) -> Option<StrBytes> {
    let secret = entry.sensitive || entry.kind == ConfigType::Password;
    entry.value.as_deref().filter(|_| !secret).map(translate::text)
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

    fn entry(sensitive: bool) -> ConfigEntry {
        ConfigEntry {
            name: "retention.ms".into(),
            value: Some("1".into()),
            source: ConfigSource::Default,
            kind: ConfigType::Long,
            read_only: false,
            sensitive,
            documentation: Some("how long".into()),
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = config(&entry(true), true, true);
        assert_eq!((shown.value, shown.synonyms[0].value.clone()), (None, None));
        assert!(config(&entry(false), false, false).value.is_some());
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
