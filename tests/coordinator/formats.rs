//! What version 1 wrote. These bytes are in logs, databases and snapshots and never change: a new version adds samples
//! and leaves these.

use crate::world::{Memory, RAFT, World, commit, create, dynamic, fixed, simple};
use ackord::coordinator::Coordinator;
use ackord::coordinator::command::{Action, Answer, Assign, Command, Expired, Join, Joined, Leaver, Rejection};
use ackord::storage::{Family, WriteBatch};
use bytes::Bytes;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn actions() -> Vec<(Action, &'static str)> {
    let (name, text) = (|| "g".to_owned(), |text: &str| text.to_owned());
    let assign = Assign {
        group: name(),
        generation: 300,
        member: text("m"),
        instance: None,
        assignments: vec![(text("m"), vec![1, 2])],
    };
    let protocols = vec![(text("range"), vec![9])];
    let join = Join { protocols, two_steps: true, ..fixed("i", "n") };
    vec![
        (Action::Join(join), JOIN),
        (Action::Assign(assign), "01fbd007010167fb5802016d0001016d020102"),
        (
            Action::Leave { group: name(), members: vec![Leaver { member: text("m"), instance: Some(text("i")) }] },
            "01fbd00702016701016d010169",
        ),
        (
            Action::Expire { group: name(), members: vec![Expired { member: text("m"), joins: 3 }] },
            "01fbd00703016701016d03",
        ),
        (Action::FinishJoin { group: name(), round: 2 }, "01fbd00704016702"),
        (Action::Commit(commit("m", -1, &[("t", 1, 500)])), "01fbd007050167016d000101017402fbe80308016d"),
        (Action::DeleteOffsets { group: name(), partitions: vec![(text("t"), 1)] }, "01fbd00706016701017402"),
        (Action::DeleteGroups { groups: vec![name()] }, "01fbd00707010167"),
        (Action::ExpireOffsets { retention_ms: 604_800_000 }, "01fbd00708fc00081948"),
        (Action::ForgetTopics { topics: vec![text("t")] }, "01fbd00709010174"),
    ]
}

fn answers() -> Vec<(Answer, &'static str)> {
    let (member, leader) = ("m".to_owned(), Some("l".to_owned()));
    let joined = Joined::In { member: member.clone(), generation: 2, skip_assignment: true, leader };
    let all = [
        Rejection::UnknownMember,
        Rejection::IllegalGeneration,
        Rejection::RebalanceInProgress,
        Rejection::FencedInstance,
        Rejection::InconsistentProtocol,
        Rejection::GroupFull,
        Rejection::NonEmptyGroup,
        Rejection::UnknownGroup,
        Rejection::SubscribedToTopic,
        Rejection::CoordinatorFull,
    ];
    vec![
        (Answer::Joined(Ok(Joined::Again { member })), "01000000016d"),
        (Answer::Joined(Ok(joined)), "01000001016d040101016c"),
        (Answer::Done(Ok(())), "010100"),
        (Answer::Left(all.map(Err).to_vec()), "01020a0100010101020103010401050106010701080109"),
        (Answer::Committed(Err(Rejection::IllegalGeneration)), "01030101"),
        (Answer::OffsetsDeleted(Ok(vec![Ok(()), Err(Rejection::SubscribedToTopic)])), "01040002000108"),
        (Answer::GroupsDeleted(vec![Err(Rejection::NonEmptyGroup)]), "0105010106"),
    ]
}

#[test]
fn version_1_of_commands_and_answers_stays_readable() {
    for (action, bytes) in actions() {
        let command = Command { now_ms: 1000, action };
        assert_eq!(hex(&command.encode().unwrap()), bytes, "{command:?}");
        assert_eq!(Command::decode(&unhex(bytes)), Ok(command));
    }
    for (answer, bytes) in answers() {
        assert_eq!(hex(&answer.encode()), bytes, "{answer:?}");
        assert_eq!(Answer::decode(&unhex(bytes)), Ok(answer));
    }
}

/// A group in every phase, and offsets of two.
fn world() -> World {
    let mut world = World::stable(&["a"]);
    world.commit(commit("a", 1, &[("t", 1, 500)])).unwrap();
    world.commit(simple("s", &[("u", 0, 1)])).unwrap();
    let elsewhere = |group: &str, join| Join { group: group.to_owned(), ..join };
    world.join(elsewhere("first", Join { delay_first: true, ..fixed("i", "b") })).unwrap();
    world.join(elsewhere("completing", dynamic("c"))).unwrap();
    world.join(elsewhere("pending", Join { two_steps: true, ..dynamic("d") })).unwrap();
    world
}

#[test]
fn version_1_of_rows_and_snapshots_stays_readable() {
    let world = world();
    let engine = Memory::default();
    for (family, key, row) in ROWS {
        engine.rows.lock().unwrap().insert((*family, unhex(key).to_vec()), unhex(row));
    }
    assert_eq!(engine.dump(), world.engine.dump());
    let reopened = Coordinator::open(&engine, RAFT).unwrap().expect("it is there");
    assert_eq!(reopened.groups(), world.coordinator.groups());

    let mut receiver = create(&Memory::default());
    receiver.install(&unhex(SNAPSHOT), &mut WriteBatch::default()).unwrap();
    assert_eq!(receiver.groups(), world.coordinator.groups());
    assert_eq!(hex(&world.coordinator.snapshot()), SNAPSHOT);
}

const JOIN: &str = "01fbd00700016700016e010169010106636c69656e74092f31302e302e302e31fc905f0100fcc027090008636f6e7375\
    6d6572010572616e676501090064";
const SNAPSHOT: &str = "\
    010903010100000000fbd007050a636f6d706c6574696e6702020108636f6e73756d6572010572616e67650101630101\
    6301630006636c69656e74092f31302e302e302e31fc905f0100fcc0270900020572616e67650d000100000001000174\
    ffffffff06737469636b790d000100000001000174ffffffff00020001000101fbd00705666972737401010100010863\
    6f6e73756d657200010162010162016201016906636c69656e74092f31302e302e302e31fc905f0100fcc02709000205\
    72616e67650d000100000001000174ffffffff06737469636b790d000100000001000174ffffffff00000101000101fb\
    d007016703020108636f6e73756d6572010572616e676501016101016101610006636c69656e74092f31302e302e302e\
    31fc905f0100fcc0270900020572616e67650d000100000001000174ffffffff06737469636b790d0001000000010001\
    74ffffffff0161020001000101fbd0070770656e64696e670000000000000101640000fbd00701730000000000000000\
    00fbd0070201670101740102fbe80308016dfbd007017301017501000208016dfbd007";
const ROWS: &[(Family, &str, &str)] = &[
    (Family::Groups, "000000000000000767000167", "01016703020108636f6e73756d6572010572616e676501016100000101fbd007"),
    (Family::Groups, "000000000000000767000173", "010173000000000000000000fbd007"),
    (
        Family::Groups,
        "00000000000000076700056669727374",
        "01056669727374010101000108636f6e73756d65720001016200000101fbd007",
    ),
    (Family::Groups, "000000000000000767000770656e64696e67", "010770656e64696e670000000000000101640000fbd007"),
    (
        Family::Groups,
        "000000000000000767000a636f6d706c6574696e67",
        "010a636f6d706c6574696e6702020108636f6e73756d6572010572616e676501016300000101fbd007",
    ),
    (
        Family::Groups,
        "00000000000000076d000167000161",
        "0101610006636c69656e74092f31302e302e302e31fc905f0100fcc0270900020572616e67650d00010000000100\
        0174ffffffff06737469636b790d000100000001000174ffffffff0161020001",
    ),
    (
        Family::Groups,
        "00000000000000076d00056669727374000162",
        "01016201016906636c69656e74092f31302e302e302e31fc905f0100fcc0270900020572616e67650d0001000000\
        01000174ffffffff06737469636b790d000100000001000174ffffffff00000101",
    ),
    (
        Family::Groups,
        "00000000000000076d000a636f6d706c6574696e67000163",
        "0101630006636c69656e74092f31302e302e302e31fc905f0100fcc0270900020572616e67650d00010000000100\
        0174ffffffff06737469636b790d000100000001000174ffffffff00020001",
    ),
    (Family::Groups, "00000000000000076f00016700017400000001", "01fbe80308016dfbd007"),
    (Family::Groups, "00000000000000076f00017300017500000000", "010208016dfbd007"),
    (Family::Meta, "000000000000000702", "010903010100000000fbd007"),
];
