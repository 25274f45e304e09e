//! `ackord bench groups`.

mod members;
mod processes;

use crate::cli::output::{self, bytes, duration, line, table};
use crate::cli::topic::exists;
use crate::cli::{Connect, Failure, values};
use crate::client::{Admin, Client, MemberOptions, NewTopic};
use clap::Args;
use members::{Habits, Members, Recorded, group_name, join_all};
use processes::Usage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Members of one client, whose requests share a connection to each node. Fewer than a node leaves unanswered on one
/// connection, or those that wait in a join would hold up the heartbeats of the others.
const MEMBERS_PER_CLIENT: usize = 500;
/// Most members in all.
const MEMBERS_MAX: u64 = 100_000;
/// How long is waited for groups to become stable, and for members to be heard of again.
const GIVE_UP: Duration = Duration::from_secs(300);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Groups that are deleted at once, afterwards.
const DELETIONS: usize = 32;

/// What many consumer groups cost, beside a single one.
///
/// All members of all groups join at once and get their shares of one topic, of which they read nothing. Then each says
/// regularly that it is alive, and stores an offset, every one of which is on the disks of a majority once answered.
/// The same is done with one group first. Latency counts from the time at which a request was due.
#[derive(Debug, Args)]
pub(in crate::cli) struct Groups {
    /// How many groups
    #[arg(long, short = 'g', value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    groups: u32,
    /// Members of each
    #[arg(long, short = 'm', value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    members: u32,
    /// The topic; created if it does not exist, and kept
    #[arg(long, short = 't', default_value = "bench-groups")]
    topic: String,
    /// Partitions of the topic if it is created
    #[arg(long, short = 'p', value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How long to measure once all groups are stable
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = values::duration)]
    time: Duration,
    /// How often a member says that it is alive
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = values::duration)]
    heartbeat: Duration,
    /// How often a member stores an offset
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    commit_every: Duration,
    /// Silence after which a member is given up
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = values::duration)]
    session_timeout: Duration,
    /// Processes whose use of processor and memory is shown, separated by commas: the nodes, if they run here
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pids: Vec<u32>,
    /// Do not measure a single group first
    #[arg(long)]
    alone: bool,
    /// Measure what a node's death means to the groups: asks for one, and goes on at a line of the standard input
    #[arg(long)]
    failover: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

/// What one process used.
struct Used {
    /// The process.
    pid: u32,
    /// While members joined: cores that were busy on average.
    joining_cores: f64,
    /// The same while all was stable.
    stable_cores: f64,
    /// Memory before the first joined, in bytes.
    resident_before: u64,
    /// Memory after all, in bytes.
    resident_after: u64,
}

/// What became of the groups when a node died.
struct Failover {
    /// From the line that said so, until every member had a heartbeat and a stored offset answered that were due later.
    took: Duration,
    /// What happened meanwhile.
    recorded: Recorded,
}

/// What was measured with one number of groups.
struct Outcome {
    /// How many groups.
    groups: u32,
    /// How many connections to each node their members shared.
    clients: usize,
    /// From the first join to the last share.
    stable_after: Duration,
    /// What happened before all was stable.
    joining: Recorded,
    /// What happened then.
    stable: Recorded,
    /// What processes used.
    used: Vec<Used>,
    /// What a node's death meant.
    failover: Option<Failover>,
    /// Groups that could not be deleted afterwards.
    left_behind: usize,
}

/// A line of the table: what it is, and what it was with one number of groups.
type Row = (&'static str, fn(&Outcome) -> String);

const ROWS: &[Row] = &[
    ("connections to each node", |outcome| outcome.clients.to_string()),
    ("first join to every group stable", |outcome| duration(outcome.stable_after)),
    ("a join", |outcome| outcome.joining.joins.text()),
    ("heartbeats", |outcome| outcome.stable.heartbeats.count().to_string()),
    ("a heartbeat", |outcome| outcome.stable.heartbeats.text()),
    ("stored offsets", |outcome| outcome.stable.commits.count().to_string()),
    ("a stored offset", |outcome| outcome.stable.commits.text()),
    ("groups that rebalanced once stable", |outcome| outcome.stable.rebalanced.len().to_string()),
];

const FAILOVER_ROWS: &[Row] = &[
    ("a node died: until all were heard of", |outcome| of_failover(outcome, |failover| duration(failover.took))),
    ("slowest heartbeat meanwhile", |outcome| {
        of_failover(outcome, |failover| duration(failover.recorded.heartbeats.max()))
    }),
    ("slowest stored offset meanwhile", |outcome| {
        of_failover(outcome, |failover| duration(failover.recorded.commits.max()))
    }),
    ("groups that rebalanced meanwhile", |outcome| {
        of_failover(outcome, |failover| failover.recorded.rebalanced.len().to_string())
    }),
];

fn of_failover(outcome: &Outcome, text: fn(&Failover) -> String) -> String {
    outcome.failover.as_ref().map_or_else(String::new, text)
}

impl Groups {
    pub(super) async fn run(self) -> Result<(), Failure> {
        if u64::from(self.groups) * u64::from(self.members) > MEMBERS_MAX {
            return Err(Failure::new(format!("more than {MEMBERS_MAX} members in all")));
        }
        if self.heartbeat.is_zero() || self.commit_every.is_zero() {
            return Err(Failure::new("--heartbeat and --commit-every are longer than nothing"));
        }
        let client = self.connect.client().await?;
        self.prepare_topic(&client).await?;
        let mut outcomes = Vec::new();
        if !self.alone && self.groups > 1 {
            outcomes.push(self.measure(1).await?);
            if self.failover {
                asked("Start the node again, then press Enter.").await?;
            }
        }
        outcomes.push(self.measure(self.groups).await?);
        if self.json {
            return output::json(&outcomes.iter().map(|outcome| self.json_of(outcome)).collect());
        }
        self.print(&outcomes)
    }

    async fn prepare_topic(&self, client: &Client) -> Result<(), Failure> {
        let topic = NewTopic { name: self.topic.clone(), partitions: Some(self.partitions), ..NewTopic::default() };
        match client.admin().create_topic(&topic).await {
            Err(error) if !exists(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn measure(&self, groups: u32) -> Result<Outcome, Failure> {
        let all = groups as usize * self.members as usize;
        let mut clients = Vec::new();
        for _ in 0..all.div_ceil(MEMBERS_PER_CLIENT).min(groups as usize) {
            clients.push(self.connect.client().await?);
        }
        let options = MemberOptions { session_timeout: self.session_timeout, ..MemberOptions::default() };
        let habits =
            Habits { topic: self.topic.clone(), heartbeat: self.heartbeat, commit_every: self.commit_every, options };
        let bar = output::progress(None, self.json, "{spinner} {elapsed} {msg}");
        bar.set_message(format!("{groups} groups join"));
        let before = self.usage()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let prefix = format!("bench-{since}");
        let members = Members::new(groups as usize, self.members as usize, habits);
        let (stop, told) = watch::channel(false);
        let tasks = members.start(&clients, &prefix, &told);
        let begun = Instant::now();
        let stable_after = until_stable(&members).await?;
        let (joining, joined_in, joined) = (members.take(), begun.elapsed(), self.usage()?);
        bar.set_message(format!("{groups} groups are stable"));
        sleep(self.time).await;
        let (stable, after) = (members.take(), self.usage()?);
        bar.finish_and_clear();
        let failover = match self.failover {
            true => Some(fail_over(&members).await?),
            false => None,
        };
        stop.send_replace(true);
        join_all(tasks).await?;
        let left_behind = delete(&clients[0].admin(), &prefix, groups as usize).await;
        let used = |at: usize| Used {
            pid: self.pids[at],
            joining_cores: cores(before[at], joined[at], joined_in),
            stable_cores: cores(joined[at], after[at], self.time),
            resident_before: before[at].resident_bytes,
            resident_after: after[at].resident_bytes,
        };
        let used = (0..self.pids.len()).map(used).collect();
        let clients = clients.len();
        Ok(Outcome { groups, clients, stable_after, joining, stable, used, failover, left_behind })
    }

    fn usage(&self) -> Result<Vec<Usage>, Failure> {
        self.pids.iter().map(|pid| Usage::of(*pid)).collect()
    }

    fn print(&self, outcomes: &[Outcome]) -> Result<(), Failure> {
        let rows = ROWS.iter().chain(if self.failover { FAILOVER_ROWS } else { &[] });
        let row = |(what, value): &Row| -> Vec<String> {
            std::iter::once((*what).to_owned()).chain(outcomes.iter().map(value)).collect()
        };
        let mut cells: Vec<_> = rows.map(row).collect();
        for at in 0..self.pids.len() {
            let used = |outcome: &Outcome| text_of(&outcome.used[at]);
            let what = format!("process {}", self.pids[at]);
            cells.push(std::iter::once(what).chain(outcomes.iter().map(used)).collect());
        }
        let heading = |outcome: &Outcome| format!("groups of {}: {}", self.members, outcome.groups);
        let headings: Vec<_> = std::iter::once(String::new()).chain(outcomes.iter().map(heading)).collect();
        table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), &cells)?;
        outcomes.iter().try_for_each(print_failures)
    }

    fn json_of(&self, outcome: &Outcome) -> Value {
        let used = |used: &Used| {
            json!({
                "pid": used.pid, "joining_cores": used.joining_cores, "stable_cores": used.stable_cores,
                "resident_before_bytes": used.resident_before, "resident_after_bytes": used.resident_after,
            })
        };
        let failover = |failover: &Failover| {
            let (took, meanwhile) = (failover.took.as_micros() as u64, json_of(&failover.recorded));
            json!({"all_heard_after_us": took, "meanwhile": meanwhile})
        };
        json!({
            "groups": outcome.groups, "members": self.members, "clients": outcome.clients,
            "stable_after_us": outcome.stable_after.as_micros() as u64, "seconds": self.time.as_secs_f64(),
            "joining": json_of(&outcome.joining), "stable": json_of(&outcome.stable),
            "processes": outcome.used.iter().map(used).collect::<Vec<_>>(),
            "failover": outcome.failover.as_ref().map(failover), "left_behind": outcome.left_behind,
        })
    }
}

fn json_of(recorded: &Recorded) -> Value {
    json!({
        "joins": recorded.joins.json(), "heartbeats": recorded.heartbeats.json(), "commits": recorded.commits.json(),
        "rebalanced_groups": recorded.rebalanced.len(),
        "failed": recorded.failed.as_ref().map_or(0, |(count, _)| *count),
        "first_failure": recorded.failed.as_ref().map(|(_, first)| first),
    })
}

fn text_of(used: &Used) -> String {
    let percent = |cores: f64| format!("{:.1} %", cores * 100.0);
    let (before, after) = (bytes(used.resident_before as f64), bytes(used.resident_after as f64));
    let (joining, stable) = (percent(used.joining_cores), percent(used.stable_cores));
    format!("{joining} of a core joining, {stable} stable; {before} before, {after} after")
}

fn print_failures(outcome: &Outcome) -> Result<(), Failure> {
    let failover = outcome.failover.as_ref().map(|failover| &failover.recorded);
    for recorded in [Some(&outcome.joining), Some(&outcome.stable), failover].into_iter().flatten() {
        if let Some((count, first)) = &recorded.failed {
            line(&format!("with {} groups, {count} requests failed; the first: {first}", outcome.groups))?;
        }
    }
    match outcome.left_behind {
        0 => Ok(()),
        left => line(&format!("{left} groups could not be deleted")),
    }
}

/// Cores that a process kept busy on average.
fn cores(before: Usage, after: Usage, within: Duration) -> f64 {
    after.processor.saturating_sub(before.processor).as_secs_f64() / within.as_secs_f64().max(1e-9)
}

async fn until_stable(members: &Members) -> Result<Duration, Failure> {
    let deadline = Instant::now() + GIVE_UP;
    loop {
        if let Some(after) = members.stable_after() {
            return Ok(after);
        }
        if Instant::now() >= deadline {
            let first =
                members.take().failed.map_or_else(String::new, |(_, first)| format!("; a request failed: {first}"));
            return Err(Failure::new(format!("not all groups are stable after {}{first}", duration(GIVE_UP))));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Asks for something that a person or a script does, and waits until it is done.
async fn asked(what: &str) -> Result<(), Failure> {
    eprintln!("{what}");
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    match read.map_err(|error| Failure::new(error.to_string()))? {
        Ok(0) => Err(Failure::new("the standard input has ended: nobody says that it is done")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::io("the standard input", &error)),
    }
}

async fn fail_over(members: &Members) -> Result<Failover, Failure> {
    members.take();
    asked("Kill a node, then press Enter.").await?;
    let died = Instant::now();
    loop {
        let unheard = members.unheard_since(died);
        if unheard == 0 {
            return Ok(Failover { took: died.elapsed(), recorded: members.take() });
        }
        if died.elapsed() >= GIVE_UP {
            return Err(Failure::new(format!("{unheard} members were not heard of in {}", duration(GIVE_UP))));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Deletes the groups; says how many are left.
async fn delete(admin: &Admin, prefix: &str, groups: usize) -> usize {
    let (admin, mut deleting, mut left) = (Arc::new(admin.clone()), JoinSet::new(), 0);
    for group in 0..groups {
        if deleting.len() == DELETIONS {
            left += usize::from(!deleting.join_next().await.is_some_and(|done| done.unwrap_or(false)));
        }
        let (admin, name) = (Arc::clone(&admin), group_name(prefix, group));
        deleting.spawn(async move { admin.delete_group(&name).await.is_ok() });
    }
    while let Some(done) = deleting.join_next().await {
        left += usize::from(!done.unwrap_or(false));
    }
    left
}
