//! Removing records from the front: because a topic keeps no more (retention), or because somebody asks
//! (DeleteRecords).
//!
//! Both are one command of the partition, proposed by its leader: "the log starts at N". Retention looks at every
//! partition that this node leads at an interval, and between that at those which are kept by size and have grown by a
//! part of their limit: what takes twenty times its limit within minutes must not wait for the interval. What can't be
//! proposed now is proposed when its turn comes again. Nothing here deletes anything; each replica gives space back
//! when its log start has moved.

use super::{Inner, NodeBroker, now_ms};
use crate::broker::records::DeleteRecords;
use crate::broker::{Error, ErrorKind, Result};
use crate::controller::topic_config::TopicSettings;
use crate::controller::view::Topic;
use crate::multiraft::core::effect::Reply;
use crate::partition::command::Command;
use crate::partition::retention::Retention;
use crate::storage::Engine;
use crate::types::{Offset, RaftGroupId};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How often it is looked whether anything has grown. Costs nothing where nothing has.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A partition that is kept by size is looked at when it has grown by this part of its limit.
const GROWTH_DIVISOR: u64 = 16;
/// It is not looked at for less, in bytes: the size of a run, the least that can go.
const GROWTH_BYTES_MIN: u64 = 4 << 20;
/// Partitions decided about and proposed for at once.
const AT_ONCE_MAX: usize = 8;
/// Decisions in a row about one partition; each may free many runs.
const DECISIONS_MAX: usize = 64;
/// How long a proposal of retention's may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the sizes of partitions stood when they were last looked at.
#[derive(Default)]
struct Looked {
    /// What each had ever appended, in bytes.
    appended: BTreeMap<RaftGroupId, u64>,
    /// The same of all partitions of the node.
    node_appended: u64,
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// Keeps retention for the partitions that this node leads, until it is dropped.
    pub async fn keep_retention(self, interval: Duration) {
        let inner = self.0;
        let mut looked = Looked::default();
        let mut next_round = Instant::now() + interval;
        loop {
            sleep(LOOK_EVERY).await;
            let is_round = Instant::now() >= next_round;
            let appended = inner.views.appended_bytes();
            if !is_round && appended.wrapping_sub(looked.node_appended) < GROWTH_BYTES_MIN {
                continue;
            }
            looked.node_appended = appended;
            let due = inner.due(&looked, is_round);
            for some in due.chunks(AT_ONCE_MAX) {
                let decided = some.iter().map(|(group, retention)| inner.retain(*group, *retention));
                for ((group, _), appended) in some.iter().zip(join_all(decided).await) {
                    looked.appended.extend(appended.map(|appended| (*group, appended)));
                }
            }
            if is_round {
                // Those that moved away or are gone are looked at anew if they come back.
                looked.appended.retain(|group, _| due.iter().any(|(known, _)| known == group));
                next_round = Instant::now() + interval;
            }
        }
    }
}

/// What a topic keeps; nothing if it keeps everything.
fn retention_of(topic: &Topic) -> Option<Retention> {
    if topic.is_internal() || !deletes(topic) {
        return None;
    }
    let settings = TopicSettings::of(&topic.configs);
    let bytes = settings.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let retention = Retention { age_max_ms: settings.retention_ms, bytes };
    (retention != Retention::default()).then_some(retention)
}

/// Whether the topic's records are ever deleted by their place (`cleanup.policy`).
fn deletes(topic: &Topic) -> bool {
    topic.configs.get("cleanup.policy").is_none_or(|policy| policy.split(',').any(|word| word.trim() == "delete"))
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// The partitions to be looked at: all that this node leads, or those that have grown.
    fn due(&self, looked: &Looked, all: bool) -> Vec<(RaftGroupId, Retention)> {
        let has_grown = |group: RaftGroupId, limit: u64| {
            let appended = self.views.partition(group).map_or(0, |view| view.appended_bytes());
            let before = looked.appended.get(&group).copied().unwrap_or(0);
            appended.saturating_sub(before) >= (limit / GROWTH_DIVISOR).max(GROWTH_BYTES_MIN)
        };
        let metadata = self.views.metadata();
        let mut due = Vec::new();
        for topic in metadata.topics() {
            let Some(retention) = retention_of(topic).filter(|retention| all || retention.bytes.is_some()) else {
                continue;
            };
            let groups = topic.partitions.iter().map(|partition| partition.group);
            let led = groups.filter(|group| self.lead(*group).is_ok());
            let wanted = led.filter(|group| all || retention.bytes.is_some_and(|limit| has_grown(*group, limit)));
            due.extend(wanted.map(|group| (group, retention)));
        }
        due
    }

    /// Moves a partition's log start to where it should be; what it had appended when it was there.
    async fn retain(&self, group: RaftGroupId, retention: Retention) -> Option<u64> {
        for _ in 0..DECISIONS_MAX {
            let view = self.views.partition(group)?;
            let (engine, appended, generation) = (self.engine.clone(), view.appended_bytes(), view.generation);
            let decide = move || view.retained_start(&engine, &retention, now_ms());
            let start = match tokio::task::spawn_blocking(decide).await.ok()? {
                Ok(Some(start)) => start,
                Ok(None) => return Some(appended),
                Err(error) => {
                    tracing::error!(%group, %error, "retention can't be decided");
                    if error.damage {
                        self.handle.state_damaged(group, generation, error.reason);
                    }
                    return None;
                }
            };
            match timeout(PATIENCE, self.set_log_start(group, start)).await {
                Ok(Ok(start)) => tracing::debug!(%group, %start, "retention has moved the log's start"),
                Ok(Err(error)) => {
                    tracing::debug!(%group, %error, "retention will try again");
                    return None;
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Proposes where the log starts; where it does then, which may be later.
    async fn set_log_start(&self, group: RaftGroupId, offset: Offset) -> Result<Offset> {
        let context = Command::SetLogStart { offset }.encode();
        let pending = self.handle.propose(group, context, Bytes::new()).await;
        match pending.map_err(|refused| self.refused(refused, group))?.wait().await {
            Reply::Applied { .. } => {
                let view = self.views.partition(group).ok_or_else(|| Error::not_leader(None))?;
                Ok(view.log_start)
            }
            Reply::ReadAt(_) => Err(ErrorKind::Internal.into()),
            Reply::Refused(refused) => Err(self.refused(refused, group)),
            Reply::Undecided => Err(ErrorKind::LeadershipLost.into()),
        }
    }

    async fn delete_records(&self, target: &DeleteRecords) -> Result<Offset> {
        let found = self.target(&target.topic, target.partition)?;
        if found.topic.is_internal() {
            return Err(Error::new(ErrorKind::InvalidTopic, "the cluster's own topics are not to be trimmed"));
        }
        if !deletes(&found.topic) {
            let what = "cleanup.policy does not have \"delete\": records of this topic are not deleted by their place";
            return Err(Error::new(ErrorKind::PolicyViolation, what));
        }
        let mut view = self.readable(found.group, None)?;
        if target.before.is_none_or(|before| before > view.high_watermark) {
            // Only a majority knows where the end is.
            self.confirm_end(found.group).await?;
            view = self.readable(found.group, None)?;
        }
        let before = target.before.unwrap_or(view.high_watermark);
        if before.0 < 0 || before > view.high_watermark {
            return Err(Error::out_of_range(before, view.log_start, view.high_watermark));
        }
        if before <= view.log_start { Ok(view.log_start) } else { self.set_log_start(found.group, before).await }
    }
}

pub(super) async fn delete<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    targets: Vec<DeleteRecords>,
    time: Duration,
) -> Vec<Result<Offset>> {
    let deadline = Instant::now() + time;
    let one = async |target: &DeleteRecords| {
        let deleted = timeout_at(deadline, inner.delete_records(target)).await;
        deleted.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    };
    join_all(targets.iter().map(one)).await
}
