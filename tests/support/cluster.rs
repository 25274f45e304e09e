//! A whole cluster in one process: real sockets, real files, one data directory per node.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "ports.rs"]
mod ports;

use ackord::broker::node::NodeBroker;
use ackord::config::Config;
use ackord::multiraft::handle::Handle;
use ackord::server::data::{self, SharedEngine};
use ackord::server::identity::{FirstVoter, Identity, random_id};
use ackord::server::run::Node;
use ackord::types::{ClusterId, Incarnation, NodeId};
use ports::free_port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Where the nodes are reached. Connections leave from 127.0.0.1, so none of them can take a stopped node's port.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A node of the cluster: its files, and the process's part if it runs.
pub struct Member {
    /// Its configuration file.
    pub config: Config,
    /// Tells it to stop, and waits until it has.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Where it serves Kafka clients.
    pub kafka: SocketAddr,
    /// Where it serves native clients.
    pub native: SocketAddr,
    /// Its Raft groups, since its last start.
    pub handle: Option<Handle>,
    /// Where it shows its metrics, since its last start.
    pub http: Option<SocketAddr>,
    /// What answers its clients, since its last start.
    pub broker: Option<NodeBroker<SharedEngine>>,
    /// What it has logged while it opened its data, and by the threads of its Raft groups; of all its lives.
    pub log: NodeLog,
}

/// A node's log.
#[derive(Clone, Debug, Default)]
pub struct NodeLog(Arc<Mutex<Vec<u8>>>);

impl NodeLog {
    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("whoever writes is alive")).into_owned()
    }
}

impl Write for NodeLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whoever writes is alive").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// See the module.
pub struct TestCluster {
    /// Runs everything.
    pub runtime: Runtime,
    /// The nodes, by position.
    pub members: Vec<Member>,
    /// Their data directories.
    directory: TempDir,
    /// Their ports.
    ports: Vec<[u16; 3]>,
    /// The cluster's identity.
    id: ClusterId,
    /// What every configuration says besides.
    limits: String,
}

fn config(directory: &Path, node: u32, ports: &[[u16; 3]], limits: &str) -> Config {
    let peers: Vec<String> =
        ports.iter().zip(1..).map(|([_, peer, _], other)| format!("\"{other}@{HOST}:{peer}\"")).collect();
    let [kafka, peer, native] = ports[node as usize - 1];
    let text = format!(
        "node_id = {node}\ndata_dir = {:?}\npeers = [{}]\n[listeners]\nkafka = \"{HOST}:{kafka}\"\n\
         peer = \"{HOST}:{peer}\"\nnative = \"{HOST}:{native}\"\nhttp = \"{HOST}:0\"\n[wal]\n\
         segment_bytes = 16777216\n[cluster]\nauto_create_topics = true\n[limits]\n{limits}\n",
        directory.join(node.to_string()),
        peers.join(", ")
    );
    Config::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

impl TestCluster {
    /// Formats and starts `count` nodes.
    pub fn start(count: u32) -> Self {
        Self::start_with(count, "")
    }

    /// Formats and starts `count` nodes whose configurations say this, too.
    pub fn start_with(count: u32, limits: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new().expect("a runtime");
        let ports: Vec<_> = (0..count).map(|_| [(); 3].map(|()| free_port(HOST))).collect();
        let random = || random_id().expect("random numbers");
        let voters: Vec<_> =
            (1..=count).map(|node| FirstVoter { node: NodeId(node), incarnation: Incarnation(random()) }).collect();
        let cluster = ClusterId(random());
        let member = |node: u32| {
            let config = config(directory.path(), node, &ports, limits);
            let incarnation = voters[node as usize - 1].incarnation;
            let identity = Identity { cluster, node: NodeId(node), incarnation, voters: voters.clone() };
            data::format(&config, &identity).expect("an empty directory can be formatted");
            let [kafka, native] = [0, 2].map(|kind| SocketAddr::from((HOST, ports[node as usize - 1][kind])));
            Member::stopped(config, kafka, native)
        };
        let members = (1..=count).map(member).collect();
        let id = cluster;
        let mut cluster = Self { runtime, members, directory, ports, id, limits: limits.to_owned() };
        (0..count as usize).for_each(|position| cluster.start_node(position));
        cluster
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, position: usize) {
        let config = self.members[position].config.clone();
        let log = self.members[position].log.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        let start = || self.runtime.block_on(Node::start(config)).expect("the node starts");
        let node = tracing::subscriber::with_default(log, start);
        self.members[position].broker = Some(node.broker().clone());
        self.members[position].handle = Some(node.handle().clone());
        self.members[position].http = Some(node.addresses().http);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = self.runtime.spawn(async move {
            // A sender that is gone is an order to stop, too.
            node.run_until(async { drop(stopped.await) }).await.expect("the node runs until it is stopped");
        });
        self.members[position].running = Some((stop, task));
    }

    /// Stops a node in an orderly way.
    pub fn stop_node(&mut self, position: usize) {
        if let Some((stop, task)) = self.members[position].running.take() {
            drop(stop);
            self.members[position].broker = None;
            self.runtime.block_on(task).expect("the node stops");
        }
    }

    /// Formats and starts one more node, which the others have not heard of; its position.
    pub fn add_node(&mut self) -> usize {
        let position = self.members.len();
        let node = u32::try_from(position).expect("few") + 1;
        self.ports.push([(); 3].map(|()| free_port(HOST)));
        let config = config(self.directory.path(), node, &self.ports, &self.limits);
        let [kafka, _, native] = self.ports[position];
        let [kafka, native] = [kafka, native].map(|port| SocketAddr::from((HOST, port)));
        self.members.push(Member::stopped(config, kafka, native));
        self.format_anew(position);
        self.start_node(position);
        position
    }

    /// Gives a node that does not run an empty disk; the old one is put aside.
    pub fn lose_disk(&mut self, position: usize) {
        let data = self.members[position].config.data_dir.clone();
        std::fs::rename(&data, data.with_extension("lost")).expect("the directory is moved");
    }

    /// Gives a node that does not run the disk back that it had lost.
    pub fn find_disk(&mut self, position: usize) {
        let data = self.members[position].config.data_dir.clone();
        std::fs::rename(&data, data.with_extension("newer")).unwrap_or_default();
        std::fs::rename(data.with_extension("lost"), &data).expect("the directory is moved");
    }

    /// Formats an empty directory for a node that joins the cluster.
    pub fn format_anew(&mut self, position: usize) {
        let config = &self.members[position].config;
        let incarnation = Incarnation(random_id().expect("random numbers"));
        let identity = Identity { cluster: self.id, node: config.node(), incarnation, voters: Vec::new() };
        data::format(config, &identity).expect("an empty directory can be formatted");
    }

    /// Where the nodes' files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Every node's Kafka address, as clients want it.
    pub fn bootstrap(&self) -> String {
        self.members.iter().map(|member| member.kafka.to_string()).collect::<Vec<_>>().join(",")
    }
}

impl Member {
    /// One that has not been started.
    fn stopped(config: Config, kafka: SocketAddr, native: SocketAddr) -> Self {
        let log = NodeLog::default();
        Self { config, running: None, kafka, native, handle: None, http: None, broker: None, log }
    }

    /// What a running node's metrics of this name come to, all its series together.
    pub fn metric(&self, name: &str) -> u64 {
        let address = self.http.expect("it runs");
        let mut stream = TcpStream::connect(address).expect("metrics are served");
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("metrics are served");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("metrics are text");
        let series = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
        series.map(|line| value(line).expect("a number")).sum()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|position| self.stop_node(position));
        if thread::panicking() {
            self.members.iter().for_each(|member| eprintln!("node {}:\n{}", member.config.node(), member.log.text()));
        }
    }
}

/// Runs `kcat`: whether it succeeded, what it wrote, what it said.
pub fn kcat(arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new("kcat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat is installed: make setup");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kcat reads its input");
    let output = child.wait_with_output().expect("kcat ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Tries again, at most for half a minute.
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    wait_for(|| holds().then_some(()));
}

/// Tries again until there is something, at most for half a minute.
#[allow(clippy::disallowed_methods, reason = "a poll with a deadline; the nodes need the processor more than it does")]
pub fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "it has not come to hold in time");
        thread::sleep(Duration::from_millis(5));
    }
}
