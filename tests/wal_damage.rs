//! What a start or a read does with damage: the table, row by row, each case on the simulated disk and on real files.
//! Groups that the damage did not touch go on.
//!
//! Two more rows are not the log's alone: a damaged state machine and a leader that can't read are in
//! `tests/damaged_node.rs`.

#[path = "wal_damage/content.rs"]
mod content;
#[path = "wal_damage/forged.rs"]
mod forged;
#[path = "wal_damage/hard_state.rs"]
mod hard_state;
#[path = "wal_damage/history.rs"]
mod history;
#[path = "wal_damage/last_turn.rs"]
mod last_turn;
#[path = "wal_damage/refused.rs"]
mod refused;
#[path = "wal_damage/unreadable.rs"]
mod unreadable;
mod wal_common;
#[path = "wal_damage/whole_files.rs"]
mod whole_files;

/// Makes every case a test in both places; its path says the place and the row.
macro_rules! found_on_start_or_read {
    ($($row:ident: $room:ident { $($case:ident)* })*) => {
        mod simulated {
            $(mod $row { $(#[test] fn $case() { crate::$room::$case::<ackord::sim::SimDisk>(); })* })*
        }

        mod on_files {
            $(mod $row { $(#[test] fn $case() { crate::$room::$case::<crate::wal_common::files::Files>(); })* })*
        }
    };
}

found_on_start_or_read! {
    nothing_wrong: content {
        an_undamaged_log_has_no_findings
    }
    // Keep a copy, drop the turn, continue in a new segment.
    the_last_turns_body_torn: last_turn {
        a_torn_last_turn_is_dropped_and_kept_for_inspection
        a_lost_seal_loses_nothing
    }
    // The group does not vote, campaign or acknowledge; bytes kept; state shown.
    bad_checksum_below_the_durable_end: content {
        a_flipped_bit_in_a_payload_damages_that_entry_of_that_group
        a_flipped_bit_anywhere_below_the_seal_harms_nothing_beside_its_group
        a_write_in_the_wrong_place_damages_what_it_hit
        a_damaged_segment_header_alone_harms_no_group
        a_snapshot_or_a_tombstone_ends_the_quarantine
    }
    bad_checksum_at_the_durable_end: last_turn {
        a_zeroed_last_turn_is_damage_because_the_seal_remembers_it
    }
    a_hole: content {
        a_zeroed_page_is_damage_of_the_groups_in_it
        a_lost_turn_in_the_middle_is_damage_of_its_groups
        damaged_checkpoints_are_replaced_by_what_else_is_known
    }
    a_missing_file: whole_files {
        a_missing_segment_is_damage_of_the_groups_in_it
        a_missing_newest_segment_may_have_touched_every_group
        what_is_forgotten_is_forgotten_until_it_is_settled
        a_log_without_its_beginning_is_not_taken_for_an_empty_one
        a_zeroed_newest_segment_may_have_touched_every_group
    }
    a_short_file: whole_files {
        a_file_cut_short_is_damage
        a_page_of_elsewhere_before_the_cut_is_not_the_logs_end
    }
    a_swapped_file: whole_files {
        swapped_segments_are_damage
        a_segment_of_an_earlier_use_of_the_file_is_damage
    }
    an_older_file: whole_files {
        an_older_state_of_a_segment_is_damage
    }
    // Repair it from the other; both bad: quarantine.
    one_copy_of_the_hard_state_bad: hard_state {
        a_hard_state_is_repaired_from_its_other_copy
    }
    both_copies_of_the_hard_state_bad: hard_state {
        a_hard_state_lost_in_both_places_quarantines_whoever_it_may_be
        a_lost_beginning_of_a_snapshot_is_not_forgotten
    }
    // Never return fewer entries than asked for.
    read_error: unreadable {
        a_block_that_cannot_be_read_is_damage
        a_read_error_while_running_is_an_error_not_a_short_answer
        a_group_that_can_be_read_again_is_in_doubt
    }
    // Refuse to start, say how to replace the node.
    empty_directory_under_a_known_identity: refused {
        an_empty_directory_under_a_known_identity_is_refused
    }
    beyond_the_table: refused {
        another_nodes_log_is_refused
        a_newer_format_is_refused
    }
    hostile_payloads: forged {
        a_turn_header_inside_a_payload_is_not_a_turn
    }
}
