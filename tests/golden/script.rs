//! The commands of a story.
//!
//! ```text
//! # A comment.
//! $ nodes 3              three nodes, born into one group
//! $ tick 1 20            node 1's clock ticks 20 times
//! $ write 1 hello        a client writes a record through node 1
//! $ disk 1               what node 1 wants written is durable; `apply 1`: what it wants applied is
//! $ deliver 1 2          everything from node 1 to node 2 arrives; `drop 1 2`: is lost
//! $ settle               everything is done and delivered, until only time could change anything
//! $ settle without 3     ... and node 3 is cut off
//! $ flush 1              node 1's state is durable, so that its log may be let go
//! $ crash 2, start 2     the power goes, and comes back
//! $ rot 2 hello          in node 2's log, every copy of these bytes is damaged
//! $ lose 2               node 2's log has lost its newest segment: nobody knows what was promised in it
//! $ join 4               a fourth node joins the group: empty, and nobody knows of it yet
//! $ members 1 -3 +4      node 1, which leads, takes one step towards members without node 3, and with node 4
//! $ quiet settle         without the lines in between: only how many they are, and a hash of them
//! $ show                 how every node stands
//! ```

use crate::cluster::{Cluster, Work};
use ackord::wal::disk::Disk;

/// Plays a story: its comments and commands, with the answers that its nodes give now.
pub fn play(story: &str) -> String {
    let mut cluster = Cluster::default();
    let mut played = String::new();
    for line in story.lines() {
        if line.starts_with('#') || line.is_empty() {
            played += &format!("{line}\n");
        } else if let Some(command) = line.strip_prefix("$ ") {
            played += &format!("{line}\n");
            obey(&mut cluster, command);
            for answer in std::mem::take(&mut cluster.lines) {
                played += &format!("  {answer}\n");
            }
        }
    }
    played
}

fn obey(cluster: &mut Cluster, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let number = |word: &str| word.parse::<u32>().unwrap_or_else(|_| panic!("{word:?} is no number: {command}"));
    match words.as_slice() {
        ["quiet", rest @ ..] => {
            // Nothing has been answered before: `play` has taken it.
            obey(cluster, &rest.join(" "));
            let hidden = std::mem::take(&mut cluster.lines);
            if !hidden.is_empty() {
                cluster.lines.push(format!(
                    "({} lines, hash {:08x})",
                    hidden.len(),
                    crc32c::crc32c(hidden.join("\n").as_bytes())
                ));
            }
        }
        ["nodes", count] => cluster.nodes(number(count)),
        ["tick", node] => cluster.tick(number(node)),
        ["tick", node, times] => (0..number(times)).for_each(|_| cluster.tick(number(node))),
        ["write", node, text] => cluster.write(number(node), text),
        ["write", node, text, bytes] => {
            cluster.write(number(node), &format!("{text}{}", "-".repeat(number(bytes) as usize)));
        }
        ["disk", node] => assert!(cluster.finish(number(node), Work::Disk), "nothing waits for the disk: {command}"),
        ["apply", node] => assert!(cluster.finish(number(node), Work::Apply), "nothing waits: {command}"),
        ["deliver", from, to] => while cluster.deliver(number(from), number(to)) {},
        ["drop", from, to] => cluster.drop_all(number(from), number(to)),
        ["settle"] => cluster.settle(&[]),
        ["settle", "without", nodes @ ..] => {
            let without: Vec<u32> = nodes.iter().map(|node| number(node)).collect();
            cluster.settle(&without);
        }
        ["flush", nodes @ ..] => nodes.iter().for_each(|node| cluster.flush(number(node))),
        ["crash", nodes @ ..] => nodes.iter().for_each(|node| cluster.crash(number(node))),
        ["start", nodes @ ..] => nodes.iter().for_each(|node| cluster.start(number(node))),
        ["join", node] => cluster.join(number(node)),
        ["members", node, changes @ ..] => {
            let with = |sign: char| changes.iter().filter_map(move |change| change.strip_prefix(sign)).map(number);
            let (go, come): (Vec<_>, Vec<_>) = (with('-').collect(), with('+').collect());
            cluster.members(number(node), &go, &come);
        }
        ["rot", node, text] => rot(cluster, number(node), text),
        ["lose", node] => lose(cluster, number(node)),
        ["show"] => {
            let lines: Vec<_> = cluster.nodes.iter().map(|(id, node)| format!("node {id}: {}", node.show())).collect();
            cluster.lines.extend(lines);
        }
        _ => panic!("not a command: {command}"),
    }
}

fn segments(cluster: &Cluster, node: u32) -> Vec<String> {
    let mut names = cluster.nodes[&node].disk.list().expect("the disk lists");
    names.retain(|name| name.starts_with("segment-") && name.ends_with(".wal"));
    names.sort_unstable();
    names
}

/// Damages every copy of these bytes.
fn rot(cluster: &mut Cluster, node: u32, text: &str) {
    let mut found = false;
    for name in segments(cluster, node) {
        let disk = &cluster.nodes[&node].disk;
        let bytes = disk.contents(&name);
        let places = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
        for (place, _) in places {
            disk.flip(&name, place as u64, 0);
            found = true;
        }
    }
    assert!(found, "{text:?} is not in the log of node {node}");
}

/// Takes the newest segment away.
fn lose(cluster: &mut Cluster, node: u32) {
    let name = segments(cluster, node).pop().expect("a log has a segment");
    let disk = &cluster.nodes[&node].disk;
    disk.lose(&name);
}
