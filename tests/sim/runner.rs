//! Runs seeds: one, to look at; or many, over all cores, to find what is wrong.
//!
//! * `SEED=n`: runs one seed and prints all that happens in it.
//! * `SEEDS=n`, `FIRST=n`: runs so many, from that one on.
//! * `REPLACE=1`: nodes are replaced in every one of them.

use crate::coverage::Coverage;
use crate::damage::{HARMS, Harm, ROWS};
use crate::faults::Fault;
use crate::invariants;
use crate::jobs::{CrashPoint, Kind};
use crate::liveness::{NO_MAJORITY, NOT_JUDGED};
use crate::observe::Invariant;
use crate::process::REFUSED_DAMAGED;
use crate::replace::FORGOT_UNNOTICED;
use crate::swarm::Shape;
use crate::trace::Keep;
use crate::world::{Report, World};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds that `cargo test` runs.
const SEEDS_DEFAULT: u64 = 100;
/// With so many seeds everything must have happened.
const SEEDS_FOR_ALL: u64 = 1_000;
/// What a run can come to, beside faults and crashes.
const STATES: [&str; 69] = [
    "conf change applied",
    "connection broken by silence",
    "connection reset",
    "crash of several",
    "crash of the joining node",
    "damage under a running process",
    "damaged state met by a flush",
    "damaged state met by a reader",
    "database failed",
    "database set aside",
    "database stopped within a job",
    "delivered to the next process",
    "deposed leader's tail cut off",
    "disk replacement begun",
    "duplicate answered",
    "duplicated",
    "entries copied forward",
    "greeted again",
    "group adopted",
    "log settled",
    "group ended",
    "group joined",
    "group made",
    "held by a clog",
    "joint configuration entered",
    "joint configuration left",
    "leader changed",
    "log full",
    "log stalled",
    "lost: cut",
    "lost: dropped",
    "lost: reset",
    "mailbox full",
    "newer claim believed",
    "no room for a spare",
    "no room in the log",
    "no room on the disk",
    "not started: full disk",
    "old disk refused after replacement",
    "overtaken",
    "own registration heard",
    "packet delayed",
    "power cut",
    "process ended itself",
    "process killed",
    "quarantined",
    "reconnected",
    "refused: foreign disk",
    "refused: no space",
    "refused: out of turn",
    "refused: overwritten",
    "refused: rolled back",
    "refused: wiped disk",
    "repaired by a state",
    "repaired by entries",
    "replaced leader",
    "replacement begun",
    "replacement finished",
    "right disk put back",
    "segment reused",
    "snapshot built",
    "snapshot installed",
    "snapshot interrupted",
    "sync failed",
    "torn turn dropped",
    "unflushed state lost",
    "unsynced writes lost in a power cut",
    "write failed",
    "write left open",
];
/// Several pieces of damage may together take the newest turns with all that tells of them, in one of so many seeds:
/// more often is a log that does not look.
const FORGOTTEN_ONE_IN: u64 = 5_000;
/// What must stay rare, and in one of how many seeds it may happen: groups of which nothing is asked could hide one
/// that has stopped.
const RARE: [(&str, u64); 3] = [(REFUSED_DAMAGED, 30), (NO_MAJORITY, 4), (NOT_JUDGED, 4)];
/// Of each seed at least so many, as the median: writes acknowledged, messages, changes of leader.
const MEDIANS: [u64; 3] = [300, 5_000, 2];
/// How often a long run says how far it is.
const PROGRESS_SECONDS: f64 = 10.0;
/// Failures that are reported in full.
const FAILURES_MAX: usize = 3;

thread_local! {
    /// What this thread has panicked with last.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// What a seed is about: with `REPLACE=1` nodes are replaced in all of them.
fn shape_of(seed: u64) -> Shape {
    match number("REPLACE") {
        Some(1..) => Shape::replacing(seed),
        _ => Shape::of_seed(seed),
    }
}

/// A seed that broke a promise.
struct Failure {
    /// Which.
    seed: u64,
    /// What was broken.
    sentence: String,
}

/// Runs one seed; the error is what was broken, and the last lines of the trace if they were kept.
fn run(shape: Shape, keep: Keep) -> Result<Report, (String, Vec<String>)> {
    run_with(shape, invariants::all(), keep)
}

/// The same, with these invariants.
pub fn run_with(
    shape: Shape,
    invariants: Vec<Box<dyn Invariant>>,
    keep: Keep,
) -> Result<Report, (String, Vec<String>)> {
    PANIC.with_borrow_mut(String::clear);
    let mut world = World::new(shape, invariants, keep);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let sentence = match result {
        Ok(Ok(())) => return Ok(world.report),
        Ok(Err(sentence)) => sentence,
        Err(_) => PANIC.with_borrow(|panic| format!("panic: {panic}")),
    };
    Err((format!("at {:.6} s: {sentence}", world.now as f64 / 1e6), world.trace.into_tail()))
}

/// Panics are part of what is looked for: they are remembered, and not printed where they happen.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.with_borrow_mut(|panic| *panic = info.to_string())));
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    /// Of each seed: acknowledged writes, messages, changes of leader.
    counts: Vec<[u64; 3]>,
    /// Virtual time, in microseconds.
    virtual_us: u64,
    /// Events.
    events: u64,
    /// What happened how often.
    coverage: Coverage,
    /// In how many seeds it happened.
    seeds: Coverage,
    /// What was broken.
    failures: Vec<Failure>,
}

impl Total {
    fn take(&mut self, seed: u64, result: Result<Report, (String, Vec<String>)>) {
        match result {
            Ok(report) => {
                self.counts.push([report.acknowledged, report.messages, report.leader_changes]);
                self.virtual_us += report.virtual_us;
                self.events += report.events;
                self.coverage.absorb(&report.coverage);
                report.coverage.0.keys().for_each(|name| self.seeds.hit(name));
            }
            Err((sentence, _)) => {
                eprintln!("seed {seed}: {sentence}");
                self.failures.push(Failure { seed, sentence });
            }
        }
    }

    fn done(&self) -> u64 {
        (self.counts.len() + self.failures.len()) as u64
    }

    fn median(&self, which: usize) -> u64 {
        let mut all: Vec<_> = self.counts.iter().map(|counts| counts[which]).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// What took so many seconds, of all processors together so many.
    fn print(&self, took: f64, processor: f64) {
        let (done, acknowledged) = (self.done(), self.counts.iter().map(|counts| counts[0]).sum::<u64>());
        let virtual_s = self.virtual_us as f64 / 1e6;
        println!("{:>10}  {:>8}  what happened", "times", "in seeds");
        for (name, count) in &self.coverage.0 {
            println!("{count:>10}  {:>8}  {name}", self.seeds.count(name));
        }
        println!("{done} seeds in {took:.0} s, {} violations", self.failures.len());
        println!(
            "medians of a seed: {} writes acknowledged, {} messages, {} changes of leader",
            self.median(0),
            self.median(1),
            self.median(2)
        );
        println!(
            "{:.0} writes acknowledged in a second of a processor; {:.1} ms of it for a seed with {} events",
            acknowledged as f64 / processor,
            processor * 1e3 / done.max(1) as f64,
            self.events / done.max(1)
        );
        println!("{virtual_s:.0} s of virtual time, {:.0} in a second", virtual_s / took);
    }
}

/// How far a long run is.
struct Progress {
    /// When it began.
    begun: Instant,
    /// When it was told last, in seconds since then.
    told: f64,
    /// Seeds to be run.
    count: u64,
}

impl Progress {
    fn tell(&mut self, total: &Total) {
        let (took, done) = (self.begun.elapsed().as_secs_f64(), total.done());
        if took < self.told + PROGRESS_SECONDS {
            return;
        }
        self.told = took;
        let (rate, left) = (done as f64 / took, (self.count - done) as f64);
        let (count, violations) = (self.count, total.failures.len());
        eprintln!("{done} of {count} seeds, {rate:.1} a second, {:.0} s left, {violations} violations", left / rate);
    }
}

/// The time that this process has taken of all processors, in seconds, as Linux counts it.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // In user mode and in the kernel, in hundredths of a second.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn run_many(first: u64, count: u64) -> Total {
    remember_panics();
    let (begun, processor) = (Instant::now(), processor_seconds());
    let next = AtomicU64::new(first);
    let both = Mutex::new((Total::default(), Progress { begun, told: 0.0, count }));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let result = run(shape_of(seed), Keep::Hash);
                    let (total, progress) = &mut *both.lock().expect("no panic while it is held");
                    total.take(seed, result);
                    progress.tell(total);
                }
            });
        }
    });
    let _default = std::panic::take_hook();
    let (total, _) = both.into_inner().expect("every thread has ended");
    total.print(begun.elapsed().as_secs_f64(), processor_seconds() - processor);
    total
}

/// What must have happened in many seeds; otherwise they have tested less than they say.
fn expected() -> Vec<String> {
    let mut names: Vec<_> = Fault::ALL.iter().map(|fault| format!("fault {fault:?}")).collect();
    for kind in Kind::ALL {
        for point in [CrashPoint::Before(kind), CrashPoint::During(kind), CrashPoint::After(kind)] {
            names.push(format!("crash {point:?}"));
        }
    }
    for point in [CrashPoint::Idle, CrashPoint::Start, CrashPoint::Send, CrashPoint::Reply] {
        names.push(format!("crash {point:?}"));
    }
    let harms = HARMS.iter().map(|harm| format!("{harm:?}")).chain(ROWS.map(|family| format!("{family:?}")));
    for harm in harms.chain(["Database".to_owned(), "LostSync".to_owned()]) {
        names.extend([format!("damage {harm}"), format!("repaired after {harm}")]);
    }
    let of_newest = HARMS.iter().filter(|harm| **harm != Harm::Older);
    names.extend(of_newest.map(|harm| format!("newest segment: {harm:?}")));
    names.extend(STATES.iter().map(|state| (*state).to_owned()));
    names
}

/// What reproduces a failure.
fn reproduce(seed: u64) -> String {
    let replacing = if number("REPLACE").is_some() { "REPLACE=1 " } else { "" };
    format!("{replacing}make sim SEED={seed}")
}

fn explain(failure: &Failure) {
    let Failure { seed, sentence } = failure;
    remember_panics();
    let again = run(shape_of(*seed), Keep::Tail);
    let _default = std::panic::take_hook();
    match again {
        Err((_, tail)) => tail.iter().for_each(|line| println!("{line}")),
        Ok(_) => println!("the seed did not fail again: something in it does not come from the seed"),
    }
    println!("seed {seed}, {sentence}\nrepeat with: {}\n", reproduce(*seed));
}

/// What the test of that name does.
pub fn seeds() {
    if let Some(seed) = number("SEED") {
        let shape = shape_of(seed);
        println!("{shape:#?}");
        remember_panics();
        let result = run(shape, Keep::Print);
        let _default = std::panic::take_hook();
        match result {
            Ok(report) => println!("{report:#?}"),
            Err((sentence, _)) => panic!("seed {seed}, {sentence}"),
        }
        return;
    }
    let (first, count) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS_DEFAULT));
    let total = run_many(first, count);
    total.failures.iter().take(FAILURES_MAX).for_each(explain);
    let failed: Vec<_> = total.failures.iter().map(|failure| failure.seed).collect();
    let missing: Vec<_> = expected().into_iter().filter(|name| total.coverage.count(name) == 0).collect();
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
    assert!(missing.is_empty() || count < SEEDS_FOR_ALL, "in {count} seeds this never happened: {missing:?}");
    if count >= SEEDS_FOR_ALL {
        for (name, one_in) in RARE {
            let seen = total.seeds.count(name);
            assert!(seen <= 2 + count / one_in, "{name}: in {seen} of {count} seeds");
        }
        let medians = [0, 1, 2].map(|which| total.median(which));
        assert!(medians.iter().zip(MEDIANS).all(|(median, least)| *median >= least), "too little happens: {medians:?}");
    }
    let unnoticed = total.seeds.count(FORGOT_UNNOTICED);
    assert!(unnoticed <= 2 + count / FORGOTTEN_ONE_IN, "in {unnoticed} of {count} seeds a log did not see its loss");
}

/// One seed is one history, in any process: nothing depends on addresses, hash seeds or time.
#[test]
fn same_seed_same_trace_in_two_processes() {
    const CHILD: &str = "ACKORD_TRACE_OF_SEEDS";
    let story = |(seed, shape)| match run(shape, Keep::Hash) {
        Ok(report) => format!("trace of {seed}: {report:?}"),
        Err((sentence, _)) => panic!("seed {seed}, {sentence}"),
    };
    let ordinary = (1..=12).map(|seed| (seed, Shape::of_seed(seed)));
    let stories = ordinary.chain((1..=6).map(|seed| (seed, Shape::replacing(seed)))).map(story);
    if number(CHILD).is_some() {
        stories.for_each(|story| println!("{story}"));
        return;
    }
    let this = std::env::current_exe().expect("a test knows its own program");
    let output = Command::new(this)
        .args(["--exact", "runner::same_seed_same_trace_in_two_processes", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a test can start itself");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let there: Vec<_> =
        text.lines().filter_map(|line| line.find("trace of ").map(|at| line[at..].to_owned())).collect();
    let here: Vec<_> = stories.collect();
    assert_eq!(here, there, "a seed gave two histories");
    let told = |story: &str| story.split_once(": ").map(|(_, report)| report.to_owned());
    assert_ne!(told(&here[0]), told(&here[1]), "two seeds gave one history: the trace says nothing");
}
