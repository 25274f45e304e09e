//! The production driver: one thread for the core, and one each for what takes time.
//!
//! ```text
//!   Handle ──events──▶ worker ──turns──▶ log thread ──▶ disk
//!                        │  ◀──completions── every thread
//!                        ├──entries──▶ apply thread ──▶ database
//!                        ├──ranges──▶ read thread
//!                        ├──flush──▶ flush thread
//!                        └──messages──▶ outbound (transport)
//! ```
//!
//! The worker drains everything that has arrived, ticks at most once, and starts the effects: whatever arrived while
//! the previous turn was being synced goes into the next one. It never waits for the disk. A thread that fails ends the
//! process through `Outside::fatal`: nothing is acknowledged that is not durable, so ending is always safe.
//!
//! * [`threads`]: the threads for log, state machines, reads and flushes.
//! * [`status`]: how the groups stand.

pub mod status;
pub mod threads;

use super::apply::Applier;
use super::apply::transfer::SnapshotMessage;
use super::core::effect::{Effect, Input, Proposal, Reply, Source, Ticket};
use super::core::repair::message::RepairMessage;
use super::core::{Core, CoreOptions, GroupStart};
use super::handle::order::Order;
use super::handle::{Board, Event, Handle, MAILBOX_BYTES_MAX, Waiting};
use crate::raft::RaftMessage;
use crate::storage::Engine;
use crate::types::{NodeId, RaftGroupId, Term};
use crate::wal::disk::Disk;
use crate::wal::{GroupWrite, Log, LogChange, RoomMade, TurnNumber};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use threads::apply_thread::ApplyCommand;
use threads::log_thread::{LogCommand, LogLimits};
use threads::{Surroundings, Threads};
use tokio::sync::Semaphore;

/// Events taken in before effects are started, so that a flood cannot keep a turn from starting.
const EVENTS_PER_ROUND_MAX: usize = 4_096;

/// What the driver needs from the rest of the process.
pub trait Outside: Send + Sync + 'static {
    /// Sends messages to a peer, in order; may lose them. Must not block.
    fn send(&self, to: NodeId, messages: Vec<(RaftGroupId, RaftMessage)>);

    /// A turn has become durable: its number, the time it took, and the payload in it.
    fn turn_done(&self, turn: TurnNumber, took: Duration, bytes: usize);

    /// Sends a piece of a state to the node of its receiver; may lose it. Must not block.
    fn send_snapshot(&self, message: SnapshotMessage);

    /// Says something about a repair to the node of its receiver; may lose it. Must not block.
    fn send_repair(&self, message: RepairMessage);

    /// This node now leads a group and answers clients for it.
    fn leads(&self, group: RaftGroupId, term: Term);

    /// Lost entries that a peer has given back are on their way to the log.
    fn refilled(&self, _entries: usize) {}

    /// The log has made room.
    fn room_made(&self, _made: RoomMade) {}

    /// The repair of a quarantined replica has come to another step.
    fn repairing(&self, _group: RaftGroupId) {}

    /// A quarantined replica takes part again.
    fn repaired(&self, _group: RaftGroupId) {}

    /// The end of a deleted group is durable and its state machine gone: its rows can be deleted.
    fn removed(&self, group: RaftGroupId);

    /// Something failed that makes it unsafe to go on. Ends the process.
    fn fatal(&self, reason: &str);
}

/// Limits and timing of the driver.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Limits of the groups. Its `admitted_bytes_max` is the size of the mailbox, and of a second one for peers'
    /// messages.
    pub core: CoreOptions,
    /// What the core calls a tick.
    pub tick: Duration,
    /// When the log thread does what nobody asks for.
    pub log: LogLimits,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            core: CoreOptions::default(),
            tick: Duration::from_millis(100),
            log: LogLimits { seal_after: Duration::from_millis(20), headroom_bytes_min: 16 << 20 },
        }
    }
}

/// A running driver.
pub struct Worker {
    /// The way in.
    handle: Handle,
    /// The worker's thread.
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the driver over an opened log and opened state machines.
    pub fn start<E, D>(
        options: &WorkerOptions,
        groups: Vec<GroupStart>,
        applier: Applier<E>,
        (log, disk): (Log<D>, D),
        outside: &Arc<dyn Outside>,
    ) -> std::io::Result<Self>
    where
        E: Engine + Clone + 'static,
        D: Disk + Send + 'static,
        D::File: Send,
    {
        let (events, inbox) = channel();
        // The mailbox is the only bound on proposals: the core is told of the very same number.
        let mailbox_bytes = options.core.admitted_bytes_max.min(MAILBOX_BYTES_MAX).min(Semaphore::MAX_PERMITS);
        let core = CoreOptions { admitted_bytes_max: mailbox_bytes, ..options.core.clone() };
        let handle = Handle {
            events: events.clone(),
            mailbox: Arc::new(Semaphore::new(mailbox_bytes)),
            peer_mailbox: Arc::new(Semaphore::new(mailbox_bytes)),
            mailbox_bytes,
            order: Order::default(),
            board: Board::default(),
        };
        let surroundings = Surroundings { worker: events.clone(), outside: Arc::clone(outside) };
        let threads = Threads::start(applier, log, disk, options.log, &surroundings)?;
        let driver = Driver {
            core: Core::new(core, groups),
            threads,
            board: handle.board.clone(),
            order: handle.order.clone(),
            own_inbox: events,
            outside: Arc::clone(outside),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            proposals: BTreeMap::new(),
        };
        let tick = options.tick;
        let thread = threads::spawn("ackord-raft", Arc::clone(outside), move || driver.run(&inbox, tick))?;
        Ok(Self { handle, thread })
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops after the turn in flight and waits until every thread has ended.
    pub fn stop(self) {
        self.handle.stop();
        // A worker that panicked has said so already.
        let _panicked = self.thread.join();
    }
}

/// The worker thread's state.
struct Driver {
    /// Decides.
    core: Core,
    /// Do what takes time.
    threads: Threads,
    /// Where leaderships are published.
    board: Board,
    /// Where refusals are entered.
    order: Order,
    /// Behind everything that was sent before.
    own_inbox: Sender<Event>,
    /// The rest of the process.
    outside: Arc<dyn Outside>,
    /// Who waits for which ticket.
    waiting: BTreeMap<Ticket, Waiting>,
    /// The ticket given out last.
    next_ticket: u64,
    /// Proposals of this round, so that those of one group become one message.
    proposals: BTreeMap<RaftGroupId, Vec<Proposal>>,
}

impl Driver {
    fn run(mut self, inbox: &Receiver<Event>, tick: Duration) {
        let mut next_tick = Instant::now() + tick;
        self.start_effects();
        loop {
            match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take_in(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !self.drain(inbox) {
                break;
            }
            for (group, proposals) in std::mem::take(&mut self.proposals) {
                self.core.handle(Input::Propose { group, proposals });
            }
            let now = Instant::now();
            if now >= next_tick {
                self.core.handle(Input::Tick);
                // Ticks that were missed are not made up for: time that nobody could use must not start elections.
                next_tick = now + tick;
            }
            self.start_effects();
        }
        self.threads.stop();
    }

    /// Takes in what has arrived meanwhile; `false` when the process is stopping.
    fn drain(&mut self, inbox: &Receiver<Event>) -> bool {
        for _ in 1..EVENTS_PER_ROUND_MAX {
            match inbox.try_recv() {
                Ok(Event::Stop) => return false,
                Ok(event) => self.take_in(event),
                Err(_) => break,
            }
        }
        true
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.core.handle(input),
            Event::Messages { messages, .. } => self.core.handle(Input::Messages(messages)),
            Event::Repair { message, .. } => self.core.handle(Input::Repair(message)),
            Event::StateDamaged { group, generation, reason } => {
                self.threads.apply(ApplyCommand::Condemn { group, generation, reason });
            }
            Event::Examined { group, recovery } => self.threads.apply(ApplyCommand::Examine { group, recovery }),
            Event::Snapshot { message, .. } => self.threads.apply(ApplyCommand::Transferred(message)),
            Event::Create { group, replica, membership, machine, preferred } => {
                self.threads.apply(ApplyCommand::Add { group, machine });
                self.core.handle(Input::Create { group, replica, membership, preferred });
            }
            Event::Propose { group, context, data, waiting } => {
                let source = waiting.sequence.map(|(_, sequence)| Source(sequence.producer));
                let ticket = self.wait(waiting);
                self.proposals.entry(group).or_default().push(Proposal { ticket, source, context, data });
            }
            Event::RefusalKnown { group, source } => {
                // What was sent before it comes before it.
                if let Some(proposals) = self.proposals.remove(&group) {
                    self.core.handle(Input::Propose { group, proposals });
                }
                self.core.handle(Input::RefusalKnown { group, source });
            }
            Event::Read { group, waiting } => {
                let ticket = self.wait(waiting);
                self.core.handle(Input::ReadIndex { group, ticket });
            }
            Event::Settled => self.threads.log(LogCommand::Settle),
            // Whoever asked may have gone.
            Event::Report(reply) => drop(reply.send(status::report(&self.core))),
            Event::Stop => unreachable!("both receivers look for it first"),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn start_effects(&mut self) {
        for effect in self.core.poll() {
            match effect {
                Effect::Send { to, messages } => self.outside.send(to, messages),
                Effect::Append(turn) => {
                    let refill = |write: &GroupWrite| match &write.change {
                        LogChange::Refill(entries) => entries.len(),
                        _ => 0,
                    };
                    let refilled: usize = turn.writes.iter().map(refill).sum();
                    if refilled > 0 {
                        self.outside.refilled(refilled);
                    }
                    self.threads.log(LogCommand::Append(turn));
                }
                Effect::Release(bounds) => self.threads.log(LogCommand::Release(bounds)),
                Effect::ReadEntries { group, wanted } => self.threads.log(LogCommand::Read { group, wanted }),
                Effect::Apply { group, entries, memberships } => {
                    self.threads.apply(ApplyCommand::Apply { group, entries, memberships });
                }
                Effect::BuildSnapshot { group } => self.threads.apply(ApplyCommand::BuildSnapshot { group }),
                Effect::FetchSnapshot { group, own, from, meta } => {
                    self.threads.apply(ApplyCommand::Fetch { group, own, from, meta });
                }
                Effect::InstallSnapshot { group, meta, .. } => {
                    self.threads.apply(ApplyCommand::Install { group, at: meta.at });
                }
                Effect::Removed { group } => self.threads.apply(ApplyCommand::Remove { group }),
                Effect::Flush => self.threads.apply(ApplyCommand::Flush),
                Effect::Reply { ticket, reply } => self.answer(ticket, reply),
                Effect::Publish { group, leadership } => {
                    self.board.update(group, |status| status.leadership = leadership);
                    // After the board: whoever connects meanwhile is told what stands there.
                    if leadership.serving {
                        self.outside.leads(group, leadership.term);
                    }
                }
                Effect::Quarantined { group, reason } => {
                    tracing::error!(%group, reason, "replica quarantined: it no longer votes or acknowledges");
                    self.board.update(group, |status| status.quarantined = Some(reason.into()));
                }
                Effect::Repair(message) => self.outside.send_repair(message),
                Effect::Examine { group, lost } => self.threads.log(LogCommand::Examine { group, lost }),
                Effect::Repairing { group, step } => {
                    tracing::warn!(%group, step, "repairing a quarantined replica");
                    self.outside.repairing(group);
                }
                Effect::Repaired { group, last } => {
                    tracing::info!(%group, %last, "replica repaired: it votes and acknowledges again");
                    self.board.update(group, |status| status.quarantined = None);
                    self.outside.repaired(group);
                }
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, reply: Reply) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        if let (Reply::Refused(_) | Reply::Undecided, Some((group, sequence))) = (&reply, waiting.sequence) {
            self.order.refused(group, sequence);
            let source = Source(sequence.producer);
            // A worker that is stopping takes no more proposals.
            let _stopping = self.own_inbox.send(Event::RefusalKnown { group, source });
        }
        // Whoever asked may have given up.
        let _gone = waiting.reply.send(reply);
    }
}
