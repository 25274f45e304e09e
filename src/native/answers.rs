//! What a request asks for, and who answers it.
//!
//! [`begin`] does what must happen in the order of the requests and returns the rest as a future. Only a produce has
//! something of the first kind: its admission.

mod admin;
mod configs;
mod groups;
mod nodes;
mod produce;
mod query;
mod read;
mod status;

use super::Service;
use super::errors;
use crate::broker::{
    self, Broker, ConnectionId, PartitionIndex, Reservation, TopicId, TopicName, TopicQuery, TopicRef,
};
use crate::proto::native::{self, request, response};
use crate::proto::{PROTOCOL, read_id};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What a request that names no timeout gets.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest timeout; a longer one is cut.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// An answer on its way out.
pub struct Answer {
    /// The body of the response.
    pub body: response::Body,
    /// The share of the node's memory that its content occupies.
    pub held: Option<Reservation>,
    /// What the request occupies, if it was not given back before.
    pub memory: Option<Reservation>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its address, as far as the operating system knows it.
    pub host: Option<IpAddr>,
}

/// The rest of a request that has begun.
pub type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Why a request is answered with an error.
enum Failure {
    /// The broker says so.
    Broker(broker::Error),
    /// The protocol says so.
    Protocol(native::Error),
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        Self::Broker(error)
    }
}

impl From<native::Error> for Failure {
    fn from(error: native::Error) -> Self {
        Self::Protocol(error)
    }
}

type Outcome = Result<response::Body, Failure>;

/// Begins a request, which occupies `memory`.
pub async fn begin<B: Broker>(
    service: &Arc<Service<B>>,
    caller: Caller,
    request: native::Request,
    memory: Reservation,
) -> Pending {
    let time = match request.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        millis => Duration::from_millis(millis.into()).min(TIMEOUT_MAX),
    };
    let service = Arc::clone(service);
    match request.body {
        Some(request::Body::Produce(asked)) => {
            let admitted = produce::admit(&*service.broker, caller.connection, asked, time).await;
            Box::pin(async move {
                let outcome = match admitted {
                    Ok(fate) => fate.await.map(produce::answer).map_err(Failure::from),
                    Err(failure) => Err(failure),
                };
                finish(&*service.broker, outcome, None, Some(memory))
            })
        }
        Some(request::Body::Read(asked)) => Box::pin(async move {
            let found = within(time, read::read(&*service.broker, asked)).await;
            match found {
                Ok((body, held)) => finish(&*service.broker, Ok(body), held, Some(memory)),
                Err(failure) => finish(&*service.broker, Err(failure), None, Some(memory)),
            }
        }),
        Some(request::Body::JoinGroup(asked)) => Box::pin(async move {
            let host = caller.host.map_or_else(String::new, |host| host.to_string());
            let outcome = groups::join(&*service.broker, asked, host, memory).await;
            finish(&*service.broker, outcome, None, None)
        }),
        Some(request::Body::SyncGroup(asked)) => Box::pin(async move {
            let outcome = groups::sync(&*service.broker, asked, memory).await;
            finish(&*service.broker, outcome, None, None)
        }),
        other => Box::pin(async move {
            let outcome = answer(&service, other, time).await;
            finish(&*service.broker, outcome, None, Some(memory))
        }),
    }
}

/// Everything whose whole answer may be computed at any time.
async fn answer<B: Broker>(service: &Service<B>, body: Option<request::Body>, time: Duration) -> Outcome {
    use request::Body;
    let broker = &*service.broker;
    match body {
        Some(Body::Hello(_)) => Ok(hello(service)),
        Some(Body::Get(asked)) => within(time, query::get(broker, asked)).await,
        Some(Body::Offsets(asked)) => within(time, query::offsets(broker, asked)).await,
        Some(Body::ClusterStatus(_)) => Ok(status::cluster(broker)),
        Some(Body::PartitionStatus(asked)) => within(time, status::partition(broker, asked)).await,
        Some(Body::Replicas(_)) => within(time, status::replicas(broker)).await,
        Some(Body::Topics(asked)) => within(time, admin::topics(broker, asked)).await,
        Some(Body::ProducerId(_)) => within(time, produce::producer_id(broker)).await,
        Some(Body::CreateTopic(asked)) => admin::create(broker, asked, time).await,
        Some(Body::DeleteTopic(asked)) => admin::delete(broker, asked, time).await,
        Some(Body::CreatePartitions(asked)) => admin::grow(broker, asked, time).await,
        Some(Body::AlterTopicConfigs(asked)) => configs::alter(broker, asked, time).await,
        Some(Body::DescribeTopicConfigs(asked)) => within(time, configs::describe(broker, asked)).await,
        Some(Body::DeleteRecords(asked)) => admin::delete_records(broker, asked, time).await,
        Some(Body::ListNodes(_)) => Ok(nodes::list(broker)),
        Some(Body::ReplaceNode(asked)) => nodes::replace(broker, asked, time).await,
        Some(Body::TransferLeader(_)) => Err(errors::unsupported("this version does not serve that request").into()),
        Some(Body::FindCoordinator(asked)) => groups::find(broker, &asked),
        Some(Body::Heartbeat(asked)) => groups::heartbeat(broker, asked).await,
        Some(Body::LeaveGroup(asked)) => groups::leave(broker, asked).await,
        Some(Body::CommitOffsets(asked)) => groups::commit(broker, asked).await,
        Some(Body::CommittedOffsets(asked)) => within(time, groups::committed(broker, asked)).await,
        Some(Body::DeleteOffsets(asked)) => groups::delete_offsets(broker, asked).await,
        Some(Body::ListGroups(_)) => groups::list(broker),
        Some(Body::DescribeGroup(asked)) => groups::describe(broker, asked),
        Some(Body::DeleteGroup(asked)) => groups::delete(broker, asked).await,
        Some(Body::Produce(_) | Body::Read(_) | Body::JoinGroup(_) | Body::SyncGroup(_)) => {
            unreachable!("begun elsewhere")
        }
        None => Err(errors::unsupported("the request has no body that this version knows").into()),
    }
}

fn finish<B: Broker>(broker: &B, outcome: Outcome, held: Option<Reservation>, memory: Option<Reservation>) -> Answer {
    let body = match outcome {
        Ok(body) => body,
        Err(Failure::Broker(error)) => response::Body::Error(errors::wire(broker, &error)),
        Err(Failure::Protocol(error)) => response::Body::Error(error),
    };
    Answer { body, held, memory }
}

/// Bounds something that has no effect.
async fn within<T>(time: Duration, query: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(time, query).await.unwrap_or_else(|_| Err(errors::query_timed_out().into()))
}

fn hello<B: Broker>(service: &Service<B>) -> response::Body {
    response::Body::Hello(native::HelloResponse {
        protocol: PROTOCOL,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: service.broker.cluster(broker::Edge::Native).id,
        node: service.broker.node().0,
        frame_bytes_max: u32::try_from(service.limits.request_bytes_max).unwrap_or(u32::MAX),
    })
}

/// A topic as the request names it.
fn topic_ref(topic: Option<native::TopicReference>) -> Result<TopicRef, Failure> {
    use native::topic_reference::By;
    match topic.and_then(|topic| topic.by) {
        Some(By::Name(name)) => Ok(TopicRef::Name(TopicName::from(name.as_str()))),
        Some(By::Id(id)) => {
            let id = read_id(&id).map_err(|error| errors::invalid(&error.to_string()))?;
            Ok(TopicRef::Id(TopicId(uuid::Uuid::from_u128(id))))
        }
        None => Err(errors::invalid("the request names no topic").into()),
    }
}

/// A partition as the broker names it; a topic's id is looked up.
fn partition<B: Broker>(
    broker: &B,
    asked: Option<native::PartitionReference>,
) -> Result<(TopicName, PartitionIndex), Failure> {
    let asked = asked.ok_or_else(|| errors::invalid("the request names no partition"))?;
    let index = i32::try_from(asked.partition).map_err(|_| errors::invalid("partitions end at 2147483647"))?;
    let name = match topic_ref(asked.topic)? {
        TopicRef::Name(name) => name,
        by_id @ TopicRef::Id(_) => find_topic(broker, by_id)?.name,
    };
    Ok((name, PartitionIndex(index)))
}

/// One topic as this node knows it.
fn find_topic<B: Broker>(broker: &B, asked: TopicRef) -> Result<broker::Topic, Failure> {
    let mut answers = broker.topics(&TopicQuery::These { topics: vec![asked], create_missing: false });
    match answers.pop() {
        Some(answer) => Ok(answer.topic?),
        None => Err(errors::internal("the broker did not answer for the topic").into()),
    }
}
