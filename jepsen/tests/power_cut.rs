//! A power cut of one node and of all, twice; and its control. The whole workload is `ackord-jepsen power-cut`.

use ackord_jepsen::workload::{Options, power_cut};
use ackord_jepsen::{power, process};

/// The options, or nothing where a disk's power can't be cut.
fn options(folder: &tempfile::TempDir, rounds: u32) -> Option<Options> {
    if let Some(obstacle) = power::obstacle() {
        assert!(!power::is_required(), "{obstacle}, and ACKORD_REQUIRE_ROOT=1 says that it must not matter");
        eprintln!("SKIPPED: {obstacle}");
        return None;
    }
    let binary = process::binary().expect("the program is there");
    Some(Options { binary, rounds, records: 1_500, folder: folder.path().to_owned() })
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(options) = options(&folder, 2) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let run = power_cut::run(&options, |round| eprintln!("{}", round.line()));
    let report = runtime.block_on(run).expect("a whole run");
    assert!(report.is_clean(), "see above\n{}", report.table());
    assert_eq!(report.rounds.len(), 4);
}

#[test]
fn without_syncs_the_same_cut_loses_acknowledged_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(options) = options(&folder, 1) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let run = power_cut::control(&options, |round| eprintln!("{}", round.line()));
    let report = runtime.block_on(run).expect("a whole run");
    assert!(report.rounds.iter().all(|round| round.lost() > 0), "the harness noticed nothing\n{}", report.table());
}
