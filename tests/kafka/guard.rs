//! What a client writes passes the guard and means the same behind it; what nobody writes does not end the process.

use crate::client::frame;
use crate::requests;
use ackord::kafka::api::APIS;
use ackord::kafka::guard::Hostile;
use ackord::kafka::request::Request;
use bytes::{Buf, Bytes};
use fastrand::Rng;
use kafka_protocol::messages::{ApiKey, RequestKind};
use std::path::{Path, PathBuf};

/// Every API served with every version served.
pub fn served() -> impl Iterator<Item = (ApiKey, i16)> {
    APIS.iter().flat_map(|api| (api.serves.0..=api.serves.1).map(|version| (api.key, version)))
}

/// The guard's verdict; if it lets a frame pass, the decoder's, which may still be `None` for text that is not UTF-8.
fn check(bytes: &[u8]) -> Result<Option<RequestKind>, Hostile> {
    match Request::read(Bytes::copy_from_slice(bytes))? {
        Request::UnservedApiVersions { .. } => Ok(None),
        Request::Served { api, version, mut body, .. } => {
            let decoded = RequestKind::decode(api.key, &mut body, version).ok();
            assert!(decoded.is_none() || !body.has_remaining(), "the guard measured {:?} v{version} wrongly", api.key);
            Ok(decoded)
        }
    }
}

#[test]
fn whatever_a_client_writes_passes_and_means_the_same() {
    let mut rng = Rng::with_seed(1);
    for (key, version) in served() {
        for round in 0..150 {
            let request = requests::random(&mut rng, key, version);
            let bytes = frame(key, version, round, &request);
            match check(&bytes) {
                Ok(Some(decoded)) => assert_eq!(decoded, request, "{key:?} v{version}"),
                other => panic!("{key:?} v{version}: {other:?} for {request:?}"),
            }
        }
    }
}

#[test]
fn what_follows_a_request_is_left_out() {
    let mut rng = Rng::with_seed(2);
    for (key, version) in served() {
        let request = requests::random(&mut rng, key, version);
        let mut bytes = frame(key, version, 0, &request);
        bytes.extend([1, 0, 0]);
        assert_eq!(check(&bytes), Ok(Some(request)), "{key:?} v{version}");
    }
}

/// librdkafka 2.16.0 writes a count of four bytes here, where a compact array has a varint of one.
#[test]
fn librdkafka_asks_for_all_topics() {
    let bytes = b"\x00\x03\x00\x0c\x00\x00\x00\x03\x00\x07rdkafka\x00\x00\x00\x00\x00\x01\x00\x00";
    let Ok(Some(RequestKind::Metadata(request))) = check(bytes) else { panic!("it is refused") };
    assert_eq!(request.topics, None, "all topics");
}

#[test]
fn requests_cut_short_anywhere_are_refused() {
    let mut rng = Rng::with_seed(3);
    for (key, version) in served() {
        let bytes = frame(key, version, 0, &requests::random(&mut rng, key, version));
        for length in 0..bytes.len().min(3000) {
            assert!(check(&bytes[..length]).is_err(), "{key:?} v{version} cut to {length} of {}", bytes.len());
        }
    }
}

/// `ACKORD_FUZZ_FRAMES=5000000 ACKORD_FUZZ_SEED=7 cargo test --test kafka mutated` runs longer, and elsewhere.
#[test]
fn mutated_frames_never_end_the_process() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let frames = number("ACKORD_FUZZ_FRAMES").unwrap_or(300_000);
    let mut rng = Rng::with_seed(number("ACKORD_FUZZ_SEED").unwrap_or(4));
    let (mut passed, mut decoded) = (0_u64, 0_u64);
    let all: Vec<_> = served().collect();
    let mut done = 0;
    while done < frames {
        let (key, version) = all[rng.usize(..all.len())];
        let original = frame(key, version, 0, &requests::random(&mut rng, key, version));
        let rounds = if original.len() > 2000 { 2 } else { 20 };
        for _ in 0..rounds {
            let mut bytes = original.clone();
            for _ in 0..rng.usize(1..4) {
                mutate(&mut rng, &mut bytes);
            }
            if let Ok(request) = check(&bytes) {
                passed += 1;
                decoded += u64::from(request.is_some());
            }
            done += 1;
        }
    }
    assert!(decoded * 20 > done, "mutants that nobody decodes test nothing: {decoded} of {done}");
    assert!(passed * 10 < done * 9, "mutants that all pass test nothing: {passed} of {done}");
}

/// Changes a frame somewhere.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    // Key and version stay as they are: other values are refused at once.
    let at = rng.usize(4.min(bytes.len())..=bytes.len());
    let numbers = [i32::MAX, i32::MIN, -1, -2, 0x00ff_ffff, 0x7fff, 0x1000, 1];
    match rng.u8(..8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)],
        5 if at + 4 <= bytes.len() => {
            bytes[at..at + 4].copy_from_slice(&numbers[rng.usize(..numbers.len())].to_be_bytes());
        }
        6 if at + 5 <= bytes.len() => bytes[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, rng.u8(..0x20)]),
        7 => {
            let piece = bytes[at..(at + rng.usize(..20)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {}
    }
}

/// The files of the corpus: each a frame in hexadecimal; its lines that begin with `#` say what it is, and the first
/// also whether it must be `refused` or `accepted`.
pub fn corpus() -> Vec<(PathBuf, String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/kafka");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
        let bytes = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
        (path, text, bytes)
    };
    std::fs::read_dir(folder).expect("the corpus is there").map(|entry| read(entry.expect("readable").path())).collect()
}

#[test]
fn the_corpus_is_judged_as_its_files_say() {
    let corpus = corpus();
    assert!(corpus.len() >= 10, "only {} files", corpus.len());
    for (path, text, bytes) in corpus {
        let verdict = check(&bytes);
        match text.split_whitespace().nth(1).map(|word| word.trim_end_matches(':')) {
            Some("refused") => assert!(verdict.is_err(), "{} is accepted: {verdict:?}", path.display()),
            Some("accepted") => assert!(verdict.is_ok(), "{} is refused: {verdict:?}", path.display()),
            other => panic!("{}: what is {other:?}?", path.display()),
        }
    }
}
