//! AlterConfigs (key 33), versions 0 to 2: what a topic's settings are to be from now on; what isn't named goes back to
//! what it inherits. Older clients know no other way (kafka-python 2, kafkajs).

use super::Api;
use super::describe_configs::resource;
use crate::broker::{Broker, ConfigChanges, ConfigOperation, Error, ErrorKind, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, always};
use crate::kafka::translate;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::AlterConfigs,
    (0, 2),
    Shape::of(&[
        always(Kind::Array(&Kind::Struct(&RESOURCE))), // resources
        always(INT8),                                  // validate only
    ]),
);
const RESOURCE: Shape = Shape::of(&[
    always(INT8),                                // resource type
    always(Kind::Text),                          // resource name
    always(Kind::Array(&Kind::Struct(&CONFIG))), // configs
]);
const CONFIG: Shape = Shape::of(&[always(Kind::Text), always(Kind::NullableText)]);

/// How long the controller may take. The requests name no time; clients wait for 30 s or longer by default.
const PATIENCE: Duration = Duration::from_secs(25);

/// Changes the settings of every resource on its own.
pub async fn answer<B: Broker>(broker: &B, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let asked = request.resources.iter().map(|asked| ((asked.resource_type, &asked.resource_name), changes(asked)));
    let results = alter(broker, asked.collect(), request.validate_only).await;
    let wire = |(asked, result): (AlterConfigsResource, Result<()>)| {
        let wire = AlterConfigsResourceResponse::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name);
        match result {
            Ok(()) => wire.with_error_message(None),
            Err(error) => {
                wire.with_error_code(error_codes::code(&error)).with_error_message(translate::message(&error))
            }
        }
    };
    AlterConfigsResponse::default().with_responses(request.resources.into_iter().zip(results).map(wire).collect())
}

fn changes(asked: &AlterConfigsResource) -> Result<ConfigChanges> {
    let operations = asked.configs.iter().map(|config| {
        let value = given(&config.name, config.value.as_ref())?;
        Ok((config.name.to_string(), ConfigOperation::Set(value)))
    });
    let operations = operations.collect::<Result<_>>()?;
    ConfigChanges::new(resource(asked.resource_type, &asked.resource_name)?, true, operations)
}

/// A value that must be there: null is how nobody asks for the default.
pub(super) fn given(name: &StrBytes, value: Option<&StrBytes>) -> Result<String> {
    value
        .map(ToString::to_string)
        .ok_or_else(|| Error::new(ErrorKind::InvalidRequest, format!("setting {} has no value", name.as_str())))
}

/// Type and name of a resource, and what is to become of its settings.
pub(super) type Asked<'a> = ((i8, &'a StrBytes), Result<ConfigChanges>);

/// The outcome for each resource, in the order of the request. One named twice is refused both times, as in Kafka.
pub(super) async fn alter<B: Broker>(broker: &B, asked: Vec<Asked<'_>>, validate_only: bool) -> Vec<Result<()>> {
    let mut named: BTreeMap<(i8, &StrBytes), usize> = BTreeMap::new();
    for (resource, _) in &asked {
        *named.entry(*resource).or_default() += 1;
    }
    let once = |(resource, changes): Asked<'_>| match named[&resource] {
        1 => changes,
        _ => Err(Error::new(ErrorKind::InvalidRequest, "the request names this resource more than once")),
    };
    let wanted: Vec<Result<ConfigChanges>> = asked.into_iter().map(once).collect();
    let valid: Vec<_> = wanted.iter().filter_map(|changes| changes.as_ref().ok().cloned()).collect();
    let count = valid.len();
    let altered = broker.alter_configs(valid, validate_only, PATIENCE).await;
    assert_eq!(altered.len(), count, "one answer per resource");
    let mut altered = altered.into_iter();
    wanted.into_iter().map(|wanted| wanted.and_then(|_| altered.next().expect("counted above"))).collect()
}
