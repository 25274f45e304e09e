//! DescribeCluster (key 60), versions 0 to 1: the cluster and its living nodes (KIP-700).

use super::Api;
use crate::broker::{Broker, Edge};
use crate::kafka::guard::{INT8, Shape, always, since};
use crate::kafka::translate::{self, Operations};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{ApiKey, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::DescribeCluster,
    (0, 1),
    Shape::of(&[
        always(INT8),   // include cluster authorized operations
        since(1, INT8), // endpoint type
    ]),
);

/// Brokers, as opposed to the controllers a Kafka cluster may run apart (KIP-919).
const BROKERS: i8 = 1;

/// Describes the cluster.
pub fn answer<B: Broker>(broker: &B, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let operations = Operations::Cluster.if_asked(request.include_cluster_authorized_operations);
    let response = DescribeClusterResponse::default().with_cluster_authorized_operations(operations);
    if request.endpoint_type != BROKERS {
        return response
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str("this listener has the endpoints of brokers only")))
            .with_controller_id(translate::broker_id_or_unknown(None));
    }
    let cluster = broker.cluster(Edge::Kafka);
    let brokers = cluster.nodes.iter().map(|node| {
        DescribeClusterBroker::default()
            .with_broker_id(translate::broker_id(node.id))
            .with_host(translate::text(&node.address.host))
            .with_port(i32::from(node.address.port))
            .with_rack(node.rack.as_deref().map(translate::text))
    });
    response
        .with_cluster_id(translate::text(&cluster.id))
        .with_controller_id(translate::broker_id_or_unknown(cluster.controller))
        .with_brokers(brokers.collect())
}
