//! Negative controls: a harness that cannot fail proves nothing. Each promise broken on purpose must be found, within a
//! bounded number of seeds, by an invariant that is about it, or by the one sentence of the world or its database that
//! checks the same; a panic by chance or another complaint does not count.
//!
//! A control may choose its shape, so that what it needs happens often; world, load and invariants are the ordinary
//! ones. Where a rule of its own would be broken first, `unwatched` takes that one away, to show that what the rule is
//! there for is found, too.
//!
//! `CONTROLS=name` runs those whose names begin so, and prints the end of what happened; `SEEDS=n` looks at so
//! many of them, `SEED=n` prints all that happens in one.

mod shapes;

use crate::invariants;
use crate::observe::Invariant;
use crate::runner::{number, remember_panics, run_with};
use crate::swarm::Shape;
use crate::trace::Keep;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// In so many seeds a control must be found.
const SEEDS_MAX: u64 = 1_000;

/// A promise that is broken.
pub struct Control {
    /// What is broken.
    pub name: &'static str,
    /// What a seed is about.
    pub shape: fn(u64) -> Shape,
    /// The invariants that are about it, or a sentence of whoever else checks it.
    pub found_by: &'static [&'static str],
    /// Invariants that do not watch, and other checks that do not count.
    pub unwatched: &'static [&'static str],
}

/// What became of a control.
struct Found {
    /// Which.
    name: &'static str,
    /// The seed that found it, and what was said.
    complaint: Option<(u64, String)>,
    /// Whether it is what had to be said.
    expected: bool,
    /// The last lines of what happened.
    tail: Vec<String>,
    /// How long it took, in seconds.
    took: f64,
}

impl Control {
    fn watching(&self) -> Vec<Box<dyn Invariant>> {
        invariants::all().into_iter().filter(|invariant| !self.unwatched.contains(&invariant.name())).collect()
    }

    fn search(&self, keep: Keep) -> Found {
        let begun = Instant::now();
        let run = |seed| {
            let (sentence, tail) = run_with((self.shape)(seed), self.watching(), keep).err()?;
            let said = sentence.split_once(" s: ").map_or(String::new(), |(_, said)| said.to_owned());
            let passes = |name: &&str| said.starts_with(&format!("{name}: "));
            (!self.unwatched.iter().any(passes)).then_some((seed, (sentence, tail)))
        };
        let seeds = match number("SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..number("SEEDS").unwrap_or(SEEDS_MAX),
        };
        let found = seeds.into_iter().find_map(run);
        let took = begun.elapsed().as_secs_f64();
        let name = self.name;
        let Some((seed, (sentence, tail))) = found else {
            return Found { name, complaint: None, expected: false, tail: Vec::new(), took };
        };
        let said = sentence.split_once(" s: ").map_or("", |(_, said)| said);
        let is_meant = |meant: &&str| match meant.contains(' ') {
            true => said.contains(*meant),
            false => said.starts_with(&format!("{meant}: ")),
        };
        let expected = self.found_by.iter().any(is_meant);
        Found { name, complaint: Some((seed, sentence)), expected, tail, took }
    }
}

impl Found {
    fn print(&self) {
        let (seeds, said) = match &self.complaint {
            Some((seed, sentence)) => (seed + 1, sentence.as_str()),
            None => (number("SEEDS").unwrap_or(SEEDS_MAX), "NOT FOUND"),
        };
        let wrong = if self.expected { "" } else { "UNEXPECTED: " };
        println!("{:<44} {seeds:>5} {:>6.1} s  {wrong}{said}", self.name, self.took);
    }
}

/// See the module.
#[test]
fn broken_promises_are_found() {
    let wanted = std::env::var("CONTROLS").unwrap_or_default();
    let controls: Vec<_> = shapes::ALL.iter().filter(|control| control.name.starts_with(&wanted)).collect();
    assert!(!controls.is_empty(), "no control's name begins with {wanted:?}");
    let keep = || match (wanted.is_empty(), number("SEED")) {
        (true, _) => Keep::Hash,
        (false, None) => Keep::Tail,
        (false, Some(_)) => Keep::Print,
    };
    remember_panics();
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(control) = controls.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = control.search(keep());
                    all.lock().expect("no panic while it is held").push(found);
                }
            });
        }
    });
    let _default = std::panic::take_hook();
    let mut all = all.into_inner().expect("every thread has ended");
    all.sort_by_key(|found| controls.iter().position(|control| control.name == found.name));
    for found in &all {
        found.tail.iter().for_each(|line| println!("{line}"));
    }
    println!("{:<44} seeds     took  what was said", "control");
    all.iter().for_each(Found::print);
    let missed: Vec<_> = all.iter().filter(|found| !found.expected).map(|found| found.name).collect();
    assert!(missed.is_empty(), "not found, or by something else: {missed:?}");
}
