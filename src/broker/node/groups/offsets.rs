//! OffsetCommit, OffsetFetch and OffsetDelete.

use super::{DECISION_WAIT, Inner, Place, rejected, unexpected};
use crate::broker::{
    CommitOffsets, CommittedOffset, Error, ErrorKind, FetchOffsets, FetchedOffset, OffsetToCommit, PartitionIndex,
    PerItem, Result, TopicName,
};
use crate::controller::view::MetadataView;
use crate::coordinator::command::{Action, Answer, Commit, NewOffset};
use crate::coordinator::offsets::{self, Committed};
use crate::machine::MachineError;
use crate::multiraft::core::effect::Reply;
use crate::storage::Engine;
use crate::types::{LeaderEpoch, Offset, RaftGroupId};
use std::sync::Arc;
use tokio::time::Instant;

fn exists(metadata: &MetadataView, topic: &TopicName, partition: PartitionIndex) -> Result<()> {
    let topic = metadata.topic_named(topic.as_str());
    let partition = usize::try_from(partition.0).ok().and_then(|index| topic?.partitions.get(index));
    partition.map(|_| ()).ok_or(ErrorKind::UnknownTopicOrPartition.into())
}

/// The outcome of each item: what was wrong with it beforehand, or else what became of the rest.
fn merge<T>(checked: Vec<Result<()>>, rest: impl Iterator<Item = T>, outcome: fn(T) -> Result<()>) -> PerItem {
    let mut rest = rest.map(outcome);
    let each = checked.into_iter().map(|checked| checked.and_then(|()| rest.next().unwrap_or(Err(unexpected()))));
    Ok(each.collect())
}

pub(super) async fn commit<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, request: CommitOffsets) -> PerItem {
    let begun = Instant::now();
    let place = inner.place(&request.group)?;
    let deadline = begun + DECISION_WAIT;
    let CommitOffsets { group, generation, member, offsets, all_or_none } = request;
    let texts_max = inner.settings.groups.offset_metadata_bytes as usize;
    // From the look at the topics until the commit has its place in the log, no topic's end is proposed: an offset of a
    // topic that is made anew is not forgotten with the old one's.
    let (checked, pending) = {
        let topics = inner.topics(deadline).await?;
        let check = |offset: &OffsetToCommit| match offset.position.metadata.len() > texts_max {
            true => Err(ErrorKind::OffsetMetadataTooLarge.into()),
            false => exists(&topics, &offset.topic, offset.partition),
        };
        let checked: Vec<Result<()>> = offsets.iter().map(check).collect();
        if checked.iter().all(Result::is_err) || all_or_none && checked.iter().any(Result::is_err) {
            return Ok(checked);
        }
        let good = offsets.into_iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let commit = Commit {
            group: group.clone(),
            member: member.id.clone(),
            instance: member.instance,
            generation,
            offsets: good.map(|(offset, _)| new_offset(offset)).collect(),
        };
        (checked, inner.admit(&place, Action::Commit(commit), deadline).await?)
    };
    // A stored offset does not change its group, unless it is the first of a new one, which has no members.
    match inner.answer(&place, None, pending, deadline).await? {
        Answer::Committed(Ok(())) => {
            inner.heard(&place, &group, &member.id);
            inner.metrics.offset_commit_seconds.observe(begun.elapsed().as_secs_f64());
            Ok(checked)
        }
        Answer::Committed(Err(why)) => Err(rejected(why)),
        _ => Err(unexpected()),
    }
}

fn new_offset(OffsetToCommit { topic, partition, position }: OffsetToCommit) -> (String, i32, NewOffset) {
    let leader_epoch = position.leader_epoch.map_or(-1, |epoch| epoch.0);
    let new = NewOffset { offset: position.offset.0, leader_epoch, metadata: position.metadata };
    (topic.as_str().to_owned(), partition.0, new)
}

/// A leader that was deposed and does not know it can't confirm that it leads, so it answers nothing.
pub(super) async fn fetch<E: Engine + Clone + 'static>(
    inner: &Arc<Inner<E>>,
    request: FetchOffsets,
) -> Result<Vec<FetchedOffset>> {
    let place = inner.place(&request.group)?;
    inner.confirm_place(&place).await?;
    let (engine, raft) = (inner.engine.clone(), place.raft);
    let read = move || read(&engine, raft, &request);
    let found = tokio::task::spawn_blocking(read).await.map_err(|_| ErrorKind::Internal)?;
    found.map_err(|error| {
        inner.offsets_unreadable(place.raft, &error);
        Error::new(ErrorKind::StorageUnavailable, error.to_string())
    })
}

fn read<E: Engine>(
    engine: &E,
    raft: RaftGroupId,
    request: &FetchOffsets,
) -> std::result::Result<Vec<FetchedOffset>, MachineError> {
    let Some(wanted) = &request.partitions else {
        let all = offsets::read_all(engine, raft, &request.group)?.into_iter();
        let fetched = all.map(|(topic, partition, committed)| FetchedOffset {
            topic: TopicName::from(topic.as_str()),
            partition: PartitionIndex(partition),
            committed: Some(fetched(committed)),
        });
        return Ok(fetched.collect());
    };
    let read_one = |(topic, partition): &(TopicName, PartitionIndex)| {
        let committed = offsets::read(engine, raft, &request.group, topic.as_str(), partition.0)?;
        Ok(FetchedOffset { topic: topic.clone(), partition: *partition, committed: committed.map(fetched) })
    };
    wanted.iter().map(read_one).collect()
}

fn fetched(committed: Committed) -> CommittedOffset {
    let leader_epoch = (committed.leader_epoch >= 0).then_some(LeaderEpoch(committed.leader_epoch));
    CommittedOffset { offset: Offset(committed.offset), leader_epoch, metadata: committed.metadata }
}

pub(super) async fn delete<E: Engine + Clone + 'static>(
    inner: &Arc<Inner<E>>,
    group: String,
    partitions: Vec<(TopicName, PartitionIndex)>,
) -> PerItem {
    let place = inner.place_of_named(&group)?;
    let metadata = inner.views.metadata();
    let checked: Vec<_> = partitions.iter().map(|(topic, partition)| exists(&metadata, topic, *partition)).collect();
    let known = partitions.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
    let known = known.map(|((topic, partition), _)| (topic.as_str().to_owned(), partition.0)).collect();
    let action = Action::DeleteOffsets { group: group.clone(), partitions: known };
    match inner.decide_on(&place, Some(&group), action).await? {
        Answer::OffsetsDeleted(Ok(each)) => merge(checked, each.into_iter(), |each| each.map_err(rejected)),
        Answer::OffsetsDeleted(Err(why)) => Err(rejected(why)),
        _ => Err(unexpected()),
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// A majority confirms that this node still leads, and it has applied what was committed when this was called.
    async fn confirm_place(&self, place: &Place) -> Result<()> {
        match self.handle.read_index(place.raft).await {
            Reply::ReadAt(_) => Ok(()),
            _ if self.place_of(place.raft).is_ok() => Err(ErrorKind::CoordinatorLoading.into()),
            _ => Err(ErrorKind::NotCoordinator.into()),
        }
    }
}
