//! `ackord dev`: a cluster on this machine. Every node is a process of this same program with a configuration and a
//! directory of its own, so what is true of a real cluster is true of this one.
//!
//! It formats by itself on the first start, restarts nothing by itself, and stops all nodes when it is told to stop.
//! The nodes follow it if it dies.

use super::format::{draw_voters, read_config};
use super::output::line;
use super::stop::Stop;
use super::{Failure, values};
use crate::client::{Client, ClientOptions};
use crate::server::data;
use crate::server::identity::{self, FirstVoter, Identity};
use crate::types::{ClusterId, NodeId};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Ports of a node, from its base: Kafka's clients, native clients, HTTP, peers.
const PORTS_PER_NODE: u16 = 10;
/// How long nodes may take to stop before they are killed.
const STOP: Duration = Duration::from_secs(15);
/// How often a starting cluster is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// Start a cluster on this machine, for development.
///
/// Node n listens on 127.0.0.1, from port BASE + 10 (n - 1) on: Kafka clients on the first port, native clients on the
/// second, HTTP on the third, the other nodes on the fourth. Data is kept until its directory is removed. Ctrl-C stops
/// all nodes.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Where nodes keep their configuration, data and logs
    #[arg(long, value_name = "DIRECTORY", default_value = "ackord-dev")]
    data_dir: PathBuf,
    /// The first port
    #[arg(long, value_name = "PORT", default_value_t = 19092, value_parser = base_port())]
    base_port: u16,
    /// How long to wait until clients are answered
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::duration)]
    start_timeout: Duration,
}

/// Ports that need no privilege, with room for nine nodes above them.
fn base_port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1024..=65_000)
}

/// One node of the cluster.
struct Node {
    /// Its number, from 1.
    number: u16,
    /// Its directory.
    home: PathBuf,
    /// Its first port.
    port: u16,
}

impl Node {
    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn config(&self) -> PathBuf {
        self.home.join("node.toml")
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    fn native(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1)
    }

    fn peer(&self) -> String {
        format!("{}@127.0.0.1:{}", self.number, self.port + 3)
    }
}

impl Dev {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let begun = Instant::now();
        let nodes: Vec<Node> = (1..=self.nodes)
            .map(|number| Node {
                number,
                home: self.data_dir.join(format!("node-{number}")),
                port: self.base_port + PORTS_PER_NODE * (number - 1),
            })
            .collect();
        check_ports(&nodes)?;
        self.prepare(&nodes)?;
        let mut stop = Stop::new()?;
        let mut children = nodes.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let ready = tokio::select! {
            ready = wait_until_ready(&nodes, self.start_timeout) => ready,
            () = stop.told() => Err(Failure::new("stopped before the cluster was ready")),
            (index, status) = first_exit(&mut children) => Err(died(&nodes[index], status)),
        };
        let outcome = match ready {
            Ok(()) => {
                self.greet(&nodes, begun.elapsed())?;
                watch(&nodes, &mut children, &mut stop).await
            }
            Err(failure) => Err(failure),
        };
        stop_all(&nodes, &mut children).await;
        outcome
    }

    /// Writes configurations, and formats what is not formatted: all nodes or none.
    fn prepare(&self, nodes: &[Node]) -> Result<(), Failure> {
        let beyond = self.data_dir.join(format!("node-{}", nodes.len() + 1));
        let formatted = |node: &&Node| node.data().join(identity::FILE_NAME).exists();
        let (count, place) = (nodes.iter().filter(formatted).count(), self.data_dir.display());
        if (count != 0 && count != nodes.len()) || beyond.exists() {
            return Err(Failure::new(format!(
                "{place} holds a cluster with another number of nodes; give --nodes that number, another --data-dir, \
                 or remove it"
            )));
        }
        for node in nodes {
            fs::create_dir_all(&node.home).map_err(|error| Failure::io(node.home.display(), &error))?;
            let text = configuration(node, nodes)?;
            fs::write(node.config(), text).map_err(|error| Failure::io(node.config().display(), &error))?;
        }
        if count == 0 {
            let numbers: Vec<u32> = nodes.iter().map(|node| node.number.into()).collect();
            let (cluster, voters) = draw_voters(&numbers)?;
            for (node, own) in nodes.iter().zip(&voters) {
                format_one(node, cluster, own, &voters)?;
            }
        }
        Ok(())
    }

    fn greet(&self, nodes: &[Node], took: Duration) -> Result<(), Failure> {
        let kafka: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let native: Vec<_> = nodes.iter().map(Node::native).collect();
        let first = native.first().map_or("", String::as_str);
        line(&format!(
            "{} nodes answer after {:.1} s; data, configurations and logs are in {}\n\n\
             Kafka clients:   bootstrap.servers={}\n\
             Native clients:  {}\n\
             Metrics, health: http://127.0.0.1:{}/metrics\n\n\
             \x20 ackord topic create demo --partitions 6 -b {first}\n\
             \x20 echo hello | ackord produce demo -b {first}\n\
             \x20 ackord consume demo -b {first}\n\
             \x20 ackord status -b {first}\n\n\
             Ctrl-C stops all nodes.",
            nodes.len(),
            took.as_secs_f64(),
            self.data_dir.display(),
            kafka.join(","),
            native.join(","),
            self.base_port + 2,
        ))
    }
}

fn check_ports(nodes: &[Node]) -> Result<(), Failure> {
    for port in nodes.iter().flat_map(|node| node.port..node.port + 4) {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            let advice = "another `ackord dev` may be running; --base-port chooses other ports";
            Failure::new(format!("port {port}: {error}; {advice}"))
        })?;
    }
    Ok(())
}

/// A node's configuration file. Smaller and quicker than the defaults: nothing here is far away, or of value.
fn configuration(node: &Node, nodes: &[Node]) -> Result<String, Failure> {
    let data = fs::canonicalize(&node.home).map_err(|error| Failure::io(node.home.display(), &error))?.join("data");
    let data = data.to_str().ok_or_else(|| Failure::new("the data directory's path is not UTF-8"))?;
    let peers: Vec<_> = nodes.iter().map(Node::peer).collect();
    let Node { number, port, .. } = node;
    let [native, http, peer] = [port + 1, port + 2, port + 3];
    Ok(format!(
        "# Written by `ackord dev` on every start.\n\
         node_id = {number}\n\
         data_dir = {data:?}\n\
         advertised_host = \"127.0.0.1\"\n\
         peers = {peers:?}\n\n\
         [listeners]\n\
         kafka = \"127.0.0.1:{port}\"\n\
         native = \"127.0.0.1:{native}\"\n\
         http = \"127.0.0.1:{http}\"\n\
         peer = \"127.0.0.1:{peer}\"\n\n\
         [limits]\n\
         disk_reserve_bytes = {}\n\n\
         [wal]\n\
         segment_bytes = {}\n\
         retain_bytes = {}\n\n\
         [groups]\n\
         initial_rebalance_delay_ms = 0\n\n\
         [cluster]\n\
         auto_create_topics = true\n",
        256 << 20,
        64 << 20,
        256 << 20,
    ))
}

fn format_one(node: &Node, cluster: ClusterId, own: &FirstVoter, voters: &[FirstVoter]) -> Result<(), Failure> {
    let identity =
        Identity { cluster, node: NodeId(node.number.into()), incarnation: own.incarnation, voters: voters.to_vec() };
    let config = read_config(&node.config())?;
    data::format(&config, &identity).map_err(|error| Failure::new(error.to_string()))
}

fn start(node: &Node) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("starting node {}", node.number), &error);
    let log = File::create(node.log()).map_err(failed)?;
    let child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg("serve")
        .arg("--with-parent")
        .arg("--config")
        .arg(node.config())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .process_group(0) // Ctrl-C in the terminal is for this process, which stops them in order
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pid = child.id().unwrap_or_default();
    fs::write(node.home.join("pid"), pid.to_string()).map_err(failed)?;
    Ok(child)
}

/// Waits until every node is asked about the cluster, and knows a controller and all nodes.
async fn wait_until_ready(nodes: &[Node], within: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    let options = ClientOptions { timeout: Duration::from_secs(1), ..ClientOptions::default() };
    for node in nodes {
        let ready = async {
            loop {
                if let Ok(client) = Client::connect(&[node.native()], options.clone()).await
                    && let Ok(cluster) = client.admin().cluster().await
                    && cluster.controller != 0
                    && cluster.nodes.len() == nodes.len()
                {
                    return;
                }
                sleep(ASK_EVERY).await;
            }
        };
        timeout_at(deadline, ready).await.map_err(|_| {
            Failure::new(format!("node {} is not ready in time; its log: {}", node.number, node.log().display()))
        })?;
    }
    Ok(())
}

/// Waits for the word to stop; until then, says which nodes end.
async fn watch(nodes: &[Node], children: &mut [Child], stop: &mut Stop) -> Result<(), Failure> {
    let mut ended = vec![false; children.len()];
    loop {
        let running = children.iter_mut().enumerate().filter(|(index, _)| !ended[*index]);
        let exit = first_exit_of(running);
        tokio::select! {
            () = stop.told() => return Ok(()),
            (index, status) = exit => {
                eprintln!("ackord: {}", died(&nodes[index], status).message);
                ended[index] = true;
                if ended.iter().all(|ended| *ended) {
                    return Err(Failure::new("no node is left"));
                }
            }
        }
    }
}

fn died(node: &Node, status: ExitStatus) -> Failure {
    let log = node.log();
    let tail = fs::read_to_string(&log).unwrap_or_default();
    let last: Vec<_> = tail.lines().rev().take(3).collect();
    let last: String = last.into_iter().rev().map(|line| format!("\n  {line}")).collect();
    Failure::new(format!("node {} has ended ({status}); the end of {}:{last}", node.number, log.display()))
}

async fn first_exit(children: &mut [Child]) -> (usize, ExitStatus) {
    first_exit_of(children.iter_mut().enumerate()).await
}

async fn first_exit_of<'a>(children: impl Iterator<Item = (usize, &'a mut Child)>) -> (usize, ExitStatus) {
    let mut children: Vec<_> = children.collect();
    loop {
        for (index, child) in &mut children {
            if let Ok(Some(status)) = child.try_wait() {
                return (*index, status);
            }
        }
        sleep(ASK_EVERY).await;
    }
}

/// Asks all nodes to stop, then makes them.
async fn stop_all(nodes: &[Node], children: &mut [Child]) {
    for child in children.iter() {
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, Signal::TERM).ok(); // it may just have ended
        }
    }
    let deadline = Instant::now() + STOP;
    for (node, child) in nodes.iter().zip(children) {
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, child.wait()).await.is_err() {
            eprintln!("ackord: node {} does not stop in time and is killed", node.number);
            drop(child.kill().await);
        }
        remove_pid(&node.home);
    }
}

fn remove_pid(home: &Path) {
    drop(fs::remove_file(home.join("pid"))); // only a hint for measurements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_is_a_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let dev = Dev {
            nodes: 3,
            data_dir: directory.path().join("with \"quotes\""),
            base_port: 20_000,
            start_timeout: Duration::ZERO,
        };
        let node = |number: u16| Node {
            number,
            home: dev.data_dir.join(format!("node-{number}")),
            port: 20_000 + 10 * (number - 1),
        };
        let nodes: Vec<_> = (1..=3).map(node).collect();
        dev.prepare(&nodes).unwrap();
        dev.prepare(&nodes).unwrap(); // the second start formats nothing
        for node in &nodes {
            let config = Config::parse(&fs::read_to_string(node.config()).unwrap()).unwrap();
            assert_eq!((config.node_id, config.peers.len()), (node.number.into(), 3));
            let identity = identity::open(&config.data_dir, config.node(), None).unwrap();
            assert_eq!(identity.voters.len(), 3);
        }
        assert!(dev.prepare(&nodes[..2]).is_err(), "a cluster of another size");
    }
}
