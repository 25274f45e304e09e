//! The coordinator: the state machine of a Raft group that looks after consumer groups and their offsets.
//!
//! A cluster has a fixed number of them, as partitions of the internal topic [`TOPIC`]; a consumer group belongs to the
//! one that [`partition_of`] names. Everything that must survive a node goes through Raft: members, generations,
//! assignments, offsets. Heartbeats do not: who has not been heard of is the leader's own business ([`sessions`]), and
//! what follows from it is proposed like anything else, so no replica's clock decides.
//!
//! * [`command`]: what can be asked, and the answers.
//! * [`group`]: a consumer group's state.

pub mod command;
pub mod group;

/// The internal topic whose partitions coordinate consumer groups. It holds no records.
pub const TOPIC: &str = "__consumer_offsets";

/// The partition of [`TOPIC`], of `partitions`, that a group belongs to: Java's `hashCode` of the name, as in Kafka, so
/// that tools that compute it find the same.
#[must_use]
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the sign bit off, not the absolute value.
    (hash & i32::MAX).cast_unsigned() % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_kafka_puts_them() {
        // "polygenelubricants".hashCode() is i32::MIN, the value whose absolute value does not exist.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // "hello".hashCode() is 99162322.
        assert_eq!(partition_of("hello", 50), 22);
        assert_eq!(partition_of("", 50), 0);
    }
}
