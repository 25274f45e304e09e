//! The `ackord` program.

use ackord::config::Config;
use ackord::server::identity::{FirstVoter, Identity, random_id};
use ackord::server::{self, data};
use ackord::types::{ClusterId, Incarnation, NodeId};
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or("info".into()))
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments[1].as_str() {
        "serve" => {
            let text = std::fs::read_to_string(arguments.last().expect("config")).expect("config");
            let config = Config::parse(&text).expect("config");
            let runtime = tokio::runtime::Runtime::new().expect("runtime");
            if let Err(error) = runtime.block_on(server::run(config)) {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        "dev" => dev(Path::new(arguments.last().expect("dir"))),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn dev(directory: &Path) {
    std::fs::create_dir_all(directory).expect("dir");
    let directory = &directory.canonicalize().expect("dir");
    let voters: Vec<_> = (1..=3u32)
        .map(|node| FirstVoter { node: NodeId(node), incarnation: Incarnation(random_id().expect("r")) })
        .collect();
    let cluster = ClusterId(random_id().expect("r"));
    let mut children = Vec::new();
    for node in 1..=3u32 {
        let file = directory.join(format!("node{node}.toml"));
        let port = |base: u32| 19090 + node * 10 + base;
        let text = format!(
            "node_id = {node}\ndata_dir = {:?}\npeers = [\"1@127.0.0.1:19105\", \"2@127.0.0.1:19115\", \"3@127.0.0.1:19125\"]\n[listeners]\nkafka = \"127.0.0.1:{}\"\nnative = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\n[wal]\nsegment_bytes = 67108864\n[cluster]\nauto_create_topics = true\n",
            directory.join(format!("node{node}")),
            port(2),
            port(3),
            port(4),
            port(5)
        );
        std::fs::write(&file, &text).expect("write");
        let config = Config::parse(&text).expect("config");
        let identity = Identity {
            cluster,
            node: NodeId(node),
            incarnation: voters[node as usize - 1].incarnation,
            voters: voters.clone(),
        };
        if !config.data_dir.join("identity.toml").exists() {
            data::format(&config, &identity).expect("format");
        }
        children.push(
            Command::new(std::env::current_exe().expect("exe"))
                .args(["serve", "--config"])
                .arg(file)
                .spawn()
                .expect("spawn"),
        );
    }
    for mut child in children {
        child.wait().expect("wait");
    }
}
