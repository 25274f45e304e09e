//! What a run reports: a line for each round, a table, and JSON.

use crate::check::Anomaly;
use serde::Serialize;

/// One round of a workload.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// What was done to the cluster.
    pub fault: &'static str,
    /// Its number among those of its kind, from 1.
    pub number: u32,
    /// The nodes it was done to.
    pub nodes: Vec<u32>,
    /// Records acknowledged in this round.
    pub acknowledged: usize,
    /// Batches whose fate their producers do not know.
    pub in_doubt: usize,
    /// Batches that were certainly not written.
    pub failed: usize,
    /// From a majority being back until the first acknowledgement, in milliseconds.
    pub first_ack_ms: Option<u64>,
    /// From a majority being back until every partition had acknowledged something, in milliseconds.
    pub every_partition_ms: Option<u64>,
    /// What else was measured.
    pub notes: Vec<String>,
    /// What the checker found.
    pub anomalies: Vec<Anomaly>,
    /// What else went wrong: a process that ended by itself, a cluster that did not come back.
    pub failures: Vec<String>,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its rounds.
    pub rounds: Vec<Round>,
}

impl Round {
    /// A round that has just begun.
    #[must_use]
    pub fn new(fault: &'static str, number: u32, nodes: impl Iterator<Item = u32>) -> Self {
        Self {
            fault,
            number,
            nodes: nodes.collect(),
            acknowledged: 0,
            in_doubt: 0,
            failed: 0,
            first_ack_ms: None,
            every_partition_ms: None,
            notes: Vec::new(),
            anomalies: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty() && self.failures.is_empty()
    }

    /// Records that were acknowledged or read, and are gone.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lost = self.anomalies.iter().filter(|anomaly| anomaly.kind == crate::check::Kind::LostWrite);
        lost.map(|anomaly| anomaly.count).sum()
    }

    /// The round in one line, and a line for each thing that is wrong.
    #[must_use]
    pub fn line(&self) -> String {
        let nodes = self.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let mut line = format!(
            "{:<8} {:>3}  nodes {:<6} acknowledged {:>6}  in doubt {:>3}  failed {:>3}  first ack {:>8}  all {:>8}  {}",
            self.fault,
            self.number,
            nodes,
            self.acknowledged,
            self.in_doubt,
            self.failed,
            time(self.first_ack_ms),
            time(self.every_partition_ms),
            if self.is_clean() { "ok" } else { "WRONG" }
        );
        for note in &self.notes {
            line += "\n    ";
            line += note;
        }
        for wrong in self.anomalies.iter().map(ToString::to_string).chain(self.failures.iter().cloned()) {
            line += "\n    ";
            line += &wrong;
        }
        line
    }
}

impl Report {
    /// Takes a round in, and tells `progress`. Whether to go on: what is wrong stays wrong, and later rounds would only
    /// repeat it.
    pub fn goes_on_after(&mut self, round: Round, progress: &mut impl FnMut(&Round)) -> bool {
        progress(&round);
        let clean = round.is_clean();
        self.rounds.push(round);
        clean
    }

    /// Whether nothing was wrong in any round.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rounds.iter().all(Round::is_clean)
    }

    /// Whether every first acknowledgement after a fault came within so many milliseconds. What is fast depends on the
    /// machine and what else it does, so the commands ask this and the tests do not.
    #[must_use]
    pub fn is_within(&self, first_ack_max_ms: u64) -> bool {
        self.rounds.iter().all(|round| round.first_ack_ms.is_none_or(|time| time < first_ack_max_ms))
    }

    /// One row for each fault: rounds, records, losses, worst times.
    #[must_use]
    pub fn table(&self) -> String {
        let mut faults: Vec<&str> = self.rounds.iter().map(|round| round.fault).collect();
        faults.dedup();
        let heading =
            ["fault", "rounds", "clean", "acknowledged", "lost", "in doubt", "first ack, worst", "all, worst"];
        let mut table = format!("| {} |\n|{}\n", heading.join(" | "), "---|".repeat(heading.len()));
        for fault in faults {
            let rounds: Vec<_> = self.rounds.iter().filter(|round| round.fault == fault).collect();
            let sum = |of: fn(&Round) -> usize| rounds.iter().map(|round| of(round)).sum::<usize>();
            let worst = |of: fn(&Round) -> Option<u64>| {
                let known: Option<Vec<_>> = rounds.iter().map(|round| of(round)).collect();
                known.map_or_else(|| "-".to_owned(), |all| format!("{} ms", all.iter().max().unwrap_or(&0)))
            };
            table += &format!(
                "| {fault} | {} | {} | {} | {} | {} | {} | {} |\n",
                rounds.len(),
                sum(|round| usize::from(round.is_clean())),
                sum(|round| round.acknowledged),
                sum(Round::lost),
                sum(|round| round.in_doubt),
                worst(|round| round.first_ack_ms),
                worst(|round| round.every_partition_ms)
            );
        }
        table
    }
}
