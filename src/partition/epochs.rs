//! Which leader wrote which offsets (KIP-101): the start offset of every leader epoch.
//!
//! An epoch is entered when the first entry of its term is applied, records or not. One that wrote no record leaves
//! the table when the next one begins at the same offset, so the table is at most as long as the log.

use crate::types::{LeaderEpoch, Offset};
use std::sync::Arc;

/// One leader's first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct EpochStart {
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
    /// The offset of its first record, or of the next record if it has written none.
    pub start: Offset,
}

/// The table, ascending in both columns. Cloning it copies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Epochs(Arc<[EpochStart]>);

impl Epochs {
    /// The rows, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[EpochStart] {
        &self.0
    }

    /// The newest epoch.
    #[must_use]
    pub fn newest(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|row| row.epoch)
    }

    /// The epoch of the record at `offset`. A batch that begins before the log start has the epoch of the log start.
    #[must_use]
    pub fn of(&self, offset: Offset) -> LeaderEpoch {
        let after = self.0.partition_point(|row| row.start <= offset);
        self.0.get(after.saturating_sub(1)).map_or(LeaderEpoch(-1), |row| row.epoch)
    }

    /// Where `epoch` ends, with the epoch that the answer is about: the newest one not above `epoch`, as Kafka's
    /// OffsetForLeaderEpoch answers. Nothing for an epoch newer than any known.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, high_watermark: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.0.partition_point(|row| row.epoch <= epoch);
        let floor = after.checked_sub(1).map(|at| self.0[at].epoch);
        match self.0.get(after) {
            Some(higher) => Some((floor.unwrap_or(epoch), higher.start)),
            None => (floor == Some(epoch)).then_some((epoch, high_watermark)),
        }
    }

    /// Enters an epoch whose first record will have offset `start`.
    pub(super) fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        assert!(self.newest().is_none_or(|newest| newest < epoch), "terms never go back within a log");
        let kept = self.0.iter().filter(|row| row.start < start).copied();
        self.0 = kept.chain([EpochStart { epoch, start }]).collect();
    }

    /// Forgets what lies below the log start; the epoch at the log start now begins there. Tells whether it changed.
    pub(super) fn trim(&mut self, log_start: Offset) -> bool {
        let after = self.0.partition_point(|row| row.start <= log_start);
        if after == 0 || (after == 1 && self.0[0].start == log_start) {
            return false;
        }
        let first = EpochStart { epoch: self.0[after - 1].epoch, start: log_start };
        self.0 = std::iter::once(first).chain(self.0[after..].iter().copied()).collect();
        true
    }

    /// Whether both columns ascend strictly, as in every table that `begin` and `trim` made.
    pub(super) fn is_ordered(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in [(1, 0), (3, 10), (4, 10), (7, 25)] {
            epochs.begin(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    fn end(epochs: &Epochs, epoch: i32) -> Option<(i32, i64)> {
        epochs.end_of(LeaderEpoch(epoch), Offset(40)).map(|(epoch, end)| (epoch.0, end.0))
    }

    #[test]
    fn ends_are_those_kafka_answers() {
        let epochs = table();
        assert_eq!(epochs.rows().len(), 3, "epoch 3 wrote nothing");
        assert_eq!(end(&epochs, 7), Some((7, 40)), "the newest ends at the high watermark");
        assert_eq!(end(&epochs, 8), None, "newer than any");
        assert_eq!(end(&epochs, 5), Some((4, 25)), "unknown between two: the older one's");
        assert_eq!(end(&epochs, 3), Some((1, 10)), "one that wrote nothing");
        assert_eq!(end(&epochs, 0), Some((0, 0)), "older than any");
        assert_eq!(end(&Epochs::default(), 0), None);
    }

    #[test]
    fn trimming_keeps_the_epoch_of_the_log_start() {
        let mut epochs = table();
        assert!(epochs.trim(Offset(30)));
        assert_eq!(epochs.rows(), [EpochStart { epoch: LeaderEpoch(7), start: Offset(30) }]);
        assert!(!epochs.trim(Offset(30)));
        assert_eq!(epochs.of(Offset(28)), LeaderEpoch(7), "the batch around the log start");
        let mut epochs = table();
        assert!(epochs.trim(Offset(12)));
        assert_eq!(epochs.of(Offset(24)), LeaderEpoch(4));
        assert_eq!(epochs.of(Offset(25)), LeaderEpoch(7));
    }
}
