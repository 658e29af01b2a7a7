//! The heartbeat for people and for clients of PVC 1.0.3: the keepalive, the daemon state and what is measured on this
//! node, once per interval, in one transaction.
//!
//! It is not what liveness is judged by (that is the node lease): it may be late or fail without consequence.

use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::config::Config;
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::NodeName;
use pvc_core::states::DaemonState;
use tracing::{info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::host::libvirt::Libvirt;
use crate::registration::wall_seconds;

/// Publishes the heartbeat.
#[derive(Debug)]
pub struct Heartbeat<S> {
    store: S,
    node: NodeName,
    interval: Duration,
    agent: AgentState,
    _hypervisor: Option<Libvirt>,
}

impl<S: Store> Heartbeat<S> {
    /// The heartbeat of this node; guests are measured through `hypervisor` on a node that runs any.
    pub fn new(config: &Config, store: S, agent: AgentState, hypervisor: Option<Libvirt>) -> Self {
        Self {
            store,
            node: config.node.clone(),
            interval: config.timers.keepalive_interval,
            agent,
            _hypervisor: hypervisor,
        }
    }

    /// Publishes a state at once.
    ///
    /// # Errors
    /// When the store does not take it; the next beat tries again.
    pub async fn publish_state(&self, state: DaemonState) -> Result<(), StoreError> {
        let own = keys::node(&self.node);
        let txn = Txn::new()
            .overwrite(&own.daemon_state(), &state)
            .overwrite(&own.keepalive(), &wall_seconds(&HostClock));
        self.store.commit(txn).await.map(|_| ())
    }

    /// Beats until dropped.
    pub async fn run(self) {
        let mut failing = false;
        loop {
            let next = HostClock.now() + self.interval;
            // `dead`, written by another node that did not hear from us, is answered by `run`.
            let state = match self.agent.phase() {
                AgentPhase::Starting => DaemonState::Init,
                AgentPhase::Running => DaemonState::Run,
                AgentPhase::ShuttingDown => DaemonState::Shutdown,
            };
            match self.publish_state(state).await {
                Ok(()) if failing => {
                    failing = false;
                    info!("the heartbeat can be published again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, "the heartbeat was not published");
                }
                Err(_) => {}
            }
            HostClock.sleep_until(next).await;
        }
    }
}
