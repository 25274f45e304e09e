//! A listener over a broker in memory, and a client's bare end of the wire.

use crate::fake_broker::FakeBroker;
use ackord::broker::{ByteBudget, ConnectionIds};
use ackord::native::listener::Listener;
use ackord::native::{Limits, Service};
use ackord::proto::native::{self, ErrorCode, produce_request::Payload, request, response, topic_reference::By};
use ackord::proto::{decode_response, encode_frame};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes; only a hang is longer.
pub const HANG: Duration = Duration::from_secs(20);

/// The topic of these tests.
pub const TOPIC: &str = "orders";

/// Waits until something has come about.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let come_about = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, come_about).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// A node: a listener over a broker in memory.
pub struct Server {
    pub broker: Arc<FakeBroker>,
    pub address: SocketAddr,
    pub memory: ByteBudget,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// A node with a topic of two partitions.
    pub async fn start() -> Self {
        Self::limited(Limits::default()).await
    }

    pub async fn limited(limits: Limits) -> Self {
        let broker = FakeBroker::new();
        broker.add_topic(TOPIC, 2);
        Self::over(broker, limits).await
    }

    pub async fn over(broker: FakeBroker, limits: Limits) -> Self {
        let broker = Arc::new(broker);
        let memory = ByteBudget::new(u32::try_from(limits.request_bytes_max * 2).expect("small"));
        let service = Service {
            broker: Arc::clone(&broker),
            limits,
            request_memory: memory.clone(),
            connection_ids: ConnectionIds::default(),
        };
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any_port, service).await.expect("a free port");
        let address = listener.local_address().expect("bound");
        broker.listens_on(address.port());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(listener.serve(stopped));
        Self { broker, address, memory, stop, task }
    }

    pub async fn connect(&self) -> Wire {
        Wire { stream: TcpStream::connect(self.address).await.expect("the listener accepts") }
    }

    /// Says stop, without waiting.
    pub fn say_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops, and waits until it has.
    pub async fn stop(self) {
        self.say_stop();
        timeout(HANG, self.task).await.expect("the listener stops").expect("without a panic");
    }

    /// Dies with every connection, and answers nothing any more.
    pub async fn die(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

/// A client's bare end.
pub struct Wire {
    pub stream: TcpStream,
}

impl Wire {
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the listener reads");
    }

    pub async fn send(&mut self, id: u64, body: request::Body) {
        let request = native::Request { id, timeout_ms: 10_000, body: Some(body) };
        self.send_bytes(&encode_frame(&request, usize::MAX).expect("a frame")).await;
    }

    /// The next answer, or `None` if the connection is closed instead.
    pub async fn answer(&mut self) -> Option<(u64, response::Body)> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        };
        let bytes = timeout(HANG, read).await.expect("an answer or the end, in time")?;
        let response = decode_response(bytes).expect("an answer that its own client understands");
        Some((response.id, response.body.expect("an answer has a body")))
    }

    /// Asks, and waits for the answer.
    pub async fn call(&mut self, body: request::Body) -> response::Body {
        self.send(77, body).await;
        let (id, body) = self.answer().await.expect("an answer");
        assert_eq!(id, 77);
        body
    }

    /// Asks, and waits for the error.
    pub async fn refused(&mut self, body: request::Body) -> (ErrorCode, native::Error) {
        match self.call(body).await {
            response::Body::Error(error) => (ErrorCode::try_from(error.code).expect("a known code"), error),
            other => panic!("an error was expected, not {other:?}"),
        }
    }
}

pub fn partition(partition: u32) -> Option<native::PartitionReference> {
    let topic = Some(native::TopicReference { by: Some(By::Name(TOPIC.to_owned())) });
    Some(native::PartitionReference { topic, partition })
}

/// A produce of one record with this value to partition 0.
pub fn produce(value: &'static str) -> request::Body {
    let record = native::Record { value: Some(value.into()), ..Default::default() };
    produce_records(vec![record])
}

pub fn produce_records(records: Vec<native::Record>) -> request::Body {
    let payload = Some(Payload::Records(native::RecordList { records }));
    request::Body::Produce(native::ProduceRequest { partition: partition(0), payload, idempotence: None })
}

pub fn read(offset: i64, wait_ms: u32) -> request::Body {
    let read = native::ReadRequest { partition: partition(0), offset, wait_ms, ..Default::default() };
    request::Body::Read(read)
}
