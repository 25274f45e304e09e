//! Giving space back: what lies below the log start, in replaced generations, in deleted groups.
//!
//! Three steps, in this order: the deletion is written (the log start or generation that justifies it is in the same
//! batch or an earlier one), the database is flushed, whole files are dropped. Dropping a file is not undone by a
//! crash, so it must not happen while a crash could still bring its keys back.

use super::GENERATION_FAMILIES;
use super::read::PartitionView;
use super::rows;
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::Offset;
use std::ops::ControlFlow;

/// Ranges whose keys are deleted, once the batch that says so is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the space comes back only by `reclaim`"]
pub struct Freed {
    /// Family, first key, and the key after the last.
    ranges: Vec<(Family, Vec<u8>, Vec<u8>)>,
}

impl Freed {
    /// Adds the deletion of `from .. to` of each family to `batch`.
    pub(super) fn delete(
        families: impl IntoIterator<Item = Family>,
        from: &[u8],
        to: &[u8],
        batch: &mut WriteBatch,
    ) -> Self {
        let ranges: Vec<_> = families.into_iter().map(|family| (family, from.to_vec(), to.to_vec())).collect();
        for (family, from, to) in &ranges {
            batch.delete_range(*family, from.clone(), to.clone());
        }
        Self { ranges }
    }

    /// Drops the files that held nothing else. Call it after a flush that covers the deletion, and before anything is
    /// written into the ranges again.
    pub fn reclaim(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        self.ranges.iter().try_for_each(|(family, from, to)| engine.reclaim(*family, from, to))
    }
}

impl PartitionView {
    /// Adds the deletion of what lies wholly below the log start to `batch`; nothing if no record was ever removed.
    ///
    /// The log start moves through Raft and reads respect it at once; this is for each replica to do when it likes:
    /// not too often, because each range deleted is one more to look at for every read until files are merged.
    pub fn trim(&self, engine: &dyn Engine, batch: &mut WriteBatch) -> Result<Option<Freed>, EngineError> {
        if self.log_start == Offset(0) {
            return Ok(None);
        }
        let records = self.free(engine, Family::Records, &self.key(self.log_start), batch)?;
        // The row of the run that holds the log start stays.
        let times = self.free(engine, Family::Times, &self.key(self.first_run(engine)?), batch)?;
        Ok(Some(Freed { ranges: vec![records, times] }))
    }

    /// Deletes what a family has before `to`. What may be reclaimed begins where the generation does: a crash may have
    /// come between an earlier deletion and the dropping of its files.
    fn free(
        &self,
        engine: &dyn Engine,
        family: Family,
        to: &[u8],
        batch: &mut WriteBatch,
    ) -> Result<(Family, Vec<u8>, Vec<u8>), EngineError> {
        let (begin, mut first) = (self.key(Offset(0)), None);
        engine.scan(family, &begin, to, &mut |key, _| {
            first = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        if let Some(first) = first {
            batch.delete_range(family, first, to.to_vec());
        }
        Ok((family, begin, to.to_vec()))
    }
}

/// Deletes every generation of a partition before the one it is in. Generations are not reused once they were in use,
/// so their files may be dropped at any later time.
pub(super) fn older_generations(view: &PartitionView, batch: &mut WriteBatch) -> Freed {
    let key = |generation| rows::generation_key(view.group, generation);
    Freed::delete(GENERATION_FAMILIES, &key(0), &key(view.generation), batch)
}
