//! Damage of every kind that a log or a database can meet; a few of them here. All of them: `ackord-jepsen damage`.

use ackord_jepsen::damage::Damage;
use ackord_jepsen::process::binary;
use ackord_jepsen::workload::{Options, damage};

#[test]
fn a_damaged_node_is_repaired_by_the_others_and_counts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        binary: binary().expect("cargo has built ackord"),
        rounds: 4,
        records: 2_000,
        folder: folder.path().to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(damage::run(&options, |round| eprintln!("{}", round.line()))).expect("a whole run");
    assert!(report.is_clean(), "{}", report.table());
    // There is something for each of the first kinds, or the harness no longer knows the files.
    for (round, damage) in report.rounds.iter().zip(Damage::ALL) {
        let done = |note: &String| note.starts_with(damage.name());
        assert!(round.notes.iter().any(done), "{}: {:?}", damage.name(), round.notes);
    }
}
