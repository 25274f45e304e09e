//! How a node that is none of the cluster's first gets its copy of the metadata: it registers, asks which replica of
//! the controller's group it is to have, and begins that one empty. The group's leader adds it, and sends it a
//! snapshot. Later it asks again who the others are when it hears of no leader.

use super::data::{self, SharedEngine};
use crate::broker::node::controller_client::ControllerClient;
use crate::broker::node::views::Views;
use crate::controller::command::{self, Answer, Command, Introduced, Registration};
use crate::multiraft::handle::Handle;
use crate::types::{CONTROLLER_GROUP, ClusterId, Membership};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long one attempt takes at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after one that failed the next one waits.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a node hears of no leader before it asks who the others are.
const ALONE_MAX: Duration = Duration::from_secs(2);

/// How a node begins that was told which replica of the controller's group it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Empty: the replica has never been.
    New,
    /// As what is here, which may have to be repaired: these are asked.
    Adopt(Membership),
    /// Not at all: the replica has begun, and nothing of it is here.
    Lost,
}

/// How a node begins that was told this. `may_be_there`: its log knows the group, or may have forgotten it.
#[must_use]
pub fn begin(answer: &command::Joining, may_be_there: bool) -> Begin {
    if may_be_there {
        return Begin::Adopt(Membership::of_voters(answer.peers.iter().copied()));
    }
    if answer.has_begun { Begin::Lost } else { Begin::New }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Joining {
    /// The way to the controller.
    controller: ControllerClient,
    /// Who this node is.
    registration: Registration,
    /// Where the others are made known.
    introduced: watch::Sender<Vec<Introduced>>,
}

impl Joining {
    /// Nothing has been asked yet.
    pub fn new(
        controller: ControllerClient,
        registration: Registration,
        introduced: watch::Sender<Vec<Introduced>>,
    ) -> Self {
        Self { controller, registration, introduced }
    }

    /// Joins the controller's group. May end and begin again at any point: the controller gives the same answer, and
    /// a replica that is there already is left as it is. `may_be_there`: see [`begin`].
    pub async fn run(self, handle: Handle, (engine, cluster): (SharedEngine, ClusterId), may_be_there: bool) {
        let answer = self.ask_until_answered().await;
        let (replica, begin) = (answer.replica, begin(&answer, may_be_there));
        self.introduced.send_replace(answer.nodes);
        match begin {
            Begin::New => {}
            Begin::Adopt(peers) => {
                // A worker that has stopped belongs to a node that is stopping.
                let _stopping = handle.adopt(CONTROLLER_GROUP, replica, peers);
                return;
            }
            Begin::Lost => {
                let what = "this node has lost its replica of the controller's group: replace the node";
                return tracing::error!(%replica, what);
            }
        }
        let made = tokio::task::spawn_blocking(move || data::join_controller(&engine, cluster, replica)).await;
        match made.map_err(|error| error.to_string()).and_then(|made| made.map_err(|error| error.to_string())) {
            // A worker that has stopped belongs to a node that is stopping.
            Ok(Some(machine)) => drop(handle.create(CONTROLLER_GROUP, replica, machine, false)),
            Ok(None) => {}
            Err(error) => tracing::error!(error, "the controller's group can't be joined; restart the node"),
        }
    }

    /// Asks again who the others are whenever this node hears of no leader of the controller's group. What it knows is
    /// as old as its copy of the metadata, and a replica that is to be repaired, or whose peers were replaced while it
    /// was away, would take nothing in from nodes that it does not know.
    pub async fn stay_introduced(self, handle: Handle, views: Views) {
        let mut metadata = views.watch_metadata();
        let is_alone = || handle.board().status(CONTROLLER_GROUP).leadership.leader.is_none();
        let mut alone = false;
        loop {
            match timeout(ALONE_MAX, metadata.changed()).await {
                Ok(Err(_)) => return, // the node is stopping
                // The copy is newer than what was said before.
                Ok(Ok(())) => drop(self.introduced.send_if_modified(|known| !std::mem::take(known).is_empty())),
                Err(_) => {
                    let was_alone = std::mem::replace(&mut alone, is_alone());
                    if alone
                        && was_alone
                        && let Ok(answer) = self.ask().await
                    {
                        self.introduced.send_replace(answer.nodes);
                    }
                }
            }
        }
    }

    async fn ask_until_answered(&self) -> command::Joining {
        loop {
            match self.ask().await {
                Ok(joining) => return joining,
                Err(Some(reason)) => {
                    tracing::error!(reason, "the controller refuses this node");
                    sleep(PATIENCE).await;
                }
                Err(None) => sleep(PAUSE).await,
            }
        }
    }

    /// The replica that this node is to have; or why it is refused, if it is.
    async fn ask(&self) -> Result<command::Joining, Option<String>> {
        let Registration { node, incarnation, .. } = self.registration;
        let register = Command::RegisterBroker(self.registration.clone());
        match self.controller.decide(&register, PATIENCE).await {
            Ok(Answer::Done(Ok(()))) => {}
            Ok(Answer::Done(Err(rejection))) => return Err(Some(rejection.message)),
            Ok(_) | Err(_) => return Err(None),
        }
        match self.controller.decide(&Command::JoinController { node, incarnation }, PATIENCE).await {
            Ok(Answer::Joining(result)) => result.map_err(|rejection| Some(rejection.message)),
            Ok(_) | Err(_) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, ReplicaId};

    #[test]
    fn a_replica_that_has_begun_is_never_begun_again() {
        let [own, other] = [4, 1].map(|node| ReplicaId::new(NodeId(node), 0));
        let answer =
            |has_begun| command::Joining { replica: own, has_begun, peers: vec![other, own], nodes: Vec::new() };
        let adopted = Begin::Adopt(Membership::of_voters([other, own]));
        assert_eq!((begin(&answer(false), false), begin(&answer(true), false)), (Begin::New, Begin::Lost));
        assert_eq!((begin(&answer(false), true), begin(&answer(true), true)), (adopted.clone(), adopted));
    }
}
