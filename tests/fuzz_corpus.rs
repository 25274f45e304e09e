//! The fuzz targets' bodies with what is known: every file of `fuzz/corpus/`, and the seeds made here. What a fuzzer
//! has found once stays in the corpus, and fails here if it comes back.

#[path = "../fuzz/src/commands.rs"]
mod commands;
#[path = "fuzz/corpus.rs"]
mod corpus;
#[allow(dead_code, reason = "the edges' tests use more of it")]
#[path = "support/fake_broker.rs"]
mod fake_broker;
#[path = "../fuzz/src/kafka_request.rs"]
mod kafka_request;
#[path = "../fuzz/src/log_bytes.rs"]
mod log_bytes;
#[path = "../fuzz/src/native_request.rs"]
mod native_request;
#[path = "../fuzz/src/peer_frame.rs"]
mod peer_frame;
#[path = "../fuzz/src/record_batch.rs"]
mod record_batch;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "../fuzz/src/shell.rs"]
mod shell;

/// A body of a target.
type Body = fn(&[u8]);

/// Every target, by the name of its folder. `fuzz/Cargo.toml` has the same list.
const TARGETS: [(&str, Body); 6] = [
    ("commands", commands::run),
    ("kafka_request", kafka_request::run),
    ("log_bytes", log_bytes::run),
    ("native_request", native_request::run),
    ("peer_frame", peer_frame::run),
    ("record_batch", record_batch::run),
];

#[test]
fn the_corpus_is_harmless() {
    for (target, body) in TARGETS {
        let files = corpus::files(target);
        assert!(files.len() >= 5, "{target} has a corpus of {}", files.len());
        for file in files {
            println!("{}", file.display()); // shown with a failure: the last one is the one
            body(&std::fs::read(&file).expect("readable"));
        }
    }
}

#[test]
fn every_target_is_run_by_the_fuzzer_and_here() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("the fuzzer's manifest is there");
    let mut listed: Vec<_> = manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next()).collect();
    listed.sort_unstable();
    assert!(listed.into_iter().eq(TARGETS.iter().map(|(name, _)| Some(*name))));
    for folder in root.join("corpus").read_dir().expect("the corpus is there") {
        let name = folder.expect("readable").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} is no target's corpus");
    }
}
