//! Two rounds of each way to kill a cluster's nodes; the whole workload is `ackord-jepsen kill`.

use ackord_jepsen::process;
use ackord_jepsen::workload::{Options, kill};

#[test]
fn nothing_acknowledged_is_lost_when_nodes_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        binary: process::binary().expect("the program is there"),
        rounds: 2,
        records: 1_500,
        folder: folder.path().to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(kill::run(&options, |round| eprintln!("{}", round.line()))).expect("a whole run");
    eprintln!("{}", report.table());
    if !report.is_clean() {
        let kept = folder.keep();
        panic!("see above; the nodes' files are kept in {}", kept.display());
    }
    assert_eq!(report.rounds.len(), 8);
}
