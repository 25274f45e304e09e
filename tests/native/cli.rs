//! The program itself, as its users run it.

use crate::fake_broker::Fate;
use crate::server::{HANG, Server, TOPIC, until};
use ackord::broker::ErrorKind as BrokerError;
use serde_json::Value;
use std::process::{Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackord"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run_with(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments).spawn().expect("the program was built");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).await.ok(); // it may end without reading
    drop(stdin);
    timeout(HANG, child.wait_with_output()).await.expect("it ends").expect("it can be waited for")
}

async fn run(arguments: &[&str]) -> Output {
    run_with(arguments, "").await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the program writes UTF-8")
}

/// Runs a command that must succeed, at a server; returns what it printed.
async fn done(server: &Server, arguments: &[&str], input: &str) -> String {
    let address = server.address.to_string();
    let output = run_with(&[arguments, &["--bootstrap", &address]].concat(), input).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

#[tokio::test]
async fn every_command_explains_itself() {
    let help = run(&["--help"]).await;
    let commands = ["dev", "format", "serve", "topic", "produce", "consume", "status", "bench"];
    for name in commands {
        let line = text(&help.stdout).lines().find(|line| line.trim_start().starts_with(name)).map(str::to_owned);
        assert!(line.is_some_and(|line| line.split_whitespace().count() > 3), "{name} is not explained");
    }
}

#[tokio::test]
async fn a_wrong_command_line_says_what_is_wrong() {
    let cases: [(&[&str], &str); 11] = [
        (&["statsu"], "status"),
        (&["consume", "t", "--from", "middle"], "no place to begin"),
        (&["bench", "produce", "--record-size", "huge"], "is not a size"),
        (&["topic", "create", "t", "--config", "retention"], "NAME=VALUE"),
        (&["topic", "create", "t", "--partitions", "0"], "0 is not in"),
        (&["topic", "alter", "t", "--dry-run"], "--set"),
        (&["topic", "alter", "t", "--set", "retention"], "NAME=VALUE"),
        (&["topic", "trim", "t"], "--to-high-watermark"),
        (&["topic", "trim", "t", "--before-time", "noon"], "is not a time"),
        (&["format"], "--config"),
        (&["format", "--config", "x", "--cluster-id", "short", "--voters", "1:2"], "22 characters"),
    ];
    for (arguments, said) in cases {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_node_is_formatted_once_and_only_with_what_its_cluster_needs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    let file = file.to_str().unwrap();
    let data = directory.path().join("data");
    let write = |more: &str| {
        let text = format!("node_id = 2\ndata_dir = {data:?}\nadvertised_host = \"n2\"\n{more}");
        std::fs::write(file, text).unwrap();
    };
    write("listenrs = 1\n");
    let typo = run(&["format", "--config", file]).await;
    assert_eq!(typo.status.code(), Some(1));
    assert!(text(&typo.stderr).contains("did you mean `listeners`?"), "{}", text(&typo.stderr));
    write("peers = [\"1@n1:9095\", \"2@n2:9095\"]\n");
    let unserved = run(&["serve", "--config", file]).await;
    assert!(text(&unserved.stderr).contains("not formatted"), "{}", text(&unserved.stderr));
    let alone = run(&["format", "--config", file]).await;
    assert!(text(&alone.stderr).contains("--new-cluster"), "{}", text(&alone.stderr));
    // The command that is printed is the command that works.
    let plan = run(&["format", "--new-cluster", "1,2"]).await;
    let planned: Vec<_> = text(&plan.stdout).split_whitespace().skip(1).collect();
    let planned: Vec<_> = planned.iter().map(|word| if *word == "node.toml" { file } else { word }).collect();
    let formatted = run(&planned).await;
    assert!(formatted.status.success(), "{}", text(&formatted.stderr));
    assert!(data.join("identity.toml").exists());
    let again = run(&planned).await;
    assert!(text(&again.stderr).contains("formatted already"), "{}", text(&again.stderr));
}

#[tokio::test]
async fn topics_are_administered() {
    let server = Server::start().await;
    done(&server, &["topic", "create", "new", "--partitions", "3"], "").await;
    done(&server, &["topic", "create", "new", "--if-not-exists"], "").await;
    let address = server.address.to_string();
    let again = run(&["topic", "create", "new", "-b", &address]).await;
    assert_eq!((again.status.code(), text(&again.stderr)), (Some(1), "ackord: the topic exists already\n"));
    done(&server, &["topic", "grow", "new", "--partitions", "5"], "").await;
    let list = done(&server, &["topic", "list"], "").await;
    assert!(list.lines().any(|line| line.split_whitespace().eq(["new", "5", "1", "0"])), "{list}");
    done(&server, &["produce", "new", "--partition", "4"], "x\ny\n").await;
    let described: Value =
        serde_json::from_str(&done(&server, &["topic", "describe", "new", "--json"], "").await).unwrap();
    assert_eq!(described["partitions"][4]["high_watermark"], 2);
    assert_eq!(described["partitions"][4]["leader"], 1);
    done(&server, &["topic", "delete", "new"], "").await;
    assert_eq!(done(&server, &["topic", "list"], "").await.lines().count(), 2);
    server.stop().await;
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let server = Server::start().await;
    let set = |name: &str| server.broker.state().topics[TOPIC].configs.get(name).cloned();
    let alter = ["topic", "alter", TOPIC, "--set", "max.message.bytes=7", "--set", "a=1", "--delete", "b"];
    let tried = done(&server, &[&alter[..], &["--dry-run"]].concat(), "").await;
    assert!(tried.contains("orders: max.message.bytes would be set to 7\n"), "{tried}");
    assert_eq!(set("max.message.bytes"), None, "it was only tried");
    let made = done(&server, &alter, "").await;
    assert!(made.contains("orders: a is set to 1\norders: b is back to its default\n"), "{made}");
    assert_eq!(set("max.message.bytes").as_deref(), Some("7"));

    let shown = done(&server, &["topic", "configs", TOPIC], "").await;
    let row = shown.lines().find(|line| line.contains("max.message.bytes")).expect("a row");
    assert!(row.split_whitespace().eq(["*", "max.message.bytes", "7", "1048588", "honoured"]), "{shown}");
    done(&server, &["topic", "alter", TOPIC, "--delete", "max.message.bytes"], "").await;
    let shown = done(&server, &["topic", "configs", TOPIC, "--json"], "").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown[0]["name"], &shown[0]["set"]), (&"max.message.bytes".into(), &false.into()));
    assert_eq!((&shown[0]["value"], &shown[0]["documentation"]), (&"1048588".into(), &"the largest batch".into()));
    assert_eq!((&shown[1]["name"], &shown[1]["set"]), (&"a".into(), &true.into()));

    let address = server.address.to_string();
    for refused in [["--set", "no.such.config=1"], ["--set", "a=2"]] {
        // Named twice, the second one: nobody can tell which was meant.
        let again = ["topic", "alter", TOPIC, "-b", &address, "--delete", "a"];
        let output = run(&[&again[..], &refused].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    }
    assert_eq!(set("a").as_deref(), Some("1"), "all changes or none");
    server.stop().await;
}

#[tokio::test]
async fn lines_go_in_and_come_out() {
    let server = Server::start().await;
    let acks = done(&server, &["produce", TOPIC, "-k", ": ", "--acks"], "k1: v1\nno key\nk1: v2").await;
    assert_eq!(acks.lines().count(), 3);
    assert!(acks.lines().all(|line| line.contains("term 3 index ")), "{acks}");
    let mut values: Vec<_> = done(&server, &["consume", TOPIC], "").await.lines().map(str::to_owned).collect();
    values.sort_unstable();
    assert_eq!(values, ["no key", "v1", "v2"]);
    let keyed = done(&server, &["consume", TOPIC, "--format", "keyed"], "").await;
    assert!(keyed.contains("k1\tv1\n") && keyed.contains("\tno key\n"), "{keyed}");
    let one = done(&server, &["consume", TOPIC, "--max", "1", "-o", "json"], "").await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one["offset"].as_i64(), one["term"].as_i64()), (Some(0), Some(3)));
    assert_eq!(done(&server, &["consume", TOPIC, "--from", "end"], "").await, "");
    let followed = done(&server, &["consume", TOPIC, "--follow", "--from", "beginning", "--max", "3"], "").await;
    assert_eq!(followed.lines().count(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_file_is_written_whole() {
    let server = Server::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(file.path(), &lines).unwrap();
    done(&server, &["produce", TOPIC, "-p", "1", "-f", file.path().to_str().unwrap()], "").await;
    assert_eq!(done(&server, &["consume", TOPIC, "-p", "1"], "").await, lines);
    server.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_refused_from_unknown() {
    let server = Server::start().await;
    let address = server.address.to_string();
    let produce = ["produce", TOPIC, "-p", "0", "-b", &address, "--timeout", "1s"];
    let refused = Fate { written: false, error: BrokerError::RecordTooLarge };
    server.broker.state().fates.push_back(Some(refused.clone()));
    let output = run_with(&produce, "x\n").await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let lost = Fate { written: true, error: BrokerError::LeadershipLost };
    server.broker.state().fates.extend([Some(lost), Some(refused)]);
    let output = run_with(&produce, "x\n").await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("It may have been done"), "{}", text(&output.stderr));
    let nobody = run(&["status", "-b", "127.0.0.1:1", "--timeout", "200ms"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("ackord dev"), "it says what to do");
    server.stop().await;
}

#[tokio::test]
async fn status_shows_every_replica() {
    let server = Server::start().await;
    done(&server, &["produce", TOPIC, "-p", "0"], "x\n").await;
    let table = done(&server, &["status"], "").await;
    let row = table.lines().find(|line| line.starts_with("orders/0")).expect("a row");
    assert!(row.split_whitespace().eq(["orders/0", "1", "leader", "3", "1", "1", "1"]), "{table}");
    let json: Value = serde_json::from_str(&done(&server, &["status", "--json"], "").await).unwrap();
    assert_eq!((json["controller"].as_i64(), json["groups"].as_array().unwrap().len()), (Some(1), 2));
    assert_eq!(json["groups"][0]["replicas"][0]["followers"][0]["lag"], 0);
    assert_eq!(json["troubles"].as_array().map(Vec::len), Some(0));
    server.stop().await;
}

#[tokio::test]
async fn benches_measure_what_was_done() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let common = ["--topic", "bench", "--json", "--total", "300KiB"];
    let disk = ["--disk-dir", directory.path().to_str().unwrap(), "--partitions", "3"];
    let sent = done(&server, &[&["bench", "produce"], &common[..], &disk].concat(), "").await;
    let sent: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!((sent["records"].as_i64(), sent["failed"].as_i64()), (Some(300), Some(0)));
    assert_eq!(sent["latency"]["count"], 300);
    for when in ["disk_before", "disk_after"] {
        assert_eq!(sent[when][0]["append_bytes"], 4096);
        assert!(sent[when][1]["bytes_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the scratch file is gone");
    let stored: usize = (0..3).map(|partition| server.broker.stored("bench", partition).len()).sum();
    assert!(stored >= 3, "every partition has its share");
    let read = done(&server, &["bench", "consume", "--topic", "bench", "--json"], "").await;
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!((read["records"].as_i64(), read["bytes"].as_i64()), (Some(300), Some(300 << 10)));
    server.stop().await;
}

#[tokio::test]
async fn nodes_are_listed_and_replaced() {
    let server = Server::start().await;
    let listed = done(&server, &["node", "list"], "").await;
    assert!(listed.lines().nth(1).is_some_and(|row| row.contains("alive") && row.contains("voter")), "{listed}");
    assert!(listed.contains("node 3 is being replaced by node 4: 2 of 5 groups are done"), "{listed}");
    let json: Value = serde_json::from_str(&done(&server, &["node", "list", "--json"], "").await).unwrap();
    assert_eq!(
        (json["nodes"][0]["replicas"].as_u64(), json["replacements"][0]["groups_done"].as_u64()),
        (Some(3), Some(2))
    );

    let replaced = done(&server, &["node", "replace", "3", "--by", "4"], "").await;
    assert!(replaced.starts_with("5 replicas of node 3 are to be replaced"), "{replaced}");
    let address = server.address.to_string();
    let refused = run(&["node", "replace", "2", "--by", "4", "-b", &address]).await;
    assert_eq!(refused.status.code(), Some(1), "it certainly did not happen");
    assert!(text(&refused.stderr).contains("node 3 is alive"), "{}", text(&refused.stderr));
    server.stop().await;
}

#[tokio::test]
async fn a_rates_latency_counts_from_the_schedule() {
    let server = Server::start().await;
    let (gate, outcome) = tokio::sync::oneshot::channel();
    server.broker.state().outcomes.push_back(outcome);
    // Room for one record on its way, so that the client itself is held up.
    let held_up = ["--record-size", "100", "--batch-bytes", "100", "--buffer", "200"];
    let arguments = ["bench", "produce", "-t", TOPIC, "--rate", "100", "-d", "600ms", "--no-disk", "--json"];
    let arguments = [&arguments[..], &held_up].concat();
    let running = done(&server, &arguments, "");
    let held = async {
        until("it is written", || !server.broker.stored(TOPIC, 0).is_empty()).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        gate.send(()).unwrap();
    };
    let (shown, ()) = tokio::join!(running, held);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["records"], 60);
    assert!(shown["latency"]["max_us"].as_i64().unwrap() >= 290_000, "{shown}");
    // Half of the records were to be sent meanwhile. Counted from when they were sent, they would look quick.
    assert!(shown["latency"]["mean_us"].as_f64().unwrap() >= 50_000.0, "{shown}");
    server.stop().await;
}
