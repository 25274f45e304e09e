//! The native protocol on real sockets, in front of a broker in memory: the edge, its Rust client, the command line.

#[path = "native/batching.rs"]
mod batching;
#[path = "native/cli.rs"]
mod cli;
#[path = "native/client.rs"]
mod client;
#[path = "support/fake_broker.rs"]
mod fake_broker;
#[path = "native/groups.rs"]
mod groups;
#[path = "native/hostile.rs"]
mod hostile;
#[path = "native/server.rs"]
mod server;
#[path = "native/trim.rs"]
mod trim;
#[path = "native/wire.rs"]
mod wire;
