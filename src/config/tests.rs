//! What a configuration file may say, and what it is told otherwise.

use super::*;

const SMALLEST: &str = "node_id = 1\ndata_dir = \"/data\"\nadvertised_host = \"n1\"\n";

fn with(more: &str) -> Result<Config, ConfigError> {
    Config::parse(&format!("{SMALLEST}{more}"))
}

#[test]
fn three_lines_make_a_node_and_the_rest_has_the_documented_defaults() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!((config.node(), config.peers.len()), (NodeId(1), 0));
    assert_eq!(config.advertised(&config.listeners.kafka), "n1");
    let source = include_str!("../config.rs");
    let lines: Vec<_> = source.lines().map(|line| line.trim_start().trim_start_matches("/// ")).collect();
    let source = lines.join(" ");
    let documented = |value: String| assert!(source.contains(&format!("Default: {value}")), "Default: {value}");
    let Config { listeners, limits, wal, groups, cluster, .. } = config;
    for listener in [listeners.kafka, listeners.native, listeners.http, listeners.peer] {
        documented(format!("`\"{listener}\"`"));
    }
    documented(format!("{}.", limits.connections));
    for bytes in [limits.request_bytes.into(), limits.inflight_bytes, limits.disk_reserve_bytes] {
        documented(format!("{bytes} ("));
    }
    for bytes in [wal.segment_bytes, wal.retain_bytes, wal.slack_bytes] {
        documented(format!("{bytes} ("));
    }
    documented(format!("{}.", wal.recycled_segments_max));
    documented(format!("{}.", cluster.default_partitions));
    documented(format!("{}.", cluster.default_replication_factor));
    documented(format!("{}.", cluster.auto_create_topics));
    documented(format!("{}.", cluster.tick_ms));
    documented(format!("{}.", cluster.election_timeout_ms));
    let source = include_str!("groups.rs");
    let documented = |value: u32| assert!(source.contains(&format!("Default: {value}.")), "Default: {value}.");
    documented(groups.coordinators.into());
    documented(groups.min_session_timeout_ms);
    documented(groups.max_session_timeout_ms);
    documented(groups.initial_rebalance_delay_ms);
    documented(groups.max_size);
    documented(groups.offsets_retention_minutes);
    documented(groups.offsets_retention_check_interval_ms);
    documented(groups.offset_metadata_bytes);
}

#[test]
fn the_example_is_a_node_in_ten_lines() {
    let example = include_str!("../../docs/node.toml");
    assert!(example.lines().count() <= 10);
    assert_eq!(Config::parse(example).unwrap().peers.len(), 3);
}

#[test]
fn a_whole_file_is_read() {
    let config = with(
        "rack = \"a\"\npeers = [\"1@n1:9095\", \"2@[fd00::2]:9095\"]\n[listeners]\nkafka = \"127.0.0.1:0\"\n\
         [limits]\nconnections = 5\n[wal]\nsegment_bytes = 16777216\nslack_bytes = 0\nrecycled_segments_max = 1\n\
         [cluster]\nid = \"AAAAAAAAAAAAAAAAAAAAAQ\"\n",
    )
    .unwrap();
    assert_eq!(config.peers[1].node, NodeId(2));
    assert_eq!(config.peers[1].address.to_string(), "[fd00::2]:9095");
    assert_eq!((config.wal.slack_bytes, config.wal.recycled_segments_max), (0, 1));
    assert_eq!(config.cluster.id, Some(Id(ClusterId(1))));
    assert_eq!(config.listeners.native, Listeners::default().native);
}

#[test]
fn an_unknown_key_is_told_the_nearest_known_one() {
    for (line, expected) in [
        ("datadir = \"/x\"", Some("data_dir")),
        ("peer = []", Some("peers")),
        ("[limit]\nconnections = 1", Some("limits")),
        ("[wal]\nsegment_byte = 1", Some("segment_bytes")),
        ("[wal]\nslack = 1", None),
        ("[wal]\nslack_byte = 1", Some("slack_bytes")),
        ("[cluster]\nelection_timeout = 1", Some("election_timeout_ms")),
        ("zookeeper = \"x\"", None),
    ] {
        let error = with(line).unwrap_err();
        let ConfigError::UnknownKey { nearest, .. } = &error else { panic!("{line}: {error:?}") };
        assert_eq!(nearest.as_deref(), expected, "{line}");
        assert!(error.to_string().contains("line "), "it says where: {error}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_under_their_key() {
    for (lines, key) in [
        ("peers = [\"1@n1:9095\", \"1@n2:9095\"]", "peers"),
        ("peers = [\"0@n1:9095\"]", "peers"),
        ("peers = [\"2@n1:0\"]", "peers"),
        ("rack = \"\"", "rack"),
        ("[listeners]\nkafka = \"0.0.0.0:9093\"", "listeners"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits]\nrequest_bytes = 1000", "limits.request_bytes"),
        ("[limits]\ninflight_bytes = 1", "limits.inflight_bytes"),
        ("[limits]\ndisk_reserve_bytes = 0", "limits.disk_reserve_bytes"),
        ("[wal]\nsegment_bytes = 1", "wal.segment_bytes"),
        ("[wal]\nsegment_bytes = 16777217", "wal.segment_bytes"),
        ("[wal]\nsegment_bytes = 4294967296\nretain_bytes = 4294967296", "wal.segment_bytes"),
        ("[wal]\nretain_bytes = 1", "wal.retain_bytes"),
        ("[wal]\nslack_bytes = 1099511627777", "wal.slack_bytes"),
        ("[wal]\nrecycled_segments_max = 1025", "wal.recycled_segments_max"),
        ("[groups]\ncoordinators = 0", "groups.coordinators"),
        ("[groups]\nmin_session_timeout_ms = 1", "groups.min_session_timeout_ms"),
        ("[groups]\nmax_session_timeout_ms = 5000", "groups.max_session_timeout_ms"),
        ("[groups]\ninitial_rebalance_delay_ms = 600001", "groups.initial_rebalance_delay_ms"),
        ("[groups]\nmax_size = 0", "groups.max_size"),
        ("[groups]\noffsets_retention_minutes = 0", "groups.offsets_retention_minutes"),
        ("[groups]\noffsets_retention_check_interval_ms = 1", "groups.offsets_retention_check_interval_ms"),
        ("[groups]\noffset_metadata_bytes = 40000", "groups.offset_metadata_bytes"),
        ("[cluster]\ndefault_partitions = 0", "cluster.default_partitions"),
        ("[cluster]\ndefault_replication_factor = 8", "cluster.default_replication_factor"),
        ("[cluster]\ntick_ms = 1", "cluster.tick_ms"),
        ("[cluster]\ntick_ms = 300", "cluster.election_timeout_ms"),
        ("[cluster]\nelection_timeout_ms = 4000000000", "cluster.election_timeout_ms"),
    ] {
        let error = with(lines).unwrap_err();
        assert!(matches!(&error, ConfigError::Invalid { key: named, .. } if *named == key), "{lines}: {error}");
    }
    let node = |number: &str| Config::parse(&SMALLEST.replace("node_id = 1", &format!("node_id = {number}")));
    assert!(node("0").unwrap_err().to_string().starts_with("node_id:"));
    assert!(node("2147483648").unwrap_err().to_string().starts_with("node_id:"));
    let nameless = SMALLEST.replace("advertised_host = \"n1\"", "");
    assert!(Config::parse(&nameless).unwrap_err().to_string().contains("set advertised_host"));
    let ported = SMALLEST.replace("\"n1\"", "\"n1:9092\"");
    assert!(Config::parse(&ported).unwrap_err().to_string().contains("without a port"));
}

#[test]
fn addresses_are_hosts_and_ports() {
    for text in ["n1:1", "127.0.0.1:65535", "[::1]:9", "a_b.c-d:0"] {
        assert_eq!(text.parse::<HostPort>().map(|address| address.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "n1", "n1:", ":9092", "n1:65536", "::1:9", "[n1]:9", "[::1]", "a b:1", "http://n1:1"] {
        assert!(text.parse::<HostPort>().is_err(), "{text}");
    }
    assert!("1@n1".parse::<Peer>().is_err());
    assert!("n1:9".parse::<Peer>().is_err());
    assert!("-1@n1:9".parse::<Peer>().is_err());
}
