//! What a node holds in memory and in mailboxes stays within its limits.

use crate::observe::{Invariant, Observation};

/// See the module.
#[derive(Default)]
pub struct BoundedMemory;

impl Invariant for BoundedMemory {
    fn name(&self) -> &'static str {
        "bounded_memory"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Load { node, name, used, limit } if used > limit => {
                Err(format!("node {node} uses {used} of {name}, and may use {limit}"))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn limits_are_limits() {
    use super::sample::{NODES, breaks, holds};
    let load = |used| Observation::Load { node: NODES[0], name: "proposals", used, limit: 10 };
    holds(&mut BoundedMemory, &[load(0), load(10)]);
    breaks(&mut BoundedMemory, &[load(11)], "uses 11 of proposals");
}
