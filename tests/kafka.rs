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
#[path = "fuzz/corpus.rs"]
mod fuzz_corpus;
#[path = "kafka/guard.rs"]
mod guard;
#[path = "../fuzz/src/kafka_request.rs"]
mod kafka_request;
#[path = "kafka/kcat.rs"]
mod kcat;
#[path = "kafka/members.rs"]
mod members;
#[path = "kafka/offsets.rs"]
mod offsets;
#[path = "kafka/requests.rs"]
mod requests;
#[path = "kafka/seeds.rs"]
mod seeds;
#[path = "../fuzz/src/shell.rs"]
mod shell;
#[path = "kafka/versions.rs"]
mod versions;
#[path = "kafka/wire.rs"]
mod wire;
