//! Where the fuzzer begins: a sensible and a random request of every API that is served, in its first and last version,
//! and the frames of `tests/corpus/kafka`. All of them go through the fuzz target's own body here, so that an API that
//! is new to the table is tried without anybody thinking of it.

use crate::client::frame;
use crate::guard::corpus;
use crate::requests;
use crate::versions::sensible;
use crate::{fuzz_corpus, kafka_request};
use ackord::kafka::api::APIS;
use ackord::kafka::request::Request;
use bytes::Bytes;
use fastrand::Rng;

/// A seed is no longer; a fuzzer makes its own long inputs.
const SEED_BYTES_MAX: usize = 600;

fn try_seed(name: &str, bytes: &[u8]) {
    println!("{name}"); // shown with a failure: the last one is the one
    kafka_request::run(bytes);
    fuzz_corpus::keep("kafka_request", name, bytes);
}

#[test]
fn every_api_is_fuzzed_from_a_request_that_is_served() {
    let mut rng = Rng::with_seed(6);
    for api in APIS {
        for (bound, version) in [("first", api.serves.0), ("last", api.serves.1)] {
            let random = std::iter::repeat_with(|| requests::random(&mut rng, api.key, version))
                .map(|request| frame(api.key, version, 1, &request))
                .take(1000)
                .find(|frame| frame.len() <= SEED_BYTES_MAX);
            let sensible = frame(api.key, version, 1, &sensible(api.key, version));
            for (kind, bytes) in [("sensible", sensible), ("random", random.expect("some request is short"))] {
                assert!(Request::read(Bytes::from(bytes.clone())).is_ok(), "{:?} v{version} is refused", api.key);
                try_seed(&format!("{:?}-{bound}-{kind}", api.key), &bytes);
            }
        }
    }
}

#[test]
fn the_judged_corpus_is_harmless_in_the_broker_too() {
    for (path, _, bytes) in corpus() {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name of ours");
        try_seed(&format!("judged-{name}"), &bytes);
    }
}
