//! A node that is a process of its own, and what was acknowledged by it.

use crate::client::{self, HANG};
use crate::ports::free_port;
use ackord::client::{Client, ClientOptions, NewTopic};
use ackord::record::writer::BatchWriter;
use ackord::record::{PREFIX_BYTES, RecordBatch};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, FetchRequest, ProduceRequest, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The longest request that the node takes, in bytes.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;
/// What the tests write to.
pub const TOPIC: &str = "kept";
/// Longer than an orderly stop may take.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Runs the program to its end.
pub async fn run(arguments: &[&str]) -> Output {
    let child = command(arguments).spawn().expect("the program was built");
    timeout(HANG, child.wait_with_output()).await.expect("it ends").expect("it can be waited for")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackord"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A node's files, and where it listens.
pub struct Home {
    /// Holds the configuration and the data.
    directory: TempDir,
    /// Kafka, native, HTTP, peers.
    pub ports: [u16; 4],
    /// The free space below which it takes no writes.
    reserve_bytes: u64,
}

impl Home {
    /// Ports that are free now, and a configuration with them.
    pub fn new() -> Self {
        Self::with_reserve(64 << 20)
    }

    /// The same with another reserve of space.
    pub fn with_reserve(reserve_bytes: u64) -> Self {
        let ports = [(); 4].map(|()| free_port(Ipv4Addr::LOCALHOST));
        let home = Self { directory: tempfile::tempdir().expect("a directory"), ports, reserve_bytes };
        home.write_config(&home.config());
        home
    }

    /// The text of a configuration that works.
    pub fn config(&self) -> String {
        let [kafka, native, http, peer] = self.ports;
        format!(
            "node_id = 1\ndata_dir = {:?}\n[listeners]\nkafka = \"127.0.0.1:{kafka}\"\n\
             native = \"127.0.0.1:{native}\"\nhttp = \"127.0.0.1:{http}\"\npeer = \"127.0.0.1:{peer}\"\n\
             [limits]\nrequest_bytes = {REQUEST_BYTES_MAX}\n\
             disk_reserve_bytes = {}\n[wal]\nsegment_bytes = 16777216\n[cluster]\nauto_create_topics = false\n",
            self.data(),
            self.reserve_bytes
        )
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.file(), text).expect("the directory can be written");
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("node.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub async fn format(&self) {
        let output = self.ackord("format").await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `ackord COMMAND --config` with this home's file, to its end.
    pub async fn ackord(&self, subcommand: &str) -> Output {
        run(&[subcommand, "--config", self.file().to_str().expect("a path of ours")]).await
    }

    /// Every file there is with its bytes, to see whether something was written.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut files, mut folders) = (Vec::new(), vec![self.directory.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("readable") {
                let path = entry.expect("readable").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push((path.clone(), std::fs::read(path).expect("readable"))),
                }
            }
        }
        files.sort_unstable();
        files
    }
}

/// A running node.
pub struct Process {
    /// Its files.
    pub home: Home,
    /// The process.
    child: Child,
    /// The values of the records that were acknowledged, by offset.
    acknowledged: Vec<String>,
}

impl Process {
    /// A new node that serves clients, with one topic of one partition.
    pub async fn start() -> Self {
        Self::start_in(Home::new()).await
    }

    /// The same with this configuration.
    pub async fn start_in(home: Home) -> Self {
        home.format().await;
        let file = home.file();
        let log = std::fs::File::create(home.directory.path().join("log")).expect("the directory can be written");
        let mut command = command(&["serve", "--config", file.to_str().expect("a path of ours")]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program was built");
        let mut process = Self { home, child, acknowledged: Vec::new() };
        let deadline = Instant::now() + HANG;
        while let Err(error) = process.create_topic().await {
            assert!(Instant::now() < deadline && process.is_alive(), "{error}\n{}", process.log());
            sleep(Duration::from_millis(20)).await;
        }
        process
    }

    async fn create_topic(&self) -> ackord::client::Result<()> {
        let admin = self.native().await?.admin();
        let topic =
            NewTopic { name: TOPIC.to_owned(), partitions: Some(1), replication_factor: Some(1), configs: vec![] };
        admin.create_topic(&topic).await.map(drop)
    }

    /// A client of the native protocol.
    pub async fn native(&self) -> ackord::client::Result<Client> {
        let options = ClientOptions { timeout: Duration::from_secs(5), ..ClientOptions::default() };
        Client::connect(&[self.address(1).to_string()], options).await
    }

    /// Where it listens: 0 for Kafka, 1 native, 2 HTTP, 3 peers.
    pub fn address(&self, listener: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.home.ports[listener]))
    }

    pub async fn connect(&self, listener: usize) -> TcpStream {
        TcpStream::connect(self.address(listener)).await.expect("the node accepts")
    }

    pub async fn kafka(&self) -> client::Client {
        client::Client { stream: self.connect(0).await }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.directory.path().join("log")).unwrap_or_default()
    }

    /// Whether the process that was started is still the one that runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// Writes a record, and remembers it.
    pub async fn write(&mut self) {
        let value = format!("value {}", self.acknowledged.len());
        let batch = BatchWriter::new(1_000).record(None, Some(value.as_bytes()), 1_000).finish();
        let (code, offset) = self.produce(TOPIC, batch.into_bytes()).await;
        assert_eq!((code, offset), (0, self.acknowledged.len() as i64));
        self.acknowledged.push(value);
    }

    /// Produces this for partition 0: the error code, and the offset.
    pub async fn produce(&self, topic: &'static str, records: Bytes) -> (i16, i64) {
        let data = PartitionProduceData::default().with_records(Some(records));
        let name = TopicName(StrBytes::from_static_str(topic));
        let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![topic]);
        let answer = self.kafka().await.call(ApiKey::Produce, 9, &request.into()).await;
        let ResponseKind::Produce(answer) = answer else { panic!("{answer:?}") };
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// The process lives, every record that was acknowledged is at its offset and no other is there, and a new one is
    /// taken.
    pub async fn verify(&mut self) {
        assert!(self.is_alive(), "the node has ended:\n{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
        self.write().await;
        self.verify_reads().await;
    }

    /// Every record that was acknowledged is at its offset, and no other is there.
    pub async fn verify_reads(&self) {
        assert_eq!(self.fetch().await, self.acknowledged);
    }

    /// A record was acknowledged at this offset.
    pub fn remember(&mut self, offset: i64, value: &str) {
        assert_eq!(offset, self.acknowledged.len() as i64, "offsets have no gaps");
        self.acknowledged.push(value.to_owned());
    }

    /// The values of all records.
    async fn fetch(&self) -> Vec<String> {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let name = TopicName(StrBytes::from_static_str(TOPIC));
        let topic = FetchTopic::default().with_topic(name).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
        let answer = self.kafka().await.call(ApiKey::Fetch, 12, &request.into()).await;
        let ResponseKind::Fetch(answer) = answer else { panic!("{answer:?}") };
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let mut bytes = partition.records.clone().expect("never null");
        let mut values = Vec::new();
        while bytes.len() > PREFIX_BYTES {
            let length = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize + 12;
            let batch = RecordBatch::parse_verified(bytes.split_to(length)).expect("what is read is whole");
            assert_eq!(batch.written_base_offset(), values.len() as i64);
            for record in batch.records(1 << 20).expect("readable").iter() {
                let value = record.expect("readable").value.expect("every record has a value");
                values.push(String::from_utf8(value.to_vec()).expect("text"));
            }
        }
        values
    }

    /// Stops in an orderly way, and in time.
    pub async fn stop(mut self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(id, Signal::TERM).expect("it is a child");
        let stopped = timeout(STOP_MAX, self.child.wait()).await;
        let status = stopped.unwrap_or_else(|_| panic!("it does not stop:\n{}", self.log())).expect("it is a child");
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

/// Whether there is anything at a path.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
