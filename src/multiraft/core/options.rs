//! Limits of a node's groups.
//!
//! How much may be proposed at once is decided in one place: where the driver admits proposals. A limit of the core's
//! own below that would refuse one proposal and take a later one of the same client, which reorders what it sent. So
//! the core's limits on proposals are not set but follow from `admitted_bytes_max`, and its other limits are on what
//! peers send, which Raft sends again.
//!
//! What is in memory is bounded all the same: proposals by `admitted_bytes_max`, what peers send by the other limits,
//! each of which says by how much it may be exceeded. Membership changes are small, and not counted.

use crate::raft::ReplicaOptions;

/// What a proposal costs beyond its payload, in bytes, so that empty ones are bounded, too.
pub const PROPOSAL_OVERHEAD_BYTES: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Limits and timing of each replica; its `max_uncommitted_bytes` is taken from `admitted_bytes_max`.
    pub replica: ReplicaOptions,
    /// What the driver admits: proposals of all groups that wait for their outcomes, in bytes of payload, and
    /// `PROPOSAL_OVERHEAD_BYTES` for each; one that is larger passes alone. Within it none is refused because there
    /// would be too many. What of them waits for the log is bounded by the same number: only where the log stood still
    /// for so long that some were given up, and gave their room back, later ones are refused until those are written.
    pub admitted_bytes_max: usize,
    /// What one turn may take of the log, in bytes, the log's own headers included; one larger entry still goes.
    pub turn_bytes_max: usize,
    /// Payload of peers that waits for the log, before more of theirs is dropped, in bytes. The message that crosses it
    /// is taken: `max_message_bytes`, or one larger entry.
    pub queued_bytes_max: usize,
    /// Payload handed to state machines and not applied yet, beyond `admitted_bytes_max`, before more from peers is
    /// dropped, in bytes. Replays pause at as much.
    ///
    /// What has been taken is handed over whenever it is committed, so there may be more: what was admitted here, and
    /// what peers had sent before that was not committed. All replays together cross it by one piece of at most
    /// `max_committed_bytes`; every single entry that is larger adds what it has beyond that.
    pub unapplied_bytes_max: usize,
    /// Recent payload kept in memory per group, in bytes.
    pub tail_bytes_per_group: usize,
    /// Recent payload kept in memory by all groups together, in bytes.
    pub tail_bytes_max: usize,
    /// Payload applied, or turns of the log, before the state machines are flushed so that the log can be freed, in
    /// bytes.
    pub flush_after_bytes: usize,
    /// A negative control of the simulator: what waits for a write leaves before it. False anywhere else.
    pub omit_turn_order: bool,
    /// Drawn at random for every life of the process: answers to questions of an earlier one are told by it.
    pub life: u64,
    /// How soon after the last one a flush may begin only because it would give space back, in ticks.
    pub space_flush_ticks: u64,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            replica: ReplicaOptions::default(),
            admitted_bytes_max: 128 << 20,
            turn_bytes_max: 8 << 20,
            queued_bytes_max: 64 << 20,
            unapplied_bytes_max: 128 << 20,
            tail_bytes_per_group: 8 << 20,
            tail_bytes_max: 256 << 20,
            flush_after_bytes: 256 << 20,
            omit_turn_order: false,
            life: 0,
            space_flush_ticks: 100,
        }
    }
}

impl CoreOptions {
    /// The limits of each replica: a leader takes everything that was admitted, even if it is all for one group. Raft
    /// wants room for one message at least.
    pub(super) fn replica_options(&self) -> ReplicaOptions {
        let max_uncommitted_bytes = (self.admitted_bytes_max as u64).max(self.replica.max_message_bytes);
        ReplicaOptions { max_uncommitted_bytes, ..self.replica.clone() }
    }

    /// Proposals of one group whose outcome is awaited: as many empty ones as are admitted. More is a driver's fault.
    pub(super) fn pending_proposals_max(&self) -> usize {
        (self.admitted_bytes_max / PROPOSAL_OVERHEAD_BYTES).max(1)
    }

    /// Whether proposals of so many bytes are taken, with so many that wait for the log.
    pub(super) fn takes_proposals(&self, proposed_bytes: usize, bytes: usize) -> bool {
        proposed_bytes == 0 || proposed_bytes + bytes <= self.admitted_bytes_max
    }

    /// Whether peers' entries are dropped, with so many bytes of theirs that wait for the log, and so many of anybody's
    /// for the state machines. Proposals take their part of both without leaving less for peers.
    pub(super) fn drops_entries(&self, brought_bytes: usize, unapplied_bytes: usize) -> bool {
        brought_bytes > self.queued_bytes_max
            || unapplied_bytes.saturating_sub(self.admitted_bytes_max) > self.unapplied_bytes_max
    }
}
