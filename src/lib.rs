//! Ackord: a message log for people who cannot lose a message.
pub mod config;
pub mod controller;
pub mod machine;
pub mod proto;
pub mod server;
pub mod storage;
pub mod types;
pub mod wal;
