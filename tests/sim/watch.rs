//! Who watches over a run: every invariant hears every observation, and the first one that was promised something else
//! ends it.

use crate::observe::{Invariant, Observation};
use ackord::types::NodeId;

/// See the module.
#[derive(Default)]
pub struct Watch {
    /// The invariants.
    invariants: Vec<Box<dyn Invariant>>,
    /// What the first one has said that was broken.
    violation: Option<String>,
    /// A node with a disk that was replaced: nobody hears of it, and so do the invariants.
    pub deaf_to: Option<NodeId>,
}

impl Watch {
    /// These invariants.
    pub fn new(invariants: Vec<Box<dyn Invariant>>) -> Self {
        Self { invariants, violation: None, deaf_to: None }
    }

    /// Tells all of them.
    pub fn tell(&mut self, observation: &Observation<'_>) {
        if self.deaf_to.is_some() && self.deaf_to == observation.node() {
            return;
        }
        for invariant in &mut self.invariants {
            if let Err(sentence) = invariant.observe(observation) {
                self.violation.get_or_insert_with(|| format!("{}: {sentence}", invariant.name()));
            }
        }
    }

    /// The world itself has seen what must not be.
    pub fn object(&mut self, sentence: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(sentence);
    }

    /// What was broken, if anything.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }
}
