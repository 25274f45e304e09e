//! Kafka's consumer protocol: what members tell each other through the coordinator, which only carries it.
//!
//! Version 0 is written, and the part that every version has is read (ConsumerProtocolSubscription.json and
//! ConsumerProtocolAssignment.json of Apache Kafka). The assignment is the range assignor's, which every client knows.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// The assignor's name.
pub const RANGE: &str = "range";

/// Partitions by topic.
pub type Share = BTreeMap<String, Vec<u32>>;

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Its id.
    pub member: String,
    /// A static member's name: its place in the order outlives its id.
    pub instance: Option<String>,
    /// The topics it reads.
    pub topics: Vec<String>,
}

/// What a member subscribes to.
#[must_use]
pub fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        put_text(&mut bytes, topic);
    }
    bytes.put_i32(-1); // no user data
    bytes.freeze()
}

/// Reads a subscription of any version; `None` if it is none.
#[must_use]
pub fn read_subscription(mut bytes: Bytes) -> Option<Vec<String>> {
    let _version = bytes.try_get_i16().ok()?;
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(text(&mut bytes)?); // each takes bytes, so a count that lies ends here
    }
    Some(topics)
}

/// A member's share.
#[must_use]
pub fn share(share: &Share) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(share.len() as i32);
    for (topic, partitions) in share {
        put_text(&mut bytes, topic);
        bytes.put_i32(partitions.len() as i32);
        for partition in partitions {
            bytes.put_i32(partition.cast_signed());
        }
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Reads a share of any version; `None` if it is none. No bytes are no partitions.
#[must_use]
pub fn read_share(mut bytes: Bytes) -> Option<Share> {
    let mut share = Share::new();
    if bytes.is_empty() {
        return Some(share);
    }
    let _version = bytes.try_get_i16().ok()?;
    for _ in 0..usize::try_from(bytes.try_get_i32().ok()?).ok()? {
        let topic = text(&mut bytes)?;
        let mut partitions = Vec::new();
        for _ in 0..usize::try_from(bytes.try_get_i32().ok()?).ok()? {
            partitions.push(u32::try_from(bytes.try_get_i32().ok()?).ok()?);
        }
        share.insert(topic, partitions);
    }
    Some(share)
}

/// Deals each topic's partitions out to its subscribers in even, contiguous ranges.
#[must_use]
pub fn ranges(subscribers: &[Subscriber], partitions: &BTreeMap<String, u32>) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> =
        subscribers.iter().map(|subscriber| (subscriber.member.clone(), Share::new())).collect();
    for (topic, count) in partitions {
        let mut readers: Vec<_> =
            subscribers.iter().filter(|subscriber| subscriber.topics.iter().any(|named| named == topic)).collect();
        // Static members come first, by name, as Kafka's range assignor orders them.
        readers.sort_by_key(|reader| (reader.instance.is_none(), reader.instance.clone(), reader.member.clone()));
        let mut next = 0;
        for (place, reader) in readers.iter().enumerate() {
            let (base, extra) = (*count as usize / readers.len(), *count as usize % readers.len());
            let take = (base + usize::from(place < extra)) as u32;
            if take > 0 {
                let share = shares.entry(reader.member.clone()).or_default();
                share.insert(topic.clone(), (next..next + take).collect());
            }
            next += take;
        }
    }
    shares
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}

fn text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok().filter(|length| *length <= bytes.len())?;
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(member: &str, instance: Option<&str>, topics: &[&str]) -> Subscriber {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Subscriber { member: member.to_owned(), instance: instance.map(str::to_owned), topics }
    }

    #[test]
    fn subscriptions_and_shares_read_as_they_were_written() {
        let topics = vec!["a".to_owned(), "flights".to_owned()];
        let bytes = subscription(&topics);
        // As kafka-python 2.3.2 writes the same subscription.
        let expected = b"\x00\x00\x00\x00\x00\x02\x00\x01a\x00\x07flights\xff\xff\xff\xff";
        assert_eq!(&bytes[..], expected);
        assert_eq!(read_subscription(bytes), Some(topics));
        let given = Share::from([("a".to_owned(), vec![0, 7]), ("b".to_owned(), vec![])]);
        assert_eq!(read_share(share(&given)), Some(given));
        assert_eq!(read_share(Bytes::new()), Some(Share::new()));
    }

    #[test]
    fn counts_that_lie_are_refused() {
        for bytes in [&b"\x00\x00\x7f\xff\xff\xff"[..], b"\x00\x00\x00\x00\x00\x01\x7f\xffa", b"\x00"] {
            assert_eq!(read_subscription(Bytes::copy_from_slice(bytes)), None);
            assert_eq!(read_share(Bytes::copy_from_slice(bytes)), None);
        }
    }

    #[test]
    fn every_partition_has_one_reader_and_the_shares_are_even() {
        for (members, count) in [(1, 6), (4, 6), (4, 3), (7, 50)] {
            let subscribers: Vec<_> = (0..members).map(|n| subscriber(&format!("m{n}"), None, &["t"])).collect();
            let shares = ranges(&subscribers, &BTreeMap::from([("t".to_owned(), count)]));
            let mut all: Vec<u32> = shares.values().flat_map(|share| share.values().flatten()).copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            let sizes: Vec<_> = shares.values().map(|share| share.values().map(Vec::len).sum::<usize>()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        let mixed = [subscriber("z", Some("first"), &["t", "u"]), subscriber("a", None, &["t"])];
        let shares = ranges(&mixed, &BTreeMap::from([("t".to_owned(), 1), ("u".to_owned(), 2)]));
        assert_eq!(shares["z"], Share::from([("t".to_owned(), vec![0]), ("u".to_owned(), vec![0, 1])]));
        assert_eq!(shares["a"], Share::new());
    }
}
