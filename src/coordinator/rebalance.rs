//! From one generation to the next: preparing it, making it up, and what follows when a member is gone.
//!
//! As in Kafka, a preparation ends when every member has joined and no id that was handed out is still out, or when the
//! time for it has run out; the first one of an empty group only then, if it is to wait for company (KIP-134).

use super::group::{Group, Member, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Group {
    fn enter(&mut self, phase: Phase, now_ms: i64) {
        self.phase = phase;
        self.since_ms = now_ms;
    }

    /// Begins a preparation. `first` ones end when their time has run out.
    pub(super) fn prepare(&mut self, first: bool, now_ms: i64) {
        self.rounds += 1;
        self.enter(Phase::Preparing { round: self.rounds, first }, now_ms);
    }

    /// The generation that a member which joins now will be in.
    pub(super) fn awaited_generation(&self) -> i32 {
        match self.phase {
            Phase::Preparing { .. } => self.generation.saturating_add(1),
            Phase::Empty | Phase::Completing | Phase::Stable => self.generation,
        }
    }

    /// Ends the preparation if nobody is missing.
    pub(super) fn complete_if_all_joined(&mut self, now_ms: i64) {
        let waits = !matches!(self.phase, Phase::Preparing { first: false, .. });
        if !waits && self.pending.is_empty() && self.members.values().all(|member| member.joined) {
            self.begin_generation(now_ms);
        }
    }

    /// The time of a preparation has run out: dynamic members that did not come are out, static ones have until their
    /// sessions end (KIP-345).
    pub(super) fn finish_join(&mut self, round: u64, now_ms: i64) {
        if !matches!(self.phase, Phase::Preparing { round: current, .. } if current == round) {
            return;
        }
        let missing = self.members.values().filter(|member| !member.joined && member.instance.is_none());
        let missing: Vec<String> = missing.map(|member| member.id.clone()).collect();
        missing.iter().for_each(|id| drop(self.take_out(id)));
        if self.members.is_empty() || self.joined().next().is_some() {
            self.begin_generation(now_ms);
        } else {
            self.prepare(false, now_ms);
        }
    }

    /// Makes up the next generation of all who are members.
    fn begin_generation(&mut self, now_ms: i64) {
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            (self.protocol, self.leader) = (None, None);
            self.enter(Phase::Empty, now_ms);
            return;
        }
        let leads = |member: &&Arc<Member>| self.leader.as_ref() == Some(&member.id);
        if !self.joined().any(|member| leads(&member)) {
            let earliest = self.joined().min_by_key(|member| member.joins);
            self.leader = earliest.or_else(|| self.members.values().next()).map(|member| member.id.clone());
        }
        self.protocol = self.choose_protocol();
        for member in self.members.values_mut() {
            let member = Arc::make_mut(member);
            (member.generation, member.joined) = (self.generation, false);
            member.assignment.clear();
        }
        self.enter(Phase::Completing, now_ms);
    }

    /// How many members know each protocol.
    fn known_protocols(&self) -> BTreeMap<&str, usize> {
        let mut known = BTreeMap::new();
        for (name, _) in self.members.values().flat_map(|member| &member.protocols) {
            *known.entry(name.as_str()).or_default() += 1;
        }
        known
    }

    /// What the next generation would agree on: of the protocols that all members know, each votes for the one it
    /// prefers. Of two with as many votes, the one whose name comes first.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let known = self.known_protocols();
        let common = |name: &str| known.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        // The last of the greatest, in the opposite order.
        votes.iter().rev().max_by_key(|(_, votes)| **votes).map(|(name, _)| (*name).to_owned())
    }

    /// Whether a member of this kind, with these protocols, has something in common with all that are there.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Vec<u8>)]) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let known = self.known_protocols();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| known.get(name.as_str()) == Some(&self.members.len()))
    }

    /// Takes a member out. `settle` follows, once all are out that go together.
    pub(super) fn take_out(&mut self, id: &str) -> Option<Arc<Member>> {
        let member = self.members.remove(id)?;
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.values().min_by_key(|member| member.joins).map(|member| member.id.clone());
        }
        Some(member)
    }

    /// What follows from members being out (`fewer`), or only ids that had been handed out.
    pub(super) fn settle(&mut self, fewer: bool, now_ms: i64) {
        match self.phase {
            Phase::Empty => {}
            _ if self.members.is_empty() => self.begin_generation(now_ms),
            Phase::Preparing { .. } => self.complete_if_all_joined(now_ms),
            Phase::Completing | Phase::Stable if fewer => self.prepare(false, now_ms),
            Phase::Completing | Phase::Stable => {}
        }
    }
}
