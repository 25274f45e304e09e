//! One replica: input in, [`Ready`] out. What may leave the node before an fsync and what only after is a field, not a
//! convention.
//!
//! What raft-rs 0.7 leaves to its user, and is settled here:
//! * pre-vote and check-quorum are on; every size is bounded;
//! * messages of a leader whose own term or vote is not durable yet wait for the fsync (a group with one voter elects
//!   itself and appends inside one tick; after a crash the same term could be led again with other entries);
//! * raft-rs draws its election timeout from the thread's generator: it is overwritten before every tick by a pure
//!   function, so that one seed gives one history;
//! * `next_idx` may fall to `matched` after a delayed rejection (tikv/raft-rs#557): restored after every response;
//! * a vote's commit index makes raft-rs look into entries at once (raft.rs:2194): it is left out when they are not in
//!   memory, and the leader's next message brings it anyway;
//! * a panic inside raft-rs (its way to say "lost data") is caught and ends this replica only;
//! * entries are handed to the state machine once, in order, and raft-rs counts them as applied from then on: how far
//!   the state machine really is, is the caller's to know.

use super::change::members_for_raft;
use super::group_log::{GroupLog, Wanted};
use super::message::{entry_from_raft, membership_from_raft, snapshot_from_raft};
use super::ready::{Broken, FollowerProgress, ProposeError, Ready, ReplicaOptions, ReplicaStart, Role, Write};
use super::{MessageKind, RaftMessage};
use crate::types::{EntryKind, HardState, LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId, Term};
use bytes::Bytes;
use raft_rs::{GetEntriesContext, INVALID_ID, RawNode, SnapshotStatus, StateRole, eraftpb};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// See the module.
pub struct Replica {
    /// The group, for errors.
    group: RaftGroupId,
    /// raft-rs.
    pub(super) node: RawNode<GroupLog>,
    /// Limits and timing.
    options: ReplicaOptions,
    /// The newest entry handed to the state machine.
    handed: LogIndex,
    /// The members as of `handed`.
    membership: Membership,
    /// Term and vote as last given out for writing.
    promised: (Term, Option<ReplicaId>),
    /// The newest `Ready` that changed term or vote.
    promise_number: u64,
    /// The newest `Ready` that is durable.
    persisted_number: u64,
    /// How often this replica has campaigned; varies the election timeout.
    campaigns: u64,
    /// Ticks since the start.
    ticks: u64,
    /// The tick at which each member was last heard of.
    heard: BTreeMap<ReplicaId, u64>,
    /// Reads of old entries that raft-rs waits for, with the contexts that resume it.
    fetching: Vec<(Wanted, GetEntriesContext)>,
}

impl Replica {
    /// Starts a replica. Refuses a start that contradicts itself: what raft-rs would panic about.
    pub fn new(start: ReplicaStart, options: ReplicaOptions) -> Result<Self, Broken> {
        let mut hard_state = start.hard_state;
        // A commit index is not made durable by itself; what was applied was committed, and so was what a snapshot
        // holds.
        hard_state.commit = hard_state.commit.max(start.applied).max(start.start.index);
        if hard_state.commit > start.last.index {
            let reason = format!("committed up to {} but the log ends at {}", hard_state.commit, start.last);
            return Err(Broken(reason));
        }
        if start.applied < start.start.index {
            let reason = format!("applied up to {} but the log begins after {}", start.applied, start.start);
            return Err(Broken(reason));
        }
        let log = GroupLog::new(hard_state, members_for_raft(&start.membership), start.start, start.last, &start.terms);
        let config = raft_config(start.replica, start.applied, &options);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = catch(|| RawNode::new(&config, log, &logger))?
            .map_err(|error| Broken(format!("raft refuses to start: {error}")))?;
        Ok(Self {
            group: start.group,
            node,
            options,
            handed: start.applied,
            membership: start.membership,
            promised: (hard_state.term, hard_state.vote),
            promise_number: 0,
            persisted_number: 0,
            campaigns: 0,
            ticks: 0,
            heard: BTreeMap::new(),
            fetching: Vec::new(),
        })
    }

    /// Who this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        ReplicaId(self.node.raft.id)
    }

    /// The part it plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower,
        }
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        Some(ReplicaId(self.node.raft.leader_id)).filter(|replica| replica.0 != 0)
    }

    /// Term, vote and commit as they are now.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        hard_state_from_raft(&self.node.raft.hard_state())
    }

    /// The newest entry known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The same with its term, if that is known: it may be one that no `Ready` has handed out yet.
    #[must_use]
    pub fn commit_id(&self) -> Option<LogId> {
        let log = &self.node.raft.raft_log;
        log.term(log.committed).ok().map(|term| LogId::new(log.committed, term))
    }

    /// The newest entry handed to the state machine.
    #[must_use]
    pub fn handed(&self) -> LogIndex {
        self.handed
    }

    /// The members as of the newest entry handed over.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The in-memory log.
    #[must_use]
    pub fn log(&self) -> &GroupLog {
        self.node.store()
    }

    /// The in-memory log, to evict from it or to move its start.
    pub fn log_mut(&mut self) -> &mut GroupLog {
        self.node.mut_store()
    }

    /// The newest entry that is durable here.
    #[must_use]
    pub fn persisted_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.persisted)
    }

    /// Entries below this index may leave memory: durable, and handed over.
    #[must_use]
    pub fn evictable_below(&self) -> LogIndex {
        self.handed.min(self.persisted_index()).next()
    }

    /// Lets one tick of time pass. Says whether there may be something to take.
    pub fn tick(&mut self) -> Result<bool, Broken> {
        self.ticks += 1;
        let timeout = self.election_timeout();
        let node = &mut self.node;
        let woken = catch(|| {
            node.raft.set_randomized_election_timeout(timeout);
            node.tick()
        })?;
        if self.node.raft.state != StateRole::Leader && self.node.raft.election_elapsed == 0 {
            self.campaigns += 1;
        }
        Ok(woken)
    }

    /// Between one and two election timeouts, the same for the same seed, replica, term and count of campaigns.
    fn election_timeout(&self) -> usize {
        let base = u64::from(self.options.election_ticks);
        let mixed = [self.options.seed, self.group.0, self.node.raft.id, self.node.raft.term, self.campaigns]
            .into_iter()
            .fold(0x9e37_79b9_7f4a_7c15_u64, |hash, part| mix(hash ^ part));
        (base + mixed % base) as usize
    }

    /// Takes in a message. One for another replica, of a term Kafka can't express, or of a peer that is not a member
    /// is dropped.
    pub fn step(&mut self, message: RaftMessage) -> Result<(), Broken> {
        if message.to != self.id() || message.term.0 > i32::MAX as u64 {
            return Ok(());
        }
        self.make_way_for_commit(&message)?;
        self.note_installed(&message)?;
        let (kind, from, restores) = (message.kind, message.from, !self.options.omit.next_index);
        if self.node.raft.prs().get(from.0).is_some() {
            self.heard.insert(from, self.ticks);
        }
        let node = &mut self.node;
        catch(|| {
            // An error means "dropped": an unknown peer, a stale answer.
            let _dropped = node.step(message.into_raft());
            if kind == MessageKind::AppendResponse
                && restores
                && let Some(progress) = node.raft.mut_prs().get_mut(from.0)
            {
                progress.next_idx = progress.next_idx.max(progress.matched + 1);
            }
        })
    }

    /// Who asks for a vote says what it knows to be committed, and may know of a change of members without which nobody
    /// here can be elected. A candidate that learns so would read the entries at once, from memory, where they need not
    /// be: it steps down first, and reads them as every follower does.
    fn make_way_for_commit(&mut self, message: &RaftMessage) -> Result<(), Broken> {
        let RaftMessage { kind, commit, commit_term, .. } = *message;
        let is_news = kind.is_vote() && commit > self.commit() && self.log().term_of(commit) == Some(commit_term);
        if is_news && !self.log().in_tail(self.commit().next()) {
            self.step_down_as_candidate()?;
        }
        Ok(())
    }

    fn step_down_as_candidate(&mut self) -> Result<(), Broken> {
        let raft = &mut self.node.raft;
        let campaigns = matches!(raft.state, StateRole::Candidate | StateRole::PreCandidate);
        if campaigns { catch(|| raft.become_follower(raft.term, INVALID_ID)) } else { Ok(()) }
    }

    /// A follower that has committed as far as the snapshot it was sent has installed it: its answer may be lost, and
    /// raft-rs would not speak to it before somebody gives up.
    fn note_installed(&mut self, message: &RaftMessage) -> Result<(), Broken> {
        let Some(progress) = self.node.raft.prs().get(message.from.0) else { return Ok(()) };
        let awaited = progress.state == raft_rs::ProgressState::Snapshot
            && message.kind == MessageKind::HeartbeatResponse
            && message.term == self.term();
        if awaited && message.commit.0 >= progress.pending_snapshot {
            self.report_snapshot(message.from, true)?;
        }
        Ok(())
    }

    /// Appends commands to the leader's log; all of them or none. Returns the first one's place.
    pub fn propose(&mut self, commands: Vec<(Bytes, Bytes)>) -> Result<Result<LogId, ProposeError>, Broken> {
        if self.role() != Role::Leader || self.node.raft.lead_transferee.is_some() {
            return Ok(Err(ProposeError::NotLeader));
        }
        let count = commands.len() as u64;
        assert!(count > 0, "a proposal holds at least one command");
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.node.raft.id;
        let entries: Vec<_> = commands
            .into_iter()
            .map(|(context, data)| eraftpb::Entry { context, data, ..eraftpb::Entry::default() })
            .collect();
        message.set_entries(entries.into());
        let node = &mut self.node;
        Ok(match catch(|| node.raft.step(message))? {
            Ok(()) => Ok(LogId::new(node.raft.raft_log.last_index() + 1 - count, node.raft.term)),
            Err(_) => Err(ProposeError::Busy),
        })
    }

    /// Asks for the index that a linearizable read must wait for. `context` is unique among this replica's reads.
    ///
    /// Before the leader has committed an entry of its own term raft-rs drops the request silently, so it is refused.
    pub fn read_index(&mut self, context: &Bytes) -> Result<Result<(), ProposeError>, Broken> {
        if self.role() != Role::Leader || !self.node.raft.commit_to_current_term() {
            return Ok(Err(ProposeError::NotLeader));
        }
        let node = &mut self.node;
        catch(|| node.read_index(context.to_vec()))?;
        Ok(Ok(()))
    }

    /// Campaigns at once instead of waiting for an election timeout, if no leader is known.
    pub fn campaign(&mut self) -> Result<(), Broken> {
        if self.leader().is_some() {
            return Ok(());
        }
        let node = &mut self.node;
        // An error means that it already campaigns.
        catch(|| drop(node.campaign()))
    }

    /// Somebody knows that this entry is committed: if it is here, so is everything up to it. One that the log does not
    /// have, or has let go of, changes nothing.
    pub fn learn_commit(&mut self, id: LogId) -> Result<(), Broken> {
        let here = self.log().last().index >= id.index && self.log().term_of(id.index) == Some(id.term);
        if !here || id.index <= self.commit() {
            return Ok(());
        }
        // It may be a change of members, by which a candidate needs another majority.
        self.step_down_as_candidate()?;
        let log = &mut self.node.raft.raft_log;
        catch(|| log.maybe_commit(id.index.0, id.term.0)).map(drop)
    }

    /// Starts to hand leadership to `to`, which must be a voter.
    pub fn transfer_leader(&mut self, to: ReplicaId) -> Result<(), Broken> {
        let node = &mut self.node;
        catch(|| node.transfer_leader(to.0))
    }

    /// The node of `replica` can't be reached: probe it instead of streaming to it.
    pub fn report_unreachable(&mut self, replica: ReplicaId) -> Result<(), Broken> {
        let node = &mut self.node;
        catch(|| node.report_unreachable(replica.0))
    }

    /// What became of the snapshot for `replica`. Must be called in the end, or that follower stays paused.
    pub fn report_snapshot(&mut self, replica: ReplicaId, arrived: bool) -> Result<(), Broken> {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        let node = &mut self.node;
        catch(|| node.report_snapshot(replica.0, status))
    }

    /// Committed entries that must be read from disk before anything else: after a start, what the state machine has
    /// not applied yet. While this is so, the replica takes no tick and no message.
    #[must_use]
    pub fn replay_wanted(&self) -> Option<Wanted> {
        let available = self.commit().min(self.persisted_index());
        let low = self.handed.next();
        if available < low || self.log().in_tail(low) {
            return None;
        }
        Some(Wanted { low, high: available.next(), max_bytes: self.options.max_committed_bytes })
    }

    /// Whether entries handed in by `replay` wait to be taken.
    #[must_use]
    pub fn holds_replay(&self) -> bool {
        self.log().holds_fetched(self.handed.next())
    }

    /// How long an election takes to begin, in ticks.
    #[must_use]
    pub fn election_ticks(&self) -> u64 {
        u64::from(self.options.election_ticks)
    }

    /// Hands in entries that `replay_wanted` asked for; the next `take_ready` hands them over as committed.
    pub fn replay(&mut self, entries: Vec<LogEntry>) {
        self.log_mut().hold_fetched(entries);
    }

    /// Whether `take_ready` would return anything.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.node.has_ready()
    }

    /// Takes what is to be done.
    pub fn take_ready(&mut self) -> Result<Option<Ready>, Broken> {
        if !self.node.has_ready() {
            return Ok(None);
        }
        let node = &mut self.node;
        let raft_ready = catch(|| node.ready())?;
        self.collect(raft_ready).map(Some)
    }

    fn collect(&mut self, mut raft_ready: raft_rs::Ready) -> Result<Ready, Broken> {
        let mut ready = Ready { number: raft_ready.number(), ..Ready::default() };
        let hard_state = self.hard_state();
        if (hard_state.term, hard_state.vote) != self.promised {
            self.promised = (hard_state.term, hard_state.vote);
            self.promise_number = ready.number;
        }
        if !raft_ready.snapshot().get_metadata().get_conf_state().get_voters().is_empty() {
            let meta = snapshot_from_raft(raft_ready.snapshot());
            self.log_mut().reset(meta.at);
            self.handed = meta.at.index;
            self.membership = meta.membership.clone();
            ready.snapshot = Some(meta);
        }
        let entries: Vec<_> = raft_ready.take_entries().into_iter().map(entry_from_raft).collect();
        self.log_mut().append(&entries);
        if raft_ready.must_sync() {
            ready.write = Some(Write { hard_state, entries });
        }
        let durable_promise = self.persisted_number >= self.promise_number || self.options.omit.promise_first;
        let now = convert(raft_ready.take_messages());
        let after = convert(raft_ready.take_persisted_messages());
        (ready.send_now, ready.send_after) =
            if durable_promise { (now, after) } else { (Vec::new(), [now, after].concat()) };
        ready.committed = raft_ready.take_committed_entries().into_iter().map(entry_from_raft).collect();
        ready.reads = raft_ready
            .take_read_states()
            .into_iter()
            .map(|state| (Bytes::from(state.request_ctx), LogIndex(state.index)))
            .collect();
        let node = &mut self.node;
        catch(|| node.advance_append_async(raft_ready))?;
        self.hand_over(&mut ready)?;
        Ok(ready)
    }

    /// Counts `ready.committed` as applied and switches to the members that its changes result in.
    fn hand_over(&mut self, ready: &mut Ready) -> Result<(), Broken> {
        for entry in &ready.committed {
            assert_eq!(entry.id.index, self.handed.next(), "committed entries are handed over without a gap");
            self.handed = entry.id.index;
            if entry.kind == EntryKind::ConfChange {
                self.membership = self.change_membership(entry)?;
                self.heard.retain(|replica, _| self.node.raft.prs().get(replica.0).is_some());
                ready.memberships.push((entry.id.index, self.membership.clone()));
            }
        }
        if !ready.committed.is_empty() {
            let (node, handed) = (&mut self.node, self.handed);
            catch(|| node.advance_apply_to(handed.0))?;
            if !self.holds_replay() {
                self.log_mut().release_fetched();
            }
        }
        Ok(())
    }

    /// A change that does not parse or does not fit changes nothing, on every replica alike. A leader that it leaves
    /// without a vote, because it was elected in a joint configuration that it was to leave, steps down: raft-rs would
    /// let it go on, and looks in vain for its own progress when more of its entries are durable.
    fn change_membership(&mut self, entry: &LogEntry) -> Result<Membership, Broken> {
        use protobuf::Message as _;
        let mut change = eraftpb::ConfChangeV2::default();
        if change.merge_from_bytes(&entry.data).is_err() {
            return Ok(self.membership.clone());
        }
        let node = &mut self.node;
        let applied = catch(|| {
            let applied = node.apply_conf_change(&change);
            let raft = &mut node.raft;
            if raft.state == StateRole::Leader && !raft.promotable() {
                raft.become_follower(raft.term, INVALID_ID);
            }
            applied
        })?;
        Ok(applied.map_or_else(|_| self.membership.clone(), |state| membership_from_raft(&state)))
    }

    /// Whether a snapshot has taken the log's place that is not durable yet: raft-rs looks for the entries before it
    /// when it campaigns.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.node.raft.raft_log.applied < self.log().start().index.0
    }

    /// The writes of every `Ready` up to `number` are durable.
    pub fn persisted(&mut self, number: u64) -> Result<(), Broken> {
        assert!(number >= self.persisted_number, "readies become durable in order");
        self.persisted_number = number;
        let (node, handed) = (&mut self.node, self.handed.0);
        catch(|| {
            node.on_persist_ready(number);
            // A snapshot is applied once it is durable; raft-rs does not conclude that by itself.
            let log = &node.raft.raft_log;
            if log.applied < handed && handed <= log.committed.min(log.persisted) {
                node.advance_apply_to(handed);
            }
        })
    }

    /// Old entries that followers need and memory no longer holds. Each is answered by `fetched`, once.
    ///
    /// One read at a time for each follower: raft-rs asks again at every answer of a follower that lags behind, and
    /// each read that ends asks for what comes next, so that reads of the same entries would multiply without end.
    pub fn take_fetches(&mut self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (range, context) in self.log_mut().take_wanted() {
            let is_new = |(_, other): &(Wanted, GetEntriesContext)| purpose(other) != purpose(&context);
            if self.fetching.iter().all(is_new) {
                wanted.push(range);
                self.fetching.push((range, context));
            }
        }
        wanted
    }

    /// Hands in what a fetch read (`None`: it could not be read now). Entries that were freed meanwhile make raft-rs
    /// fall back to a snapshot by itself, once `log_mut().advance_start` has said so.
    pub fn fetched(&mut self, wanted: Wanted, entries: Option<Vec<LogEntry>>) -> Result<(), Broken> {
        let Some(position) = self.fetching.iter().position(|(waiting, _)| *waiting == wanted) else {
            return Ok(());
        };
        let (_, context) = self.fetching.remove(position);
        if let Some(entries) = entries {
            self.log_mut().hold_fetched(entries);
        }
        let node = &mut self.node;
        catch(|| node.on_entries_fetched(context))?;
        self.log_mut().release_fetched();
        Ok(())
    }

    /// What a follower is known to have, and what it is sent next, as this leader sees it.
    #[must_use]
    pub fn progress_of(&self, follower: ReplicaId) -> Option<(LogIndex, LogIndex)> {
        let progress = self.node.raft.prs().get(follower.0).filter(|_| self.role() == Role::Leader)?;
        Some((LogIndex(progress.matched), LogIndex(progress.next_idx)))
    }

    /// The followers as this leader sees them, by replica; empty on others.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerProgress> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let own = self.node.raft.id;
        // raft-rs's own flag is taken back at every check of the quorum, until the follower's next answer.
        let recently = self.ticks.saturating_sub(2 * u64::from(self.options.election_ticks));
        let is_recent = |id: &u64| self.heard.get(&ReplicaId(*id)).is_some_and(|at| *at >= recently);
        let mut followers: Vec<_> = self
            .node
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != own)
            .map(|(id, progress)| FollowerProgress {
                replica: ReplicaId(*id),
                matched: LogIndex(progress.matched),
                recently_active: is_recent(id),
                snapshot: progress.state == raft_rs::ProgressState::Snapshot,
            })
            .collect();
        followers.sort_unstable_by_key(|progress| progress.replica);
        followers
    }
}

/// For which follower, and in which term, raft-rs wants entries. Its context tells that only as text.
fn purpose(context: &GetEntriesContext) -> String {
    let text = format!("{context:?}");
    text.split_once(", aggressively").map_or(text.clone(), |(purpose, _)| purpose.to_owned())
}

fn raft_config(replica: ReplicaId, applied: LogIndex, options: &ReplicaOptions) -> raft_rs::Config {
    raft_rs::Config {
        id: replica.0,
        applied: applied.0,
        election_tick: options.election_ticks as usize,
        heartbeat_tick: options.heartbeat_ticks as usize,
        max_size_per_msg: options.max_message_bytes,
        max_inflight_msgs: options.max_inflight_messages,
        max_uncommitted_size: options.max_uncommitted_bytes,
        max_committed_size_per_ready: options.max_committed_bytes,
        pre_vote: true,
        check_quorum: true,
        read_only_option: raft_rs::ReadOnlyOption::Safe,
        ..raft_rs::Config::default()
    }
}

fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: Some(ReplicaId(state.vote)).filter(|replica| replica.0 != 0),
        commit: LogIndex(state.commit),
    }
}

/// Ours, in an order that does not depend on the history of raft-rs's maps.
fn convert(messages: Vec<eraftpb::Message>) -> Vec<RaftMessage> {
    let mut own: Vec<_> = messages.into_iter().filter_map(RaftMessage::from_raft).collect();
    own.sort_by_key(|message| message.to);
    own
}

/// raft-rs panics where data was lost; that must end one replica, not the thread that hosts thousands.
pub(super) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "no message".to_owned());
        Broken(format!("raft found its log to contradict itself: {text}"))
    })
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
