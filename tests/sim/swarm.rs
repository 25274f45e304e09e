//! What one seed is about. Every seed draws its own cluster, limits, speeds and faults, and leaves many of the faults
//! out: what is always on hides what only some of them together can show (Groce et al., "Swarm Testing", ISSTA '12).

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::faults::Fault;
use crate::sabotage::Sabotage;
use ackord::multiraft::core::CoreOptions;
use ackord::raft::ReplicaOptions;
use ackord::sim::Random;
use ackord::types::NodeId;
use ackord::wal;

/// From ... to, in microseconds.
pub type Span = (u64, u64);

/// How long things take when nothing is wrong.
#[derive(Clone, Debug)]
pub struct Speeds {
    /// A message between two nodes.
    pub network: Span,
    /// A turn of the log.
    pub append: Span,
    /// A read of old entries, or a spare segment.
    pub disk: Span,
    /// Entries through a state machine.
    pub apply: Span,
    /// A flush of the database, or space given back.
    pub flush: Span,
    /// Until the worker looks into its mailbox.
    pub worker: Span,
    /// Messages on one connection may overtake each other.
    pub reorders: bool,
    /// What was sent before a process ended may still arrive at the next one.
    pub ghosts: bool,
}

/// How often which fault comes; 0: never.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The mean time between two things that the nemesis does, in microseconds.
    pub every: u64,
    /// How it chooses among them: a weight for each of `faults::Fault::ALL`.
    pub weights: Vec<u64>,
    /// Crashes at an effect, per million of effects.
    pub crash: u64,
    /// How many times as often at an effect that is rare.
    pub crash_rare: u64,
    /// How long a process stays down.
    pub down: Span,
    /// Messages lost, per million.
    pub drop: u64,
    /// Messages that come twice, per million.
    pub duplicate: u64,
    /// Turns of the log that take very long, per million.
    pub stall: u64,
    /// How long these take.
    pub stalled: Span,
    /// How long a partition, a pause, a full disk lasts.
    pub lasts: Span,
    /// The share of ends that only end the process, in percent; the others are power cuts.
    pub kill_percent: u64,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Producers of each partition.
    pub producers: u64,
    /// The share of them that is idempotent, in percent.
    pub idempotent_percent: u64,
    /// Batches that a producer has on the way at once.
    pub inflight: usize,
    /// Batches that a producer sends at once, at most.
    pub burst: u64,
    /// The pause between two times that a producer sends.
    pub pause: Span,
    /// The bytes of a record's padding.
    pub record_bytes: Span,
    /// The pause between two reads of a partition.
    pub read_pause: Span,
    /// The pause between two trims of a partition; none if 0.
    pub trim_pause: Span,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// Nodes.
    pub nodes: u32,
    /// Partitions of the topic, with the nodes of their replicas; the preferred leader first.
    pub partitions: Vec<Vec<NodeId>>,
    /// Partitions of the internal topic that coordinates consumer groups.
    pub coordinators: Vec<Vec<NodeId>>,
    /// Nodes whose disks may be damaged: a minority of every group.
    pub fragile: Vec<NodeId>,
    /// A node whose database may be damaged, and nothing else: its groups need not have a majority without it.
    pub forgetful: Option<NodeId>,
    /// Limits of the groups.
    pub core: CoreOptions,
    /// How the log uses its disk.
    pub log: wal::Options,
    /// Room of a node's disk beyond what it uses, when it is full, in bytes.
    pub reserve_bytes: u64,
    /// How long things take.
    pub speeds: Speeds,
    /// What goes wrong.
    pub faults: Faults,
    /// What clients do.
    pub load: Load,
    /// Damage comes when it hurts most: while the other nodes, too, are away by turns.
    pub bad_moments: bool,
    /// Topics come and go.
    pub topics: bool,
    /// How long the faults go on, in microseconds.
    pub lasts: u64,
    /// What to break on purpose.
    pub sabotage: Sabotage,
}

impl Shape {
    /// What this seed is about.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(mix_seed(seed));
        let random = &mut random;
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 6, 7]);
        let (partitions, coordinators) = (draw_partitions(random, nodes), draw_coordinators(random, nodes));
        let fragile = draw_fragile(random, nodes, &partitions, &coordinators);
        let load = draw_load(random, partitions.len() as u64);
        let mut shape = Self {
            seed,
            nodes,
            partitions,
            coordinators,
            fragile,
            forgetful: None,
            core: draw_core(random),
            log: draw_log(random),
            reserve_bytes: random.between(0, 1 << 20),
            speeds: draw_speeds(random),
            faults: draw_faults(random),
            load,
            bad_moments: false,
            topics: random.one_in(3),
            lasts: 30 * SECOND + random.below(SECOND),
            sabotage: Sabotage::default(),
        };
        shape.forgetful = draw_forgetful(random, &shape);
        shape
    }

    /// A cluster in which nodes are replaced, whatever else goes wrong: the first from this seed on, in large steps,
    /// that has a node to give up.
    pub fn replacing(seed: u64) -> Self {
        let shapes = (0..).map(|step: u64| Self::of_seed(seed.wrapping_add(step << 32)));
        let fits = |shape: &Self| !shape.fragile.is_empty() && shape.faults.every > 0;
        let mut shape = shapes.into_iter().find(fits).expect("every second seed has fragile disks");
        let others: u64 = shape.faults.weights.iter().sum();
        let replace = Fault::ALL.iter().position(|fault| *fault == Fault::Replace).expect("it is one");
        shape.faults.weights[replace] = 1 + others;
        shape.faults.every = shape.faults.every.min(2 * SECOND);
        (shape.seed, shape.lasts) = (seed, shape.lasts.min(30 * SECOND));
        shape
    }

    /// Whether the disk of this node may be damaged.
    pub fn is_fragile(&self, node: NodeId) -> bool {
        self.fragile.contains(&node)
    }
}

/// Neighbouring seeds have nothing in common.
fn mix_seed(seed: u64) -> u64 {
    Random::new(seed ^ 0x5eed_0fac_40de_d001).next_u64()
}

fn draw_replicas(random: &mut Random, nodes: u32, factor: usize) -> Vec<NodeId> {
    let mut all: Vec<_> = (1..=nodes).map(NodeId).collect();
    random.shuffle(&mut all);
    all.truncate(factor);
    all
}

fn draw_partitions(random: &mut Random, nodes: u32) -> Vec<Vec<NodeId>> {
    // Seldom as many as a small cluster has: a seed of these takes as long as three others.
    let count = if random.one_in(100) { random.between(20, 40) } else { *random.pick(&[1, 1, 1, 2, 2, 2, 3, 3, 4, 6]) };
    let factors: &[usize] = match nodes {
        1 => &[1],
        2 => &[1, 2, 2],
        3 | 4 => &[1, 3, 3, 3, 3, 3, 3, 3],
        _ => &[1, 3, 3, 3, 3, 3, 5, 5, 5, 5],
    };
    (0..count)
        .map(|_| *random.pick(factors))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|factor| draw_replicas(random, nodes, factor))
        .collect()
}

fn draw_coordinators(random: &mut Random, nodes: u32) -> Vec<Vec<NodeId>> {
    let count = *random.pick(&[0, 0, 1, 1, 2]);
    (0..count).map(|_| draw_replicas(random, nodes, nodes.min(3) as usize)).collect()
}

/// In half of the seeds some disks may be damaged: as many as every group can do without.
fn draw_fragile(random: &mut Random, nodes: u32, first: &[Vec<NodeId>], second: &[Vec<NodeId>]) -> Vec<NodeId> {
    let all: Vec<_> = (1..=nodes).map(NodeId).collect();
    let mut fragile = Vec::new();
    if nodes < 3 || random.one_in(2) {
        return fragile;
    }
    let count = random.between(1, u64::from(nodes)) as usize;
    for candidate in draw_replicas(random, nodes, count) {
        fragile.push(candidate);
        let spared = |group: &Vec<NodeId>| {
            let lost = group.iter().filter(|node| fragile.contains(node)).count();
            lost <= (group.len() - 1) / 2
        };
        if ![all.clone()].iter().chain(first).chain(second).all(spared) {
            fragile.pop();
        }
    }
    fragile
}

/// In half of the other seeds, one that shares all of its groups.
fn draw_forgetful(random: &mut Random, shape: &Shape) -> Option<NodeId> {
    if shape.nodes < 2 || !shape.fragile.is_empty() || random.one_in(2) {
        return None;
    }
    let groups = || shape.partitions.iter().chain(&shape.coordinators);
    let shares = |node: &NodeId| groups().all(|group| *group != [*node]);
    let all: Vec<_> = (1..=shape.nodes).map(NodeId).filter(shares).collect();
    all.first().map(|_| *random.pick(&all))
}

fn draw_core(random: &mut Random) -> CoreOptions {
    let replica = ReplicaOptions {
        election_ticks: *random.pick(&[10, 10, 10, 5, 20]),
        heartbeat_ticks: *random.pick(&[3, 3, 3, 3, 3, 2, 2, 1]),
        max_message_bytes: random.magnitude(256, 256 << 10),
        max_inflight_messages: random.magnitude(1, 256) as usize,
        max_committed_bytes: random.magnitude(512, 1 << 20),
        seed: random.next_u64(),
        ..ReplicaOptions::default()
    };
    CoreOptions {
        replica,
        admitted_bytes_max: random.magnitude(8 << 10, 8 << 20) as usize,
        turn_bytes_max: random.magnitude(1 << 10, 64 << 10) as usize,
        queued_bytes_max: random.magnitude(4 << 10, 8 << 20) as usize,
        unapplied_bytes_max: random.magnitude(4 << 10, 8 << 20) as usize,
        tail_bytes_per_group: random.magnitude(64, 1 << 20) as usize,
        tail_bytes_max: random.magnitude(256, 4 << 20) as usize,
        flush_after_bytes: random.magnitude(32 << 10, 1 << 20) as usize,
        space_flush_ticks: random.between(1, 100),
        ..CoreOptions::default()
    }
}

fn draw_log(random: &mut Random) -> wal::Options {
    let segment_bytes = *random.pick(&[256 << 10, 256 << 10, 256 << 10, 384 << 10, 1 << 20]);
    wal::Options {
        segment_bytes,
        retain_bytes: *random.pick(&[0, 0, segment_bytes, 2 * segment_bytes, 64 << 20]),
        slack_bytes: *random.pick(&[0, segment_bytes, 4 * segment_bytes]),
        spares: 2,
        recycled_max: *random.pick(&[0, 1, 4]),
        ..wal::Options::default()
    }
}

fn draw_speeds(random: &mut Random) -> Speeds {
    let append = *random.pick(&[(80, 400), (80, 400), (500, 3_000), (2_000, 12_000)]);
    let network = *random.pick(&[(50, 300), (50, 300), (50, 5_000), (1_000, 20_000), (100, 80_000)]);
    Speeds {
        network,
        append,
        disk: (append.0, append.1 * 4),
        apply: *random.pick(&[(10, 100), (50, 2_000), (500, 20_000)]),
        flush: *random.pick(&[(1_000, 10_000), (10_000, 400_000)]),
        worker: *random.pick(&[(1, 20), (10, 500), (100, 3_000)]),
        reorders: random.one_in(2),
        ghosts: random.one_in(3),
    }
}

/// About half of the faults are off in a seed.
fn draw_faults(random: &mut Random) -> Faults {
    if random.one_in(25) {
        return Faults { down: (SECOND, SECOND), lasts: (SECOND, SECOND), ..Faults::default() };
    }
    let kinds = Fault::ALL.len();
    let weights = (0..kinds).map(|_| if random.one_in(2) { random.between(1, 10) } else { 0 }).collect();
    let longest = random.magnitude(500 * MILLISECOND, 10 * SECOND);
    let mut sometimes = |low, high| if random.one_in(2) { random.magnitude(low, high) } else { 0 };
    let (drop, duplicate) = (sometimes(500, 100_000), sometimes(500, 50_000));
    let (stall, crash) = (sometimes(20, 5_000), sometimes(50, 2_000));
    Faults {
        every: random.magnitude(400 * MILLISECOND, 6 * SECOND),
        weights,
        crash,
        crash_rare: random.between(20, 120),
        down: (10 * MILLISECOND, random.magnitude(50 * MILLISECOND, 6 * SECOND)),
        drop,
        duplicate,
        stall,
        stalled: (50 * MILLISECOND, random.magnitude(100 * MILLISECOND, 4 * SECOND)),
        lasts: (100 * MILLISECOND, longest),
        kill_percent: *random.pick(&[0, 20, 50, 100]),
    }
}

fn draw_load(random: &mut Random, partitions: u64) -> Load {
    // All producers together write some 10 to 32 batches a second, while they can.
    let producers = random.between(1, 3);
    let batches = random.between(10, 32);
    let inflight = random.between(1, 5);
    let burst = random.between(1, inflight);
    let pause = (SECOND * partitions * producers * (1 + burst) / (2 * batches)).max(MILLISECOND);
    let trims = random.one_in(2);
    Load {
        producers,
        idempotent_percent: *random.pick(&[0, 50, 50, 100]),
        inflight: inflight as usize,
        burst,
        pause: (pause / 2, pause * 3 / 2),
        record_bytes: (0, random.magnitude(16, 8 << 10)),
        read_pause: (100 * MILLISECOND, random.magnitude(500 * MILLISECOND, 3 * SECOND)),
        trim_pause: if trims { (300 * MILLISECOND, random.magnitude(SECOND, 6 * SECOND)) } else { (0, 0) },
    }
}
