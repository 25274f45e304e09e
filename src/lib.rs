//! Ackord: a message log for people who cannot lose a message.
pub mod controller;
pub mod machine;
pub mod multiraft;
pub mod partition;
pub mod raft;
pub mod record;
pub mod sim;
pub mod storage;
pub mod types;
pub mod wal;
