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
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The feature level that this program understands.
const FEATURE_LEVEL: u32 = 1;
/// How long one attempt to register takes at most.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(10);

/// Keeps this node registered with the controller as it is. It looks again whenever the own copy of the controller's
/// state changes: after a start that copy may lag behind, and show an earlier address that happens to be right.
pub(super) async fn register(controller: ControllerClient, registration: Registration, views: Views) {
    let mut metadata = views.watch_metadata();
    loop {
        // A node that was registered before waits a moment before it says so again.
        let known = metadata.wait_for(|view| is_registered(view, &registration));
        if timeout(Duration::from_millis(100), known).await.is_ok() {
            if metadata.wait_for(|view| !is_registered(view, &registration)).await.is_err() {
                return; // the node is stopping
            }
            continue;
        }
        let command = Command::RegisterBroker(registration.clone());
        match controller.decide(&command, REGISTRATION_PATIENCE).await {
            Ok(Answer::Done(Err(rejection))) => {
                tracing::error!(reason = rejection.message, "the controller refuses to register this node");
                sleep(REGISTRATION_PATIENCE).await;
            }
            Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until this node's own copy of the controller's state shows it registered as it is.
pub(super) async fn registered(registration: &Registration, views: &Views) {
    let mut metadata = views.watch_metadata();
    // A sender that is gone belongs to a node that is stopping.
    let _stopping = metadata.wait_for(|view| is_registered(view, registration)).await;
}

fn is_registered(view: &MetadataView, registration: &Registration) -> bool {
    view.broker(registration.node).is_some_and(|broker| {
        broker.incarnation == registration.incarnation
            && broker.listeners == registration.listeners
            && broker.rack == registration.rack
    })
}

/// Keeps the transport's table of peers: those in the file, and those that have registered.
pub(super) async fn follow_peers(config: Config, views: Views, peers: watch::Sender<BTreeMap<NodeId, String>>) {
    let mut metadata = views.watch_metadata();
    let address = |listener: &Listener| format!("{}:{}", listener.host, listener.port);
    loop {
        let mut table = configured_peers(&config);
        for broker in metadata.borrow_and_update().brokers() {
            let listener = broker.listeners.iter().find(|listener| listener.kind == ListenerKind::Peer);
            table.extend(listener.map(|listener| (broker.node, address(listener))));
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

/// Where other nodes reach this one.
pub(super) fn peer_address(config: &Config, addresses: &Addresses) -> String {
    format!("{}:{}", config.advertised(&config.listeners.peer), addresses.peer.port())
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
