//! Ackord: a message log for people who cannot lose a message.
pub mod machine;
pub mod sim;
pub mod storage;
pub mod types;
pub mod wal;
