//! Members of consumer groups: joining, syncing, heartbeats and leaving, at every version served; what waits, and what
//! waits behind it.

use crate::client::{Client, Server, decode, until};
use crate::fake_broker::groups::{Asked, GENERATION, MEMBER, OTHER};
use ackord::broker::{ErrorKind, GROUP_TEXT_BYTES_MAX, JoinGroup, MemberIdentity};
use ackord::kafka::Limits;
use bytes::{Buf, Bytes};
use join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;
use sync_group_request::SyncGroupRequestAssignment;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn join(version: i16, member: &str) -> JoinGroupRequest {
    let protocol =
        |name, metadata| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from(metadata));
    JoinGroupRequest::default()
        .with_group_id(text("crew").into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(if version >= 1 { 60_000 } else { -1 })
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range", "can"), protocol("sticky", "could")])
        .with_reason((version >= 8).then(|| text("why not")))
}

async fn joined(client: &mut Client, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    match client.call(ApiKey::JoinGroup, version, &request.into()).await {
        ResponseKind::JoinGroup(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn sync(version: i16) -> SyncGroupRequest {
    let share = |member, work| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from(work))
    };
    SyncGroupRequest::default()
        .with_group_id(text("crew").into())
        .with_generation_id(GENERATION)
        .with_member_id(text(MEMBER))
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignments(vec![share(OTHER, "theirs"), share(MEMBER, "mine")])
}

async fn synced(client: &mut Client, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    match client.call(ApiKey::SyncGroup, version, &request.into()).await {
        ResponseKind::SyncGroup(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn heartbeat(generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(text("crew").into())
        .with_generation_id(generation)
        .with_member_id(text(MEMBER))
}

async fn beat(client: &mut Client, version: i16, request: HeartbeatRequest) -> i16 {
    match client.call(ApiKey::Heartbeat, version, &request.into()).await {
        ResponseKind::Heartbeat(answer) => answer.error_code,
        other => panic!("{other:?}"),
    }
}

async fn left(client: &mut Client, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    match client.call(ApiKey::LeaveGroup, version, &request.into()).await {
        ResponseKind::LeaveGroup(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn last_join(server: &Server) -> JoinGroup {
    match server.broker.state().groups.asked.last() {
        Some(Asked::Join(join)) => join.clone(),
        other => panic!("{other:?}"),
    }
}

fn waiting(server: &Server) -> usize {
    *server.broker.state().groups.waiting.lock().expect("not poisoned")
}

#[tokio::test]
async fn a_new_member_joins_in_two_steps_from_version_4_on() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 0..=9 {
        let first = joined(&mut client, version, join(version, "")).await;
        let asked = last_join(&server);
        assert_eq!((asked.client_id.as_str(), asked.client_host.as_str()), ("test", "/127.0.0.1"));
        assert_eq!(asked.session_timeout, Duration::from_secs(10));
        let rebalance_timeout = Duration::from_secs(if version >= 1 { 60 } else { 10 });
        assert_eq!(asked.rebalance_timeout, rebalance_timeout, "v{version}");
        assert_eq!(asked.protocols, [("range".into(), Bytes::from("can")), ("sticky".into(), Bytes::from("could"))]);
        assert_eq!(asked.can_skip_assignment, version >= 9);
        if version >= 4 {
            assert_eq!((first.error_code, first.member_id.as_str()), (79, MEMBER), "v{version}");
            refused(&first, version);
        } else {
            assert_eq!((first.error_code, first.member_id.as_str()), (0, MEMBER), "v{version}");
        }
        let second = joined(&mut client, version, join(version, MEMBER)).await;
        assert_eq!((second.error_code, second.generation_id), (0, GENERATION));
        assert_eq!((second.member_id.as_str(), second.leader.as_str()), (MEMBER, MEMBER));
        assert_eq!(second.protocol_name.as_deref(), Some("range"));
        assert_eq!(second.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
        let members: Vec<_> =
            second.members.iter().map(|member| (member.member_id.as_str(), &*member.metadata)).collect();
        assert_eq!(members, [(MEMBER, &b"can"[..]), (OTHER, b"can")]);
        assert_eq!(second.members[1].group_instance_id.as_deref(), (version >= 5).then_some("desk"));
    }
    server.stop().await;
}

/// What every refused JoinGroup has in common.
fn refused(answer: &JoinGroupResponse, version: i16) {
    assert_eq!((answer.generation_id, answer.leader.as_str()), (-1, ""));
    assert_eq!(answer.protocol_name.as_deref(), if version >= 7 { None } else { Some("") }, "v{version}");
    assert_eq!(answer.protocol_type, None);
    assert!(answer.members.is_empty());
}

#[tokio::test]
async fn a_static_member_joins_in_one_step() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 5..=9 {
        let request = join(version, "").with_group_instance_id(Some(text("seat")));
        assert_eq!(joined(&mut client, version, request).await.error_code, 0, "v{version}");
        let asked = last_join(&server);
        assert!(!asked.two_steps);
        assert_eq!(asked.member, MemberIdentity { id: String::new(), instance: Some("seat".into()) });
    }
    server.stop().await;
}

#[tokio::test]
async fn only_clients_that_know_it_are_told_to_skip_the_assignment() {
    let server = Server::start(Limits::default()).await;
    server.broker.state().groups.skip_assignment = true;
    let mut client = server.connect().await;
    for version in 0..=9 {
        let answer = joined(&mut client, version, join(version, MEMBER)).await;
        assert_eq!(answer.skip_assignment, version == 9);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_join_says_nothing_of_a_generation() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 0..=9 {
        for (kind, code) in [(ErrorKind::UnknownMember, 25), (ErrorKind::GroupFull, 81), (ErrorKind::Overloaded, 16)] {
            server.broker.state().groups.refusal = Some(kind);
            let answer = joined(&mut client, version, join(version, "me")).await;
            assert_eq!((answer.error_code, answer.member_id.as_str()), (code, "me"), "v{version} {kind:?}");
            refused(&answer, version);
        }
    }
    server.stop().await;
}

/// Old versions could not repeat it to other members, so it never gets to the broker.
#[tokio::test]
async fn a_member_with_too_much_of_a_name_is_refused() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    let long = text(&"x".repeat(GROUP_TEXT_BYTES_MAX + 1));
    let mut protocol = join(9, MEMBER);
    protocol.protocols[1].name = long.clone();
    let requests = [
        (join(9, MEMBER).with_group_id(long.clone().into()), 24),
        (join(9, MEMBER).with_group_id(text("").into()), 24),
        (join(9, MEMBER).with_member_id(long.clone()), 42),
        (join(9, MEMBER).with_group_instance_id(Some(long.clone())), 42),
        (join(9, MEMBER).with_protocol_type(long), 42),
        (protocol, 42),
    ];
    for (request, code) in requests {
        assert_eq!(joined(&mut client, 9, request).await.error_code, code);
    }
    assert!(server.broker.state().groups.asked.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_member_gets_its_share() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 0..=5 {
        let answer = synced(&mut client, version, sync(version)).await;
        assert_eq!((answer.error_code, &*answer.assignment), (0, &b"mine"[..]), "v{version}");
        let named = (answer.protocol_type.as_deref(), answer.protocol_name.as_deref());
        assert_eq!(named, if version >= 5 { (Some("consumer"), Some("range")) } else { (None, None) });
        let Some(Asked::Sync(asked)) = server.broker.state().groups.asked.last().cloned() else { panic!("a sync") };
        assert_eq!((asked.generation, asked.member.id.as_str()), (GENERATION, MEMBER));
        assert_eq!(asked.protocol.as_deref(), (version >= 5).then_some("range"));
        assert_eq!(asked.assignments, [(OTHER.into(), Bytes::from("theirs")), (MEMBER.into(), Bytes::from("mine"))]);
    }
    for unnamed in [sync(5).with_protocol_name(None), sync(5).with_protocol_type(None)] {
        assert_eq!(synced(&mut client, 5, unnamed).await.error_code, 23, "KIP-559: both must be named");
    }
    for (kind, code) in [(ErrorKind::RebalanceInProgress, 27), (ErrorKind::CoordinatorLoading, 27)] {
        server.broker.state().groups.refusal = Some(kind);
        for version in 0..=5 {
            let answer = synced(&mut client, version, sync(version)).await;
            assert_eq!((answer.error_code, answer.assignment.len(), answer.protocol_name), (code, 0, None));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn heartbeats_are_answered_in_codes_that_members_know() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 0..=4 {
        server.broker.state().groups.refusal = None;
        assert_eq!(beat(&mut client, version, heartbeat(GENERATION)).await, 0);
        assert_eq!(beat(&mut client, version, heartbeat(GENERATION - 1)).await, 22);
        assert_eq!(beat(&mut client, version, heartbeat(1).with_group_id(text("").into())).await, 24);
        let instance = (version >= 3).then_some("seat");
        beat(&mut client, version, heartbeat(1).with_group_instance_id(instance.map(text))).await;
        let Some(Asked::Heartbeat(asked)) = server.broker.state().groups.asked.last().cloned() else {
            panic!("a beat")
        };
        assert_eq!(asked.member, MemberIdentity { id: MEMBER.into(), instance: instance.map(str::to_owned) });
        for (kind, code) in [
            (ErrorKind::RebalanceInProgress, 27),
            (ErrorKind::FencedInstance, 82),
            (ErrorKind::CoordinatorLoading, 0),
            (ErrorKind::UnknownGroup, 25),
            (ErrorKind::StorageUnavailable, 16),
            (ErrorKind::CoordinatorLost, 16),
        ] {
            server.broker.state().groups.refusal = Some(kind);
            assert_eq!(beat(&mut client, version, heartbeat(GENERATION)).await, code, "v{version} {kind:?}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn members_leave_each_with_an_answer_of_its_own() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    let request = || LeaveGroupRequest::default().with_group_id(text("crew").into());
    for version in 0..=2 {
        for (member, code) in [(MEMBER, 0), ("nobody", 25)] {
            let answer = left(&mut client, version, request().with_member_id(text(member))).await;
            assert_eq!((answer.error_code, answer.members.len()), (code, 0), "v{version}");
        }
    }
    for version in 3..=5 {
        let member = |id: &str, instance: Option<&str>| {
            leave_group_request::MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
                .with_reason((version >= 5).then(|| text("tired")))
        };
        let members = vec![member(MEMBER, None), member("", Some("seat"))];
        let answer = left(&mut client, version, request().with_members(members)).await;
        let told = |index: usize| {
            let member = &answer.members[index];
            (member.member_id.as_str(), member.group_instance_id.as_deref(), member.error_code)
        };
        assert_eq!((answer.error_code, answer.members.len()), (0, 2));
        assert_eq!((told(0), told(1)), ((MEMBER, None, 0), ("", Some("seat"), 25)));
        let Some(Asked::Leave(group, asked)) = server.broker.state().groups.asked.last().cloned() else {
            panic!("one")
        };
        assert_eq!((group.as_str(), asked[1].instance.as_deref()), ("crew", Some("seat")));
    }
    server.broker.state().groups.refusal = Some(ErrorKind::NotCoordinator);
    for version in 0..=5 {
        let members = if version >= 3 { vec![leave_group_request::MemberIdentity::default()] } else { vec![] };
        let answer = left(&mut client, version, request().with_members(members)).await;
        assert_eq!((answer.error_code, answer.members.len()), (16, 0), "v{version}");
    }
    server.stop().await;
}

/// As in Kafka: what a client asks behind a join is not begun before the join is answered.
#[tokio::test]
async fn what_follows_a_join_waits_for_it_and_other_connections_do_not() {
    let server = Server::start(Limits::default()).await;
    let (open, gate) = oneshot::channel();
    server.broker.state().groups.gates.push_back(gate);
    let (mut client, mut other) = (server.connect().await, server.connect().await);
    client.ask(ApiKey::JoinGroup, 9, 1, &join(9, MEMBER).into()).await;
    client.ask(ApiKey::Heartbeat, 4, 2, &heartbeat(GENERATION).into()).await;
    until("the join waits", || waiting(&server) == 1).await;
    assert_eq!(beat(&mut other, 4, heartbeat(GENERATION)).await, 0);
    let early = timeout(Duration::from_millis(50), client.stream.read_u8()).await;
    assert!(early.is_err(), "the heartbeat waits for the join");
    assert_eq!(server.broker.state().groups.asked.len(), 2, "nor has it been begun");
    open.send(()).expect("awaited");
    for id in [1, 2] {
        assert_eq!(client.correlation_id().await, Some(id));
    }
    assert_eq!(server.broker.state().groups.asked.len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_waited_for_no_longer() {
    let server = Server::start(Limits::default()).await;
    let (_open, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    server.broker.state().groups.gates.extend(gates);
    let (mut joiner, mut syncer) = (server.connect().await, server.connect().await);
    joiner.ask(ApiKey::JoinGroup, 9, 1, &join(9, MEMBER).into()).await;
    syncer.ask(ApiKey::SyncGroup, 5, 1, &sync(5).into()).await;
    until("both wait", || waiting(&server) == 2).await;
    drop(joiner);
    until("the join is dropped", || waiting(&server) == 1).await;
    drop(syncer);
    until("the sync is dropped", || waiting(&server) == 0).await;
    until("nothing stays reserved", || server.memory.available() == server.memory.total()).await;
    server.stop().await;
}

/// Or many members that wait would leave no room for the request of the one that they wait for.
#[tokio::test]
async fn who_waits_for_other_members_occupies_no_memory() {
    let server = Server::start(Limits::default()).await;
    let (open, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    server.broker.state().groups.gates.extend(gates);
    let (mut joiner, mut syncer) = (server.connect().await, server.connect().await);
    joiner.ask(ApiKey::JoinGroup, 9, 1, &join(9, MEMBER).into()).await;
    syncer.ask(ApiKey::SyncGroup, 5, 2, &sync(5).into()).await;
    until("both wait", || waiting(&server) == 2).await;
    assert_eq!(server.memory.available(), server.memory.total());
    open.into_iter().for_each(|gate| gate.send(()).expect("awaited"));
    assert_eq!((joiner.correlation_id().await, syncer.correlation_id().await), (Some(1), Some(2)));
    server.stop().await;
}

#[tokio::test]
async fn a_listener_that_stops_waits_for_no_members() {
    let limits = Limits { grace: Duration::from_secs(3600), ..Limits::default() };
    let server = Server::start(limits).await;
    let (_open, gates): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    server.broker.state().groups.gates.extend(gates);
    let (mut joiner, mut syncer) = (server.connect().await, server.connect().await);
    joiner.ask(ApiKey::JoinGroup, 9, 1, &join(9, MEMBER).into()).await;
    syncer.ask(ApiKey::SyncGroup, 5, 2, &sync(5).into()).await;
    until("both wait", || waiting(&server) == 2).await;
    server.say_stop();
    let answer = decode(ApiKey::JoinGroup, 9, 1, joiner.answer().await.expect("an answer"));
    let ResponseKind::JoinGroup(answer) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.error_code, answer.member_id.as_str()), (16, MEMBER));
    let mut answer = syncer.answer().await.expect("an answer");
    assert_eq!(answer.get_i32(), 2);
    server.stop().await;
}
