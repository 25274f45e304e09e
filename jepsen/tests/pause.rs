//! A round of each way to make nodes stand still; the whole workload is `ackord-jepsen pause`.

use ackord_jepsen::process;
use ackord_jepsen::workload::{Options, pause};

#[test]
fn a_leader_that_stood_still_harms_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = process::binary().expect("the program is there");
    let options = Options { binary, rounds: 1, records: 1_500, folder: folder.path().to_owned() };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(pause::run(&options, |round| eprintln!("{}", round.line()))).expect("a whole run");
    if !report.is_clean() {
        let kept = folder.keep();
        panic!("see above; the nodes' files are kept in {}", kept.display());
    }
}
