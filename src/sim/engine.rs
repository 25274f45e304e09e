//! An engine in memory that forgets on a crash what was not flushed, as RocksDB without a write-ahead log does.
//!
//! RocksDB also flushes by itself, so a crash leaves *some* prefix of the batches written after the last flush; the
//! simulator says which. Batches are whole or absent, all families together. Clones share one database, as handles
//! to one directory would; `crash` is meant for when no other clone is in use.

use crate::storage::{Change, Engine, EngineError, Family, Visitor, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The keys of every family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables(BTreeMap<Family, BTreeMap<Vec<u8>, Bytes>>);

/// A database in memory. Cloning gives another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct SimEngine(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What readers see.
    live: Tables,
    /// What a crash can't take away.
    durable: Tables,
    /// The batches between the two, oldest first.
    unflushed: Vec<WriteBatch>,
    /// Why every further write and flush fails, once one has.
    failed: Option<String>,
    /// Rows that can't be read where they are durable.
    damaged: Tables,
    /// Whether it must be set aside.
    condemned: bool,
    /// When it stops, if it is to.
    stop: Option<Stop>,
}

/// When a database stops.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// So many changes happen.
    after: u64,
    /// So many were wanted.
    wanted: u64,
}

impl Tables {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { family, key, value } => {
                self.0.entry(*family).or_default().insert(key.clone(), value.clone());
            }
            Change::Delete { family, key } => {
                self.0.entry(*family).or_default().remove(key);
            }
            Change::DeleteRange { family, from, to } => {
                let doomed: Vec<Vec<u8>> =
                    self.range(*family, from, Bound::Excluded(to)).map(|(key, _)| key.to_vec()).collect();
                let table = self.0.entry(*family).or_default();
                doomed.iter().for_each(|key| drop(table.remove(key)));
            }
        }
    }

    fn range(&self, family: Family, from: &[u8], to: Bound<&[u8]>) -> impl DoubleEndedIterator<Item = (&[u8], &Bytes)> {
        let empty = match to {
            Bound::Included(to) => from > to,
            Bound::Excluded(to) => from >= to,
            Bound::Unbounded => false,
        };
        let table = self.0.get(&family).filter(|_| !empty);
        let rows = table.map(|table| table.range::<[u8], _>((Bound::Included(from), to)));
        rows.into_iter().flatten().map(|(key, value)| (key.as_slice(), value))
    }
}

impl SimEngine {
    /// How many batches a crash may take away.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.state().unflushed.len()
    }

    /// Those batches, oldest first.
    #[must_use]
    pub fn unflushed_batches(&self) -> Vec<WriteBatch> {
        self.state().unflushed.clone()
    }

    /// Ends the process: of the unflushed batches only the first `kept` were on the disk. Also clears a failure, and
    /// a stop.
    ///
    /// # Panics
    /// If fewer than `kept` batches are unflushed.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        let State { durable, unflushed, .. } = &mut *state;
        for batch in &unflushed[..kept] {
            batch.changes.iter().for_each(|change| durable.apply(change));
        }
        state.unflushed.clear();
        state.live = state.durable.clone();
        (state.failed, state.stop) = (None, None);
    }

    /// A database of its own with the same content; what is not flushed here is not there.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let state = self.state();
        let (durable, damaged, condemned) = (state.durable.clone(), state.damaged.clone(), state.condemned);
        Self(Arc::new(Mutex::new(State { live: durable.clone(), durable, damaged, condemned, ..State::default() })))
    }

    /// The durable rows of a family whose keys begin so.
    #[must_use]
    pub fn durable_keys(&self, family: Family, prefix: &[u8]) -> Vec<Vec<u8>> {
        let state = self.state();
        let rows = state.durable.range(family, prefix, Bound::Unbounded);
        rows.map(|(key, _)| key.to_vec()).take_while(|key| key.starts_with(prefix)).collect()
    }

    /// These durable rows can't be read any more: what a file holds of them has another checksum. A newer row under the
    /// same key can be read alone, and not together with others: the damaged one stays in the way of a scan until its
    /// file is gone.
    pub fn damage(&self, family: Family, keys: &[Vec<u8>]) {
        let mut state = self.state();
        let State { durable, damaged, .. } = &mut *state;
        let (durable, damaged) = (durable.0.entry(family).or_default(), damaged.0.entry(family).or_default());
        damaged.extend(keys.iter().filter_map(|key| durable.get_key_value(key)).map(|(k, v)| (k.clone(), v.clone())));
    }

    /// Whether it must be set aside, and an empty one take its place.
    #[must_use]
    pub fn is_condemned(&self) -> bool {
        self.state().condemned
    }

    /// Makes every further write and flush fail until the next crash, as a full or broken disk does.
    pub fn fail(&self, reason: &str) {
        self.state().failed = Some(reason.to_owned());
    }

    /// So many more changes (batches, flushes, space given back) happen, and every later one fails until the next
    /// crash: it comes in the middle of what a job does.
    pub fn stop_after(&self, count: u64) {
        self.state().stop = Some(Stop { after: count, wanted: 0 });
    }

    /// Whether it has stopped with some of the changes done and another one not.
    #[must_use]
    pub fn is_stopped_halfway(&self) -> bool {
        self.state().stop.is_some_and(|stop| stop.after > 0 && stop.wanted > stop.after)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Something is to change: whether it may.
    fn change(&mut self) -> Result<(), EngineError> {
        if let Some(stop) = &mut self.stop {
            stop.wanted += 1;
            if stop.wanted > stop.after {
                self.failed = Some("the simulated database has stopped".to_owned());
            }
        }
        self.failed.clone().map_or(Ok(()), |reason| Err(EngineError::failed(reason)))
    }

    /// The first damaged row in a range, or the last.
    fn damaged_key(&self, family: Family, from: &[u8], to: Bound<&[u8]>, last: bool) -> Option<&[u8]> {
        let mut keys = self.damaged.range(family, from, to).map(|(key, _)| key);
        if last { keys.next_back() } else { keys.next() }
    }
}

fn damaged(family: Family, key: &[u8]) -> EngineError {
    EngineError::damaged(format!("the simulated database can't read the row {key:02x?} of {family:?}"))
}

impl Engine for SimEngine {
    fn failure(&self) -> Option<String> {
        self.state().failed.clone()
    }

    fn condemn(&self, _reason: &str) {
        self.state().condemned = true;
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state();
        let in_table = |tables: &Tables| tables.0.get(&family).and_then(|table| table.get(key)).cloned();
        let value = in_table(&state.live);
        match in_table(&state.damaged) {
            Some(lost) if value.as_ref() == Some(&lost) => Err(damaged(family, key)),
            _ => Ok(value),
        }
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        let state = self.state();
        let lost = state.damaged_key(family, from, Bound::Excluded(to), false);
        for (key, value) in state.live.range(family, from, Bound::Excluded(lost.unwrap_or(to))) {
            if visit(key, value).is_break() {
                return Ok(());
            }
        }
        lost.map_or(Ok(()), |key| Err(damaged(family, key)))
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        let state = self.state();
        let last = state.live.range(family, from, Bound::Included(at)).next_back();
        match state.damaged_key(family, from, Bound::Included(at), true) {
            Some(lost) if last.is_none_or(|(key, _)| key <= lost) => Err(damaged(family, lost)),
            _ => Ok(last.map(|(key, value)| (key.to_vec(), value.clone()))),
        }
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let mut state = self.state();
        state.change()?;
        batch.changes.iter().for_each(|change| state.live.apply(change));
        state.unflushed.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        let mut state = self.state();
        state.change()?;
        let State { durable, unflushed, .. } = &mut *state;
        for batch in unflushed.drain(..) {
            batch.changes.iter().for_each(|change| durable.apply(change));
        }
        Ok(())
    }

    /// Gives back what is damaged. Dropping files below keys that a crash could bring back is an error worth finding.
    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        let mut state = self.state();
        state.change()?;
        let at_risk = state.durable.range(family, from, Bound::Excluded(to)).next().is_some()
            || state.live.range(family, from, Bound::Excluded(to)).next().is_some();
        assert!(!at_risk, "space of {family:?} is reclaimed although its keys are not durably deleted");
        let (from, to) = (from.to_vec(), to.to_vec());
        state.damaged.apply(&Change::DeleteRange { family, from, to });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    const FAMILY: Family = Family::Records;

    fn engine() -> SimEngine {
        let engine = SimEngine::default();
        let mut batch = WriteBatch::default();
        (1..=4).for_each(|key| batch.put(FAMILY, vec![key], vec![key]));
        engine.write(batch).and_then(|()| engine.flush()).unwrap();
        engine
    }

    fn scan(engine: &SimEngine, to: u8) -> (usize, bool) {
        let mut seen = 0;
        let result = engine.scan(FAMILY, &[0], &[to], &mut |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        });
        (seen, result.is_err_and(|error| error.damage))
    }

    #[test]
    fn it_stops_between_two_changes() {
        let write = |engine: &SimEngine, key: u8| {
            let mut batch = WriteBatch::default();
            batch.put(FAMILY, vec![key], vec![key]);
            engine.write(batch).is_ok()
        };
        let has = |engine: &SimEngine, key| engine.get(FAMILY, &[key]).is_ok_and(|value| value.is_some());
        let engine = SimEngine::default();
        engine.stop_after(2);
        assert!(write(&engine, 1) && engine.flush().is_ok() && !engine.is_stopped_halfway());
        assert!(!write(&engine, 2) && engine.flush().is_err() && engine.is_stopped_halfway());
        engine.crash(0);
        assert!(has(&engine, 1) && !has(&engine, 2) && !engine.is_stopped_halfway());
        assert!(write(&engine, 3) && engine.flush().is_ok() && has(&engine, 3));
        engine.stop_after(0);
        assert!(!write(&engine, 4) && !engine.is_stopped_halfway(), "nothing was done before");
    }

    #[test]
    fn a_damaged_row_is_met_by_whoever_reads_it_until_its_file_is_gone() {
        let engine = engine();
        engine.damage(FAMILY, &[vec![3], vec![7]]);
        assert!(engine.get(FAMILY, &[3]).is_err_and(|error| error.damage));
        assert!(engine.get(FAMILY, &[2]).unwrap().is_some() && engine.get(FAMILY, &[7]).unwrap().is_none());
        assert_eq!([scan(&engine, 3), scan(&engine, 9)], [(2, false), (2, true)]);
        assert!(engine.last_at_or_before(FAMILY, &[0], &[3]).is_err());
        assert!(engine.last_at_or_before(FAMILY, &[0], &[9]).unwrap().is_some(), "it is behind the last");
        // A newer row can be read alone.
        let mut batch = WriteBatch::default();
        batch.put(FAMILY, vec![3], vec![30]);
        engine.write(batch).unwrap();
        assert!(engine.get(FAMILY, &[3]).is_ok() && scan(&engine, 9) == (2, true));
        engine.crash(0);
        assert!(engine.get(FAMILY, &[3]).is_err() && engine.duplicate().get(FAMILY, &[3]).is_err());
        let mut batch = WriteBatch::default();
        batch.delete_range(FAMILY, vec![3], vec![4]);
        engine.write(batch).and_then(|()| engine.flush()).unwrap();
        engine.reclaim(FAMILY, &[3], &[4]).unwrap();
        assert_eq!(scan(&engine, 9), (3, false));
    }
}
