//! Offsets of consumer groups and what operators see of groups, at every version served.

use crate::client::{Client, Server};
use crate::fake_broker::groups::{Asked, GENERATION, MEMBER, SUBSCRIBED, described};
use ackord::broker::{ErrorKind, GroupState};
use ackord::kafka::Limits;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};

const TOPIC: &str = "orders";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Partition, offset, leader epoch, metadata, error.
type Found = (i32, i64, i32, String, i16);

fn found(index: i32, offset: i64, epoch: i32, metadata: &str, code: i16) -> Found {
    (index, offset, epoch, metadata.into(), code)
}

async fn server() -> Server {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 4);
    server.broker.add_topic(SUBSCRIBED, 1);
    server
}

fn commit(version: i16, positions: &[(&str, i32, i64, &str)]) -> OffsetCommitRequest {
    let topic = |(name, index, offset, metadata): &(&str, i32, i64, &str)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(if version >= 6 { 5 } else { -1 })
            .with_committed_metadata(Some(text(metadata)));
        OffsetCommitRequestTopic::default().with_name(text(name).into()).with_partitions(vec![partition])
    };
    OffsetCommitRequest::default()
        .with_group_id(text("crew").into())
        .with_retention_time_ms(if version <= 4 { 1 } else { -1 })
        .with_topics(positions.iter().map(topic).collect())
}

/// The code of each partition, in the order of the answer.
async fn committed(client: &mut Client, version: i16, request: OffsetCommitRequest) -> Vec<i16> {
    match client.call(ApiKey::OffsetCommit, version, &request.into()).await {
        ResponseKind::OffsetCommit(answer) => {
            answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Asks for partitions of [`TOPIC`], or for everything.
fn fetch(version: i16, group: &str, partitions: Option<&[i32]>) -> OffsetFetchRequest {
    if version >= 8 {
        let topics = partitions.map(|partitions| {
            let topic = OffsetFetchRequestTopics::default().with_name(text(TOPIC).into());
            vec![topic.with_partition_indexes(partitions.into())]
        });
        let group = OffsetFetchRequestGroup::default().with_group_id(text(group).into()).with_topics(topics);
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topics = partitions.map(|partitions| {
        let topic = OffsetFetchRequestTopic::default().with_name(text(TOPIC).into());
        vec![topic.with_partition_indexes(partitions.into())]
    });
    OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(topics)
}

/// The error of the first group, and what it has of each topic.
async fn fetched(client: &mut Client, version: i16, request: OffsetFetchRequest) -> (i16, Vec<(String, Vec<Found>)>) {
    let answer = match client.call(ApiKey::OffsetFetch, version, &request.into()).await {
        ResponseKind::OffsetFetch(answer) => answer,
        other => panic!("{other:?}"),
    };
    macro_rules! topics {
        ($topics:expr) => {{
            let topics = $topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|at| {
                    let metadata = at.metadata.as_deref().expect("never null");
                    let (index, offset, epoch) = (at.partition_index, at.committed_offset, at.committed_leader_epoch);
                    found(index, offset, epoch, metadata, at.error_code)
                });
                (topic.name.to_string(), partitions.collect())
            });
            topics.collect()
        }};
    }
    if version >= 8 {
        let group = &answer.groups[0];
        return (group.error_code, topics!(group.topics));
    }
    (answer.error_code, topics!(answer.topics))
}

#[tokio::test]
async fn what_was_stored_is_what_is_fetched() {
    let server = server().await;
    let mut client = server.connect().await;
    for (offset, version) in (100..).zip(2..=9) {
        let positions = [(TOPIC, 1, offset, "note"), (TOPIC, 2, offset + 1, ""), (SUBSCRIBED, 0, 7, "x")];
        assert_eq!(committed(&mut client, version, commit(version, &positions)).await, [0, 0, 0], "v{version}");
        let Some(Asked::Commit(asked)) = server.broker.state().groups.asked.last().cloned() else { panic!("one") };
        assert_eq!((asked.generation, asked.member.id.as_str()), (-1, ""), "who only stores offsets");
        let epoch = if version >= 6 { 5 } else { -1 };
        for version in 1..=9 {
            let told = if version >= 5 { epoch } else { -1 };
            let mine = (
                TOPIC.to_owned(),
                vec![found(1, offset, told, "note", 0), found(3, -1, -1, "", 0), found(2, offset + 1, told, "", 0)],
            );
            let asked = fetch(version, "crew", Some(&[1, 3, 2, 1]));
            assert_eq!(fetched(&mut client, version, asked).await, (0, vec![mine]), "v{version}");
            if version >= 2 {
                let mine =
                    (TOPIC.to_owned(), vec![found(1, offset, told, "note", 0), found(2, offset + 1, told, "", 0)]);
                let other = (SUBSCRIBED.to_owned(), vec![found(0, 7, told, "x", 0)]);
                let everything = fetch(version, "crew", None);
                assert_eq!(fetched(&mut client, version, everything).await, (0, vec![mine, other]), "v{version}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn offsets_are_refused_one_by_one_or_all() {
    let server = server().await;
    let mut client = server.connect().await;
    let long = "x".repeat(4097);
    for version in 2..=9 {
        let positions = [(TOPIC, 0, 1, &*long), (TOPIC, 1, 2, &long[1..]), ("nothing", 0, 3, ""), (TOPIC, 9, 4, "")];
        assert_eq!(committed(&mut client, version, commit(version, &positions)).await, [12, 0, 3, 3], "v{version}");
        let nobody = commit(version, &positions).with_group_id(text("").into());
        assert_eq!(committed(&mut client, version, nobody).await, [24; 4]);
        for (kind, code) in [
            (ErrorKind::IllegalGeneration, 22),
            (ErrorKind::UnknownMember, 25),
            (ErrorKind::RebalanceInProgress, 27),
            (ErrorKind::CoordinatorLoading, 14),
            (ErrorKind::TimedOut, 16),
        ] {
            server.broker.state().groups.refusal = Some(kind);
            assert_eq!(committed(&mut client, version, commit(version, &positions)).await, [code; 4], "{kind:?}");
        }
        server.broker.state().groups.refusal = None;
    }
    let mut nothing_to_note = commit(9, &[(TOPIC, 0, 1, "")]);
    nothing_to_note.topics[0].partitions[0].committed_metadata = None;
    nothing_to_note.generation_id_or_member_epoch = GENERATION;
    nothing_to_note.member_id = text(MEMBER);
    nothing_to_note.group_instance_id = Some(text("seat"));
    assert_eq!(committed(&mut client, 9, nothing_to_note).await, [0]);
    let Some(Asked::Commit(asked)) = server.broker.state().groups.asked.last().cloned() else { panic!("a commit") };
    assert_eq!((asked.generation, asked.member.id.as_str()), (GENERATION, MEMBER));
    assert_eq!(asked.member.instance.as_deref(), Some("seat"));
    assert_eq!(asked.offsets[0].position.metadata, "", "null is as good as nothing");
    server.stop().await;
}

#[tokio::test]
async fn a_group_that_cannot_be_asked_says_so_where_its_version_can() {
    let server = server().await;
    let mut client = server.connect().await;
    for (kind, code) in [(ErrorKind::CoordinatorLoading, 14), (ErrorKind::CoordinatorNotAvailable, 16)] {
        server.broker.state().groups.refusal = Some(kind);
        let partitions = vec![found(2, -1, -1, "", code), found(0, -1, -1, "", code)];
        let answer = fetched(&mut client, 1, fetch(1, "crew", Some(&[2, 0]))).await;
        assert_eq!(answer, (0, vec![(TOPIC.into(), partitions)]), "version 1 has no other place");
        for version in 2..=9 {
            assert_eq!(fetched(&mut client, version, fetch(version, "crew", Some(&[2, 0]))).await, (code, vec![]));
            assert_eq!(fetched(&mut client, version, fetch(version, "crew", None)).await, (code, vec![]));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn several_groups_are_asked_about_at_once_and_each_once() {
    let server = server().await;
    let mut client = server.connect().await;
    assert_eq!(committed(&mut client, 9, commit(9, &[(TOPIC, 0, 5, "")])).await, [0]);
    for version in 8..=9 {
        let mut request = fetch(version, "crew", Some(&[0])).with_require_stable(true);
        for group in ["", "other", "crew"] {
            request.groups.extend(fetch(version, group, None).groups);
        }
        let ResponseKind::OffsetFetch(answer) = client.call(ApiKey::OffsetFetch, version, &request.into()).await else {
            panic!("offsets")
        };
        let told = |index: usize| (answer.groups[index].group_id.as_str(), answer.groups[index].topics.len());
        assert_eq!(answer.groups.len(), 3);
        assert_eq!([told(0), told(1), told(2)], [("crew", 1), ("", 0), ("other", 0)]);
        assert!(answer.groups.iter().all(|group| group.error_code == 0));
        let Some(Asked::Fetch(asked)) = server.broker.state().groups.asked.last().cloned() else { panic!("a fetch") };
        assert!(asked.require_stable);
    }
    server.stop().await;
}

#[tokio::test]
async fn stored_offsets_are_dropped_one_by_one() {
    let server = server().await;
    let mut client = server.connect().await;
    committed(&mut client, 9, commit(9, &[(TOPIC, 0, 5, ""), (TOPIC, 1, 6, "")])).await;
    let topic = |name, partitions: &[i32]| {
        let partition = |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
        let partitions = partitions.iter().map(partition).collect();
        OffsetDeleteRequestTopic::default().with_name(text(name).into()).with_partitions(partitions)
    };
    let topics = vec![topic(TOPIC, &[0, 9]), topic(SUBSCRIBED, &[0])];
    let request = OffsetDeleteRequest::default().with_group_id(text("crew").into()).with_topics(topics);
    let ResponseKind::OffsetDelete(answer) = client.call(ApiKey::OffsetDelete, 0, &request.clone().into()).await else {
        panic!("an answer to a deletion")
    };
    let codes = |index: usize| -> Vec<_> {
        let topic: &offset_delete_response::OffsetDeleteResponseTopic = &answer.topics[index];
        topic.partitions.iter().map(|partition| (partition.partition_index, partition.error_code)).collect()
    };
    assert_eq!((answer.error_code, codes(0), codes(1)), (0, vec![(0, 0), (9, 3)], vec![(0, 86)]));
    let left: Vec<_> = server.broker.state().groups.offsets["crew"].keys().cloned().collect();
    assert_eq!(left, [(TOPIC.to_owned(), 1)]);
    for (kind, code) in [(ErrorKind::UnknownGroup, 69), (ErrorKind::GroupNotEmpty, 68), (ErrorKind::Overloaded, 16)] {
        server.broker.state().groups.refusal = Some(kind);
        let ResponseKind::OffsetDelete(answer) = client.call(ApiKey::OffsetDelete, 0, &request.clone().into()).await
        else {
            panic!("an answer to a deletion")
        };
        assert_eq!((answer.error_code, answer.topics.len()), (code, 0));
    }
    server.stop().await;
}

fn add_groups(server: &Server) {
    let states = [("busy", GroupState::Stable), ("idle", GroupState::Empty), ("late", GroupState::PreparingRebalance)];
    let groups = states.map(|(group, state)| (group.to_owned(), described(group, state)));
    server.broker.state().groups.described.extend(groups);
}

async fn listed(client: &mut Client, version: i16, states: &[&str], types: &[&str]) -> ListGroupsResponse {
    let request = ListGroupsRequest::default()
        .with_states_filter(states.iter().map(|state| text(state)).collect())
        .with_types_filter(types.iter().map(|kind| text(kind)).collect());
    match client.call(ApiKey::ListGroups, version, &request.into()).await {
        ResponseKind::ListGroups(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn groups_are_listed_by_state_and_type() {
    let server = server().await;
    add_groups(&server);
    let mut client = server.connect().await;
    for version in 0..=5 {
        let answer = listed(&mut client, version, &[], &[]).await;
        let group = &answer.groups[0];
        assert_eq!((answer.error_code, answer.groups.len()), (0, 3));
        assert_eq!((group.group_id.as_str(), group.protocol_type.as_str()), ("busy", "consumer"));
        assert_eq!(group.group_state.as_str(), if version >= 4 { "Stable" } else { "" });
        assert_eq!(group.group_type.as_str(), if version >= 5 { "classic" } else { "" });
    }
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&["stable"], &[], &["busy"]),
        (&["EMPTY", " preparingRebalance "], &[], &["idle", "late"]),
        (&["Dead"], &[], &[]),
        (&[], &["Classic"], &["busy", "idle", "late"]),
        (&["Empty"], &["consumer", "classic"], &["idle"]),
        (&["Empty"], &["consumer"], &[]),
    ];
    for (states, types, expected) in cases {
        let answer = listed(&mut client, 5, states, types).await;
        let names: Vec<_> = answer.groups.iter().map(|group| group.group_id.as_str()).collect();
        assert_eq!(names, expected, "{states:?} {types:?}");
    }
    for (kind, code) in [(ErrorKind::CoordinatorLoading, 14), (ErrorKind::NotCoordinator, 15)] {
        server.broker.state().groups.refusal = Some(kind);
        for version in 0..=5 {
            let answer = listed(&mut client, version, &[], &[]).await;
            assert_eq!((answer.error_code, answer.groups.len()), (code, 0));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn groups_are_described_and_the_missing_are_dead() {
    let server = server().await;
    add_groups(&server);
    let mut client = server.connect().await;
    let names = || ["busy", "gone", "busy", "idle"].map(|name| GroupId(text(name))).into();
    for version in 0..=6 {
        let ask = async |client: &mut Client| {
            let request =
                DescribeGroupsRequest::default().with_groups(names()).with_include_authorized_operations(version >= 3);
            match client.call(ApiKey::DescribeGroups, version, &request.into()).await {
                ResponseKind::DescribeGroups(answer) => answer.groups,
                other => panic!("{other:?}"),
            }
        };
        server.broker.state().groups.refusal = None;
        let groups = ask(&mut client).await;
        let told: Vec<_> = groups.iter().map(|group| (group.group_id.as_str(), group.group_state.as_str())).collect();
        assert_eq!(told, [("busy", "Stable"), ("gone", "Dead"), ("idle", "Empty")], "each once");
        let (busy, gone, idle) = (&groups[0], &groups[1], &groups[2]);
        assert_eq!((busy.protocol_type.as_str(), busy.protocol_data.as_str()), ("consumer", "range"));
        // Read, delete and describe, as Kafka answers where nobody is denied anything; and nothing where nobody asked.
        let operations = if version >= 3 { 328 } else { i32::MIN };
        assert_eq!((busy.error_code, busy.authorized_operations), (0, operations));
        let member = &busy.members[0];
        assert_eq!((member.member_id.as_str(), member.client_host.as_str()), (MEMBER, "/127.0.0.1"));
        assert_eq!(member.group_instance_id.as_deref(), (version >= 4).then_some("desk"));
        assert_eq!((&*member.member_metadata, &*member.member_assignment), (&b"can"[..], &b"does"[..]));
        assert_eq!((idle.error_code, idle.members.len()), (0, 0));
        assert_eq!(gone.error_code, if version >= 6 { 69 } else { 0 });
        assert_eq!(gone.error_message.is_some(), version >= 6);
        server.broker.state().groups.refusal = Some(ErrorKind::NotCoordinator);
        let groups = ask(&mut client).await;
        let told: Vec<_> = groups.iter().map(|group| (group.error_code, group.group_state.as_str())).collect();
        assert_eq!(told, [(16, ""); 3], "v{version}");
    }
    server.stop().await;
}

#[tokio::test]
async fn groups_without_members_are_deleted_once() {
    let server = server().await;
    let mut client = server.connect().await;
    for version in 0..=2 {
        add_groups(&server);
        let names = ["idle", "busy", "gone", "idle"].map(|name| GroupId(text(name))).into();
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let ResponseKind::DeleteGroups(answer) = client.call(ApiKey::DeleteGroups, version, &request.into()).await
        else {
            panic!("an answer to a deletion")
        };
        let told: Vec<_> = answer.results.iter().map(|group| (group.group_id.as_str(), group.error_code)).collect();
        assert_eq!(told, [("idle", 0), ("busy", 68), ("gone", 69)]);
        assert!(!server.broker.state().groups.described.contains_key("idle"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_coordinator_that_is_not_there_is_told_in_every_version() {
    let server = server().await;
    server.broker.state().groups.refusal = Some(ErrorKind::LeaderNotAvailable);
    let mut client = server.connect().await;
    for version in 0..=4 {
        let request = FindCoordinatorRequest::default();
        let request = match version {
            4 => request.with_coordinator_keys(vec![text("crew"), text("other")]),
            _ => request.with_key(text("crew")),
        };
        let ResponseKind::FindCoordinator(answer) =
            client.call(ApiKey::FindCoordinator, version, &request.into()).await
        else {
            panic!("an answer about a coordinator")
        };
        let codes: Vec<_> = match version {
            4 => answer.coordinators.iter().map(|found| (found.key.as_str(), found.error_code)).collect(),
            _ => vec![("crew", answer.error_code)],
        };
        assert_eq!(codes, [("crew", 15), ("other", 15)][..codes.len()]);
    }
    server.stop().await;
}
