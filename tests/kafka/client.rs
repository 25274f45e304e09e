//! A client's end of the wire, made of the decoding crate's client side, and a listener to talk to.

use crate::fake_broker::FakeBroker;
use ackord::broker::{ByteBudget, ConnectionIds};
use ackord::kafka::listener::Listener;
use ackord::kafka::{Limits, Service};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
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

/// Waits until something has come about.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let come_about = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, come_about).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// A listener over a broker in memory.
pub struct Server {
    pub broker: Arc<FakeBroker>,
    pub address: SocketAddr,
    pub memory: ByteBudget,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(limits: Limits) -> Self {
        let broker = Arc::new(FakeBroker::new());
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

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.expect("the listener accepts") }
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
}

pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub async fn send(&mut self, frame: &[u8]) {
        let mut bytes = u32::try_from(frame.len()).expect("small").to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.stream.write_all(&bytes).await.expect("the listener reads");
    }

    pub async fn ask(&mut self, key: ApiKey, version: i16, correlation_id: i32, request: &RequestKind) {
        self.send(&frame(key, version, correlation_id, request)).await;
    }

    /// The next answer without its length, or `None` if the connection is closed instead.
    pub async fn answer(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        };
        timeout(HANG, read).await.expect("an answer or the end, in time")
    }

    pub async fn correlation_id(&mut self) -> Option<i32> {
        self.answer().await.map(|mut bytes| bytes.get_i32())
    }

    /// Asks and decodes the answer.
    pub async fn call(&mut self, key: ApiKey, version: i16, request: &RequestKind) -> ResponseKind {
        self.ask(key, version, 77, request).await;
        decode(key, version, 77, self.answer().await.expect("an answer"))
    }
}

/// A request as a client frames it, without its length.
pub fn frame(key: ApiKey, version: i16, correlation_id: i32, request: &RequestKind) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, key.request_header_version(version)).expect("a header");
    request.encode(&mut bytes, version).unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
    bytes.to_vec()
}

/// An answer, decoded to its last byte.
pub fn decode(key: ApiKey, version: i16, correlation_id: i32, mut bytes: Bytes) -> ResponseKind {
    let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version)).expect("a header");
    assert_eq!(header.correlation_id, correlation_id);
    let response = ResponseKind::decode(key, &mut bytes, version);
    let response = response.unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
    assert!(!bytes.has_remaining(), "{key:?} v{version} leaves {} bytes", bytes.len());
    response
}

/// A batch of `count` empty records, valid to the last bit; `attributes` as given.
pub fn batch(count: u32, attributes: u16) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(attributes);
    body.put_u32(count - 1); // last offset delta
    body.put_i64(1_000);
    body.put_i64(2_000);
    body.put_i64(-1); // producer id
    body.put_i16(-1);
    body.put_i32(-1);
    body.put_u32(count);
    for delta in 0..count {
        let delta = u8::try_from(delta).expect("few");
        // Length 6, attributes, time, offset, null key, null value, no headers.
        body.put_slice(&[12, 0, 0, delta * 2, 1, 1, 0]);
    }
    let mut bytes = BytesMut::new();
    bytes.put_i64(0);
    bytes.put_u32(u32::try_from(body.len() + 9).expect("small"));
    bytes.put_i32(-1);
    bytes.put_u8(2);
    bytes.put_u32(crc32c::crc32c(&body));
    bytes.put_slice(&body);
    bytes.freeze()
}
