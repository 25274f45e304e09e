//! What clients ask of the cluster, and are told: writes, removals from the front, reads.

use super::effects::CrashPoint;
use super::{Cluster, consumers};
use crate::multiraft::core::effect::{Input, Proposal, Reply, Ticket};
use crate::partition::retention::Retention;
use crate::types::{Offset, RaftGroupId};

/// What retention keeps of a group: less than a long run with large records writes.
const KEPT: Retention = Retention { age_max_ms: None, bytes: Some(1 << 20) };

impl Cluster {
    pub(super) fn write(&mut self) {
        let group = RaftGroupId(1 + self.random.below(self.scenario.groups));
        let position = self.pick(self.nodes.len());
        let count = 1 + self.pick(3);
        self.write_at(position, group, count);
    }

    pub(super) fn write_at(&mut self, position: usize, group: RaftGroupId, count: usize) {
        let node = self.nodes[position].id;
        if !self.nodes[position].is_running() {
            return;
        }
        let proposals: Vec<Proposal> =
            (0..count).map(|_| self.client.write(node, group, self.scenario.key_bytes)).collect();
        self.note(|| format!("{node}: {count} writes to group {group}"));
        self.input(position, Input::Propose { group, proposals });
    }

    /// Retention's own decision, or DeleteRecords of a client.
    pub(super) fn trim(&mut self) {
        let group = RaftGroupId(1 + self.random.below(self.scenario.groups));
        let position = self.pick(self.nodes.len());
        let Some(view) = self.nodes[position].view(group) else { return };
        let (start, end) = (view.log_start.0 as u64, view.high_watermark.0 as u64);
        let offset = match self.random.below(4) {
            0 => self.nodes[position].retained_start(group, &KEPT),
            // Most are for little, so that much remains to be lost; some are for what is gone or not there yet.
            1 => Some(Offset(self.random.below(end + 5).cast_signed())),
            _ => Some(Offset((start + self.random.below(1 + (end - start) / 4)).cast_signed())),
        };
        let Some(offset) = offset else { return };
        let node = self.nodes[position].id;
        self.note(|| format!("{node}: trim group {group} to {offset}"));
        let proposal = self.client.trim(group, offset);
        self.input(position, Input::Propose { group, proposals: vec![proposal] });
    }

    pub(super) fn read(&mut self) {
        let group = RaftGroupId(1 + self.random.below(self.scenario.groups));
        let position = self.pick(self.nodes.len());
        let node = self.nodes[position].id;
        if self.nodes[position].is_running() {
            let ticket = self.client.read(node, group);
            self.input(position, Input::ReadIndex { group, ticket });
        }
    }

    pub(super) fn answer(&mut self, position: usize, ticket: Ticket, reply: &Reply) {
        if self.crash_instead(position, CrashPoint::Reply) {
            return;
        }
        let seed = self.scenario.seed;
        if consumers::is_consumers(ticket) {
            return match (reply, self.consumers.read_of(ticket)) {
                (Reply::ReadAt(_), Some((raft, group))) => {
                    let seen = self.nodes[position].stored_offsets(raft, &group);
                    self.consumers.read_served(ticket, &seen, seed);
                }
                _ => self.consumers.answered(ticket, reply, seed),
            };
        }
        if let Reply::ReadAt(_) = reply {
            if let Some(group) = self.client.group_of(ticket) {
                // Reading it whole finds every hole.
                let (start, records) = self.nodes[position].records(group);
                let end = self.nodes[position].record_count(group);
                assert_eq!(start.0 as usize + records.len(), end, "seed {}: group {group}", self.scenario.seed);
                self.client.read_served(ticket, start.0 as usize, end, self.scenario.seed);
            }
            return;
        }
        self.client.answered(ticket, reply);
    }
}
