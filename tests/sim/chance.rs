//! Chance, in the words that a simulation needs. Everything comes from one seed.

use ackord::sim::Random;

/// A second of virtual time, in microseconds.
pub const SECOND: u64 = 1_000_000;
/// A millisecond of virtual time, in microseconds.
pub const MILLISECOND: u64 = 1_000;

/// What the world asks of a generator.
pub trait Chance {
    /// A generator of its own: what one part of the world draws does not shift what another draws.
    fn fork(&mut self) -> Random;

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64;

    /// A number from `low` (at least 1) to `high` of which each order of magnitude is as likely.
    fn magnitude(&mut self, low: u64, high: u64) -> u64;

    /// True so many times out of a million; never for 0.
    fn per_million(&mut self, times: u64) -> bool;

    /// One of these.
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T;

    /// The same in another order.
    fn shuffle<T>(&mut self, items: &mut [T]);
}

impl Chance for Random {
    fn fork(&mut self) -> Random {
        Random::new(self.next_u64())
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.max(low) - low + 1)
    }

    fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (low_bits, high_bits) = (low.max(1).ilog2(), high.max(1).ilog2());
        let bits = self.between(low_bits.into(), high_bits.into());
        self.between(1 << bits, (2 << bits) - 1).clamp(low, high.max(low))
    }

    fn per_million(&mut self, times: u64) -> bool {
        times > 0 && self.below(1_000_000) < times
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
