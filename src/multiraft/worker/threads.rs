//! The threads behind the worker: each owns one thing that takes time, takes commands in order, and reports back.

use super::Outside;
use crate::multiraft::apply::Applier;
use crate::multiraft::core::effect::{Input, ReadFailure};
use crate::multiraft::handle::Event;
use crate::raft::group_log::Wanted;
use crate::storage::Engine;
use crate::types::{LogEntry, LogIndex, Membership, RaftGroupId};
use crate::wal::{GroupWrite, LogChange, Turn};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the log thread is asked to do.
pub enum LogCommand {
    /// Make a turn durable.
    Append(Turn),
    /// Entries below these are no longer needed for a restart.
    Release(Vec<(RaftGroupId, LogIndex)>),
    /// Find old entries and have them read.
    Read { group: RaftGroupId, wanted: Wanted },
}

/// What the apply thread is asked to do.
pub enum ApplyCommand {
    /// Apply committed entries.
    Apply { group: RaftGroupId, entries: Vec<LogEntry>, memberships: Vec<(LogIndex, Membership)> },
    /// Begin a flush.
    Flush,
}

/// The log as this driver needs it: the production log, and nothing of its disk.
pub trait TurnLog: Send + 'static {
    /// Where entries lie, to be read on another thread.
    type Location: Send + 'static;
    /// Reads without the log's own thread.
    type Reader: Send + 'static;

    /// One append, one fdatasync.
    fn append(&mut self, turn: &Turn) -> Result<(), String>;
    /// An empty turn behind the last one, if it needs one.
    fn seal(&mut self) -> Result<(), String>;
    /// Entries below are no longer needed for a restart.
    fn release(&mut self, group: RaftGroupId, below: LogIndex);
    /// Groups whose entries begin later than before, because segments were freed.
    fn take_freed(&mut self) -> Vec<(RaftGroupId, LogIndex)>;
    /// Where entries lie.
    fn locate(&self, group: RaftGroupId, wanted: Wanted) -> Result<Self::Location, ReadFailure>;
    /// A reader for another thread.
    fn reader(&self) -> Self::Reader;
    /// Reads entries.
    fn read(reader: &mut Self::Reader, location: Self::Location) -> Result<Vec<LogEntry>, ReadFailure>;
}

/// See the module.
pub struct Threads {
    /// To the log thread.
    log: Sender<LogCommand>,
    /// To the apply thread.
    apply: Sender<ApplyCommand>,
    /// All of them.
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them. Completions go to `events`.
    pub(in crate::multiraft) fn start<E, L>(
        applier: Applier<E>,
        log: L,
        events: &Sender<Event>,
        seal_after: Duration,
        outside: Arc<dyn Outside>,
    ) -> std::io::Result<Self>
    where
        E: Engine + Clone + 'static,
        L: TurnLog,
    {
        let (log_commands, log_inbox) = channel();
        let (apply_commands, apply_inbox) = channel();
        let (read_commands, read_inbox) = channel();
        let (flush_commands, flush_inbox) = channel();
        let mut handles = Vec::new();
        let mut spawn = |name: &str, body: Box<dyn FnOnce() + Send>| -> std::io::Result<()> {
            handles.push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
            Ok(())
        };
        let reader = log.reader();
        let (to_worker, out) = (events.clone(), Arc::clone(&outside));
        spawn("ackord-log", Box::new(move || run_log(log, &log_inbox, &read_commands, &to_worker, seal_after, &*out)))?;
        let to_worker = events.clone();
        spawn("ackord-read", Box::new(move || run_reads::<L>(reader, &read_inbox, &to_worker)))?;
        let engine = applier.engine().clone();
        let to_worker = events.clone();
        spawn("ackord-apply", Box::new(move || run_apply(applier, &apply_inbox, &flush_commands, &to_worker)))?;
        let to_worker = events.clone();
        spawn("ackord-flush", Box::new(move || run_flush(&engine, &flush_inbox, &to_worker, &*outside)))?;
        Ok(Self { log: log_commands, apply: apply_commands, handles })
    }

    /// Asks the log thread.
    pub fn log(&self, command: LogCommand) {
        // A thread that has ended has reported why, and the process is ending.
        let _gone = self.log.send(command);
    }

    /// Asks the apply thread.
    pub fn apply(&self, command: ApplyCommand) {
        let _gone = self.apply.send(command);
    }

    /// Lets every thread finish what it was asked and waits for it.
    pub fn stop(self) {
        drop((self.log, self.apply));
        for handle in self.handles {
            // A thread that panicked has said so already.
            let _panicked = handle.join();
        }
    }
}

/// One place in the process waits for the log's disk: here.
fn run_log<L: TurnLog>(
    mut log: L,
    inbox: &Receiver<LogCommand>,
    reads: &Sender<(RaftGroupId, Wanted, L::Location)>,
    worker: &Sender<Event>,
    seal_after: Duration,
    outside: &dyn Outside,
) {
    let mut sealed = true;
    loop {
        let command = if sealed {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(seal_after)
        };
        let result = match command {
            Ok(LogCommand::Append(turn)) => {
                sealed = false;
                append(&mut log, &turn, worker, outside)
            }
            Ok(LogCommand::Release(bounds)) => {
                bounds.into_iter().for_each(|(group, below)| log.release(group, below));
                Ok(())
            }
            Ok(LogCommand::Read { group, wanted }) => {
                match log.locate(group, wanted) {
                    Ok(location) => drop(reads.send((group, wanted, location))),
                    Err(failure) => tell(worker, Input::EntriesRead { group, wanted, result: Err(failure) }),
                }
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => {
                sealed = true;
                log.seal()
            }
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = log.seal() {
                    outside.fatal(&error);
                }
                return;
            }
        };
        if let Err(error) = result {
            outside.fatal(&error);
            return;
        }
    }
}

fn append<L: TurnLog>(log: &mut L, turn: &Turn, worker: &Sender<Event>, outside: &dyn Outside) -> Result<(), String> {
    let start = Instant::now();
    log.append(turn)?;
    tell(worker, Input::Appended);
    outside.turn_done(start.elapsed(), turn.writes.iter().map(payload_bytes).sum());
    for (group, start) in log.take_freed() {
        tell(worker, Input::LogStart { group, start });
    }
    Ok(())
}

fn payload_bytes(write: &GroupWrite) -> usize {
    match &write.change {
        LogChange::Append(entries) => entries.iter().map(LogEntry::payload_bytes).sum(),
        _ => 0,
    }
}

fn run_reads<L: TurnLog>(
    mut reader: L::Reader,
    inbox: &Receiver<(RaftGroupId, Wanted, L::Location)>,
    worker: &Sender<Event>,
) {
    while let Ok((group, wanted, location)) = inbox.recv() {
        let result = L::read(&mut reader, location);
        tell(worker, Input::EntriesRead { group, wanted, result });
    }
}

fn run_apply<E: Engine>(
    mut applier: Applier<E>,
    inbox: &Receiver<ApplyCommand>,
    flushes: &Sender<Vec<(RaftGroupId, LogIndex)>>,
    worker: &Sender<Event>,
) {
    while let Ok(command) = inbox.recv() {
        match command {
            ApplyCommand::Apply { group, entries, memberships } => {
                let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
                let input = match applier.apply(group, &entries, &memberships) {
                    Ok(outcomes) => Input::Applied { group, outcomes, bytes },
                    Err(error) => Input::ApplyFailed { group, reason: error.to_string() },
                };
                tell(worker, input);
            }
            // What was applied before this moment is in the memtables that the flush thread will write.
            ApplyCommand::Flush => drop(flushes.send(applier.begin_flush())),
        }
    }
}

/// A database that can't be flushed has lost writes it had accepted: only a restart, which replays the log, is safe.
fn run_flush<E: Engine>(
    engine: &E,
    inbox: &Receiver<Vec<(RaftGroupId, LogIndex)>>,
    worker: &Sender<Event>,
    outside: &dyn Outside,
) {
    while let Ok(applied) = inbox.recv() {
        match engine.flush() {
            Ok(()) => tell(worker, Input::Flushed { applied }),
            Err(error) => {
                outside.fatal(&error.to_string());
                return;
            }
        }
    }
}

fn tell(worker: &Sender<Event>, input: Input) {
    // A worker that is gone is stopping, and needs no completions.
    let _gone = worker.send(Event::Input(input));
}
