//! stub
use crate::types::*;
use crate::wal::*;
use std::collections::BTreeMap;
#[derive(Clone, Default)]
pub struct NodeLog {
    pub groups: BTreeMap<RaftGroupId, (HardState, LogId, Vec<LogEntry>)>,
}
impl NodeLog {
    pub fn append(&mut self, turn: &Turn) {
        for w in &turn.writes {
            let g = self.groups.entry(w.group).or_default();
            g.0 = w.hard_state;
            match &w.change {
                LogChange::None => {}
                LogChange::Append(entries) => {
                    let first = entries[0].id.index;
                    g.2.retain(|e| e.id.index < first);
                    assert_eq!(first.0, g.1.index.0 + g.2.len() as u64 + 1);
                    g.2.extend(entries.iter().cloned());
                }
                LogChange::Born { start } => {
                    g.1 = *start;
                    g.2.clear();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    pub fn recover(&self) -> Recovery {
        let mut r = Recovery::default();
        for (id, (hs, start, entries)) in &self.groups {
            let mut terms: Vec<LogId> = vec![];
            for e in entries {
                if terms.last().is_none_or(|t| t.term != e.id.term) {
                    terms.push(e.id);
                }
            }
            let hs = *hs;
            let last = entries.last().map_or(*start, |e| e.id);
            assert!(hs.commit <= last.index, "commit {hs:?} beyond {last}");
            r.groups.insert(*id, GroupRecovery { hard_state: hs, start: *start, last, terms, ..Default::default() });
        }
        r
    }
    pub fn entries(&self, group: RaftGroupId, low: LogIndex, high: LogIndex, max: u64) -> Vec<LogEntry> {
        let g = &self.groups[&group];
        let mut out = vec![];
        let mut bytes = 0;
        for e in &g.2 {
            if e.id.index >= low && e.id.index < high {
                bytes += e.payload_bytes() as u64;
                if !out.is_empty() && bytes > max {
                    break;
                }
                out.push(e.clone());
            }
        }
        out
    }
}
