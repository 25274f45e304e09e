//! The controller: the state machine of group 0, which holds the cluster's metadata.
//!
//! It owns the rows of `Family::Controller` and its row of `Family::Meta`, and keeps the same state in memory as a
//! `MetadataView` that readers share. The two change together: what a batch writes is what the view shows, so after a
//! crash at any batch the state is that of some applied position, and the Raft log replays the rest.
//!
//! It knows no Raft role, clock or random number: a command carries what it needs. Commands that are refused are
//! answers like any other. It does not create groups; nodes do, from the difference between two views.

mod brokers;
pub mod command;
mod names;
mod placement;
mod replace;
mod rows;
pub mod topic_config;
mod topics;
mod versions;
pub mod view;

pub use crate::machine::codec::CodecError;
pub use brokers::{BROKERS_MAX, HOST_BYTES_MAX, PRODUCER_IDS_PER_BLOCK};
pub use names::{TOPIC_NAME_BYTES_MAX, flaw_of_topic_name};
pub use rows::LoadError;
pub use topics::{PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICAS_MAX, TOPICS_MAX};

use crate::machine::{MachineError, Outcome, StateMachine, own};
use crate::storage::{Engine, EngineError, WriteBatch};
use crate::types::{CONTROLLER_GROUP, ClusterId, EntryKind, LogEntry, LogId, LogIndex, Membership, ReplicaId};
use bytes::Bytes;
use command::{Answer, Command};
use rows::{Applied, Editor};
use std::sync::Arc;
use versions::Snapshot;
use view::MetadataView;

/// The longest snapshot, in bytes. The other limits keep it below: 20,000 topics with two lists of 4 KiB and 1 KiB of
/// names and numbers each, and 200,000 partitions with 7 replicas, come to some 205 MiB.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

/// The state machine of group 0.
pub struct Controller {
    /// The state; shared with readers, copied when it changes.
    view: Arc<MetadataView>,
    /// Which entries are in it.
    applied: Applied,
}

impl Controller {
    /// Reads the state from the engine. One that holds none yet is at position `born.0` with the members `born.1`: the
    /// point at which the group's first voters were formatted.
    pub fn open(engine: &dyn Engine, cluster: ClusterId, born: (LogId, Membership)) -> Result<Self, LoadError> {
        let (view, stored) = rows::load(engine, cluster)?;
        let applied =
            if stored == Applied::default() { Applied { position: born.0, membership: born.1 } } else { stored };
        Ok(Self { view: Arc::new(know_voters(view, &applied.membership)), applied })
    }

    /// What a node starts from that joins the group later: it knows nobody but itself, until it has a snapshot. `None`
    /// if the engine holds a state already.
    pub fn join(engine: &dyn Engine, cluster: ClusterId, replica: ReplicaId) -> Result<Option<Self>, EngineError> {
        if rows::is_there(engine)? {
            return Ok(None);
        }
        let applied = Applied { position: LogId::default(), membership: Membership::of_joining(replica) };
        let mut batch = WriteBatch::default();
        own::put(&mut batch, CONTROLLER_GROUP, replica);
        rows::put_applied(&mut batch, &applied);
        engine.write(batch)?;
        Ok(Some(Self { view: Arc::new(MetadataView::empty(cluster)), applied }))
    }

    /// A controller without a state, for one to be installed into.
    #[must_use]
    pub fn blank(cluster: ClusterId) -> Self {
        Self { view: Arc::new(MetadataView::empty(cluster)), applied: Applied::default() }
    }

    /// The state as of `applied`. Cheap, and never changes afterwards.
    #[must_use]
    pub fn view(&self) -> Arc<MetadataView> {
        Arc::clone(&self.view)
    }

    /// The whole state as of `applied`, for a replica that lacks the entries.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let snapshot = Snapshot {
            applied: self.applied.clone(),
            cluster: self.view.cluster().clone(),
            brokers: self.view.brokers().map(|broker| broker.as_ref().clone()).collect(),
            topics: self.view.topics().map(|topic| topic.as_ref().clone()).collect(),
        };
        let bytes = versions::encode(&snapshot);
        assert!(bytes.len() <= SNAPSHOT_BYTES_MAX, "the limits on topics and configs bound a snapshot");
        bytes.into()
    }

    /// Replaces the state by a snapshot's. `batch` replaces the rows; the caller writes it, whole, and flushes it
    /// before the group goes on.
    pub fn install(&mut self, bytes: &[u8], batch: &mut WriteBatch) -> Result<(), LoadError> {
        let contradiction = |what: String| LoadError::Contradiction(format!("snapshot: {what}"));
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(contradiction(CodecError::TooLong(bytes.len()).to_string()));
        }
        let snapshot: Snapshot = versions::decode::<_, { 4 * SNAPSHOT_BYTES_MAX }>(bytes)
            .map_err(|error| contradiction(error.to_string()))?;
        let own = self.view.cluster().id;
        if snapshot.applied.position.index < self.applied.position.index {
            let (theirs, ours) = (snapshot.applied.position, self.applied.position);
            return Err(contradiction(format!("it ends at entry {theirs}, before {ours}")));
        }
        let mut view = MetadataView::of(rows::checked_cluster(snapshot.cluster, own)?);
        for broker in snapshot.brokers {
            view.set_broker(broker);
        }
        for topic in snapshot.topics {
            let topic = rows::checked_topic(&view, topic)?;
            view.set_topic(topic);
        }
        let view = know_voters(view, &snapshot.applied.membership);
        rows::replace_all(batch, &view);
        rows::put_applied(batch, &snapshot.applied);
        (self.view, self.applied) = (Arc::new(view), snapshot.applied);
        Ok(())
    }

    fn execute(&mut self, command: Command, at: LogIndex, batch: &mut WriteBatch) -> Answer {
        let mut editor = Editor { view: Arc::make_mut(&mut self.view), batch };
        match command {
            Command::RegisterBroker(registration) => Answer::Done(brokers::register(&mut editor, registration, at)),
            Command::UnregisterBroker { node } => Answer::Done(brokers::unregister(&mut editor, node)),
            Command::CreateTopics { topics, live, now_ms, validate_only } => {
                Answer::Created(topics::create(&mut editor, topics, &live, now_ms, validate_only))
            }
            Command::DeleteTopics { topics } => {
                let deleted = topics::delete(&mut editor, topics);
                replace::finish_nodes(&mut editor);
                Answer::Deleted(deleted)
            }
            Command::CreatePartitions { topics, live, validate_only } => {
                Answer::Changed(topics::create_partitions(&mut editor, topics, &live, validate_only))
            }
            Command::AlterTopicConfigs { topics, validate_only } => {
                Answer::Changed(topics::alter_configs(&mut editor, topics, validate_only))
            }
            Command::AllocateProducerIds { node, incarnation } => {
                Answer::ProducerIds(brokers::allocate_producer_ids(&mut editor, node, incarnation))
            }
            Command::ReplaceNode { old, new, disk, live, force } => {
                Answer::Replacing(replace::replace_node(&mut editor, (old, new), disk, &live, force))
            }
            Command::FinishReplacements { finished } => {
                replace::finish(&mut editor, &finished);
                Answer::Done(Ok(()))
            }
            Command::JoinController { node, incarnation } => {
                Answer::Joining(replace::join(&mut editor, node, incarnation))
            }
            Command::RaiseFeatureLevel { level } => Answer::Done(brokers::raise_feature_level(&mut editor, level)),
        }
    }

    fn apply_one(
        &mut self,
        entry: &LogEntry,
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Outcome, MachineError> {
        let damaged = |reason: String| MachineError::Damaged { group: CONTROLLER_GROUP, entry: entry.id, reason };
        if entry.id.index != self.applied.position.index.next() {
            return Err(damaged(format!("it does not follow entry {}", self.applied.position)));
        }
        let outcome = match entry.kind {
            EntryKind::ConfChange => {
                let changed = memberships.iter().find(|(index, _)| *index == entry.id.index);
                let (_, membership) = changed.ok_or_else(|| damaged("its members are missing".to_owned()))?;
                self.applied.membership = membership.clone();
                Outcome::None
            }
            EntryKind::Normal if entry.data.is_empty() => Outcome::None,
            EntryKind::Normal => {
                let command = Command::decode(&entry.data).map_err(|error| damaged(error.to_string()))?;
                Outcome::Answer(self.execute(command, entry.id.index, batch).encode())
            }
        };
        self.applied.position = entry.id;
        Ok(outcome)
    }
}

/// The rows of version 1 did not name the voters of the controller's own group: they were those it was born with.
fn know_voters(mut view: MetadataView, membership: &Membership) -> MetadataView {
    if view.cluster().controllers.members.replicas.is_empty() {
        let mut cluster = view.cluster().clone();
        cluster.controllers.members.replicas.clone_from(&membership.voters);
        view.set_cluster(cluster);
    }
    view
}

impl StateMachine for Controller {
    fn applied(&self) -> LogId {
        self.applied.position
    }

    fn membership(&self) -> &Membership {
        &self.applied.membership
    }

    fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError> {
        let outcomes = entries.iter().map(|entry| self.apply_one(entry, memberships, batch)).collect();
        rows::put_applied(batch, &self.applied);
        outcomes
    }
}
