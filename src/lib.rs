//! Ackord: a message log for people who cannot lose a message.
pub mod broker;
pub mod kafka;
pub mod machine;
pub mod storage;
pub mod types;
pub mod wal;
