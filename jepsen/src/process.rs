//! A cluster of real `ackord serve` processes: their directories, ports, log files, their start and their death.
//!
//! A process is ended by its own handle, and by SIGKILL only: an orderly stop is the easy case. What it writes to its
//! standard error is kept in `nodeN.log`, over all its lives.

use ackord::config::Config;
use ackord::server::data;
use ackord::server::identity::{FirstVoter, Identity, random_id};
use ackord::types::{ClusterId, Incarnation, NodeId};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ports are taken from here: below what the kernel gives to outgoing connections, which could otherwise sit on a dead
/// node's port when it starts again.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// How much of a log file is shown when its process has ended by itself, in bytes.
const LOG_TAIL_BYTES: usize = 4_000;

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    /// Kafka clients.
    kafka: u16,
    /// Native clients.
    native: u16,
    /// The other nodes.
    peer: u16,
}

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `ackord` program.
    pub binary: PathBuf,
    /// Size of a segment of the log, in bytes.
    pub segment_bytes: u64,
    /// How much log is kept for replicas that were away, in bytes.
    pub retain_bytes: u64,
    /// Variables that the processes get beside the harness's own.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// The program with small segments.
    #[must_use]
    pub fn new(binary: PathBuf) -> Self {
        Self { binary, segment_bytes: 16 << 20, retain_bytes: 64 << 20, environment: Vec::new() }
    }
}

/// The `ackord` program to test: `ACKORD_BIN`, or the one that cargo put beside this one.
pub fn binary() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os("ACKORD_BIN") {
        return PathBuf::from(named).canonicalize();
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("ackord")).find(|path| path.is_file());
    let message = "there is no ackord program beside this one: run `cargo build --bin ackord`, or set ACKORD_BIN";
    beside.ok_or_else(|| io::Error::other(message))
}

/// A node: its files, and its process if it runs.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Where it serves Kafka clients.
    pub kafka: SocketAddr,
    /// Its configuration, as its file has it.
    pub config: Config,
    /// That file.
    config_file: PathBuf,
    /// Where its process writes what it has to say.
    log_file: PathBuf,
    /// Its process.
    child: Option<Child>,
}

/// Nodes that know each other.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, by position.
    pub nodes: Vec<Node>,
    /// How they were set up.
    setup: Setup,
}

impl Cluster {
    /// Formats a node in each of these directories, which are empty; configuration and log files go to `folder`.
    pub fn format(folder: &Path, data_dirs: &[PathBuf], setup: Setup) -> io::Result<Self> {
        let random = || random_id().map_err(io::Error::other);
        let mut taken = BTreeSet::new();
        let mut ports = Vec::new();
        let mut voters = Vec::new();
        for number in 1..=u32::try_from(data_dirs.len()).expect("few") {
            let mut port = || free_port(&mut taken);
            ports.push(Ports { kafka: port(), native: port(), peer: port() });
            voters.push(FirstVoter { node: NodeId(number), incarnation: Incarnation(random()?) });
        }
        let cluster = ClusterId(random()?);
        let mut nodes = Vec::new();
        for (voter, data_dir) in voters.iter().zip(data_dirs) {
            let text = config_text(voter.node, data_dir, &ports, &setup);
            let config = Config::parse(&text).map_err(io::Error::other)?;
            let (id, incarnation) = (voter.node, voter.incarnation);
            let identity = Identity { cluster, node: id, incarnation, voters: voters.clone() };
            data::format(&config, &identity).map_err(io::Error::other)?;
            let config_file = folder.join(format!("node{id}.toml"));
            fs::write(&config_file, text)?;
            let log_file = folder.join(format!("node{id}.log"));
            let kafka = SocketAddr::from(([127, 0, 0, 1], config.listeners.kafka.port));
            nodes.push(Node { id, kafka, config, config_file, log_file, child: None });
        }
        Ok(Self { nodes, setup })
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) -> io::Result<()> {
        (0..self.nodes.len()).try_for_each(|position| self.start(position))
    }

    /// Starts a node that does not run. On return there is a process; it may not serve yet.
    pub fn start(&mut self, position: usize) -> io::Result<()> {
        let node = &mut self.nodes[position];
        if node.child.is_some() {
            return Ok(());
        }
        let log: File = OpenOptions::new().create(true).append(true).open(&node.log_file)?;
        let child = Command::new(&self.setup.binary)
            .args(["serve", "--config"])
            .arg(&node.config_file)
            .envs(self.setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        node.child = Some(child);
        Ok(())
    }

    /// Ends a node's process as a crash does (SIGKILL).
    pub fn kill(&mut self, position: usize) -> io::Result<()> {
        match self.nodes[position].child.take() {
            Some(mut child) => child.kill().and_then(|()| child.wait().map(drop)),
            None => Ok(()),
        }
    }

    /// Where clients ask first.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.kafka).collect()
    }

    /// Where native clients ask first.
    #[must_use]
    pub fn native_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.config.listeners.native.to_string()).collect()
    }

    /// A sentence on each process that has ended though nobody killed it.
    pub fn ended(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if let Some(Ok(Some(status))) = node.child.as_mut().map(Child::try_wait) {
                let tail = log_tail(&node.log_file);
                ended.push(format!("node {} has ended by itself ({status}); its log ends:\n{tail}", node.id));
            }
        }
        ended
    }

    /// The most memory that a node's process ever held, in KiB, as the kernel counts it (VmHWM).
    #[must_use]
    pub fn memory_max_kib(&self, position: usize) -> Option<u64> {
        let id = self.nodes[position].child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// What a node has said so far.
    #[must_use]
    pub fn log(&self, position: usize) -> String {
        fs::read(&self.nodes[position].log_file)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for position in 0..self.nodes.len() {
            // Nobody is left to tell.
            let _ended_already = self.kill(position);
        }
    }
}

fn log_tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}

/// A port that nobody listens on and that is not taken; it is from now on.
fn free_port(taken: &mut BTreeSet<u16>) -> u16 {
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
            return port;
        }
    }
}

fn config_text(node: NodeId, data_dir: &Path, ports: &[Ports], setup: &Setup) -> String {
    let peer = |(ports, other): (&Ports, u32)| format!("\"{other}@127.0.0.1:{}\"", ports.peer);
    let peers: Vec<String> = ports.iter().zip(1..).map(peer).collect();
    let Ports { kafka, native, peer } = ports[node.0 as usize - 1];
    format!(
        "node_id = {node}\ndata_dir = {data_dir:?}\npeers = [{}]\n[listeners]\nkafka = \"127.0.0.1:{kafka}\"\n\
         native = \"127.0.0.1:{native}\"\npeer = \"127.0.0.1:{peer}\"\nhttp = \"127.0.0.1:0\"\n\
         [limits]\ndisk_reserve_bytes = 67108864\n[wal]\nsegment_bytes = {}\nretain_bytes = {}\n",
        peers.join(", "),
        setup.segment_bytes,
        setup.retain_bytes
    )
}
