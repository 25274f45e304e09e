//! `ackord topic trim`: which records it asks to be deleted. A proxy before the server notes that and answers as if it
//! had been done.

use crate::server::{HANG, Server, TOPIC, produce_records};
use ackord::proto::native::{self, request, response};
use ackord::proto::{decode_request, encode_frame};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

/// Partition and first offset to be kept, of each deletion.
type Deletions = Arc<Mutex<Vec<(u32, i64)>>>;

async fn read_frame(stream: &mut TcpStream) -> Option<Bytes> {
    let length = stream.read_u32().await.ok()?;
    let mut bytes = BytesMut::zeroed(length as usize);
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes.freeze())
}

/// Brings requests to the server one by one, but for deletions.
async fn relay(mut client: TcpStream, server: SocketAddr, deletions: Deletions) -> Option<()> {
    let mut server = TcpStream::connect(server).await.ok()?;
    while let Some(frame) = read_frame(&mut client).await {
        let asked = decode_request(frame.clone()).expect("a client's request");
        if let Some(request::Body::DeleteRecords(deletion)) = asked.body {
            let partition = deletion.partition.expect("a partition").partition;
            deletions.lock().unwrap().push((partition, deletion.before_offset));
            let done = native::DeleteRecordsResponse { log_start_offset: deletion.before_offset };
            let answer = native::Response { id: asked.id, body: Some(response::Body::DeleteRecords(done)) };
            client.write_all(&encode_frame(&answer, usize::MAX).expect("a frame")).await.ok()?;
            continue;
        }
        server.write_u32(frame.len().try_into().expect("a short frame")).await.ok()?;
        server.write_all(&frame).await.ok()?;
        let answer = read_frame(&mut server).await?;
        client.write_u32(answer.len().try_into().expect("a short frame")).await.ok()?;
        client.write_all(&answer).await.ok()?;
    }
    Some(())
}

/// Puts a proxy before the server; clients are sent to it by the cluster's status, too.
async fn proxy(server: &Server) -> (String, Deletions) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    server.broker.listens_on(address.port());
    let deletions = Deletions::default();
    let (noted, target) = (Arc::clone(&deletions), server.address);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, target, Arc::clone(&noted)));
        }
    });
    (address.to_string(), deletions)
}

#[tokio::test]
async fn what_is_trimmed_is_what_was_named() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for timestamp_ms in [1_000, 2_000, 3_000] {
        wire.call(produce_records(vec![native::Record { timestamp_ms, ..Default::default() }])).await;
    }
    let (address, deletions) = proxy(&server).await;
    let trim = async |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ackord"));
        let arguments = arguments.split_whitespace();
        command.args(["topic", "trim", TOPIC, "-b", &address, "--timeout", "5s"]).args(arguments).kill_on_drop(true);
        let output = timeout(HANG, command.output()).await.expect("it ends").expect("the program was built");
        let told = String::from_utf8([output.stdout, output.stderr].concat()).expect("the program writes UTF-8");
        let asked = std::mem::take(&mut *deletions.lock().unwrap());
        (output.status.code().expect("an exit code"), asked, told)
    };
    let cases: [(&str, &[(u32, i64)]); 6] = [
        ("--partition 0 --before-offset 2", &[(0, 2)]),
        ("--partition 0 --before-time 1970-01-01T00:00:02Z", &[(0, 1)]),
        ("--partition 0 --before-time 9999", &[(0, 3)]), // no record is so young: all are older
        ("--to-high-watermark", &[(0, 3)]),              // the other partition is empty
        ("--partition 1 --to-high-watermark", &[]),
        ("--partition 0 --before-offset 0", &[]),
    ];
    for (arguments, expected) in cases {
        let (code, asked, told) = trim(arguments).await;
        assert_eq!((code, &asked[..]), (0, expected), "{arguments}: {told}");
        let deleted = expected.first().map_or(0, |(_, offset)| *offset);
        let line = format!(": {deleted} records are deleted, it begins at offset {deleted}\n");
        assert!(told.contains(&line), "{arguments}: {told}");
    }
    let (code, asked, told) = trim("--before-offset 2").await;
    assert_eq!((code, asked), (1, vec![]), "{told}");
    assert!(told.contains("--partition"), "{told}");
    server.stop().await;
}
