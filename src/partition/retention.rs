//! Retention: where a partition's log should start, by time and by size.
//!
//! A decision, not a deed: the leader proposes the offset (`Command::SetLogStart`), so that no replica's clock or size
//! counts but the leader's. Whole runs go, from the front only, as Kafka's segments do, and by Kafka's two rules
//! (`UnifiedLog.deleteOldSegments`):
//!
//! * by time, a run goes when its greatest timestamp is older than the limit. One in the future keeps its run, and so
//!   all after it, until that time has come and gone; a run without any timestamp is as old as nobody knows, and stays;
//! * by size, a run goes if what remains is still at or above the limit: a limit is what is kept, not what is not
//!   passed.
//!
//! The walk over the runs ends with the first that stays, so its cost does not grow with the log.

use super::read::PartitionView;
use super::rows;
use super::times::{Run, RunRow};
use crate::storage::{Engine, EngineError, Family};
use crate::types::Offset;
use std::ops::ControlFlow;

/// The most runs that one decision takes, about 64 GiB: the next one goes on from there.
const RUNS_MAX: usize = 16 << 10;

/// What a partition keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records no older than this, in milliseconds; none: of any age.
    pub age_max_ms: Option<i64>,
    /// At least so many bytes of batches; none: all.
    pub bytes: Option<u64>,
}

/// A run that is to be judged, once it is known where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its first offset.
    first: Offset,
    /// What its row says, or would.
    row: RunRow,
}

impl From<&Run> for Candidate {
    fn from(run: &Run) -> Self {
        Self { first: run.first, row: run.row() }
    }
}

impl Retention {
    /// Whether a run goes; `bytes_behind` is the size of what follows it.
    fn frees(&self, max_timestamp: i64, bytes_behind: u64, now_ms: i64) -> bool {
        let age = |limit: i64| max_timestamp >= 0 && now_ms.saturating_sub(max_timestamp) > limit;
        self.age_max_ms.is_some_and(age) || self.bytes.is_some_and(|limit| bytes_behind >= limit)
    }
}

impl PartitionView {
    /// The size of all batches that were ever appended in this generation, in bytes: it only grows, by what is written.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.run.bytes_to_end()
    }

    /// The size of the runs that are still here, the one around the log start included, in bytes.
    pub fn size(&self, engine: &dyn Engine) -> Result<u64, EngineError> {
        if self.log_start == self.high_watermark {
            return Ok(0);
        }
        let mut front = Candidate::from(&self.run);
        self.scan_runs(engine, &mut |run| {
            front = run;
            ControlFlow::Break(())
        })?;
        Ok(self.appended_bytes() - front.row.bytes_before)
    }

    /// Where the log should start at `now_ms`; nothing if it may stay as it is.
    pub fn retained_start(
        &self,
        engine: &dyn Engine,
        retention: &Retention,
        now_ms: i64,
    ) -> Result<Option<Offset>, EngineError> {
        let end = self.appended_bytes();
        let (mut front, mut start, mut taken) = (None::<Candidate>, self.log_start, 0);
        let mut frees = |run: Candidate, next: Offset, next_bytes_before: u64| {
            taken += 1;
            let goes = retention.frees(run.row.max_timestamp, end - next_bytes_before, now_ms) && taken <= RUNS_MAX;
            if goes {
                start = next;
            }
            goes
        };
        let mut stays = false;
        self.scan_runs(engine, &mut |run| {
            stays = front.replace(run).is_some_and(|front| !frees(front, run.first, run.row.bytes_before));
            if stays { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if !stays && self.run.is_begun() {
            let newest = Candidate::from(&self.run);
            if front.is_none_or(|front| frees(front, newest.first, newest.row.bytes_before)) {
                frees(newest, self.high_watermark, end);
            }
        }
        assert!(start <= self.high_watermark, "a log starts at its end at the latest");
        Ok(Some(start).filter(|start| *start > self.log_start))
    }

    /// Visits the full runs from the one that holds the log start on.
    fn scan_runs(
        &self,
        engine: &dyn Engine,
        visit: &mut dyn FnMut(Candidate) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let (from, to) = (self.key(self.first_run(engine)?), self.key(self.rows_end()));
        let mut flaw = None;
        engine.scan(Family::Times, &from, &to, &mut |key, value| match (rows::number(key), RunRow::decode(value)) {
            (Some(first), Ok(row)) => visit(Candidate { first: Offset(first), row }),
            (_, row) => {
                flaw = Some(EngineError::damaged(format!("a row of a run can't be read: {row:?}")));
                ControlFlow::Break(())
            }
        })?;
        flaw.map_or(Ok(()), Err)
    }
}
