//! What a real process does with what nobody should send it: wrong configurations, ports that are taken, batches that
//! break the rules, and bytes that are no request at all, on every port there is.

#[path = "kafka/client.rs"]
#[allow(dead_code, reason = "the Kafka edge's tests use more of it")]
mod client;
#[path = "bad_input/configuration.rs"]
mod configuration;
#[path = "support/fake_broker.rs"]
#[allow(dead_code, reason = "the client's own server stands on it; here the server is a process")]
mod fake_broker;
#[path = "bad_input/frames.rs"]
mod frames;
#[path = "support/ports.rs"]
mod ports;
#[path = "bad_input/process.rs"]
mod process;
#[path = "bad_input/records.rs"]
mod records;
#[path = "bad_input/space.rs"]
mod space;
