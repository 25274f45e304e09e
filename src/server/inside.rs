//! The part of a node that needs no network: the Raft groups of an opened data directory.

use super::data::{self, DataError, Opened, SharedEngine};
use super::groups::Known;
use super::identity::random_id;
use super::outside::{Cluster, NodeOutside};
use super::run::ServerError;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::multiraft::core::CoreOptions;
use crate::multiraft::worker::{Outside, Worker, WorkerOptions};
use crate::raft::ReplicaOptions;
use crate::transport::{Own, PeerSender};
use crate::types::{CONTROLLER_GROUP, RaftGroupId};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What runs without the network: the groups of an opened data directory.
pub(super) struct Inside {
    /// The groups.
    pub worker: Worker,
    /// The cluster as this node sees it.
    pub cluster: Arc<Cluster>,
    /// The database.
    pub engine: SharedEngine,
    /// See [`Opened`].
    pub joins: Option<bool>,
    /// What of its groups is here.
    pub known: Known,
    /// Who this node is to others.
    pub own: Own,
}

impl Inside {
    /// Starts the groups. `address`: where peers reach this node.
    pub fn start(
        (config, address): (&Config, String),
        opened: Opened,
        sender: PeerSender,
        (removed, fatal): (UnboundedSender<RaftGroupId>, UnboundedSender<String>),
        metrics: Metrics,
    ) -> Result<Self, ServerError> {
        let Opened {
            identity,
            engine,
            views,
            log,
            applier,
            starts,
            unborn_controller,
            joins,
            tombstones,
            durable_turn,
            incomplete,
            losses,
        } = opened;
        // Rows of groups that ended before this start; none are left if their deletion was finished.
        let ended: BTreeSet<_> = tombstones.into_iter().collect();
        data::destroy_machines(&engine, &ended).map_err(DataError::from)?;
        let (life, first_turn) = (random_id().map_err(DataError::from)?, durable_turn.0);
        let durable_turn = Arc::new(AtomicU64::new(first_turn));
        let outside = NodeOutside {
            node: identity.node,
            sender: sender.clone(),
            removed,
            fatal,
            durable_turn: Arc::clone(&durable_turn),
            metrics,
        };
        let in_doubt = data::is_in_doubt(incomplete, &starts);
        let groups: BTreeSet<_> = starts.iter().map(|start| start.group).collect();
        let known = Known::new(identity.node, groups, ended, incomplete);
        let outside: Arc<dyn Outside> = Arc::new(outside);
        let worker = Worker::start(&worker_options(config, life), starts, applier, log, &outside)?;
        let handle = worker.handle().clone();
        if let Some((replica, machine)) = unborn_controller {
            let preferred = identity.voters.first().is_some_and(|voter| voter.node == identity.node);
            handle
                .create(CONTROLLER_GROUP, replica, machine, preferred)
                .map_err(|_| ServerError::Fatal("the Raft worker has stopped".to_owned()))?;
        }
        let (cluster, node, incarnation) = (identity.cluster, identity.node, identity.incarnation);
        let own = Own { cluster, node, incarnation, durable_turn, life, first_turn, losses, in_doubt, address };
        let cluster = Arc::new(Cluster { node, identity, views, handle, sender, announced: Mutex::default() });
        Ok(Self { worker, cluster, engine, known, joins, own })
    }
}

fn worker_options(config: &Config, life: u128) -> WorkerOptions {
    let ticks = config.cluster.election_timeout_ms.div_ceil(config.cluster.tick_ms);
    let replica =
        ReplicaOptions { election_ticks: ticks, seed: u64::from(config.node_id), ..ReplicaOptions::default() };
    // The log keeps what is not flushed, whatever it is told to keep: one that is to be small needs flushes as often.
    let defaults = CoreOptions::default();
    let retained = usize::try_from(config.wal.retain_bytes).unwrap_or(usize::MAX);
    let admitted_bytes_max = usize::try_from(config.limits.inflight_bytes).unwrap_or(usize::MAX);
    let flush_after_bytes = defaults.flush_after_bytes.min(retained);
    WorkerOptions {
        core: CoreOptions { life: life as u64, replica, flush_after_bytes, admitted_bytes_max, ..defaults },
        tick: Duration::from_millis(u64::from(config.cluster.tick_ms)),
        ..WorkerOptions::default()
    }
}
