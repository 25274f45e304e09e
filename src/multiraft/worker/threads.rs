//! The threads behind the worker: each owns one thing that takes time, takes commands in order, and reports back.
//!
//! * [`log_thread`]: the log's disk; and beside it, spare segments and reads of old entries.
//! * [`apply_thread`]: the state machines; and beside it, flushes, and giving space back.

pub mod apply_thread;
pub mod log_thread;

use super::Outside;
use crate::multiraft::apply::Applier;
use crate::multiraft::core::effect::Input;
use crate::multiraft::handle::Event;
use crate::storage::Engine;
use crate::wal::Log;
use crate::wal::disk::Disk;
use apply_thread::ApplyCommand;
use log_thread::{LogCommand, LogThread};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// What the threads share of the process.
#[derive(Clone)]
pub(in crate::multiraft) struct Surroundings {
    /// Completions go here.
    pub worker: Sender<Event>,
    /// The rest of the process.
    pub outside: Arc<dyn Outside>,
}

impl Surroundings {
    /// Tells the worker.
    pub fn tell(&self, input: Input) {
        // A worker that is gone is stopping, and needs no completions.
        let _gone = self.worker.send(Event::Input(input));
    }
}

/// Ends the process if its thread panics: a node without its log or its state machines would keep its connections,
/// answer nobody and never be replaced.
struct Alarm {
    /// The thread.
    name: String,
    /// The rest of the process.
    outside: Arc<dyn Outside>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outside.fatal(&format!("the thread {} has panicked; what it said is above", self.name));
        }
    }
}

/// Starts a thread without which the node can't go on. It logs to wherever the one that starts it does.
pub(super) fn spawn(
    name: &str,
    outside: Arc<dyn Outside>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let alarm = Alarm { name: name.to_owned(), outside };
    let log = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _log = tracing::dispatcher::set_default(&log);
        let _alarm = alarm;
        body();
    })
}

/// See the module.
pub struct Threads {
    /// To the log thread; `None` once it is to stop.
    log: Sender<LogCommand>,
    /// To the apply thread.
    apply: Sender<ApplyCommand>,
    /// All of them.
    handles: Vec<JoinHandle<()>>,
}

/// Starts named threads and remembers them.
struct Spawner {
    /// Those started so far.
    handles: Vec<JoinHandle<()>>,
    /// Is told when one of them panics.
    outside: Arc<dyn Outside>,
}

impl Spawner {
    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.handles.push(spawn(name, Arc::clone(&self.outside), body)?);
        Ok(())
    }
}

impl Threads {
    /// Starts them.
    pub(in crate::multiraft) fn start<E, D>(
        applier: Applier<E>,
        log: Log<D>,
        disk: D,
        limits: log_thread::LogLimits,
        surroundings: &Surroundings,
    ) -> std::io::Result<Self>
    where
        E: Engine + Clone + 'static,
        D: Disk + Send + 'static,
        D::File: Send,
    {
        let outside = Arc::clone(&surroundings.outside);
        let mut spawner = Spawner { handles: Vec::new(), outside };
        let (log_commands, log_inbox) = channel();
        let (read_commands, read_inbox) = channel();
        let (order_commands, order_inbox) = channel();
        let (spares, spare_inbox) = channel();
        let reader = log.reader();
        let thread = LogThread::new(log, limits, read_commands, order_commands, spare_inbox, surroundings.clone());
        spawner.spawn("ackord-log", move || thread.run(&log_inbox))?;
        let (around, again) = (surroundings.clone(), log_commands.clone());
        spawner.spawn("ackord-read", move || log_thread::run_reads(reader, &read_inbox, &again, &around))?;
        spawner.spawn("ackord-spare", move || log_thread::run_spares(&disk, &order_inbox, &spares))?;

        let (apply_commands, apply_inbox) = channel();
        let (flush_commands, flush_inbox) = channel();
        let engine = applier.engine().clone();
        let around = surroundings.clone();
        spawner.spawn("ackord-apply", move || apply_thread::run(applier, &apply_inbox, &flush_commands, &around))?;
        let around = surroundings.clone();
        let (reclaim_commands, reclaim_inbox) = channel();
        let database = engine.clone();
        let flushes = move || apply_thread::run_flushes(&database, &flush_inbox, &reclaim_commands, &around);
        spawner.spawn("ackord-flush", flushes)?;
        let around = surroundings.clone();
        spawner.spawn("ackord-reclaim", move || apply_thread::run_reclaims(&engine, &reclaim_inbox, &around))?;
        Ok(Self { log: log_commands, apply: apply_commands, handles: spawner.handles })
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
        self.log(LogCommand::Stop);
        drop((self.log, self.apply));
        for handle in self.handles {
            // A thread that panicked has said so already.
            let _panicked = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multiraft::apply::transfer::SnapshotMessage;
    use crate::multiraft::core::repair::message::RepairMessage;
    use crate::raft::RaftMessage;
    use crate::types::{NodeId, RaftGroupId, Term};
    use crate::wal::TurnNumber;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Remembers why the process would end.
    #[derive(Default)]
    struct Listening(Mutex<Vec<String>>);

    impl Outside for Listening {
        fn send(&self, _to: NodeId, _messages: Vec<(RaftGroupId, RaftMessage)>) {}
        fn turn_done(&self, _turn: TurnNumber, _took: Duration, _bytes: usize) {}
        fn send_snapshot(&self, _message: SnapshotMessage) {}
        fn send_repair(&self, _message: RepairMessage) {}
        fn leads(&self, _group: RaftGroupId, _term: Term) {}
        fn removed(&self, _group: RaftGroupId) {}
        fn fatal(&self, reason: &str) {
            self.0.lock().expect("nobody panics with it").push(reason.to_owned());
        }
    }

    #[test]
    fn a_thread_that_panics_ends_the_process_and_one_that_returns_does_not() {
        let listening = Arc::new(Listening::default());
        let outside: Arc<dyn Outside> = listening.clone();
        assert!(spawn("quiet", Arc::clone(&outside), || {}).expect("a thread").join().is_ok());
        assert!(spawn("loud", outside, || panic!("on purpose")).expect("a thread").join().is_err());
        let reasons = listening.0.lock().expect("nobody panics with it");
        assert_eq!(*reasons, ["the thread loud has panicked; what it said is above"]);
    }
}
