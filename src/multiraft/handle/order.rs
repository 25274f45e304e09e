//! Refusals must not reorder what a producer sent.
//!
//! A log that does not know a producer takes any first sequence from it: "refused" for one batch followed by "taken"
//! for the next would lose the first for good. So once a batch was refused, or its fate left open, later ones of its
//! producer and group are, until it comes again. There is no moment in which a later one can slip through:
//!
//! * looking and sending is one step here, so that whatever was sent without knowing of a refusal is in the mailbox
//!   before the refusal stands here;
//! * the worker enters a refusal here before it answers, and then tells its core through that very mailbox: until that
//!   has come through, the core refuses what it finds of that producer (`Input::RefusalKnown`).

use crate::multiraft::core::effect::Refused;
use crate::types::RaftGroupId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Refusals that are remembered; beyond it one is forgotten, whichever it is.
const REFUSALS_MAX: usize = 10_000;

/// Where a batch stands among those of its producer (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The producer.
    pub producer: i64,
    /// Its epoch, with each of which it begins anew.
    pub epoch: i16,
    /// The sequence number of the batch's first record.
    pub first: i32,
}

impl Sequence {
    /// Whether it comes after another one of the same epoch. Numbers begin again at 0 after the greatest.
    fn follows(self, other: Self) -> bool {
        let ahead = self.first.wrapping_sub(other.first) & i32::MAX;
        ahead != 0 && ahead < 1 << 30
    }
}

/// The first refused batch of each producer in each group.
type Refusals = BTreeMap<(RaftGroupId, i64), Sequence>;

/// See the module. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Order(Arc<Mutex<Refusals>>);

impl Order {
    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a batch, unless one before it was refused and has not been sent again.
    pub fn send<T>(
        &self,
        group: RaftGroupId,
        sequence: Sequence,
        send: impl FnOnce() -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut refusals = self.refusals();
        let key = (group, sequence.producer);
        if let Some(refused) = refusals.get(&key).copied() {
            let same_epoch = refused.epoch == sequence.epoch;
            if same_epoch && sequence.follows(refused) {
                return Err(Refused::OutOfTurn);
            }
            if refused == sequence || refused.epoch < sequence.epoch {
                refusals.remove(&key);
            }
        }
        send()
    }

    /// A batch was refused: whatever comes after it waits for it.
    pub fn refused(&self, group: RaftGroupId, sequence: Sequence) {
        let mut refusals = self.refusals();
        let key = (group, sequence.producer);
        if let Some(known) = refusals.get(&key)
            && (known.epoch > sequence.epoch || (known.epoch == sequence.epoch && sequence.follows(*known)))
        {
            return;
        }
        if refusals.len() >= REFUSALS_MAX && !refusals.contains_key(&key) {
            refusals.pop_first();
        }
        refusals.insert(key, sequence);
    }

    /// The group's state machine knows the producer, and judges its sequences itself.
    pub fn forget(&self, group: RaftGroupId, producer: i64) {
        self.refusals().remove(&(group, producer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: RaftGroupId = RaftGroupId(1);

    fn at(epoch: i16, first: i32) -> Sequence {
        Sequence { producer: 7, epoch, first }
    }

    fn taken(order: &Order, sequence: Sequence) -> bool {
        order.send(GROUP, sequence, || Ok(())).is_ok()
    }

    #[test]
    fn what_follows_a_refused_batch_waits_for_it() {
        let order = Order::default();
        order.refused(GROUP, at(0, 20));
        assert!(!taken(&order, at(0, 30)) && !taken(&order, at(0, 21)));
        assert!(taken(&order, Sequence { producer: 8, ..at(0, 30) }), "another producer");
        assert!(order.send(RaftGroupId(2), at(0, 30), || Ok(())).is_ok(), "another group");
        assert!(taken(&order, at(0, 10)) && !taken(&order, at(0, 30)), "an earlier one changes nothing");
        assert!(taken(&order, at(0, 20)) && taken(&order, at(0, 30)));
    }

    #[test]
    fn the_first_refused_batch_counts_in_whichever_order_refusals_come() {
        let order = Order::default();
        for first in [30, 20, 40] {
            order.refused(GROUP, at(0, first));
        }
        assert!(!taken(&order, at(0, 30)) && taken(&order, at(0, 20)) && taken(&order, at(0, 30)));
        // It is repeated while a later one is still to be refused: it may come again all the same.
        order.refused(GROUP, at(0, 20));
        assert!(taken(&order, at(0, 20)));
        order.refused(GROUP, at(0, 30));
        assert!(taken(&order, at(0, 20)) && !taken(&order, at(0, 40)));
    }

    #[test]
    fn sequences_wrap_and_epochs_begin_anew() {
        let order = Order::default();
        order.refused(GROUP, at(0, i32::MAX - 4));
        assert!(!taken(&order, at(0, 5)), "after the greatest number");
        assert!(taken(&order, at(1, 0)) && taken(&order, at(1, 5)));
        order.refused(GROUP, at(1, 9));
        order.refused(GROUP, at(0, 2));
        assert!(!taken(&order, at(1, 12)), "an older epoch's refusal does not replace it");
        order.forget(GROUP, 7);
        assert!(taken(&order, at(1, 12)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let order = Order::default();
        for producer in 0..=REFUSALS_MAX as i64 {
            order.refused(GROUP, Sequence { producer, ..at(0, 0) });
        }
        assert_eq!(order.refusals().len(), REFUSALS_MAX);
    }
}
