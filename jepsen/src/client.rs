//! A raw Kafka client: frames over one connection, and the few questions that a workload asks.
//!
//! It hides nothing: no retries behind the caller's back, no buffering, one attempt is one attempt. Any error here
//! leaves the fate of what was asked in doubt; what a server's error code means is for the caller to say.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, RequestHeader,
    RequestKind, ResponseHeader, ResponseKind, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How long one question may take before the connection counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long the client waits before it asks again.
pub const PAUSE: Duration = Duration::from_millis(20);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u32 = 64 << 20;
/// Most answers that wait to be taken; a connection never has as many requests under way.
const ANSWERS_MAX: usize = 64;

/// The version of each API that is spoken: all of them exist in every broker since Kafka 2.4.
fn version(key: ApiKey) -> i16 {
    match key {
        ApiKey::Produce => 8,
        ApiKey::Fetch => 11,
        ApiKey::ListOffsets => 5,
        ApiKey::Metadata => 7,
        ApiKey::CreateTopics => 4,
        ApiKey::InitProducerId => 1,
        _ => unreachable!("no workload asks for {key:?}"),
    }
}

/// A connection to one broker. Requests may overlap; answers come in their order.
#[derive(Debug)]
pub struct Connection {
    /// Where requests go.
    requests: OwnedWriteHalf,
    /// The answers, without their lengths; closed when the connection is.
    answers: mpsc::Receiver<Bytes>,
    /// Reads them.
    reader: JoinHandle<()>,
    /// The next request's number.
    next_request: i32,
    /// The next answer's number.
    next_answer: i32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// What `future` yields, if it does so soon enough.
async fn soon<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, future).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_answers(mut stream: OwnedReadHalf, answers: mpsc::Sender<Bytes>) -> io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        if length > ANSWER_BYTES_MAX {
            return Err(broken("an answer is too long"));
        }
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await?;
        answers.send(bytes.into()).await.map_err(io::Error::other)?;
    }
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = soon(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let (read, requests) = stream.into_split();
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let reader = tokio::spawn(async move {
            // Why it ended makes no difference: what was under way is in doubt.
            let _end = read_answers(read, sender).await;
        });
        Ok(Self { requests, answers, reader, next_request: 0, next_answer: 0 })
    }

    /// Sends a request.
    pub async fn send(&mut self, key: ApiKey, request: &RequestKind) -> io::Result<()> {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version(key))
            .with_correlation_id(self.next_request)
            .with_client_id(Some(StrBytes::from_static_str("ackord-jepsen")));
        let mut frame = BytesMut::zeroed(4);
        header.encode(&mut frame, key.request_header_version(version(key))).map_err(io::Error::other)?;
        request.encode(&mut frame, version(key)).map_err(io::Error::other)?;
        let length = u32::try_from(frame.len() - 4).expect("requests are small");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.next_request += 1;
        soon(self.requests.write_all(&frame)).await
    }

    /// The answer to the oldest request not answered. Losing this future loses no answer.
    pub async fn answer(&mut self, key: ApiKey) -> io::Result<ResponseKind> {
        let mut bytes = self.answers.recv().await.ok_or(io::ErrorKind::ConnectionReset)?;
        let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version(key)));
        if header.map_err(io::Error::other)?.correlation_id != self.next_answer {
            return Err(broken("answers are out of order"));
        }
        self.next_answer += 1;
        let answer = ResponseKind::decode(key, &mut bytes, version(key)).map_err(io::Error::other)?;
        if bytes.has_remaining() { Err(broken("an answer is longer than its content")) } else { Ok(answer) }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&mut self, key: ApiKey, request: &RequestKind) -> io::Result<ResponseKind> {
        self.send(key, request).await?;
        soon(self.answer(key)).await
    }
}

/// What every part of a workload knows of the cluster.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to ask first.
    pub bootstrap: Vec<SocketAddr>,
    /// The topic that everything is about.
    pub topic: TopicName,
}

impl Client {
    /// A client of one topic.
    #[must_use]
    pub fn new(bootstrap: Vec<SocketAddr>, topic: &str) -> Self {
        Self { bootstrap, topic: TopicName(StrBytes::from_string(topic.to_owned())) }
    }

    /// Asks any node.
    async fn ask_anyone(&self, key: ApiKey, request: &RequestKind) -> io::Result<ResponseKind> {
        let first = fastrand::usize(..self.bootstrap.len());
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for place in 0..self.bootstrap.len() {
            let address = self.bootstrap[(first + place) % self.bootstrap.len()];
            let asked = async { Connection::open(address).await?.ask(key, request).await };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Creates the topic, as soon as a cluster that is starting can.
    pub async fn create_topic(&self, partitions: i32, replicas: i16, deadline: Instant) -> io::Result<()> {
        let topic = CreatableTopic::default()
            .with_name(self.topic.clone())
            .with_num_partitions(partitions)
            .with_replication_factor(replicas);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
        let request = RequestKind::CreateTopics(request);
        loop {
            let problem = match self.ask_anyone(ApiKey::CreateTopics, &request).await {
                Ok(ResponseKind::CreateTopics(answer)) => match answer.topics.first() {
                    // TOPIC_ALREADY_EXISTS: an earlier attempt of ours, whose answer came too late.
                    Some(topic) if matches!(topic.error_code, 0 | 36) => return Ok(()),
                    other => format!("{other:?}"),
                },
                other => format!("{other:?}"),
            };
            if Instant::now() > deadline {
                return Err(broken(&format!("the topic could not be created: {problem}")));
            }
            sleep(PAUSE * 5).await;
        }
    }

    /// Where a partition's leader is, as some node believes.
    pub async fn leader(&self, partition: i32) -> io::Result<SocketAddr> {
        let topic = MetadataRequestTopic::default().with_name(Some(self.topic.clone()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = self.ask_anyone(ApiKey::Metadata, &RequestKind::Metadata(request)).await?;
        let ResponseKind::Metadata(answer) = answer else { return Err(broken("not an answer to Metadata")) };
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let leader: Option<BrokerId> =
            partitions.filter(|known| known.partition_index == partition).map(|known| known.leader_id).next();
        let broker = answer.brokers.iter().find(|broker| Some(broker.node_id) == leader);
        let broker = broker.ok_or_else(|| broken("the partition has no leader"))?;
        let port = u16::try_from(broker.port).map_err(io::Error::other)?;
        Ok(SocketAddr::new(broker.host.parse().map_err(io::Error::other)?, port))
    }

    /// An identity for an idempotent producer.
    pub async fn new_producer(&self) -> io::Result<(i64, i16)> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        match self.ask_anyone(ApiKey::InitProducerId, &RequestKind::InitProducerId(request)).await? {
            ResponseKind::InitProducerId(answer) if answer.error_code == 0 => {
                Ok((answer.producer_id.0, answer.producer_epoch))
            }
            other => Err(broken(&format!("no producer id: {other:?}"))),
        }
    }

    /// A partition's end offset: after every record acknowledged before the question.
    pub async fn end_offset(&self, partition: i32) -> io::Result<i64> {
        let wanted = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(self.topic.clone()).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let mut connection = Connection::open(self.leader(partition).await?).await?;
        match connection.ask(ApiKey::ListOffsets, &RequestKind::ListOffsets(request)).await? {
            ResponseKind::ListOffsets(answer) => {
                match answer.topics.first().and_then(|topic| topic.partitions.first()) {
                    Some(found) if found.error_code == 0 => Ok(found.offset),
                    other => Err(broken(&format!("no end offset: {other:?}"))),
                }
            }
            other => Err(broken(&format!("not an answer to ListOffsets: {other:?}"))),
        }
    }
}
