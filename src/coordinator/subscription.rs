//! What a group of consumers reads, from the metadata that its members joined with.
//!
//! The metadata is the clients' own; only its beginning is looked at, which every version of the consumer protocol has
//! in common: a version, and the topics.

use super::group::Group;
use std::collections::BTreeSet;

/// The kind of group whose metadata is known.
pub(super) const CONSUMER: &str = "consumer";

/// The topics of a subscription; none if the bytes are not one.
fn topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // Each takes two bytes at least: a hostile count claims no memory.
    if i16::from_be_bytes(*version) < 0 || count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (topic, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(std::str::from_utf8(topic).ok()?);
        rest = after;
    }
    Some(topics)
}

impl Group {
    /// The topics that its members read; none if that can't be known: they are no consumers, have agreed on nothing
    /// yet, or speak something else.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<&str>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut subscribed = BTreeSet::new();
        for member in self.members.values() {
            subscribed.extend(topics(member.metadata(self.protocol.as_deref()?)?)?);
        }
        Some(subscribed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_every_version_and_from_nothing_else() {
        // Version 3: topics "a" and "bc", user data, owned partitions, generation, rack.
        let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0\0\0\0\x07\xff\xff";
        assert_eq!(topics(metadata), Some(vec!["a", "bc"]));
        assert_eq!(topics(b"\0\0\0\0\0\0\xff\xff\xff\xff"), Some(vec![]));
        for bad in [
            &b""[..],
            b"\0\x01\0\0\0",
            b"\0\0\x7f\xff\xff\xff\0\0",
            b"\0\0\xff\xff\xff\xff\0\0",
            b"\0\0\0\0\0\x01\0\x05abc",
            b"\0\0\0\0\0\x01\xff\xff",
            b"\0\0\0\0\0\x01\0\x01\xff",
            b"\xff\xff\0\0\0\0",
        ] {
            assert_eq!(topics(bad), None, "{bad:?}");
        }
    }
}
