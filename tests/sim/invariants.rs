//! What must never happen in a cluster, each in a file of its own.
//!
//! * [`acked_stays`]: an acknowledged record stays at its offset for ever.
//! * [`applied_in_order`]: a replica applies its log without gaps and forgets nothing that was flushed.
//! * [`bounded_memory`]: memory and mailboxes stay within their limits.
//! * [`commit_with_entries`]: entries become durable with the commit index that was known.
//! * [`committed_immutable`]: what was committed at an index is there on every replica, with the same outcome.
//! * [`durable_at_ack`]: what is acknowledged is on the disks of a majority.
//! * [`election_safety`]: one leader per group and term.
//! * [`group_owners`]: a partition has one owner in a generation of a consumer group.
//! * [`idempotent_once`]: a producer's sequence is in the log at most once.
//! * [`leader_completeness`]: a leader has what was committed in earlier terms.
//! * [`linearizable_end`]: a linearizable read sees what was acknowledged before it.
//! * [`log_matching`]: logs that hold the same entry agree on all before it.
//! * [`log_start_monotone`]: where a log starts follows from its entries and what somebody wanted.
//! * [`lost_stay_silent`]: nobody speaks as a replica that was lost with its disk.
//! * [`monotone_reads`]: what readers are shown never goes back.
//! * [`next_after_matched`]: a leader never goes back behind what a follower has acknowledged.
//! * [`no_hole`]: a durable log has no hole and forgets nothing.
//! * [`no_silent_stop`]: a live majority makes progress, and nobody cries wolf.
//! * [`offsets_dense`]: offsets have no gaps and are given once.
//! * [`only_written`]: what is in a log was written by somebody and not refused.
//! * [`quarantined_stay_silent`]: a quarantined replica neither votes nor answers nor leads.
//! * [`said_is_durable`]: what a replica says, it has on its disk.
//! * [`state_digests`]: replicas that applied the same have the same state.
//! * [`stored_offsets`]: a stored offset is never lost.
//! * [`topics_kept`]: the controller forgets no topic, and a group serves one partition.
//!
//! Each file's tests hold it against what is right, and against every way of being wrong that it must notice. What
//! several of them need: `by_index` and `replay` are small tables, `durable` is a model of a node's disk, `sample` is
//! what the tests are made of.

pub mod acked_stays;
pub mod applied_in_order;
pub mod bounded_memory;
mod by_index;
pub mod commit_with_entries;
pub mod committed_immutable;
mod durable;
pub mod durable_at_ack;
pub mod election_safety;
pub mod group_owners;
pub mod idempotent_once;
pub mod leader_completeness;
pub mod linearizable_end;
pub mod log_matching;
pub mod log_start_monotone;
pub mod lost_stay_silent;
pub mod monotone_reads;
pub mod next_after_matched;
pub mod no_hole;
pub mod no_silent_stop;
pub mod offsets_dense;
pub mod only_written;
pub mod quarantined_stay_silent;
mod replay;
pub mod said_is_durable;
#[cfg(test)]
pub(crate) mod sample;
pub mod state_digests;
pub mod stored_offsets;
pub mod topics_kept;

use crate::observe::Invariant;

/// All of them, new.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<acked_stays::AckedStays>::default(),
        Box::<applied_in_order::AppliedInOrder>::default(),
        Box::<bounded_memory::BoundedMemory>::default(),
        Box::<commit_with_entries::CommitWithEntries>::default(),
        Box::<committed_immutable::CommittedImmutable>::default(),
        Box::<durable_at_ack::DurableAtAck>::default(),
        Box::<election_safety::ElectionSafety>::default(),
        Box::<group_owners::GroupOwners>::default(),
        Box::<idempotent_once::IdempotentOnce>::default(),
        Box::<leader_completeness::LeaderCompleteness>::default(),
        Box::<linearizable_end::LinearizableEnd>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::<log_start_monotone::LogStartMonotone>::default(),
        Box::<lost_stay_silent::LostStaySilent>::default(),
        Box::<monotone_reads::MonotoneReads>::default(),
        Box::<next_after_matched::NextAfterMatched>::default(),
        Box::<no_hole::NoHole>::default(),
        Box::<no_silent_stop::NoSilentStop>::default(),
        Box::<offsets_dense::OffsetsDense>::default(),
        Box::<only_written::OnlyWritten>::default(),
        Box::<quarantined_stay_silent::QuarantinedStaySilent>::default(),
        Box::<said_is_durable::SaidIsDurable>::default(),
        Box::<state_digests::StateDigests>::default(),
        Box::<stored_offsets::StoredOffsets>::default(),
        Box::<topics_kept::TopicsKept>::default(),
    ]
}

/// The list in this module's documentation is the list of the files, and each says its own name.
#[test]
fn every_invariant_is_listed_and_named() {
    let text = include_str!("invariants.rs");
    let documented: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("//! * [`")?.split_once('`').map(|(name, _)| name)).collect();
    let all = all();
    let names: Vec<_> = all.iter().map(|invariant| invariant.name()).collect();
    assert_eq!(documented, names);
    let modules: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(modules, names);
}
