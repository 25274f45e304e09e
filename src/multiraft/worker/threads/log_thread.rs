//! The log thread: one place in the process waits for the log's disk, and it is here.
//!
//! Beside it, spare segments are prepared (zeros written, so that appends never change file system metadata), and old
//! entries are read for followers that lag behind memory, so that neither delays a turn.

use super::Surroundings;
use crate::multiraft::core::effect::{Input, ReadFailure, Room};
use crate::multiraft::handle::Event;
use crate::raft::group_log::Wanted;
use crate::types::{LogEntry, LogIndex, RaftGroupId};
use crate::wal::disk::Disk;
use crate::wal::prepare_spare;
use crate::wal::{GroupWrite, Location, Log, LogChange, LogError, ReadError, Reader, Spare, SpareOrder, Turn};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long after a failure to make a spare segment the next attempt waits, and how often a full log tries again.
const SPACE_RETRY: Duration = Duration::from_millis(500);

/// What the log thread is asked to do.
pub enum LogCommand {
    /// Make a turn durable.
    Append(Turn),
    /// Entries below these are no longer needed for a restart.
    Release(Vec<(RaftGroupId, LogIndex)>),
    /// Find old entries and have them read.
    Read { group: RaftGroupId, wanted: Wanted },
    /// Say what the log has of a group; `lost`: entries that could not be read.
    Examine { group: RaftGroupId, lost: Option<(LogIndex, LogIndex, String)> },
    /// Groups that the log had forgotten are known again.
    Settle,
    /// Seal and end.
    Stop,
}

/// When the log thread does what nobody asks for.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// An idle log is sealed after this time.
    pub seal_after: Duration,
    /// With less room than this in the current segment, in bytes, and no spare to go on in, no new entries are taken.
    pub headroom_bytes_min: u64,
}

/// Where entries lie, for the read thread.
pub type ReadOrder = (RaftGroupId, Wanted, Vec<Location>);

/// See the module.
pub(super) struct LogThread<D: Disk> {
    log: Log<D>,
    limits: LogLimits,
    reads: Sender<ReadOrder>,
    orders: Sender<SpareOrder>,
    spares: Receiver<io::Result<Spare<D::File>>>,
    surroundings: Surroundings,
    /// A spare is being prepared.
    ordered: bool,
    /// No spare is ordered before this moment.
    order_after: Instant,
    /// What the worker was told of the room in the log.
    writable: bool,
}

impl<D: Disk> LogThread<D> {
    pub fn new(
        log: Log<D>,
        limits: LogLimits,
        reads: Sender<ReadOrder>,
        orders: Sender<SpareOrder>,
        spares: Receiver<io::Result<Spare<D::File>>>,
        surroundings: Surroundings,
    ) -> Self {
        let order_after = Instant::now();
        Self { log, limits, reads, orders, spares, surroundings, ordered: false, order_after, writable: true }
    }

    pub fn run(mut self, inbox: &Receiver<LogCommand>) {
        let result = self.serve(inbox).and_then(|()| self.seal());
        if let Err(error) = result {
            self.surroundings.outside.fatal(&error.to_string());
        }
    }

    fn serve(&mut self, inbox: &Receiver<LogCommand>) -> Result<(), LogError> {
        loop {
            self.keep_room();
            let patience = if self.log.is_unsealed() { self.limits.seal_after } else { SPACE_RETRY };
            match inbox.recv_timeout(patience) {
                Ok(LogCommand::Append(turn)) => self.append(&turn)?,
                Ok(LogCommand::Release(bounds)) => {
                    bounds.into_iter().for_each(|(group, below)| self.log.release(group, below));
                }
                Ok(LogCommand::Read { group, wanted }) => self.locate(group, wanted),
                Ok(LogCommand::Examine { group, lost }) => self.examine(group, lost),
                Ok(LogCommand::Settle) => self.log.settle(),
                Err(RecvTimeoutError::Timeout) => self.seal()?,
                Ok(LogCommand::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// A full log is sealed when it has room again: nothing was written.
    fn seal(&mut self) -> Result<(), LogError> {
        match self.log.seal() {
            Err(LogError::Full) => Ok(()),
            result => result,
        }
    }

    /// A log that is full waits: nothing was written, and nothing may be promised before it is.
    fn append(&mut self, turn: &Turn) -> Result<(), LogError> {
        let start = Instant::now();
        let number = loop {
            match self.log.append(turn) {
                Ok(number) => break number,
                Err(LogError::Full) => {
                    tracing::error!(
                        "the log's disk is full: until it has space, this node neither writes nor acknowledges"
                    );
                    self.keep_room();
                    if let Ok(spare) = self.spares.recv_timeout(SPACE_RETRY) {
                        self.take_spare(spare);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        self.surroundings.tell(Input::Appended);
        let bytes = turn.writes.iter().map(payload_bytes).sum();
        self.surroundings.outside.turn_done(number, start.elapsed(), bytes);
        self.surroundings.outside.room_made(self.log.take_room_made());
        Ok(())
    }

    fn take_spare(&mut self, spare: io::Result<Spare<D::File>>) {
        self.ordered = false;
        match spare {
            Ok(spare) => self.log.add_spare(spare),
            Err(error) => {
                tracing::warn!(%error, "no spare log segment could be made");
                self.order_after = Instant::now() + SPACE_RETRY;
            }
        }
    }

    fn locate(&self, group: RaftGroupId, wanted: Wanted) {
        match self.log.locate(group, wanted.low, wanted.high, wanted.max_bytes) {
            // The read thread ends after this one.
            Ok(locations) => drop(self.reads.send((group, wanted, locations))),
            Err(ReadError::Released { .. }) => {
                let first = self.log.bounds(group).map_or(LogIndex(1), |(start, _)| start.index.next());
                let result = Err(ReadFailure::Released { first });
                self.surroundings.tell(Input::EntriesRead { group, wanted, result });
            }
            Err(damaged @ ReadError::Damaged { first, last, .. }) => {
                let result = Err(ReadFailure::Damaged { first, last, reason: damaged.to_string() });
                self.surroundings.tell(Input::EntriesRead { group, wanted, result });
            }
        }
    }

    fn examine(&mut self, group: RaftGroupId, lost: Option<(LogIndex, LogIndex, String)>) {
        if let Some((first, last, reason)) = lost {
            self.log.mark_lost(group, first, last, &reason);
        }
        let recovery = self.log.examine(group);
        // A worker that is gone is stopping.
        let _gone = self.surroundings.worker.send(Event::Examined { group, recovery });
    }

    /// Takes spares that are ready, orders more, and says when there is too little room for new entries.
    fn keep_room(&mut self) {
        while let Ok(spare) = self.spares.try_recv() {
            self.take_spare(spare);
        }
        if !self.ordered
            && Instant::now() >= self.order_after
            && let Some(order) = self.log.order_spare()
        {
            self.ordered = self.orders.send(order).is_ok();
        }
        let writable = self.log.headroom().takes_entries(self.limits.headroom_bytes_min);
        if writable != self.writable {
            self.writable = writable;
            self.surroundings.tell(Input::Space { of: Room::Log, writable });
        }
    }
}

fn payload_bytes(write: &GroupWrite) -> usize {
    match &write.change {
        LogChange::Append(entries) | LogChange::Refill(entries) => entries.iter().map(LogEntry::payload_bytes).sum(),
        _ => 0,
    }
}

/// Reads entries through file handles of its own. What was freed meanwhile is asked of the log thread again, which
/// knows where the group's entries begin now.
pub(super) fn run_reads<D: Disk>(
    mut reader: Reader<D>,
    inbox: &Receiver<ReadOrder>,
    log: &Sender<LogCommand>,
    surroundings: &Surroundings,
) {
    while let Ok((group, wanted, locations)) = inbox.recv() {
        match reader.read(&locations, wanted.max_bytes) {
            Ok(entries) => surroundings.tell(Input::EntriesRead { group, wanted, result: Ok(entries) }),
            Err(ReadError::Released { .. }) => drop(log.send(LogCommand::Read { group, wanted })),
            Err(damaged @ ReadError::Damaged { first, last, .. }) => {
                let result = Err(ReadFailure::Damaged { first, last, reason: damaged.to_string() });
                surroundings.tell(Input::EntriesRead { group, wanted, result });
            }
        }
    }
}

/// Prepares spare segments.
pub(super) fn run_spares<D: Disk>(disk: &D, inbox: &Receiver<SpareOrder>, spares: &Sender<io::Result<Spare<D::File>>>) {
    while let Ok(order) = inbox.recv() {
        if spares.send(prepare_spare(disk, order)).is_err() {
            return;
        }
    }
}
