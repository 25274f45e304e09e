//! A replica that was away for longer than the log is kept. More rounds: `ackord-jepsen away`.

use ackord_jepsen::process;
use ackord_jepsen::workload::{Options, away};

#[test]
fn a_replica_that_was_away_too_long_catches_up_by_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = process::binary().expect("the program is there");
    let options = Options { binary, rounds: 1, records: 0, folder: folder.path().to_owned() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(away::run(&options, |round| eprintln!("{}", round.line()))).expect("a whole run");
    if !report.is_clean() {
        let kept = folder.keep();
        panic!("see above; the nodes' files are kept in {}", kept.display());
    }
}
