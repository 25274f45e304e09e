//! Bytes that are no request, on every port: each ends its own connection at most. The process stays the same one, has
//! lost nothing, and takes new records.

use crate::client::{HANG, frame};
use crate::process::{Process, REQUEST_BYTES_MAX};
use ackord::kafka::api::APIS;
use ackord::proto::peer::{self, frame::Body};
use ackord::proto::{self, PEER_FRAME_BYTES_MAX, encode_frame, id_bytes, native};
use ackord::server::identity;
use ackord::types::NodeId;
use fastrand::Rng;
use kafka_protocol::messages::{ApiKey, MetadataRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The listeners: Kafka, native, HTTP, peers.
const KAFKA: usize = 0;
const NATIVE: usize = 1;
const HTTP: usize = 2;
const PEER: usize = 3;

fn prefixed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).expect("short").to_be_bytes()[..], frame].concat()
}

fn random(rng: &mut Rng, length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// Sends bytes; a node that has closed the connection already is as good as one that reads.
async fn send(process: &Process, listener: usize, bytes: &[u8]) -> TcpStream {
    let mut stream = process.connect(listener).await;
    stream.write_all(bytes).await.ok();
    stream
}

/// Sends bytes, says that no more will come, and waits for the connection's end. The answer, as far as there is one.
async fn sent(process: &Process, listener: usize, bytes: &[u8]) -> Vec<u8> {
    let mut stream = send(process, listener, bytes).await;
    stream.shutdown().await.ok();
    read_to_end(&mut stream).await
}

/// What still comes until the node closes the connection, as it must.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match timeout(HANG, stream.read_to_end(&mut answer)).await {
        Ok(_closed_or_reset) => answer,
        Err(_) => panic!("the connection stays open"),
    }
}

/// The answer to an HTTP request that ends its connection. (An HTTP server takes the end of what is sent for a leave.)
async fn asked(process: &Process, request: &[u8]) -> Vec<u8> {
    read_to_end(&mut send(process, HTTP, request).await).await
}

/// The node closes the connection by itself, and answers nothing.
async fn assert_closed(process: &Process, listener: usize, bytes: &[u8]) {
    let mut stream = send(process, listener, bytes).await;
    assert_eq!(read_to_end(&mut stream).await, [0_u8; 0], "an answer to {:?}", &bytes[..bytes.len().min(40)]);
}

#[tokio::test]
async fn lengths_that_no_frame_has_end_their_connection() {
    let mut process = Process::start().await;
    process.write().await;
    for listener in [KAFKA, NATIVE, PEER] {
        for length in [u32::MAX, i32::MAX.cast_unsigned(), 1 << 31, PEER_FRAME_BYTES_MAX as u32 + 1] {
            assert_closed(&process, listener, &length.to_be_bytes()).await;
        }
    }
    // One byte beyond what the configuration allows, on both of the clients' ports.
    for listener in [KAFKA, NATIVE] {
        assert_closed(&process, listener, &(REQUEST_BYTES_MAX as u32 + 1).to_be_bytes()).await;
    }
    // Before a node is welcome, a few kilobytes are too many.
    assert_closed(&process, PEER, &5_000_u32.to_be_bytes()).await;
    process.verify().await;
    process.stop().await;
}

/// A sound header, and after it anything: for every API that is advertised, in every version.
#[tokio::test]
async fn garbage_after_a_sound_header_ends_its_own_connection_only() {
    let mut process = Process::start().await;
    process.write().await;
    let mut rng = Rng::with_seed(11);
    let mut bystander = process.kafka().await;
    let mut tried = 0;
    for api in APIS {
        for version in api.serves.0 - 1..=api.serves.1 + 1 {
            let mut header = [(api.key as i16).to_be_bytes(), version.to_be_bytes()].concat();
            header.extend([0, 0, 0, 9, 0, 1, b'x']);
            if api.is_flexible(version) {
                header.push(0);
            }
            let length = rng.usize(1..60);
            let bodies = [random(&mut rng, length), vec![0xff; 40], vec![0x7f; 40], vec![0; 60], vec![]];
            for body in bodies {
                sent(&process, KAFKA, &prefixed(&[&header[..], &body].concat())).await;
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "only {tried}");
    for field in 8..30_u8 {
        for body in [random(&mut rng, 20), vec![0xff; 20], vec![]] {
            // The request's id, and a body of this kind with this content.
            let kind = u16::from(field) << 3 | 2;
            let key = [kind as u8 & 0x7f | 0x80, (kind >> 7) as u8];
            sent(&process, NATIVE, &prefixed(&[&[8, 1], &key[..], &[body.len() as u8], &body].concat())).await;
            sent(&process, PEER, &prefixed(&[&[field << 3 | 2, body.len() as u8], &body[..]].concat())).await;
        }
    }
    bystander.ask(ApiKey::Metadata, 4, 3, &MetadataRequest::default().into()).await;
    assert_eq!(bystander.correlation_id().await, Some(3), "others are served all the while");
    process.verify().await;
    process.stop().await;
}

#[tokio::test]
async fn noise_and_half_frames_on_every_port_end_nothing() {
    let mut process = Process::start().await;
    process.write().await;
    let mut rng = Rng::with_seed(12);
    for listener in [KAFKA, NATIVE, HTTP, PEER] {
        for round in 0..60 {
            let length = rng.usize(1..300);
            let noise = random(&mut rng, length);
            // Without a length of its own, with the right one, and with one that promises more than comes.
            let bytes = match round % 3 {
                0 => noise,
                1 => prefixed(&noise),
                _ => [&1_000_000_u32.to_be_bytes()[..], &noise].concat(),
            };
            sent(&process, listener, &bytes).await;
        }
    }
    // A sound request, cut everywhere.
    let metadata = prefixed(&frame(ApiKey::Metadata, 9, 1, &MetadataRequest::default().into()));
    let hello = native::request::Body::Hello(native::HelloRequest::default());
    let hello = native::Request { id: 1, timeout_ms: 0, body: Some(hello) };
    let hello = encode_frame(&hello, usize::MAX).expect("a frame");
    for (listener, whole) in [(KAFKA, &metadata[..]), (NATIVE, &hello[..])] {
        for cut in 1..whole.len() {
            assert!(sent(&process, listener, &whole[..cut]).await.is_empty(), "an answer to half a request");
        }
        let mut stream = send(&process, listener, whole).await;
        let length = timeout(HANG, stream.read_u32()).await.expect("an answer in time").expect("an answer");
        assert!(length > 0, "the whole request is answered");
    }
    process.verify().await;
    process.stop().await;
}

/// What a node says that is not known yet, and may come to register: it knows the cluster's id, as every client does.
fn hello(process: &Process) -> peer::Hello {
    let own = identity::open(&process.home.data(), NodeId(1), None).expect("formatted");
    peer::Hello {
        protocol: proto::PROTOCOL,
        cluster_id: id_bytes(own.cluster.0),
        from_node: 2,
        to_node: 1,
        incarnation: id_bytes(77),
        durable_turn: u64::MAX,
        life: id_bytes(78),
        first_turn: u64::MAX,
        losses: 1,
        in_doubt: true,
        registration: None,
    }
}

#[tokio::test]
async fn who_is_no_peer_is_told_why_and_not_let_in() {
    let mut process = Process::start().await;
    process.write().await;
    let sound = hello(&process);
    let wrong = [
        (peer::Hello { cluster_id: id_bytes(3), ..sound.clone() }, "belongs to cluster"),
        (peer::Hello { cluster_id: vec![1, 2, 3].into(), ..sound.clone() }, "16"),
        (peer::Hello { to_node: 3, ..sound.clone() }, "this is node 1, not node 3"),
        (peer::Hello { from_node: 1, ..sound.clone() }, "is no other node"),
        (peer::Hello { protocol: 99, ..sound.clone() }, "run the same release"),
    ];
    for (hello, said) in wrong {
        let hello = peer::Frame { body: Some(Body::Hello(hello)) };
        let raft = peer::Frame { body: Some(Body::Raft(peer::RaftBatch::default())) };
        let encode = |frame: &peer::Frame| encode_frame(frame, PEER_FRAME_BYTES_MAX).expect("a frame");
        let mut stream = send(&process, PEER, &encode(&hello)).await;
        let answer = read_to_end(&mut stream).await;
        let frame =
            answer.split_first_chunk().and_then(|(length, rest)| rest.get(..u32::from_be_bytes(*length) as usize));
        let frame = proto::decode_peer_frame(frame.expect("a whole frame").to_vec().into()).expect("a frame").body;
        let Some(Body::Refused(refusal)) = frame else { panic!("{said}: {frame:?}") };
        assert!(refusal.reason.contains(said), "{said:?} is not in {:?}", refusal.reason);
        assert_closed(&process, PEER, &encode(&raft)).await;
    }
    process.verify().await;
    process.stop().await;
}

/// Whoever begins a request and says no more holds nobody up: not the others, and not the end of the process.
#[tokio::test]
async fn requests_that_never_end_do_not_keep_a_node_from_serving_and_stopping() {
    let mut process = Process::start().await;
    let mut hanging = Vec::new();
    for _ in 0..20 {
        for listener in [KAFKA, NATIVE, PEER] {
            hanging.push(send(&process, listener, &[0, 0, 10]).await);
            hanging.push(send(&process, listener, &[0, 0, 10, 0, 1, 2, 3]).await);
        }
        hanging.push(send(&process, HTTP, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Unfinished: ").await);
        hanging
            .push(send(&process, HTTP, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx").await);
    }
    process.verify().await;
    process.stop().await;
    drop(hanging);
}

#[tokio::test]
async fn http_requests_that_make_no_sense_are_refused() {
    let mut process = Process::start().await;
    let endless = [b"GET / HTTP/1.1\r\nX: ", &vec![b'x'; 1 << 20][..], b"\r\n\r\n"].concat();
    let headers = [b"GET /metrics HTTP/1.1\r\n", &b"X: y\r\n".repeat(5_000)[..], b"\r\n"].concat();
    for (request, status) in [
        (&b"GET /no/such/page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"[..], "404"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", "400"),
        (b"\0\0\0\0 / HTTP/1.1\r\n\r\n", "400"),
        (&headers, "431"),
    ] {
        let answer = asked(&process, request).await;
        let first = String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned();
        assert!(first.contains(status), "{status} was expected: {first}");
    }
    let mut stream = send(&process, HTTP, &endless).await;
    read_to_end(&mut stream).await; // refused or reset, whichever the client sees first
    let answer = asked(&process, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&answer).contains("# EOF"), "the metrics are whole");
    process.verify().await;
    process.stop().await;
}

/// Raft messages of every kind to every group, as nobody that is a member would send them.
fn usurper(term: u64) -> Vec<Body> {
    let mut bodies = Vec::new();
    for kind in (1..20).filter(|kind| peer::RaftMessageType::try_from(*kind).is_ok()) {
        let is_snapshot = kind == i32::from(peer::RaftMessageType::Snapshot);
        for group in 0..8 {
            let membership = Some(peer::Membership { voters: vec![2], ..peer::Membership::default() });
            let message = peer::RaftMessage {
                r#type: kind,
                group,
                from: 2,
                to: 1,
                term,
                log_term: term,
                index: 1 << 40,
                commit: 1 << 40,
                snapshot: is_snapshot.then_some(peer::SnapshotMetadata { index: 1 << 40, term, membership }),
                ..peer::RaftMessage::default()
            };
            bodies.push(Body::Raft(peer::RaftBatch { messages: vec![message] }));
        }
    }
    let leader = |group| peer::LeaderAnnouncement { group, term, node: 2 };
    bodies.push(Body::Leaders(peer::LeaderAnnouncements { leaders: (0..8).map(leader).collect() }));
    bodies
}

#[tokio::test]
async fn a_stranger_that_is_let_in_takes_no_group_over() {
    let mut process = Process::start().await;
    process.write().await;
    for term in [3, 1 << 20, i32::MAX as u64, u64::MAX] {
        let mut stream = process.connect(PEER).await;
        for body in std::iter::once(Body::Hello(hello(&process))).chain(usurper(term)) {
            let frame = peer::Frame { body: Some(body) };
            stream.write_all(&encode_frame(&frame, PEER_FRAME_BYTES_MAX).expect("a frame")).await.ok();
        }
        stream.shutdown().await.ok();
        read_to_end(&mut stream).await;
        process.verify().await;
    }
    process.stop().await;
}

#[tokio::test]
async fn a_proposal_that_is_no_command_is_not_taken_into_the_log() {
    let mut process = Process::start().await;
    process.write().await;
    let mut stream = process.connect(PEER).await;
    let proposals = [&b""[..], &[0xff; 20], &[1, 0xff], &[1, 2, 0xff, 0xff, 0xff, 0xff]];
    let bodies = (1..).zip(proposals).map(|(id, command)| {
        Body::Proposal(peer::ControllerProposal { id, command: command.to_vec().into(), timeout_ms: 500 })
    });
    for body in std::iter::once(Body::Hello(hello(&process))).chain(bodies) {
        let frame = peer::Frame { body: Some(body) };
        stream.write_all(&encode_frame(&frame, PEER_FRAME_BYTES_MAX).expect("a frame")).await.expect("it reads");
    }
    let mut answered = 0;
    while answered < 4 {
        let length = timeout(HANG, stream.read_u32()).await.expect("an answer in time").expect("an answer");
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.expect("an answer");
        let body = proto::decode_peer_frame(frame.into()).expect("a frame").body;
        answered += i32::from(matches!(body, Some(Body::Outcome(_))));
    }
    process.verify().await;
    let admin = process.native().await.expect("it is served").admin();
    admin.delete_topic(crate::process::TOPIC).await.expect("the controller still works");
    process.stop().await;
}
