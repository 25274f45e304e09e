//! The simplest state machine: every command is a record, every record gets the next offset.

use crate::machine::{MachineError, Outcome, StateMachine};
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::{LogEntry, LogId, LogIndex, Membership, Offset, RaftGroupId};
use std::ops::ControlFlow;

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// Its group.
    group: RaftGroupId,
    /// The newest applied entry.
    applied: LogId,
    /// The members as of it.
    membership: Membership,
    /// The next record's offset.
    next_offset: i64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Meta {
    applied: LogId,
    membership: Membership,
    next_offset: i64,
}

impl Ledger {
    /// A ledger of a group that is being born.
    #[must_use]
    pub fn born(group: RaftGroupId, at: LogId, membership: Membership) -> Self {
        Self { group, applied: at, membership, next_offset: 0 }
    }

    /// The ledger as the database has it.
    pub fn open(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<Self>, EngineError> {
        let Some(row) = engine.get(Family::Meta, &group.0.to_be_bytes())? else { return Ok(None) };
        let (meta, _): (Meta, usize) = bincode::decode_from_slice(&row, bincode::config::standard())
            .map_err(|error| EngineError(format!("ledger {group}: {error}")))?;
        Ok(Some(Self { group, applied: meta.applied, membership: meta.membership, next_offset: meta.next_offset }))
    }

    /// Writes the state.
    pub fn save(&self, batch: &mut WriteBatch) {
        let meta = Meta { applied: self.applied, membership: self.membership.clone(), next_offset: self.next_offset };
        let row = bincode::encode_to_vec(meta, bincode::config::standard()).expect("plain data always encodes");
        batch.put(Family::Meta, self.group.0.to_be_bytes().to_vec(), row);
    }

    /// Every record of a group, in order.
    pub fn records(engine: &dyn Engine, group: RaftGroupId) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut records = Vec::new();
        engine.scan(Family::Records, &key(group, 0), &key(group, i64::MAX), &mut |found, value| {
            assert_eq!(found, key(group, records.len() as i64), "offsets have no gaps");
            records.push(value.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }
}

impl StateMachine for Ledger {
    fn applied(&self) -> LogId {
        self.applied
    }

    fn membership(&self) -> &Membership {
        &self.membership
    }

    fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError> {
        let mut outcomes = Vec::new();
        for entry in entries {
            assert_eq!(entry.id.index, self.applied.index.next(), "entries are applied in order, once");
            self.applied = entry.id;
            if let Some((_, membership)) = memberships.iter().find(|(index, _)| *index == entry.id.index) {
                self.membership = membership.clone();
            }
            if entry.data.is_empty() || !memberships.is_empty() {
                outcomes.push(Outcome::None);
                continue;
            }
            batch.put(Family::Records, key(self.group, self.next_offset), entry.data.clone());
            outcomes.push(Outcome::Appended { base_offset: Offset(self.next_offset), duplicate: false });
            self.next_offset += 1;
        }
        self.save(batch);
        Ok(outcomes)
    }
}

fn key(group: RaftGroupId, offset: i64) -> Vec<u8> {
    [group.0.to_be_bytes(), offset.to_be_bytes()].concat()
}
