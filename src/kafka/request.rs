//! From a frame to whoever answers it.
//!
//! [`Request::read`] checks the whole frame with the guard and copies nothing. What is order-sensitive in a request
//! (a produce's admission) happens in [`Request::begin`]; everything else happens when the answer's turn has come, so a
//! connection holds at most one decoded request besides those that wait for their commit.

use super::Service;
use super::api::{
    self, Api, alter_configs, api_versions, create_partitions, create_topics, delete_groups, delete_records,
    delete_topics, describe_cluster, describe_configs, describe_groups, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group,
};
use super::caller::Caller;
use super::guard::{Guard, Hostile};
use super::reply::{self, Chunks, Reply};
use super::translate;
use crate::broker::{Broker, Reservation};
use bytes::{Buf, Bytes};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::Request as WireRequest;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// An answer to come.
pub type Pending = Pin<Box<dyn Future<Output = Result<Reply, Hostile>> + Send>>;

/// A request whose bytes have passed the guard.
#[derive(Debug)]
pub enum Request {
    /// A request of an API and a version that are served.
    Served {
        /// The API.
        api: &'static Api,
        /// The version.
        version: i16,
        /// What the answer repeats.
        correlation_id: i32,
        /// What the client calls itself.
        client_id: Bytes,
        /// What follows the header.
        body: Bytes,
    },
    /// An ApiVersions request of a version that is not served. Its body is not looked at (KIP-511).
    UnservedApiVersions {
        /// What the answer repeats.
        correlation_id: i32,
    },
}

impl Request {
    /// Reads a frame (without its length prefix) as far as the guard goes.
    pub fn read(mut frame: Bytes) -> Result<Self, Hostile> {
        if frame.len() < 8 {
            return Err(Hostile::Short);
        }
        let (key, version, correlation_id) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
        let api = api::find(key).ok_or(Hostile::UnknownApi(key))?;
        if !(api.serves.0..=api.serves.1).contains(&version) {
            return match api.key {
                ApiKey::ApiVersions => Ok(Self::UnservedApiVersions { correlation_id }),
                _ => Err(Hostile::UnknownVersion(key, version)),
            };
        }
        let flexible = api.is_flexible(version);
        let header_rest = Guard::new(&frame, version, flexible).header()?;
        let mut body = frame.split_off(header_rest);
        let client_id_length = usize::try_from(frame.get_i16()).unwrap_or(0); // −1 is none
        let client_id = frame.split_to(client_id_length);
        let walked = Guard::new(&body, version, flexible).body(&api.shape)?;
        body.truncate(walked);
        Ok(Self::Served { api, version, correlation_id, client_id, body })
    }

    /// Does what must happen before the next request of the connection is read, and returns the answer to come, which
    /// holds the `memory` of the request's frame for as long as it needs it.
    pub async fn begin<B: Broker>(
        self,
        service: &Arc<Service<B>>,
        caller: &Arc<Caller>,
        memory: Reservation,
    ) -> Result<Pending, Hostile> {
        let (api, version, correlation_id, client_id, body) = match self {
            Self::UnservedApiVersions { correlation_id } => {
                let chunks = reply::unsupported_api_versions(correlation_id, api_versions::API.serves);
                return Ok(Box::pin(std::future::ready(Ok(Reply::Send(chunks)))));
            }
            Self::Served { api, version, correlation_id, client_id, body } => {
                (api, version, correlation_id, client_id, body)
            }
        };
        let service = Arc::clone(service);
        if api.key != ApiKey::Produce {
            let turn = Turn { version, correlation_id, caller: Arc::clone(caller), client_id, body, memory };
            return Ok(Box::pin(async move { turn.answer(api.key, &*service.broker).await.map(Reply::Send) }));
        }
        let request = decode::<messages::ProduceRequest>(body, version)?;
        let admitted = produce::admit(&*service.broker, caller.connection, request, version).await;
        Ok(Box::pin(async move {
            let _memory = memory;
            match admitted.outcome(&*service.broker, version).await {
                Ok(Some(response)) => {
                    reply::encode::<messages::ProduceRequest>(correlation_id, version, &response).map(Reply::Send)
                }
                Ok(None) => Ok(Reply::Silence),
                Err(produce::Failed) => Ok(Reply::Close),
            }
        }))
    }
}

/// A request whose turn to be answered has come.
struct Turn {
    /// The version.
    version: i16,
    /// What the answer repeats.
    correlation_id: i32,
    /// Who asks.
    caller: Arc<Caller>,
    /// What it calls itself.
    client_id: Bytes,
    /// What follows the header.
    body: Bytes,
    /// What its frame occupies.
    memory: Reservation,
}

impl Turn {
    async fn answer<B: Broker>(self, key: ApiKey, broker: &B) -> Result<Chunks, Hostile> {
        use messages as m;
        let version = self.version;
        match key {
            ApiKey::Fetch => {
                let request = decode::<m::FetchRequest>(self.body, version)?;
                fetch::answer(broker, request, version, self.correlation_id).await
            }
            ApiKey::ListOffsets => {
                self.with(async |r: m::ListOffsetsRequest| list_offsets::answer(broker, r, version).await).await
            }
            ApiKey::Metadata => self.with(async |r: m::MetadataRequest| metadata::answer(broker, r, version)).await,
            ApiKey::FindCoordinator => {
                self.with(async |r: m::FindCoordinatorRequest| find_coordinator::answer(broker, &r, version)).await
            }
            ApiKey::ApiVersions => self.with(async |r: m::ApiVersionsRequest| api_versions::answer(&r, version)).await,
            ApiKey::CreateTopics => {
                self.with(async |r: m::CreateTopicsRequest| create_topics::answer(broker, r, version).await).await
            }
            ApiKey::DeleteTopics => {
                self.with(async |r: m::DeleteTopicsRequest| delete_topics::answer(broker, r).await).await
            }
            ApiKey::DeleteRecords => {
                self.with(async |r: m::DeleteRecordsRequest| delete_records::answer(broker, r).await).await
            }
            ApiKey::InitProducerId => {
                self.with(async |r: m::InitProducerIdRequest| init_producer_id::answer(broker, r).await).await
            }
            ApiKey::OffsetForLeaderEpoch => {
                let answer = async |r: m::OffsetForLeaderEpochRequest| offset_for_leader_epoch::answer(broker, r).await;
                self.with(answer).await
            }
            ApiKey::DescribeConfigs => {
                self.with(async |r: m::DescribeConfigsRequest| describe_configs::answer(broker, r).await).await
            }
            ApiKey::AlterConfigs => {
                self.with(async |r: m::AlterConfigsRequest| alter_configs::answer(broker, r).await).await
            }
            ApiKey::IncrementalAlterConfigs => {
                let answer =
                    async |r: m::IncrementalAlterConfigsRequest| incremental_alter_configs::answer(broker, r).await;
                self.with(answer).await
            }
            ApiKey::CreatePartitions => {
                self.with(async |r: m::CreatePartitionsRequest| create_partitions::answer(broker, r).await).await
            }
            ApiKey::DescribeCluster => {
                self.with(async |r: m::DescribeClusterRequest| describe_cluster::answer(broker, &r)).await
            }
            _ => self.answer_about_groups(key, broker).await,
        }
    }

    async fn answer_about_groups<B: Broker>(self, key: ApiKey, broker: &B) -> Result<Chunks, Hostile> {
        use messages as m;
        let version = self.version;
        let caller = Arc::clone(&self.caller);
        match key {
            ApiKey::OffsetCommit => {
                self.with(async |r: m::OffsetCommitRequest| offset_commit::answer(broker, r).await).await
            }
            ApiKey::OffsetFetch => {
                self.with(async |r: m::OffsetFetchRequest| offset_fetch::answer(broker, r, version).await).await
            }
            ApiKey::JoinGroup => {
                let name = translate::client_id(&self.client_id);
                self.with_memory(async |r: m::JoinGroupRequest, memory| {
                    join_group::answer(broker, r, version, &caller, name, memory).await
                })
                .await
            }
            ApiKey::Heartbeat => self.with(async |r: m::HeartbeatRequest| heartbeat::answer(broker, r).await).await,
            ApiKey::LeaveGroup => {
                self.with(async |r: m::LeaveGroupRequest| leave_group::answer(broker, r, version).await).await
            }
            ApiKey::SyncGroup => {
                self.with_memory(async |r: m::SyncGroupRequest, memory| {
                    sync_group::answer(broker, r, version, &caller, memory).await
                })
                .await
            }
            ApiKey::DescribeGroups => {
                self.with(async |r: m::DescribeGroupsRequest| describe_groups::answer(broker, r, version)).await
            }
            ApiKey::ListGroups => self.with(async |r: m::ListGroupsRequest| list_groups::answer(broker, &r)).await,
            ApiKey::DeleteGroups => {
                self.with(async |r: m::DeleteGroupsRequest| delete_groups::answer(broker, r).await).await
            }
            ApiKey::OffsetDelete => {
                self.with(async |r: m::OffsetDeleteRequest| offset_delete::answer(broker, r).await).await
            }
            _ => Err(Hostile::UnknownApi(key as i16)),
        }
    }

    /// Decodes a request of the type `R`, has it answered, and encodes the answer.
    async fn with<R: WireRequest>(self, answer: impl AsyncFnOnce(R) -> R::Response) -> Result<Chunks, Hostile> {
        let _memory = self.memory;
        let request = decode::<R>(self.body, self.version)?;
        reply::encode::<R>(self.correlation_id, self.version, &answer(request).await)
    }

    /// The same for a request that may wait for long: it gives back what its frame occupies, which nothing here keeps.
    async fn with_memory<R: WireRequest>(
        self,
        answer: impl AsyncFnOnce(R, Reservation) -> R::Response,
    ) -> Result<Chunks, Hostile> {
        drop(self.client_id);
        let request = decode::<R>(self.body, self.version)?;
        reply::encode::<R>(self.correlation_id, self.version, &answer(request, self.memory).await)
    }
}

/// Decodes what the guard has let pass. Both must have read the same bytes.
pub fn decode<R: WireRequest>(mut body: Bytes, version: i16) -> Result<R, Hostile> {
    let request = R::decode(&mut body, version).map_err(|_| Hostile::Undecodable)?;
    if body.is_empty() { Ok(request) } else { Err(Hostile::Undecodable) }
}
