//! How a node becomes known: it registers with the controller, and follows who else has.

use super::identity::Identity;
use super::listeners::Addresses;
use crate::broker::node::controller_client::ControllerClient;
use crate::broker::node::views::Views;
use crate::config::{Config, HostPort};
use crate::controller::command::{Answer, Command, Registration};
use crate::controller::view::{Listener, ListenerKind, MetadataView};
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The feature level that this program understands.
const FEATURE_LEVEL: u32 = 1;
/// How long one attempt to register takes at most.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(10);

/// Registers this node with the controller, until it is registered as it is.
pub(super) async fn register(controller: ControllerClient, registration: Registration, views: Views) {
    let registered = |view: &Arc<MetadataView>| {
        view.broker(registration.node).is_some_and(|broker| {
            broker.incarnation == registration.incarnation
                && broker.listeners == registration.listeners
                && broker.rack == registration.rack
        })
    };
    let mut metadata = views.watch_metadata();
    loop {
        // The own copy may lag behind, so a node that was registered before waits a moment before it says so again.
        if timeout(Duration::from_millis(100), metadata.wait_for(registered)).await.is_ok() {
            return;
        }
        let command = Command::RegisterBroker(registration.clone());
        match controller.decide(&command, REGISTRATION_PATIENCE).await {
            Ok(Answer::Done(Ok(()))) => return,
            Ok(Answer::Done(Err(rejection))) => {
                tracing::error!(reason = rejection.message, "the controller refuses to register this node");
                sleep(REGISTRATION_PATIENCE).await;
            }
            Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Keeps the transport's table of peers: those in the file, and those that have registered.
pub(super) async fn follow_peers(config: Config, views: Views, peers: watch::Sender<BTreeMap<NodeId, String>>) {
    let mut metadata = views.watch_metadata();
    loop {
        let mut table = configured_peers(&config);
        for broker in metadata.borrow_and_update().brokers() {
            let listener = broker.listeners.iter().find(|listener| listener.kind == ListenerKind::Peer);
            if let Some(listener) = listener {
                table.insert(broker.node, format!("{}:{}", listener.host, listener.port));
            }
        }
        peers.send_if_modified(|known| {
            let changed = *known != table;
            *known = table;
            changed
        });
        if metadata.changed().await.is_err() {
            return;
        }
    }
}

pub(super) fn configured_peers(config: &Config) -> BTreeMap<NodeId, String> {
    config.peers.iter().map(|peer| (peer.node, peer.address.to_string())).collect()
}

pub(super) fn registration(config: &Config, identity: &Identity, addresses: &Addresses) -> Registration {
    let listener = |kind, address: &HostPort, bound: SocketAddr| Listener {
        kind,
        host: config.advertised(address).to_owned(),
        port: bound.port(),
    };
    Registration {
        node: identity.node,
        incarnation: identity.incarnation,
        rack: config.rack.clone(),
        listeners: vec![
            listener(ListenerKind::Kafka, &config.listeners.kafka, addresses.kafka),
            listener(ListenerKind::Native, &config.listeners.native, addresses.native),
            listener(ListenerKind::Http, &config.listeners.http, addresses.http),
            listener(ListenerKind::Peer, &config.listeners.peer, addresses.peer),
        ],
        feature_level_max: FEATURE_LEVEL,
    }
}
