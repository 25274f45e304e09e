//! IncrementalAlterConfigs (key 44), versions 0 and 1: changes of single settings; the others stay as they are
//! (KIP-339).

use super::Api;
use super::alter_configs::{alter, given};
use super::describe_configs::resource;
use crate::broker::{Broker, ConfigChanges, ConfigOperation, Error, ErrorKind, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, always};
use crate::kafka::translate;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig as IncrementalConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::IncrementalAlterConfigs,
    (0, 1),
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
const CONFIG: Shape = Shape::of(&[
    always(Kind::Text),         // name
    always(INT8),               // operation
    always(Kind::NullableText), // value
]);

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Changes the settings of every resource on its own.
pub async fn answer<B: Broker>(broker: &B, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
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
    let responses = request.resources.into_iter().zip(results).map(wire).collect();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn changes(asked: &AlterConfigsResource) -> Result<ConfigChanges> {
    let operations = asked.configs.iter().map(|config| Ok((config.name.to_string(), operation(config)?)));
    let operations = operations.collect::<Result<_>>()?;
    ConfigChanges::new(resource(asked.resource_type, &asked.resource_name)?, false, operations)
}

/// A deletion may come with a value, which means nothing.
fn operation(config: &IncrementalConfig) -> Result<ConfigOperation> {
    let value = || given(&config.name, config.value.as_ref());
    Ok(match config.config_operation {
        SET => ConfigOperation::Set(value()?),
        DELETE => ConfigOperation::Delete,
        APPEND => ConfigOperation::Append(value()?),
        SUBTRACT => ConfigOperation::Subtract(value()?),
        other => return Err(Error::new(ErrorKind::InvalidRequest, format!("there is no operation {other}"))),
    })
}
