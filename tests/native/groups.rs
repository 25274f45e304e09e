//! What is the native edge's own in consumer groups; the rest is the broker's.

use crate::fake_broker::groups::{Asked, GENERATION, MEMBER};
use crate::server::{Server, until};
use ackord::broker::GROUP_TEXT_BYTES_MAX;
use ackord::proto::native::{self, ErrorCode, request, response};
use tokio::sync::oneshot;

fn member(id: &str) -> Option<native::GroupMember> {
    Some(native::GroupMember { id: id.to_owned(), instance: None })
}

fn join() -> native::JoinGroupRequest {
    native::JoinGroupRequest {
        group: "readers".to_owned(),
        member: member(MEMBER),
        client_name: "c".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![native::GroupProtocol { name: "range".to_owned(), metadata: "can".into() }],
    }
}

fn sync() -> request::Body {
    let (group, generation, assignments) = ("readers".to_owned(), GENERATION, Vec::new());
    request::Body::SyncGroup(native::SyncGroupRequest { group, generation, member: member(MEMBER), assignments })
}

/// Or many members that wait would leave no room for the request of the one that they wait for.
#[tokio::test]
async fn who_waits_for_other_members_occupies_no_memory() {
    let server = Server::start().await;
    let (open, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    server.broker.state().groups.gates.extend(gates);
    let mut client = server.connect().await;
    client.send(1, request::Body::JoinGroup(join())).await;
    client.send(2, sync()).await;
    let waiting = || *server.broker.state().groups.waiting.lock().expect("not poisoned");
    until("both wait", || waiting() == 2).await;
    assert_eq!(server.memory.available(), server.memory.total());
    open.into_iter().for_each(|gate| gate.send(()).expect("awaited"));
    for _ in 0..2 {
        let (_, body) = client.answer().await.expect("an answer");
        assert!(matches!(body, response::Body::JoinGroup(_) | response::Body::SyncGroup(_)), "{body:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn names_that_others_could_not_be_told_are_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let long = "x".repeat(GROUP_TEXT_BYTES_MAX + 1);
    let protocol = native::GroupProtocol { name: long.clone(), metadata: "can".into() };
    let instance = native::GroupMember { id: String::new(), instance: Some(long.clone()) };
    for bad in [
        native::JoinGroupRequest { member: member(&long), ..join() },
        native::JoinGroupRequest { member: Some(instance), ..join() },
        native::JoinGroupRequest { protocol_type: long.clone(), ..join() },
        native::JoinGroupRequest { protocols: vec![protocol], ..join() },
    ] {
        let (code, ..) = client.refused(request::Body::JoinGroup(bad)).await;
        assert_eq!(code, ErrorCode::InvalidRequest);
    }
    assert!(server.broker.state().groups.asked.is_empty(), "the broker was not asked");
    let named = native::JoinGroupRequest { client_name: long, ..join() };
    client.call(request::Body::JoinGroup(named)).await;
    let Some(Asked::Join(asked)) = server.broker.state().groups.asked.pop() else { panic!("a join") };
    assert_eq!(asked.client_id.len(), GROUP_TEXT_BYTES_MAX, "what a client calls itself is cut");
    server.stop().await;
}

/// There is one answer for all offsets: an error says of each that it was not stored.
#[tokio::test]
async fn offsets_are_stored_all_or_none() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let commit = native::CommitOffsetsRequest { group: "readers".to_owned(), generation: -1, ..Default::default() };
    client.call(request::Body::CommitOffsets(commit)).await;
    let Some(Asked::Commit(asked)) = server.broker.state().groups.asked.pop() else { panic!("a commit") };
    assert!(asked.all_or_none);
    server.stop().await;
}
