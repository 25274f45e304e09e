//! How far the consumer groups that this node coordinates are behind, as far as this node can tell by itself.
//!
//! A group's stored offsets are on its coordinator; the end of a partition's log is known to the partition's replicas.
//! Where this node has one, its published high watermark is taken, which on a follower is a little behind the leader's.
//! Nobody is asked: metrics are looked at every few seconds, and for years.

use super::NodeBroker;
use crate::controller::view::MetadataView;
use crate::coordinator::offsets::{self, Stored};
use crate::metrics::{GroupLags, LagSample};
use crate::storage::Engine;
use crate::types::Offset;

/// The lags that are found, within a limit.
struct Collected {
    /// What is shown.
    lags: GroupLags,
    /// How many may be shown.
    series_max: usize,
}

impl Collected {
    /// Takes in what one group has stored; `end` is a partition's high watermark, as far as it is known here.
    fn add(&mut self, group: &str, stored: Vec<Stored>, end: impl Fn(&str, i32) -> Option<Offset>) {
        let mut is_whole = true;
        for (topic, partition, committed) in stored {
            let Some(end) = end(&topic, partition) else {
                self.lags.unknown += 1;
                continue;
            };
            if self.lags.shown.len() == self.series_max {
                is_whole = false;
                continue;
            }
            let lag = u64::try_from(end.0.saturating_sub(committed.offset)).unwrap_or(0);
            let partition = partition.unsigned_abs();
            self.lags.shown.push(LagSample { group: group.to_owned(), topic, partition, lag });
        }
        self.lags.cut_groups += u64::from(!is_whole);
    }
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// How far the groups that this node coordinates are behind, by group, topic and partition; of at most `series_max`
    /// partitions. Reads the database, so it may block.
    #[must_use]
    pub fn group_lags(&self, series_max: usize) -> GroupLags {
        let mut collected = Collected { lags: GroupLags::default(), series_max };
        let metadata = self.0.views.metadata();
        for raft in self.0.coordinators() {
            if self.0.place_of(raft).is_err() {
                continue;
            }
            for group in self.0.views.groups(raft).unwrap_or_default() {
                match offsets::read_all(&self.0.engine, raft, &group.name) {
                    Ok(stored) => collected.add(&group.name, stored, |topic, at| self.known_end(&metadata, topic, at)),
                    Err(error) => self.0.offsets_unreadable(raft, &error),
                }
            }
        }
        collected.lags
    }

    /// The high watermark that this node's replica of a partition has published, if there is one to be trusted.
    fn known_end(&self, metadata: &MetadataView, topic: &str, partition: i32) -> Option<Offset> {
        let raft = metadata.topic_named(topic)?.partitions.get(usize::try_from(partition).ok()?)?.group;
        let is_sound = self.0.handle.board().status(raft).quarantined.is_none();
        Some(self.0.views.partition(raft).filter(|_| is_sound)?.high_watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::offsets::Committed;

    fn stored(topic: &str, partition: i32, offset: i64) -> Stored {
        (topic.to_owned(), partition, Committed { offset, ..Committed::default() })
    }

    fn collect(series_max: usize) -> GroupLags {
        let mut collected = Collected { lags: GroupLags::default(), series_max };
        let end = |topic: &str, partition: i32| (topic == "here").then_some(Offset(100 + i64::from(partition)));
        collected.add("a", vec![stored("here", 0, 40), stored("here", 1, 101), stored("there", 0, 1)], end);
        collected.add("b", vec![stored("here", 2, 900), stored("there", 0, 1)], end);
        collected.add("c", vec![stored("there", 0, 1)], end);
        collected.lags
    }

    #[test]
    fn a_lag_is_what_is_left_to_read_and_never_less_than_nothing() {
        let lags = collect(10);
        let shown: Vec<_> =
            lags.shown.iter().map(|lag| (lag.group.as_str(), lag.topic.as_str(), lag.partition, lag.lag)).collect();
        assert_eq!(shown, [("a", "here", 0, 60), ("a", "here", 1, 0), ("b", "here", 2, 0)]);
        assert_eq!((lags.unknown, lags.cut_groups), (3, 0));
    }

    #[test]
    fn what_is_above_the_limit_is_counted_by_group() {
        let lags = collect(1);
        assert_eq!((lags.shown.len(), lags.unknown, lags.cut_groups), (1, 3, 2), "of a a part, of b everything");
        assert_eq!(collect(3), collect(10), "what just fits is not cut");
    }
}
