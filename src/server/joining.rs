//! How a node that is none of the cluster's first gets its copy of the metadata: it registers, asks which replica of
//! the controller's group it is to have, and begins that one empty. The group's leader adds it, and sends it a
//! snapshot. Who the others are, it hears from themselves (`transport::admission`).

use super::data::{self, SharedEngine};
use crate::broker::node::controller_client::ControllerClient;
use crate::controller::command::{self, Answer, Command, Registration};
use crate::multiraft::handle::Handle;
use crate::types::{CONTROLLER_GROUP, ClusterId, Membership};
use std::time::Duration;
use tokio::time::sleep;

/// How long one attempt takes at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after one that failed the next one waits.
const PAUSE: Duration = Duration::from_millis(100);

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
pub(super) struct Joining {
    /// The way to the controller.
    controller: ControllerClient,
    /// Who this node is.
    registration: Registration,
}

impl Joining {
    /// Nothing has been asked yet.
    pub fn new(controller: ControllerClient, registration: Registration) -> Self {
        Self { controller, registration }
    }

    /// Joins the controller's group. May end and begin again at any point: the controller gives the same answer, and
    /// a replica that is there already is left as it is. `may_be_there`: see [`begin`].
    pub async fn run(self, handle: Handle, (engine, cluster): (SharedEngine, ClusterId), may_be_there: bool) {
        let answer = self.ask_until_answered().await;
        let (replica, begin) = (answer.replica, begin(&answer, may_be_there));
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
        let answer = |has_begun| command::Joining { replica: own, has_begun, peers: vec![other, own] };
        let adopted = Begin::Adopt(Membership::of_voters([other, own]));
        assert_eq!((begin(&answer(false), false), begin(&answer(true), false)), (Begin::New, Begin::Lost));
        assert_eq!((begin(&answer(false), true), begin(&answer(true), true)), (adopted.clone(), adopted));
    }
}
