//! An engine in memory, for tests of one state machine.

use ackord::storage::{Change, Engine, EngineError, Family, Visitor, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

/// An engine in memory. A clone is a copy: what a crash at this moment would leave.
#[derive(Default)]
pub struct Memory {
    /// All families' keys.
    pub rows: Mutex<BTreeMap<(Family, Vec<u8>), Bytes>>,
}

impl Memory {
    pub fn copy(&self) -> Self {
        Self { rows: Mutex::new(self.rows.lock().unwrap().clone()) }
    }

    pub fn dump(&self) -> BTreeMap<(Family, Vec<u8>), Bytes> {
        self.rows.lock().unwrap().clone()
    }
}

impl Engine for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.rows.lock().unwrap().get(&(family, key.to_vec())).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        for ((_, key), value) in self.rows.lock().unwrap().range((family, from.to_vec())..(family, to.to_vec())) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        let range = (Bound::Included((family, from.to_vec())), Bound::Included((family, at.to_vec())));
        let rows = self.rows.lock().unwrap();
        Ok(rows.range(range).next_back().map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let mut rows = self.rows.lock().unwrap();
        for change in batch.changes {
            match change {
                Change::Put { family, key, value } => drop(rows.insert((family, key), value)),
                Change::Delete { family, key } => drop(rows.remove(&(family, key))),
                Change::DeleteRange { family, from, to } => {
                    rows.retain(|(of, key), _| *of != family || *key < from || *key >= to);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn reclaim(&self, _: Family, _: &[u8], _: &[u8]) -> Result<(), EngineError> {
        Ok(())
    }
}
