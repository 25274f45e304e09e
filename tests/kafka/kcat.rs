//! kcat (librdkafka) through the listener: what it produces with every codec is stored with that codec and read back.

use crate::client::Server;
use ackord::kafka::Limits;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// A codec's name for kcat, and the low bits of a batch's attributes (KIP-98, KIP-110).
const CODECS: [(&str, u8); 5] = [("none", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];

async fn is_installed() -> bool {
    let found = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if found.is_err() {
        eprintln!("SKIPPED: kcat is not installed (Debian: apt install kcat)");
    }
    found.is_ok()
}

/// Runs kcat to its end and returns what it printed.
async fn kcat(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("kcat")
        .args(["-b", &server.address.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kcat starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("kcat reads");
    drop(stdin);
    let output = timeout(crate::client::HANG, child.wait_with_output()).await.expect("kcat ends").expect("kcat runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn kcat_produces_and_consumes_with_every_codec() {
    if !is_installed().await {
        return;
    }
    let server = Server::start(Limits::default()).await;
    for idempotent in ["false", "true"] {
        for (codec, bits) in CODECS {
            let topic = format!("{codec}-{idempotent}");
            server.broker.add_topic(&topic, 1);
            let lines: String = (0..200).map(|number| format!("line {number} of many that look alike\n")).collect();
            let idempotence = format!("enable.idempotence={idempotent}");
            let mut produce = vec!["-P", "-t", &topic, "-X", &idempotence, "-X", "linger.ms=50"];
            if codec != "none" {
                produce.extend(["-z", codec]);
            }
            kcat(&server, &produce, &lines).await;
            let stored = server.broker.stored(&topic, 0);
            assert!(!stored.is_empty());
            for batch in &stored {
                assert_eq!(batch.bytes[22] & 7, bits, "{topic}: stored with another codec");
            }
            let consumed = kcat(&server, &["-C", "-t", &topic, "-e", "-q", "-o", "beginning"], "").await;
            assert_eq!(consumed, lines, "{topic}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn kcat_reads_from_the_middle_by_offset_and_by_time() {
    if !is_installed().await {
        return;
    }
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("numbers", 1);
    let lines: String = (0..10).map(|number| format!("{number}\n")).collect();
    kcat(&server, &["-P", "-t", "numbers"], &lines).await;
    let consume = ["-C", "-t", "numbers", "-e", "-q", "-f", "%o=%s ", "-o"];
    let from = async |offset| kcat(&server, &[&consume[..], &[offset]].concat(), "").await;
    assert_eq!(from("7").await, "7=7 8=8 9=9 ");
    assert_eq!(from("-2").await, "8=8 9=9 ");
    assert_eq!(from("s@0").await.split_whitespace().count(), 10);
    server.stop().await;
}

#[tokio::test]
async fn kcat_produces_to_a_topic_that_it_has_created_on_the_way() {
    if !is_installed().await {
        return;
    }
    let server = Server::start(Limits::default()).await;
    kcat(&server, &["-P", "-t", "unheard-of"], "hello\n").await;
    assert_eq!(kcat(&server, &["-C", "-t", "unheard-of", "-e", "-q"], "").await, "hello\n");
    let listed = kcat(&server, &["-L"], "").await;
    assert!(listed.contains("topic \"unheard-of\" with 1 partitions"), "{listed}");
    server.stop().await;
}
