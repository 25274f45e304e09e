//! The house rules, checked over the source tree: who may know whom, how large a room may be, and what the
//! deterministic core never touches.
//!
//! A rule that can't fail proves nothing: `every_rule_can_fail` feeds each of them a snippet that breaks it.

mod layers;
mod source;

use source::Source;
use std::fs;
use std::path::Path;

/// Longest file, in lines: past it, split by operation.
const FILE_LINES_MAX: usize = 600;
/// Longest line, in characters; rustfmt does not break strings and comments.
const LINE_CHARS_MAX: usize = 120;
/// Longest function, in lines with its signature: one screen.
const FUNCTION_LINES_MAX: usize = 70;

/// What the core never names, as consecutive segments of a path, and why.
const CORE_BANS: &[(&[&str], &str)] = &[
    (&["Instant"], "time enters as an input"),
    (&["SystemTime"], "time enters as an input"),
    (&["rand"], "randomness enters as an input"),
    (&["getrandom"], "randomness enters as an input"),
    (&["thread_rng"], "randomness enters as an input"),
    (&["new_v4"], "randomness enters as an input"),
    (&["std", "thread"], "threads belong to the shell"),
    (&["std", "process"], "only the shell ends the process"),
    (&["std", "env"], "settings enter as values"),
    (&["std", "net"], "sockets belong to the shell"),
    (&["std", "fs"], "files belong to the Disk and Engine implementations"),
    (&["libc"], "system calls belong to the shell"),
    (&["rustix"], "files belong to the Disk and Engine implementations"),
    (&["rocksdb"], "RocksDB belongs to the Engine implementation"),
    (&["tokio"], "the core does not wait"),
    (&["HashMap"], "its order is random; use BTreeMap"),
    (&["HashSet"], "its order is random; use BTreeSet"),
    (&["collections", "*"], "name the collections, so that these rules see them"),
];

/// Macros that the core never calls.
const CORE_MACRO_BANS: &[&str] = &["println", "print", "eprintln", "eprint"];

/// A file that may break a rule, and why.
struct Exception {
    /// The file.
    file: &'static str,
    /// The rule's name.
    rule: &'static str,
    /// Why it must.
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception { file: "src/wal/real_disk.rs", rule: "core", reason: "it is the Disk over real files" },
    Exception { file: "src/storage/rocks.rs", rule: "core", reason: "it is the Engine over RocksDB" },
    Exception { file: "src/storage/rocks/damage.rs", rule: "core", reason: "it moves the Engine's own directory" },
    Exception { file: "src/storage/rocks/options.rs", rule: "core", reason: "how the Engine sets RocksDB up" },
];

/// One broken rule.
#[derive(Debug)]
struct Finding {
    /// Where.
    file: String,
    /// Where in the file, from 1.
    line: usize,
    /// The rule's name.
    rule: &'static str,
    /// What breaks it.
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, rule: &'static str, what: String) -> Self {
        Self { file: source.file.clone(), line, rule, what }
    }
}

fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_shape(source, &mut findings);
    if !source.file.starts_with("tests/") && !source.file.ends_with("/tests.rs") {
        check_care(source, &mut findings);
    }
    layers::check(source, &mut findings);
    check_core(source, &mut findings);
    findings
}

fn check_shape(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//!") {
        findings.push(Finding::new(source, 1, "heading", "a file opens with //! and says what it owns".into()));
    }
    if source.file.starts_with("src/") && (source.file.ends_with("/mod.rs") || source.file.ends_with("/utils.rs")) {
        findings.push(Finding::new(source, 1, "name", "a module is name.rs, and named after what it does".into()));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(Finding::new(source, lines, "file-length", format!("{lines} lines; split it by operation")));
    }
    for (number, line) in source.text.lines().enumerate() {
        if line.chars().count() > LINE_CHARS_MAX {
            findings.push(Finding::new(source, number + 1, "line-length", line.to_owned()));
        }
    }
    for function in source.functions().iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
        let what = format!("fn {} has {} lines", function.name, function.lines);
        findings.push(Finding::new(source, function.line, "function-length", what));
    }
}

fn check_care(source: &Source, findings: &mut Vec<Finding>) {
    for line in source.unwraps() {
        let what = "an error is handled, or expect says why it can't happen".to_owned();
        findings.push(Finding::new(source, line, "unwrap", what));
    }
    for (line, field) in source.undocumented_fields() {
        findings.push(Finding::new(source, line, "field-doc", format!("no doc line above: {field}")));
    }
}

fn check_core(source: &Source, findings: &mut Vec<Finding>) {
    if !source.file.starts_with("src/") || !layers::room_of(&source.module()).is_some_and(layers::is_deterministic) {
        return;
    }
    for path in source.paths() {
        for (banned, why) in CORE_BANS {
            if path.segments.windows(banned.len()).any(|window| window == *banned) {
                findings.push(Finding::new(source, path.line, "core", format!("{}: {why}", banned.join("::"))));
            }
        }
    }
    for (name, line) in source.macros() {
        if CORE_MACRO_BANS.contains(&name) {
            findings.push(Finding::new(source, line, "core", format!("{name}!: report through tracing or a value")));
        }
    }
}

fn excused(finding: &Finding) -> bool {
    EXCEPTIONS.iter().any(|exception| exception.file == finding.file && exception.rule == finding.rule)
}

/// Every Rust file of the repository's own, below `folder`.
fn sources_below(root: &Path, folder: &str, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.expect("the source tree can be listed");
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("names of source files are UTF-8"));
        if entry.file_type().expect("the source tree can be listed").is_dir() {
            if !name.ends_with("/target") {
                sources_below(root, &name, sources);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("source files can be read");
            sources.push(Source::new(&name, &text));
        }
    }
}

fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "jepsen", "fuzz", "benches"] {
        sources_below(root, folder, &mut sources);
    }
    if let Ok(text) = fs::read_to_string(root.join("build.rs")) {
        sources.push(Source::new("build.rs", &text));
    }
    sources
}

#[test]
fn the_source_tree_keeps_the_rules() {
    let sources = all_sources();
    assert!(sources.iter().any(|source| source.file == "src/types.rs"), "the source tree was not found");
    let broken: Vec<String> = sources
        .iter()
        .flat_map(check)
        .filter(|finding| !excused(finding))
        .map(|finding| format!("{}:{}: [{}] {}", finding.file, finding.line, finding.rule, finding.what))
        .collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn exceptions_are_needed_and_reasoned() {
    let sources = all_sources();
    for exception in EXCEPTIONS {
        assert!(!exception.reason.is_empty(), "{} has no reason", exception.file);
        // An excused file that no longer exists, or no longer breaks its rule, must leave the table.
        if let Some(source) = sources.iter().find(|source| source.file == exception.file) {
            let needed = check(source).iter().any(|finding| finding.rule == exception.rule);
            assert!(needed, "{} keeps rule {} and needs no exception", exception.file, exception.rule);
        }
    }
}

/// (file, rule, code that breaks it)
const BROKEN: &[(&str, &str, &str)] = &[
    ("src/wal.rs", "layers", "use crate::storage::Engine;"),
    ("src/raft/groups.rs", "layers", "use crate::{types::Term, partition::Partition};"),
    ("src/partition.rs", "layers", "fn f() { let x = crate::raft::Role::Leader; }"),
    ("src/kafka/produce.rs", "layers", "use crate::{broker::{self, Broker}, native::{wire}};"),
    ("src/kafka.rs", "layers", "use crate::partition::Partition;"),
    ("src/multiraft/ready.rs", "layers", "use super::worker::Worker;"),
    ("src/controller.rs", "layers", "use super::coordinator;"),
    ("src/controller/view.rs", "layers", "mod tests { use super::super::super::coordinator; }"),
    ("src/types.rs", "layers", "use crate::wal::Turn;"),
    ("src/storage.rs", "layers", "use crate::machine::Outcome;"),
    ("src/main.rs", "layers", "use ackord::wal::Turn;"),
    ("src/broker.rs", "layers", "use crate::*;"),
    ("src/attic.rs", "layers", "use crate::types::Term;"),
    ("src/multiraft/groups.rs", "raft-rs", "use raft_rs::RawNode;"),
    ("src/broker.rs", "raft-rs", "fn f(message: raft_rs::eraftpb::Message) {}"),
    ("src/raft.rs", "core", "use std::time::{Duration, Instant};"),
    ("src/raft.rs", "core", "use std::time; fn f() { time::SystemTime::now(); }"),
    ("src/wal.rs", "core", "use std::collections::{BTreeMap, HashMap};"),
    ("src/wal.rs", "core", "use std::collections::*;"),
    ("src/partition.rs", "core", "fn f() -> u8 { rand::random() }"),
    ("src/controller.rs", "core", "fn f() { getrandom::fill(&mut []); }"),
    ("src/controller.rs", "core", "fn f() { Uuid::new_v4(); }"),
    ("src/multiraft/groups.rs", "core", "fn f() { std::thread::yield_now(); }"),
    ("src/record.rs", "core", "use tokio::sync::mpsc;"),
    ("src/storage/memory.rs", "core", "use std::fs::File;"),
    ("src/coordinator.rs", "core", "fn f() { println!(\"\"); }"),
    ("src/sim/world.rs", "core", "use std::time::Instant;"),
];

#[test]
fn every_rule_can_fail() {
    let long_function = format!("fn f() {{\n{}}}", "    g();\n".repeat(FUNCTION_LINES_MAX));
    let long_file = "//!\n".repeat(FILE_LINES_MAX + 1);
    let long_line = format!("// {}", "é".repeat(LINE_CHARS_MAX));
    let shapes = [
        ("src/wal.rs", "function-length", long_function.as_str()),
        ("src/wal.rs", "file-length", long_file.as_str()),
        ("tests/chaos.rs", "line-length", long_line.as_str()),
        ("src/wal/mod.rs", "name", ""),
        ("src/wal.rs", "unwrap", "fn f() { g()\n.unwrap(); }"),
        ("src/wal.rs", "field-doc", "pub struct Log {\n    /// Its number.\n    a: u8,\n    pub b: u8,\n}"),
    ];
    for (file, rule, code) in BROKEN.iter().chain(&shapes) {
        let rules: Vec<_> =
            check(&Source::new(file, &format!("//! Owns it.\n{code}"))).iter().map(|f| f.rule).collect();
        assert!(rules.contains(rule), "{file} with {code:?} breaks {rule}, but only {rules:?} was found");
    }
    assert_eq!(check(&Source::new("src/wal.rs", "use std::io;"))[0].rule, "heading");
}

#[test]
fn what_is_allowed_is_not_found() {
    let allowed = [
        ("src/wal.rs", "use crate::types::{LogId, Term};\nuse std::collections::BTreeMap;"),
        ("src/wal.rs", "// crate::storage and std::time::Instant in a comment\n/* tokio::spawn */"),
        ("src/wal.rs", "const TEXT: &str = \"crate::storage\"; const RAW: &str = r#\"a \" tokio::spawn\"#;"),
        ("src/wal.rs", "fn f<'a>(x: &'a str) -> char { '\"' } mod tests { use super::*; }"),
        ("src/wal/disk.rs", "use super::Turn; mod tests { use super::super::Turn; use super::Disk; }"),
        ("src/kafka/produce.rs", "use crate::broker::Broker; use crate::record::Batch; use super::Connection;"),
        ("src/multiraft/worker.rs", "use crate::multiraft::groups::Groups; use std::thread; use crate::raft::Node;"),
        ("src/sim/world.rs", "use crate::{multiraft::groups::Groups, wal::disk::Disk, controller::View};"),
        ("src/raft/node.rs", "use raft_rs::{RawNode, eraftpb};"),
        ("src/main.rs", "use ackord::{cli, server}; fn main() { println!(\"{}\", 1 != 2); }"),
        ("src/wal.rs", "fn f() { g().unwrap_or(1); } #[cfg(test)] mod tests { fn f() { g().unwrap(); } }"),
        ("tests/sim.rs", "fn f() { g().unwrap(); }"),
        ("tests/sim.rs", "use std::time::Instant; use ackord::wal::Turn;"),
    ];
    for (file, code) in allowed {
        let findings = check(&Source::new(file, &format!("//! Owns it.\n{code}")));
        assert!(findings.is_empty(), "{file} with {code:?}: {findings:?}");
    }
}
