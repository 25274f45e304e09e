//! Nodes that talk over loopback sockets: what arrives, what is lost and repaired, and who is not let in.

#[path = "transport/node.rs"]
mod node;

use ackord::multiraft::apply::machine::Kind;
use ackord::multiraft::apply::transfer::{SnapshotBody, SnapshotMessage};
use ackord::multiraft::core::repair::message::{RepairBody, RepairMessage};
use ackord::proto::peer::frame::Body;
use ackord::proto::{self, peer};
use ackord::raft::RaftMessage;
use ackord::transport::{Announcement, Options, ProposalOutcome, QueueLimits, Registered};
use ackord::types::{ClusterId, Incarnation, LogEntry, LogId, LogIndex, NodeId, RaftGroupId, ReplicaId, Term};
use bytes::Bytes;
use node::{CLUSTER, Node, Setup, addresses, incarnation, within};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const SOON: Duration = Duration::from_secs(10);

/// An append whose index tells it apart.
fn append(from: NodeId, to: NodeId, number: u64, bytes: usize) -> (RaftGroupId, RaftMessage) {
    let data = Bytes::from(vec![number as u8; bytes]);
    let entry = LogEntry { id: LogId::new(number + 1, 1), data, ..LogEntry::default() };
    let message = RaftMessage {
        from: ReplicaId::new(from, 0),
        to: ReplicaId::new(to, 0),
        term: Term(1),
        index: LogIndex(number),
        entries: vec![entry],
        ..RaftMessage::default()
    };
    (RaftGroupId(number % 3), message)
}

/// Two nodes that know each other and are connected both ways.
async fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(Setup::of(A)).await, Node::start(Setup::of(B)).await);
    meet(&a, &b).await;
    (a, b)
}

async fn meet(a: &Node, b: &Node) {
    a.peers.send_replace(addresses(&[a, b]));
    b.peers.send_replace(addresses(&[a, b]));
    within("both ways", || a.sender.alive(B) && b.sender.alive(A)).await;
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order() {
    let (a, b) = pair().await;
    let messages: Vec<_> = (1..=5_000).map(|number| append(A, B, number, number as usize % 700)).collect();
    for some in messages.chunks(37) {
        a.sender.send(B, some.to_vec());
    }
    within("all messages", || b.heard.messages().len() == messages.len()).await;
    assert_eq!(*b.heard.messages(), messages);
    assert!(b.heard.deliveries.load(Ordering::Relaxed) < 5_000 / 37, "what waits together leaves together");

    let (from, to) = (ReplicaId::new(A, 0), ReplicaId::new(B, 0));
    let (kind, bytes) = (Kind::Partition, Bytes::from_static(b"head"));
    let body = SnapshotBody::Head { kind, from_byte: 5, total_bytes: 9, bytes };
    let piece = SnapshotMessage { group: RaftGroupId(4), from, to, at: LogId::new(3, 2), body };
    a.sender.send_snapshot(piece.clone());
    within("a piece of a state", || !b.heard.snapshots().is_empty()).await;
    assert_eq!(*b.heard.snapshots(), [piece]);

    let body = RepairBody::WantState { at_least: LogIndex(7), committed: LogId::new(5, 2) };
    let question = RepairMessage { group: RaftGroupId(4), from, to, body };
    a.sender.send_repair(question.clone());
    within("a question of a repair", || !b.heard.repairs().is_empty()).await;
    assert_eq!(*b.heard.repairs(), [question]);
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_the_connection_goes_on() {
    let limits = QueueLimits { bytes_max: 8 << 20, items_max: 1_000 };
    let a = Node::start(Setup { limits, ..Setup::of(A) }).await;
    let b = Node::start(Setup::of(B)).await;
    meet(&a, &b).await;
    b.heard.take_nothing_in();
    // Sockets' buffers hold some; then the queue fills.
    let mut sent = 0;
    while a.sender.peers()[&B].dropped < 10 {
        sent += 1;
        assert!(sent < 10_000, "a queue without a limit");
        a.sender.send(B, vec![append(A, B, sent, 100 << 10)]);
        assert!(a.sender.peers()[&B].queued_bytes <= limits.bytes_max);
        tokio::task::yield_now().await;
    }
    // Longer than silence is tolerated: a peer that is slow is not dead.
    tokio::time::sleep(Setup::of(A).options.silence_max * 2).await;
    assert!(a.sender.alive(B) && a.heard.broken().is_empty());

    b.heard.take_everything_in();
    within("an empty queue", || a.sender.peers()[&B].queued_bytes == 0).await;
    let last = append(A, B, 1_000_000, 0);
    a.sender.send(B, vec![last.clone()]);
    within("the last message", || b.heard.messages().last() == Some(&last)).await;
    let numbers: Vec<_> = b.heard.messages().iter().map(|(_, message)| message.index.0).collect();
    assert!(numbers.is_sorted());
    let lost = a.sender.peers()[&B].dropped;
    assert_eq!(numbers.len() as u64 + lost, sent + 1);
    assert_eq!(numbers[..100], (1..=100).collect::<Vec<_>>(), "the oldest are kept");
}

/// Why `a` can't reach `b`, once it knows.
async fn problem(a: &Node, to: NodeId) -> String {
    within("a problem", || a.sender.peers().get(&to).is_some_and(|state| state.problem.is_some())).await;
    assert!(!a.sender.alive(to));
    a.sender.peers()[&to].problem.clone().unwrap()
}

#[tokio::test]
async fn whoever_is_not_let_in_learns_why() {
    let b = Node::start(Setup::of(B)).await;
    for (setup, to, expected) in [
        (Setup { cluster: ClusterId(8), ..Setup::of(A) }, B, "not to AAAAAAAAAAAAAAAAAAAACA"),
        (Setup::of(A), NodeId(3), "this is node 2, not node 3"),
        (Setup { incarnation: Incarnation(5), ..Setup::of(A) }, B, "its disk is another one"),
        (Setup::of(NodeId(77)), B, "node 77 is not known to node 2"),
    ] {
        let a = Node::start(setup).await;
        a.peers.send_replace([(to, b.address())].into());
        let problem = problem(&a, to).await;
        assert!(problem.starts_with("refused: ") && problem.contains(expected), "{problem}");
        a.stop().await;
    }
    assert!(b.heard.messages().is_empty());
}

#[tokio::test]
async fn a_node_that_comes_before_it_is_known_may_be_let_in() {
    let newcomer = NodeId(77);
    let b = Node::start(Setup { admits_unknown: true, ..Setup::of(B) }).await;
    let a = Node::start(Setup::of(newcomer)).await;
    a.peers.send_replace(addresses(&[&b]));
    within("let in", || a.sender.alive(B)).await;
}

/// The other end's copy of the metadata is older: it believes what the node says of itself, and finds it where it is.
#[tokio::test]
async fn a_disk_that_was_registered_later_is_let_in_and_found() {
    let (old, b) = pair().await;
    let disk = Incarnation(5);
    let new = Node::start(Setup { incarnation: disk, ..Setup::of(A) }).await;
    new.peers.send_replace(addresses(&[&b]));
    assert!(problem(&new, B).await.contains("its disk is another one"));
    new.heard.learns(A, Registered { at: LogIndex(7), incarnation: disk });
    within("words of the new disk", || {
        new.sender.send(B, vec![append(A, B, 1, 9)]);
        !b.heard.messages().is_empty()
    })
    .await;
    within("words for the new disk", || {
        b.sender.send(A, vec![append(B, A, 1, 9)]);
        !new.heard.messages().is_empty()
    })
    .await;
    let refused = |problem: &String| problem.contains("its disk is another one");
    within("a refusal", || old.sender.peers()[&B].problem.as_ref().is_some_and(refused)).await;
}

#[tokio::test]
async fn a_node_that_is_registered_says_so_to_whom_it_is_connected() {
    let newcomer = NodeId(77);
    let b = Node::start(Setup { admits_unknown: true, ..Setup::of(B) }).await;
    let a = Node::start(Setup::of(newcomer)).await;
    a.peers.send_replace(addresses(&[&b]));
    within("let in", || a.sender.alive(B)).await;
    let mut alive = a.sender.watch_alive();
    alive.mark_unchanged();
    a.heard.learns(newcomer, Registered { at: LogIndex(7), incarnation: incarnation(newcomer) });
    within("found", || b.sender.alive(newcomer)).await;
    assert!(!alive.has_changed().unwrap(), "who is greeted anew is there all the while");
    let message = append(newcomer, B, 1, 9);
    within("heard", || {
        a.sender.send(B, vec![message.clone()]);
        !b.heard.messages().is_empty()
    })
    .await;
}

/// A node whose disk was replaced may have been formatted as what it was: nobody counts what it says in that name.
#[tokio::test]
async fn a_lost_replica_is_not_heard() {
    let (a, b) = pair().await;
    let says = |generation| RaftMessage {
        from: ReplicaId::new(A, generation),
        to: ReplicaId::new(B, 0),
        term: Term(1),
        ..RaftMessage::default()
    };
    let (group, lost) = node::LOST;
    let asks = |generation| {
        let (from, to) = (ReplicaId::new(A, generation), ReplicaId::new(B, 0));
        (
            RepairMessage {
                group,
                from,
                to,
                body: RepairBody::WantState { at_least: LogIndex(1), committed: LogId::default() },
            },
            SnapshotMessage { group, from, to, at: LogId::new(1, 1), body: SnapshotBody::WantHead { from_byte: 0 } },
        )
    };
    for generation in [lost, lost + 1] {
        let (repair, snapshot) = asks(generation);
        a.sender.send_repair(repair);
        a.sender.send_snapshot(snapshot);
    }
    let (repair, snapshot) = asks(lost + 1);
    within("a repair and a snapshot", || !b.heard.repairs().is_empty() && !b.heard.snapshots().is_empty()).await;
    assert_eq!((&b.heard.repairs()[..], &b.heard.snapshots()[..]), (&[repair][..], &[snapshot][..]));
    let others = [(RaftGroupId(1), says(lost)), (group, says(lost + 1))];
    a.sender.send(B, [vec![(group, says(lost))], others.to_vec()].concat());
    within("the others", || b.heard.messages().len() >= others.len()).await;
    assert_eq!(*b.heard.messages(), others);
}

#[tokio::test]
async fn a_disk_that_was_rolled_back_is_refused_by_both_ends() {
    let (a, b) = pair().await;
    b.durable_turn.store(99, Ordering::Release);
    a.stop().await;
    // The newer turn of `b` reaches the new `a` with the greetings; a lower one contradicts it.
    let a = Node::start(Setup { durable_turn: 50, ..Setup::of(A) }).await;
    b.peers.send_replace(addresses(&[&a, &b]));
    a.peers.send_replace(addresses(&[&a, &b]));
    within("both ways", || a.sender.alive(B) && b.sender.alive(A)).await;

    let port = b.port;
    b.stop().await;
    let b = Node::start(Setup { port, durable_turn: 98, ..Setup::of(B) }).await;
    b.peers.send_replace(addresses(&[&a, &b]));
    let told = problem(&b, A).await;
    assert!(told.contains("had turn 99 of its log on disk and has started with turn 98"), "{told}");
    let seen = || a.sender.peers()[&B].problem.clone().unwrap_or_default();
    within("the other end", || seen().starts_with("not wanted: node 2 had turn 99")).await;
    assert!(!a.sender.alive(B));
}

/// A connection of our own making to a node, past its greeting.
async fn intrude(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let hello = peer::Hello {
        protocol: proto::PROTOCOL,
        cluster_id: proto::id_bytes(CLUSTER.0),
        from_node: A.0,
        to_node: node.node.0,
        incarnation: proto::id_bytes(incarnation(A).0),
        durable_turn: 10,
        life: proto::id_bytes(1),
        first_turn: 10,
        losses: 0,
        in_doubt: false,
        registration: None,
    };
    stream.write_all(&frame(Body::Hello(hello))).await.unwrap();
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.unwrap();
    let mut welcome = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut welcome).await.unwrap();
    let read = proto::decode_peer_frame(welcome.into()).unwrap().body;
    assert!(matches!(read, Some(Body::Welcome(_))), "{read:?}");
    stream
}

fn frame(body: Body) -> Bytes {
    proto::encode_frame(&peer::Frame { body: Some(body) }, usize::MAX).unwrap()
}

fn batch(message: peer::RaftMessage) -> Bytes {
    frame(Body::Raft(peer::RaftBatch { messages: vec![message] }))
}

fn repair(message: peer::RepairMessage) -> Bytes {
    frame(Body::Repair(message))
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_nothing_else() {
    let b = Node::start(Setup::of(B)).await;
    let good = peer::RaftMessage {
        r#type: peer::RaftMessageType::Append.into(),
        from: ReplicaId::new(A, 0).0,
        to: ReplicaId::new(B, 0).0,
        term: 1,
        ..Default::default()
    };
    let entry = peer::Entry { index: 9, term: 1, ..Default::default() };
    let question = peer::RepairMessage {
        from: good.from,
        to: good.to,
        body: Some(peer::repair_message::Body::WantState(peer::WantState { at_least: 1, committed: None })),
        ..Default::default()
    };
    let hello = peer::Hello::default();
    let hostile = [
        Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]),
        Bytes::from_static(&[0, 0, 0, 3, 0xff, 0xff, 0xff]),
        Bytes::from_static(&[0, 0, 0, 0]),
        frame(Body::Hello(hello.clone())),
        batch(peer::RaftMessage { from: ReplicaId::new(NodeId(3), 0).0, ..good.clone() }),
        batch(peer::RaftMessage { to: ReplicaId::new(NodeId(3), 0).0, ..good.clone() }),
        batch(peer::RaftMessage { term: 0, ..good.clone() }),
        batch(peer::RaftMessage { entries: vec![entry], ..good.clone() }),
        repair(peer::RepairMessage { from: ReplicaId::new(NodeId(3), 0).0, ..question.clone() }),
        repair(peer::RepairMessage { to: ReplicaId::new(NodeId(3), 0).0, ..question.clone() }),
        repair(peer::RepairMessage { body: None, ..question.clone() }),
    ];
    for bytes in hostile {
        let mut stream = intrude(&b).await;
        stream.write_all(&bytes).await.unwrap();
        assert_closed(stream).await;
    }
    // Before the greeting, too: a frame longer than a greeting, something else than one, half of one and silence.
    for bytes in [&[0, 1, 0, 0][..], &frame(Body::Alive(peer::Alive {})), &frame(Body::Hello(hello))[..3]] {
        let mut stream = TcpStream::connect(b.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_closed(stream).await;
    }
    assert!(b.heard.messages().is_empty() && b.heard.repairs().is_empty());

    let mut stream = intrude(&b).await;
    stream.write_all(&batch(good)).await.unwrap();
    stream.write_all(&repair(question)).await.unwrap();
    within("good messages", || b.heard.messages().len() == 1 && b.heard.repairs().len() == 1).await;
}

/// The node closes the connection, whatever it says before.
async fn assert_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset closes a connection as well.
    let _reset = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
}

/// `a` is connected to a peer that greets, and then neither reads nor speaks nor closes.
async fn silent_peer(a: &Node) -> TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.peers.send_replace([(B, listener.local_addr().unwrap().to_string())].into());
    let (mut stream, _) = listener.accept().await.unwrap();
    let (incarnation, life) = (proto::id_bytes(incarnation(B).0), proto::id_bytes(1));
    let welcome = peer::Welcome {
        incarnation,
        durable_turn: 10,
        life,
        first_turn: 10,
        losses: 0,
        in_doubt: false,
        registration: None,
        yours: None,
    };
    stream.write_all(&frame(Body::Welcome(welcome))).await.unwrap();
    within("connected", || a.sender.alive(B)).await;
    stream
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let a = Node::start(Setup::of(A)).await;
    let _silent = silent_peer(&a).await;
    within("noticed", || !a.sender.alive(B)).await;
    within("told once", || *a.heard.broken() == [B]).await;
    assert!(problem(&a, B).await.starts_with("silent"), "{:?}", a.sender.peers());
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let (a, b) = pair().await;
    let mut alive = a.sender.watch_alive();
    let port = b.port;
    b.stop().await;
    alive.wait_for(|nodes| !nodes.contains(&B)).await.unwrap();
    within("told", || *a.heard.broken() == [B]).await;
    a.sender.send(B, vec![append(A, B, 1, 10)]);
    // What was sent into the void is not brought to the peer's next life.
    within("forgotten", || a.sender.peers()[&B].queued_bytes == 0).await;
    assert_eq!(*a.heard.broken(), [B], "once for each loss");

    let b = Node::start(Setup { port, ..Setup::of(B) }).await;
    b.peers.send_replace(addresses(&[&a, &b]));
    alive.wait_for(|nodes| nodes.contains(&B)).await.unwrap();
    a.sender.send(B, vec![append(A, B, 2, 10)]);
    within("a message", || *b.heard.messages() == [append(A, B, 2, 10)]).await;

    a.peers.send_replace(addresses(&[&a]));
    within("forgotten", || !a.sender.alive(B) && a.sender.peers().is_empty()).await;
}

#[tokio::test]
async fn a_peer_that_connects_is_connected_to_at_once() {
    let hour = Duration::from_secs(3_600);
    let options = Options { backoff_min: hour, backoff_max: hour, ..Setup::of(A).options };
    let a = Node::start(Setup { options, ..Setup::of(A) }).await;
    let b = Node::start(Setup::of(B)).await;
    let port = b.port;
    b.stop().await;
    a.peers.send_replace([(B, format!("127.0.0.1:{port}"))].into());
    problem(&a, B).await;

    let b = Node::start(Setup { port, ..Setup::of(B) }).await;
    meet(&a, &b).await;
}

#[tokio::test]
async fn leaders_are_told_when_they_change_and_whenever_a_peer_is_connected_to() {
    let at = |group, term, node| Announcement { group: RaftGroupId(group), term: Term(term), node };
    let a = Node::start(Setup { leads: vec![at(1, 4, A), at(2, 7, A)], ..Setup::of(A) }).await;
    let b = Node::start(Setup::of(B)).await;
    meet(&a, &b).await;
    within("the present state", || *b.heard.leaders() == [at(1, 4, A), at(2, 7, A)]).await;
    a.sender.announce(&[at(1, 5, A)]);
    within("the change", || b.heard.leaders().last() == Some(&at(1, 5, A))).await;
}

#[tokio::test]
async fn proposals_have_their_outcomes() {
    let (a, b) = pair().await;
    let answered = ProposalOutcome::Answered { answer: Bytes::from_static(b"done"), at: LogIndex(7) };
    for outcome in [answered, ProposalOutcome::NotProposed { leader: Some(A) }, ProposalOutcome::Unknown] {
        b.heard.will_decide(outcome.clone());
        assert_eq!(a.sender.propose_to(B, Bytes::from_static(b"do"), SOON).await, outcome);
    }
    let nobody = a.sender.propose_to(NodeId(9), Bytes::new(), SOON).await;
    assert_eq!(nobody, ProposalOutcome::NotProposed { leader: None });
}

#[tokio::test]
async fn a_proposal_without_an_answer_is_unknown_once_it_was_sent_and_definite_before() {
    let (a, b) = pair().await;
    // No decision in time.
    let late = a.sender.propose_to(B, Bytes::new(), Duration::from_millis(50)).await;
    assert_eq!(late, ProposalOutcome::Unknown);

    // The peer dies while it decides.
    let asked = b.heard.proposals();
    let lost = tokio::spawn(a.sender.propose_to(B, Bytes::new(), SOON));
    within("asked", || b.heard.proposals() == asked + 1).await;
    b.stop().await;
    assert_eq!(lost.await.unwrap(), ProposalOutcome::Unknown);

    // There is no connection.
    within("dead", || !a.sender.alive(B)).await;
    let never = a.sender.propose_to(B, Bytes::new(), SOON).await;
    assert_eq!(never, ProposalOutcome::NotProposed { leader: None });
}

#[tokio::test]
async fn only_so_many_proposals_wait_at_a_time() {
    let (a, b) = pair().await;
    let asking: Vec<_> = (0..256).map(|_| tokio::spawn(a.sender.propose_to(B, Bytes::new(), SOON))).collect();
    within("all asked", || b.heard.proposals() == 256).await;
    let refused = a.sender.propose_to(B, Bytes::new(), SOON).await;
    assert_eq!(refused, ProposalOutcome::NotProposed { leader: None });
    for ask in &asking {
        ask.abort();
    }
    for ask in asking {
        assert!(ask.await.unwrap_err().is_cancelled());
    }
    let again = a.sender.propose_to(B, Bytes::new(), SOON).await;
    assert_eq!(again, ProposalOutcome::NotProposed { leader: None }, "the peer still decides the others");
}

#[tokio::test]
async fn whoever_no_longer_waits_for_an_outcome_makes_room() {
    let a = Node::start(Setup::of(A)).await;
    let _silent = silent_peer(&a).await;
    for _ in 0..300 {
        tokio::select! {
            biased;
            outcome = a.sender.propose_to(B, Bytes::new(), SOON) => panic!("refused at once: {outcome:?}"),
            () = std::future::ready(()) => {}
        }
    }
}
