//! What really happened in a run: a fault that was planned and never hit anything, or a state that was never reached,
//! tests nothing.

use std::collections::BTreeMap;

/// How often each thing happened, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(pub BTreeMap<String, u64>);

impl Coverage {
    /// It has happened once more.
    pub fn hit(&mut self, name: &str) {
        self.add(name, 1);
    }

    /// What a disk that was made to fail has said, if this is that.
    pub fn note_disk_failure(&mut self, reason: &str) -> bool {
        let kinds = [("failed to sync", "sync failed"), ("failed to write", "write failed")];
        let met = kinds.into_iter().find(|(said, _)| reason.contains(said));
        met.into_iter().for_each(|(_, name)| self.hit(name));
        met.is_some()
    }

    /// It has happened so many times more.
    pub fn add(&mut self, name: &str, times: u64) {
        match self.0.get_mut(name) {
            None if times == 0 => {}
            Some(count) => *count += times,
            None => drop(self.0.insert(name.to_owned(), times)),
        }
    }

    /// How often it has happened.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Both together.
    pub fn absorb(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }
}
