//! The kinds of state machines a group can have, and how each hands its state to a replica that lacks the entries.
//!
//! A state is a head (small tables, sent in pieces of bytes) and, for partitions, the records below the head's next
//! offset, sent by offset. Both are asked for by the receiver, so a transfer resumes wherever it stopped.

use crate::controller::Controller;
use crate::coordinator::Coordinator;
use crate::machine::{MachineError, Outcome, StateMachine};
use crate::partition::Partition;
use crate::partition::read::ReadError;
use crate::partition::snapshot::{Install, InstallError, SnapshotChunk, SnapshotHead};
use crate::partition::trim::Freed;
use crate::raft::SnapshotMeta;
use crate::storage::{Engine, EngineError, WriteBatch};
use crate::types::{ClusterId, LogEntry, LogId, LogIndex, Membership, Offset, RaftGroupId};
use bytes::Bytes;

/// What records for a group without any are refused with.
const NO_RECORDS: &str = "this group's state has no records";

/// A group's state machine.
pub enum Machine {
    /// A partition of a topic.
    Partition(Box<Partition>),
    /// The cluster's metadata.
    Controller(Box<Controller>),
    /// Consumer groups and their offsets.
    Coordinator(Box<Coordinator>),
}

/// Which kind of state machine a group has. A replica that has lost its own learns it with a peer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A partition of a topic.
    Partition,
    /// The cluster's metadata.
    Controller,
    /// Consumer groups and their offsets.
    Coordinator,
}

/// A state on its way in, with everything but its switch done beside the present state.
pub enum Arrival {
    /// A partition's: rows are written where nothing reads them yet.
    Partition(Box<Install>),
    /// The controller's or a coordinator's: small, kept in memory.
    Whole(Bytes),
}

impl Machine {
    /// A machine that has no state, for one to be installed into. Nothing is written, and nobody reads it before.
    ///
    /// `at`: as of which entry the state will be. Rows that the group has here stay where they are, unread, until the
    /// installation deletes them.
    #[must_use]
    pub fn blank(kind: Kind, engine: &dyn Engine, group: RaftGroupId, cluster: ClusterId, at: LogId) -> Self {
        match kind {
            Kind::Partition => Self::Partition(Box::new(Partition::blank(engine, group, at))),
            Kind::Controller => Self::Controller(Box::new(Controller::blank(cluster))),
            Kind::Coordinator => Self::Coordinator(Box::new(Coordinator::blank(group))),
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Partition(_) => Kind::Partition,
            Self::Controller(_) => Kind::Controller,
            Self::Coordinator(_) => Kind::Coordinator,
        }
    }

    fn inner(&self) -> &dyn StateMachine {
        match self {
            Self::Partition(partition) => partition.as_ref(),
            Self::Controller(controller) => controller.as_ref(),
            Self::Coordinator(coordinator) => coordinator.as_ref(),
        }
    }

    /// The newest entry whose effects are in the state.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.inner().applied()
    }

    /// The members as of that entry.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.inner().membership()
    }

    /// Where the log starts, if the state is one.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        match self {
            Self::Partition(partition) => partition.log_start(),
            Self::Controller(_) | Self::Coordinator(_) => Offset(0),
        }
    }

    /// Under which generation its rows lie, if it has generations.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            Self::Partition(partition) => partition.generation(),
            Self::Controller(_) | Self::Coordinator(_) => 0,
        }
    }

    /// Adds the deletion of what lies below the log start to `batch`. `Freed` gives the space back after a flush.
    pub fn trim(&self, engine: &dyn Engine, batch: &mut WriteBatch) -> Result<Option<Freed>, EngineError> {
        match self {
            Self::Partition(partition) => partition.view().trim(engine, batch),
            Self::Controller(_) | Self::Coordinator(_) => Ok(None),
        }
    }

    /// See [`StateMachine::apply`].
    pub fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError> {
        match self {
            Self::Partition(partition) => partition.apply(entries, memberships, batch),
            Self::Controller(controller) => controller.apply(entries, memberships, batch),
            Self::Coordinator(coordinator) => coordinator.apply(entries, memberships, batch),
        }
    }

    /// The state as of now, to be handed out.
    #[must_use]
    pub fn head(&self) -> (SnapshotMeta, Bytes) {
        let meta = SnapshotMeta { at: self.applied(), membership: self.membership().clone() };
        let head = match self {
            Self::Partition(partition) => partition.snapshot_head().encode(),
            Self::Controller(controller) => controller.snapshot(),
            Self::Coordinator(coordinator) => coordinator.snapshot(),
        };
        (meta, head)
    }

    /// Some records from `from` on, below `until`; nothing of a state without records.
    pub fn chunk(
        &self,
        engine: &dyn Engine,
        from: Offset,
        until: Offset,
        bytes_max: usize,
    ) -> Result<Option<SnapshotChunk>, ReadError> {
        match self {
            Self::Partition(partition) => partition.view().snapshot_chunk(engine, from, until, bytes_max).map(Some),
            Self::Controller(_) | Self::Coordinator(_) => Ok(None),
        }
    }

    /// Begins to take in a state whose head is complete. `is_blank`: the machine is none that was opened or created.
    pub fn begin_install(
        &self,
        engine: &dyn Engine,
        meta: &SnapshotMeta,
        head: Bytes,
        is_blank: bool,
    ) -> Result<Arrival, InstallError> {
        match self {
            Self::Partition(partition) => {
                let head = SnapshotHead::decode(&head)?;
                if head.at != meta.at || head.membership != meta.membership {
                    let what = format!("the head is of entry {}, not {}", head.at, meta.at);
                    return Err(InstallError::Refused(what));
                }
                let install = match is_blank {
                    true => partition.begin_install_into_blank(head),
                    false => partition.begin_install(engine, head)?,
                };
                Ok(Arrival::Partition(Box::new(install)))
            }
            Self::Controller(_) | Self::Coordinator(_) => Ok(Arrival::Whole(head)),
        }
    }

    /// Switches to the state that arrived, in one write. `Freed` gives space back after the next flush.
    pub fn finish_install(&mut self, engine: &dyn Engine, arrival: Arrival) -> Result<Option<Freed>, InstallError> {
        match (self, arrival) {
            (Self::Partition(partition), Arrival::Partition(install)) => {
                let (installed, freed) = install.finish(engine)?;
                **partition = installed;
                Ok(Some(freed))
            }
            (Self::Controller(controller), Arrival::Whole(head)) => {
                let mut batch = WriteBatch::default();
                controller.install(&head, &mut batch).map_err(|error| InstallError::Refused(error.to_string()))?;
                engine.write(batch)?;
                Ok(None)
            }
            (Self::Coordinator(coordinator), Arrival::Whole(head)) => {
                let mut batch = WriteBatch::default();
                coordinator.install(&head, &mut batch).map_err(InstallError::Refused)?;
                engine.write(batch)?;
                Ok(None)
            }
            _ => Err(InstallError::Refused("it is another kind of state machine's".to_owned())),
        }
    }
}

impl Arrival {
    /// The generation under which the state will lie.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            Self::Partition(install) => install.generation(),
            Self::Whole(_) => 0,
        }
    }

    /// The records to ask for next, and where they end; `None` when all are here.
    #[must_use]
    pub fn wants(&self) -> Option<(Offset, Offset)> {
        match self {
            Self::Partition(install) => install.wants().map(|from| (from, install.head().next_offset)),
            Self::Whole(_) => None,
        }
    }

    /// Takes in some records.
    pub fn receive(&mut self, engine: &dyn Engine, chunk: &SnapshotChunk) -> Result<(), InstallError> {
        match self {
            Self::Partition(install) => install.receive(engine, chunk),
            Self::Whole(_) => Err(InstallError::Refused(NO_RECORDS.to_owned())),
        }
    }
}
