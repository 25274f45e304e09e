//! A configuration that cannot be used, and a port that somebody else has: said at once, and nothing is written.

use crate::process::{Home, exists};
use std::net::TcpListener;

/// What is added to a sound configuration, and what the sentence about it must hold: the key, and what to do.
const WRONG: [(&str, &str, [&str; 2]); 9] = [
    ("node_id = 1", "node_id = 1\nnode_idd = 2", ["`node_idd`", "did you mean `node_id`?"]),
    ("[wal]", "[wal]\nsegment_byte = 1", ["`segment_byte`", "did you mean `segment_bytes`?"]),
    ("node_id = 1", "node_id = 1\nzookeeper = \"x\"", ["`zookeeper`", "expected one of"]),
    ("node_id = 1", "node_id = \"one\"", ["node_id", "expected u32"]),
    ("auto_create_topics = false", "auto_create_topics = 1", ["auto_create_topics", "expected a boolean"]),
    ("node_id = 1", "node_id = 0", ["node_id: 0 is no node's number", "1 to"]),
    ("segment_bytes = 16777216", "segment_bytes = 1", ["wal.segment_bytes", "16 MiB to 2 GiB"]),
    ("[limits]", "[limits]\nconnections = 0", ["limits.connections", "leave it out"]),
    ("node_id = 1", "node_id", ["node_id", "line 1"]),
];

#[tokio::test]
async fn a_wrong_configuration_is_explained_and_nothing_is_written() {
    let home = Home::new();
    for (sound, wrong, said) in WRONG {
        home.write_config(&home.config().replacen(sound, wrong, 1));
        for subcommand in ["serve", "format"] {
            let output = home.ackord(subcommand).await;
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{wrong}: {error}");
            assert!(error.contains("node.toml"), "it names the file: {error}");
            for words in said {
                assert!(error.contains(words), "{wrong}: {words:?} is not in {error}");
            }
            assert!(!exists(&home.data()), "{wrong}: something was written");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_written() {
    for (place, listener) in ["kafka", "native", "http", "peer"].into_iter().enumerate() {
        // Ports of its own: a child of another test that has yet to begin may hold what was closed here.
        let home = Home::new();
        home.format().await;
        let (before, port) = (home.snapshot(), home.ports[place]);
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a port that was free");
        let output = home.ackord("serve").await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let said = format!("can't listen on 127.0.0.1:{port} ({listener})");
        assert!(error.contains(&said) && error.contains("is the port in use"), "{error}");
        assert!(home.snapshot() == before, "something was written");
    }
}
