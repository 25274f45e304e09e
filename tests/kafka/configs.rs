//! Settings: described and changed, each resource on its own, and nothing is guessed.

use crate::client::{Client, Server};
use ackord::kafka::Limits;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A resource and its changes: name, operation, value.
type Change<'a> = (i8, &'a str, &'a [(&'a str, i8, Option<&'a str>)]);

/// Name, error code and message of each answer.
async fn alter(client: &mut Client, changes: &[Change<'_>], validate_only: bool) -> Vec<(String, i16, String)> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| {
        let config = AlterableConfig::default().with_name(text(name)).with_config_operation(*operation);
        config.with_value(value.map(text))
    };
    let resource = |(kind, name, configs): &Change<'_>| {
        let resource = AlterConfigsResource::default().with_resource_type(*kind).with_resource_name(text(name));
        resource.with_configs(configs.iter().map(config).collect())
    };
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(changes.iter().map(resource).collect())
        .with_validate_only(validate_only);
    let answer = client.call(ApiKey::IncrementalAlterConfigs, 1, &request.into()).await;
    let ResponseKind::IncrementalAlterConfigs(answer) = answer else { panic!("an answer to an alteration") };
    let message = |message: Option<StrBytes>| message.map(|message| message.to_string()).unwrap_or_default();
    let told = answer.responses.into_iter();
    told.map(|told| (told.resource_name.to_string(), told.error_code, message(told.error_message))).collect()
}

async fn codes(client: &mut Client, changes: &[Change<'_>]) -> Vec<(String, i16)> {
    alter(client, changes, false).await.into_iter().map(|(name, code, _)| (name, code)).collect()
}

/// The settings that are set, as the broker has them.
fn stored(server: &Server, topic: &str) -> String {
    let state = server.broker.state();
    let configs = state.topics[topic].configs.iter().map(|(name, value)| format!("{name}={value}"));
    configs.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn settings_are_set_deleted_and_lists_grow_and_shrink() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("t", 1);
    let mut client = server.connect().await;
    let first = &[("a", SET, Some("1")), ("b", SET, Some("2"))];
    assert_eq!(alter(&mut client, &[(TOPIC, "t", first)], false).await, [("t".to_owned(), 0, String::new())]);
    assert_eq!(stored(&server, "t"), "a=1 b=2");
    let second = &[("a", APPEND, Some("2")), ("b", DELETE, None), ("c", SET, Some(""))];
    codes(&mut client, &[(TOPIC, "t", second)]).await;
    assert_eq!(stored(&server, "t"), "a=1,2 c=");
    codes(&mut client, &[(TOPIC, "t", &[("a", SUBTRACT, Some("1")), ("c", DELETE, Some("whatever"))])]).await;
    assert_eq!(stored(&server, "t"), "a=2");
    server.stop().await;
}

#[tokio::test]
async fn nothing_changes_where_it_is_only_checked() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("t", 1);
    let mut client = server.connect().await;
    let good: Change<'_> = (TOPIC, "t", &[("a", SET, Some("1"))]);
    assert_eq!(alter(&mut client, &[good], true).await[0].1, 0);
    let bad: Change<'_> = (TOPIC, "t", &[("a", SET, Some("1")), ("no.such.config", SET, Some("1"))]);
    assert_eq!(alter(&mut client, &[bad], true).await[0].1, 40);
    assert_eq!(alter(&mut client, &[bad], false).await[0].1, 40);
    assert_eq!(stored(&server, "t"), "", "a topic's changes are made together");
    server.stop().await;
}

#[tokio::test]
async fn each_resource_is_altered_on_its_own_and_once() {
    let server = Server::start(Limits::default()).await;
    for topic in ["t", "twice", "names"] {
        server.broker.add_topic(topic, 1);
    }
    let mut client = server.connect().await;
    let one = &[("a", SET, Some("1"))];
    let changes: [Change<'_>; 10] = [
        (TOPIC, "twice", one),
        (TOPIC, "names", &[("a", SET, Some("1")), ("a", DELETE, None)]),
        (TOPIC, "absent", one),
        (TOPIC, "t", one),
        (TOPIC, "twice", one),
        (BROKER, "1", one),
        (BROKER, "one", one),
        (8, "1", one),
        (TOPIC, "null", &[("a", SET, None)]),
        (TOPIC, "operation", &[("a", 4, Some("1"))]),
    ];
    let expected = [42, 42, 3, 0, 42, 42, 42, 42, 42, 42];
    let told = alter(&mut client, &changes, false).await;
    for ((change, told), expected) in changes.iter().zip(&told).zip(expected) {
        assert_eq!((told.0.as_str(), told.1), (change.1, expected), "{told:?}");
        assert_eq!(told.2.is_empty(), expected == 0, "a refusal says why: {told:?}");
    }
    assert_eq!(told.len(), changes.len());
    assert_eq!((stored(&server, "t"), stored(&server, "twice")), ("a=1".to_owned(), String::new()));
    server.stop().await;
}

/// AlterConfigs says what is to be set from now on, and so deletes what it does not name.
#[tokio::test]
async fn the_older_request_replaces_every_setting() {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("t", 1);
    let mut client = server.connect().await;
    codes(&mut client, &[(TOPIC, "t", &[("old", SET, Some("1"))])]).await;
    let config =
        |name, value: Option<&str>| AlterableConfig::default().with_name(text(name)).with_value(value.map(text));
    let mut replace = async |configs, validate_only| {
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("t"))
            .with_configs(configs);
        let request = AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
        let ResponseKind::AlterConfigs(answer) = client.call(ApiKey::AlterConfigs, 2, &request.into()).await else {
            panic!("an answer to an alteration")
        };
        (answer.responses[0].error_code, stored(&server, "t"))
    };
    assert_eq!(replace(vec![config("new", Some("2"))], true).await, (0, "old=1".to_owned()));
    assert_eq!(replace(vec![config("new", None)], false).await, (42, "old=1".to_owned()));
    assert_eq!(replace(vec![config("new", Some("2")); 2], false).await, (42, "old=1".to_owned()));
    assert_eq!(replace(vec![config("new", Some("2"))], false).await, (0, "new=2".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_description_tells_what_is_set_and_only_what_was_asked() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("t", 1);
    let mut client = server.connect().await;
    codes(&mut client, &[(TOPIC, "t", &[("max.message.bytes", SET, Some("7")), ("b", SET, Some("2"))])]).await;
    let resource = |keys: Option<Vec<StrBytes>>| {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("t"));
        resource.with_configuration_keys(keys)
    };
    for version in 1..=4 {
        for documentation in [false, version >= 3] {
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![resource(Some(vec![text("max.message.bytes"), text("absent")]))])
                .with_include_synonyms(true)
                .with_include_documentation(documentation);
            let answer = client.call(ApiKey::DescribeConfigs, version, &request.into()).await;
            let ResponseKind::DescribeConfigs(answer) = answer else { panic!("a description") };
            let [config] = &answer.results[0].configs[..] else { panic!("one setting: {answer:?}") };
            assert_eq!((config.value.as_deref(), config.config_source), (Some("7"), 1));
            let synonyms = config.synonyms.iter().map(|synonym| (&*synonym.name, synonym.value.as_deref().unwrap()));
            let synonyms: Vec<_> = synonyms.collect();
            assert_eq!(synonyms, [("max.message.bytes", "7"), ("message.max.bytes", "1048588")]);
            assert_eq!(config.config_type, if version >= 3 { 3 } else { 0 });
            assert_eq!(config.documentation.as_deref() == Some("the largest batch"), documentation);
        }
    }
    server.stop().await;
}
