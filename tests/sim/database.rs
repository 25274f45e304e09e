//! A node's simulated database, which can stop in the middle of a job: what the job has written before is there, or
//! not, as after any crash, and nothing that it would have written afterwards ever is.

use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, EngineError, Family, Visitor, WriteBatch};
use bytes::Bytes;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone, Default)]
pub struct Database {
    /// What there is.
    engine: SimEngine,
    /// When it stops.
    stop: Arc<Mutex<Option<Stop>>>,
}

/// When a database stops.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// So many more changes happen.
    left: u64,
    /// So many have happened.
    done: u64,
    /// It has stopped.
    stopped: bool,
}

impl Database {
    fn of(engine: SimEngine) -> Self {
        Self { engine, stop: Arc::default() }
    }

    fn stop(&self) -> MutexGuard<'_, Option<Stop>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more changes (batches, flushes, space given back) happen, and every later one fails until `crash`.
    pub fn stop_after(&self, count: u64) {
        *self.stop() = Some(Stop { left: count, done: 0, stopped: false });
    }

    /// Whether it has stopped with some of the changes done and another one not.
    pub fn is_stopped_halfway(&self) -> bool {
        self.stop().is_some_and(|stop| stop.stopped && stop.done > 0)
    }

    /// As `SimEngine::crash`; it works again.
    pub fn crash(&self, kept: usize) {
        *self.stop() = None;
        self.engine.crash(kept);
    }

    /// As `SimEngine::duplicate`.
    pub fn duplicate(&self) -> Self {
        Self::of(self.engine.duplicate())
    }

    fn change(&self) {
        let mut stop = self.stop();
        let Some(stop) = stop.as_mut() else { return };
        match stop.left.checked_sub(1) {
            Some(left) => (stop.left, stop.done) = (left, stop.done + 1),
            None => {
                stop.stopped = true;
                self.engine.fail("the simulated database has stopped");
            }
        }
    }
}

impl Deref for Database {
    type Target = SimEngine;

    fn deref(&self) -> &SimEngine {
        &self.engine
    }
}

impl Engine for Database {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        self.engine.scan(family, from, to, visit)
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        self.engine.last_at_or_before(family, from, at)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.change();
        self.engine.write(batch)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.change();
        self.engine.flush()
    }

    fn failure(&self) -> Option<String> {
        self.engine.failure()
    }

    fn condemn(&self, reason: &str) {
        self.engine.condemn(reason);
    }

    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        self.change();
        self.engine.reclaim(family, from, to)
    }

    fn merge_deleted(&self) -> Result<(), EngineError> {
        self.engine.merge_deleted()
    }
}

#[test]
fn it_stops_between_two_changes() {
    let (database, key) = (Database::default(), |key: u8| {
        let mut batch = WriteBatch::default();
        batch.put(Family::Records, vec![key], vec![key]);
        batch
    });
    let has = |key| database.get(Family::Records, &[key]).is_ok_and(|value| value.is_some());
    database.stop_after(2);
    assert!(database.write(key(1)).is_ok() && database.flush().is_ok() && !database.is_stopped_halfway());
    assert!(database.write(key(2)).is_err() && database.flush().is_err() && database.is_stopped_halfway());
    database.crash(0);
    assert!(has(1) && !has(2) && !database.is_stopped_halfway());
    assert!(database.write(key(3)).is_ok() && database.flush().is_ok() && has(3));
    database.stop_after(0);
    assert!(database.write(key(4)).is_err() && !database.is_stopped_halfway(), "nothing was done before");
}
