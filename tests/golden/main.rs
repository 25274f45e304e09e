//! The protocol's stories, as documentation that is checked: each `tests/golden/*.story` is a page of commands and
//! everything that the nodes do in answer. The nodes are what production runs (core, log, state machines), one command
//! at a time and without chance. `ACKORD_WRITE_GOLDEN=1 cargo test --test golden` writes the answers anew; read the
//! difference before you believe it.

mod cluster;
mod node;
mod script;

use std::path::Path;

/// Plays a story, and holds the answers against those in the file.
fn play(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.story"));
    let expected = std::fs::read_to_string(&path).expect("the story is there");
    let played = script::play(&expected);
    if std::env::var_os("ACKORD_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, played).expect("the story can be written");
        return;
    }
    for (number, (expected, played)) in expected.lines().zip(played.lines()).enumerate() {
        assert_eq!(expected, played, "{name}.story, line {}", number + 1);
    }
    assert_eq!(expected.lines().count(), played.lines().count(), "{name}.story has another length");
}

#[test]
fn an_election() {
    play("election");
}

#[test]
fn an_append_beside_the_leaders_own_disk() {
    play("parallel-append");
}

#[test]
fn a_leader_that_is_deposed_with_an_uncommitted_tail() {
    play("uncommitted-tail");
}

#[test]
fn a_snapshot_for_one_that_was_away() {
    play("snapshot");
}

#[test]
fn a_node_takes_another_ones_place() {
    play("conf-change");
}

#[test]
fn quarantine_and_repair_entry_by_entry() {
    play("repair-entries");
}

#[test]
fn repair_when_promises_are_not_known() {
    play("repair-promises");
}

#[test]
fn all_copies_are_damaged() {
    play("all-copies-damaged");
}

/// The answers are the nodes': another command has other answers.
#[test]
fn another_story_has_other_answers() {
    let story = "# Nothing.\n$ nodes 3\n$ tick 1 20\n";
    let other = "# Nothing.\n$ nodes 3\n$ tick 2 20\n";
    let answers = |story: &str| script::play(story).lines().filter(|line| !line.starts_with('$')).count();
    assert!(answers(story) > 2, "a story has answers");
    assert_ne!(script::play(story).replace("$ tick 1", "$ tick 2"), script::play(other));
}

/// Lines that are not shown are held, too.
#[test]
fn a_quiet_command_has_a_hash_of_its_answers() {
    let answers = |node: u32| {
        let story = script::play(&format!("$ nodes 3\n$ quiet tick {node} 20\n"));
        story.lines().last().expect("it has lines").to_owned()
    };
    assert!(answers(1).starts_with("  (2 lines, hash "), "{}", answers(1));
    assert_ne!(answers(1), answers(2));
}
