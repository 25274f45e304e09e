//! Three nodes in one process, and an unchanged Kafka client.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "cluster/replace.rs"]
mod replace;
#[path = "cluster/retention.rs"]
mod retention;
#[path = "cluster/settings.rs"]
mod settings;

use cluster::{TestCluster, kcat, wait_until};
use std::time::{Duration, Instant};

#[test]
fn kcat_writes_and_reads_across_a_restart_of_every_node() {
    let _tracing = tracing_subscriber::fmt().with_env_filter("info").with_test_writer().try_init();
    let mut cluster = TestCluster::start(3);
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..1_000).map(|number| format!("key{}:value {number}\n", number % 7)).collect();
    let produce = ["-P", "-b", &bootstrap, "-t", "first", "-K:", "-X", "message.timeout.ms=20000", "-E"];
    let (done, _, error) = kcat(&produce, &lines);
    assert!(done, "{error}");
    let consume = ["-C", "-b", &bootstrap, "-t", "first", "-o", "beginning", "-e", "-K:", "-q"];
    let (done, read, error) = kcat(&consume, "");
    assert!(done, "{error}");
    assert_eq!(read, lines);
    for position in 0..3 {
        cluster.stop_node(position);
        cluster.start_node(position);
        let (done, read, error) = kcat(&consume, "");
        assert!(done, "{error}");
        assert_eq!(read, lines, "after node {} was restarted", position + 1);
    }
}

/// The controller's group is not among those that its own metadata names; a start must not take that for its end.
#[test]
fn a_topic_is_created_after_a_restart_of_every_node() {
    let mut cluster = TestCluster::start(3);
    let bootstrap = cluster.bootstrap();
    let produce = |topic: &str| {
        let arguments = ["-P", "-b", &bootstrap, "-t", topic, "-X", "message.timeout.ms=20000", "-E"];
        let (done, _, error) = kcat(&arguments, "a record\n");
        assert!(done, "{topic}: {error}");
    };
    produce("before");
    for restart in 0..2 {
        (0..3).for_each(|position| cluster.stop_node(position));
        (0..3).for_each(|position| cluster.start_node(position));
        produce(&format!("after{restart}"));
    }
}

/// librdkafka's admin client does not ask again for a controller when there is none: a topic to be created in the first
/// moment of a cluster, or during an election, once waited until the client gave up.
#[test]
fn a_node_that_knows_no_controller_names_itself() {
    let mut cluster = TestCluster::start(3);
    let address = cluster.members[0].kafka.to_string();
    let named = format!("broker 1 at {address}");
    let registered = || kcat(&["-L", "-b", &address], "").1.contains(&named);
    assert!((0..100).any(|_| registered()), "node 1 serves clients once it is registered");
    (1..3).for_each(|position| cluster.stop_node(position));
    // Longer than a leader without a majority keeps its office.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let (done, metadata, error) = kcat(&["-L", "-b", &address], "");
        assert!(done, "{error}");
        assert!(metadata.contains("(controller)"), "{metadata}");
    }
}

/// A nearly full disk takes no writes, definitely and for now; what is there is read, and writing goes on with space.
#[test]
fn a_nearly_full_disk_refuses_writes_until_there_is_space() {
    const GIB: u64 = 1 << 30;
    let here = tempfile::tempdir().expect("a directory");
    let free = |path: &std::path::Path| {
        let answer = rustix::fs::statvfs(path).expect("the file system says its space");
        answer.f_bavail * answer.f_frsize
    };
    let before = free(here.path());
    assert!(before > 6 * GIB, "this test fills 3 GiB of the disk, and {before} bytes are free");
    let cluster = TestCluster::start_with(3, &format!("disk_reserve_bytes = {}", before - 2 * GIB));
    let bootstrap = cluster.bootstrap();
    let produce = ["-P", "-b", &bootstrap, "-t", "full", "-X", "message.timeout.ms=8000"];
    let consume = ["-C", "-b", &bootstrap, "-t", "full", "-o", "beginning", "-e", "-q"];
    let (_, _, error) = kcat(&produce, "before\n");
    assert!(!error.contains("Delivery failed"), "{error}");

    let filler = std::fs::File::create(cluster.directory().join("filler")).expect("a file");
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, 3 * GIB).expect("space for a while");
    wait_until(|| {
        kcat(&["-P", "-b", &bootstrap, "-t", "full", "-X", "message.timeout.ms=1000"], "no\n").2.contains("failed")
    });
    let (done, read, error) = kcat(&consume, "");
    assert!(done && read.starts_with("before\n"), "reads go on: {read} {error}");

    std::fs::remove_file(cluster.directory().join("filler")).expect("the file goes");
    drop(filler);
    wait_until(|| !kcat(&produce, "after\n").2.contains("failed"));
    let (_, read, error) = kcat(&consume, "");
    assert!(read.ends_with("after\n"), "{read} {error}");
}
