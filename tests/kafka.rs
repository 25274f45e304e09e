//! The Kafka edge in front of a broker in memory: hostile bytes, the order of answers, every API and version, and a
//! real client.

#[path = "kafka/admin.rs"]
mod admin;
#[path = "kafka/client.rs"]
mod client;
#[path = "kafka/configs.rs"]
mod configs;
#[path = "support/fake_broker.rs"]
mod fake_broker;
#[path = "kafka/fetch.rs"]
mod fetch;
#[path = "kafka/guard.rs"]
mod guard;
#[path = "kafka/kcat.rs"]
mod kcat;
#[path = "kafka/requests.rs"]
mod requests;
#[path = "kafka/versions.rs"]
mod versions;
#[path = "kafka/wire.rs"]
mod wire;
