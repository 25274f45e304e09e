//! Who may know whom: the table of rooms, and the check of every path against it.

use crate::Finding;
use crate::source::{Path, Source};

/// What every room may name: words, not behaviour.
const VOCABULARY: &[&str] = &["types", "record", "config", "proto", "metrics"];

/// The state machines, consensus and their stores: deterministic, without I/O of their own.
const CORE: &[&str] = &["storage", "wal", "machine", "raft", "partition", "controller", "coordinator", "multiraft"];

/// A room and the rooms below it that it may name, beside itself and the vocabulary.
struct Room {
    /// Its module path.
    name: &'static str,
    /// Rooms below it.
    may_use: &'static [&'static str],
}

const fn room(name: &'static str, may_use: &'static [&'static str]) -> Room {
    Room { name, may_use }
}

/// Arrows point down only. A nested room (`multiraft::worker`) is apart from the room it lies in.
const ROOMS: &[Room] = &[
    // The composition root.
    room("main", &["server", "cli"]),
    room("cli", &["server", "client"]),
    room(
        "server",
        &["kafka", "native", "http", "edge", "broker", "transport", "multiraft::handle", "multiraft::worker"],
    ),
    // The other end of the native protocol: it knows no server.
    room("client", &[]),
    // Edges: they know the broker and the vocabulary, and never each other.
    room("kafka", &["broker", "edge"]),
    room("native", &["broker", "edge"]),
    room("edge", &["broker"]),
    room("http", &["broker"]),
    // Shell: it holds sockets and waits.
    room("broker", &["multiraft::handle", "multiraft::worker"]),
    room("transport", &["multiraft::handle", "multiraft::worker"]),
    room("multiraft::handle", &["multiraft::worker"]),
    room("multiraft::worker", &["multiraft::handle"]),
    // What stands in the place of files, of RocksDB and of chance, for tests and for the driver in tests/sim.
    room("sim", &[]),
    // Core.
    room("multiraft", &["raft", "partition", "controller", "coordinator", "machine", "storage", "wal"]),
    room("raft", &["machine", "storage", "wal"]),
    room("partition", &["machine", "storage"]),
    room("controller", &["machine", "storage"]),
    room("coordinator", &["machine", "storage"]),
    room("machine", &["storage"]),
    room("storage", &[]),
    room("wal", &[]),
    // Vocabulary.
    room("types", &[]),
    room("record", &[]),
    room("config", &[]),
    room("proto", &[]),
    room("metrics", &[]),
];

/// These hold or drive the core and may look into all of it.
const ABOVE_THE_CORE: &[&str] = &["server", "broker", "transport", "multiraft::handle", "multiraft::worker", "sim"];

/// The room that a module path lies in: the longest name in the table that it begins with.
pub fn room_of(module: &[&str]) -> Option<&'static str> {
    let nested = module.get(..2).map(|two| two.join("::"));
    let named = |name: &str| ROOMS.iter().map(|room| room.name).find(|known| *known == name);
    nested.and_then(|name| named(&name)).or_else(|| module.first().and_then(|first| named(first)))
}

/// Whether what the room does follows from its inputs alone: the core, the vocabulary, and the simulator, whose runs
/// follow from a seed.
pub fn is_deterministic(room: &str) -> bool {
    CORE.contains(&room) || VOCABULARY.contains(&room) || room == "sim"
}

fn may_use(room: &str, target: &str) -> bool {
    let listed = ROOMS.iter().find(|known| known.name == room).is_some_and(|known| known.may_use.contains(&target));
    let core_from_above = ABOVE_THE_CORE.contains(&room) && CORE.contains(&target);
    room == target || VOCABULARY.contains(&target) || listed || core_from_above
}

/// The absolute path below the crate's root, for a path that begins with `crate`, `self`, `super` or the crate's name.
fn absolute<'a>(module: &[&'a str], path: &'a Path) -> Option<Vec<&'a str>> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match *segments.first()? {
        "crate" | "ackord" => Some(segments[1..].to_vec()),
        "self" if path.inline_modules == 0 => Some([module, &segments[1..]].concat()),
        "super" => {
            let supers = segments.iter().take_while(|segment| **segment == "super").count();
            let climbed = supers.saturating_sub(path.inline_modules);
            (climbed > 0).then(|| [&module[..module.len().saturating_sub(climbed)], &segments[supers..]].concat())
        }
        _ => None,
    }
}

/// Every path that leads to a room which the file's room may not know.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.file.starts_with("src/") || source.file == "src/lib.rs" {
        return;
    }
    let module = source.module();
    let Some(room) = room_of(&module) else {
        findings.push(Finding::new(source, 1, "layers", format!("no room in the table holds {}", module.join("::"))));
        return;
    };
    for path in source.paths() {
        if path.segments.iter().any(|segment| segment == "raft_rs") && room != "raft" {
            let what = format!("{room} names raft_rs; the crate and its types stay in raft");
            findings.push(Finding::new(source, path.line, "raft-rs", what));
        }
        let Some(target) = absolute(&module, &path) else { continue };
        match room_of(&target) {
            Some(target) if may_use(room, target) => {}
            Some(target) => {
                findings.push(Finding::new(source, path.line, "layers", format!("{room} may not know {target}")));
            }
            // `multiraft::*` and items of the crate's root: the root holds modules only.
            None => {
                let what = format!("crate::{} leads to no room", target.join("::"));
                findings.push(Finding::new(source, path.line, "layers", what));
            }
        }
    }
}
