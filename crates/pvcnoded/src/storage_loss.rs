//! Watches the storage network on a node that runs guests, raises what is wrong, and tells the rounds over the guests.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault, fault_id};
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use pvc_core::storage_loss::{StorageJudge, StorageLook, StorageLossPolicy, StorageSight};
use tracing::{debug, error, info};

use crate::agent::AgentState;
use crate::host::Hypervisor;
use crate::host::reach::StorageReach;

/// Between the beginnings of two looks.
const PERIOD: Duration = Duration::from_secs(3);
/// A look that takes longer has failed.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// What the loss takes from the cluster's health, in percent.
const FAULT_DELTA: u32 = 50;

/// Watches the storage network.
#[derive(Debug)]
pub struct StorageWatcher<S, C, H, R> {
    store: S,
    clock: C,
    hypervisor: H,
    reach: R,
    node: NodeName,
    agent: AgentState,
    policy: StorageLossPolicy,
    judge: StorageJudge,
    /// Whether the fault stands in the store, as far as is known; an earlier life may have left it.
    raised: Option<bool>,
}

impl<S: Store, C: Clock, H: Hypervisor, R: StorageReach> StorageWatcher<S, C, H, R> {
    /// Begins with nothing known.
    pub fn new(
        store: S,
        clock: C,
        hypervisor: H,
        reach: R,
        node: NodeName,
        agent: AgentState,
        policy: StorageLossPolicy,
    ) -> Self {
        Self {
            store,
            clock,
            hypervisor,
            reach,
            node,
            agent,
            policy,
            judge: StorageJudge::default(),
            raised: None,
        }
    }

    /// Watches until dropped. Nodes that were started together do not look together.
    pub async fn run(mut self) {
        self.clock
            .sleep(Duration::from_millis(u64::from(self.node.number() % 30) * 100))
            .await;
        loop {
            self.round().await;
        }
    }

    /// One look, then the wait for the next.
    pub async fn round(&mut self) {
        let begun = self.clock.now();
        let before = self.agent.storage().sight();
        let needed = self.needs_storage(before);
        let (sight, reason) = match needed {
            false => {
                self.judge.forget();
                (StorageSight::Unknown, String::new())
            }
            true => {
                let look = self
                    .clock
                    .timeout(LOOK_WITHIN, self.reach.look())
                    .await
                    .unwrap_or_else(|| StorageLook::Silent {
                        reason: "no answer".to_owned(),
                    });
                let reason = match &look {
                    StorageLook::Reached => String::new(),
                    StorageLook::Silent { reason } => reason.clone(),
                };
                (self.judge.looked(&look, begun), reason)
            }
        };
        self.agent.storage().set(sight, self.policy);
        let lost = matches!(sight, StorageSight::Lost { .. });
        let was_lost = matches!(before, StorageSight::Lost { .. });
        if lost && !was_lost {
            error!(%reason, "no Ceph monitor of another host is reached: guests wait for their storage");
        } else if was_lost && !lost {
            info!("the storage cluster is reached again");
        }
        self.tell(lost, &reason).await;
        self.clock.sleep_until(begun + PERIOD).await;
    }

    /// Without guests nobody looks, except to see the end of a loss. Processes that can't be read may be there.
    fn needs_storage(&self, before: StorageSight) -> bool {
        matches!(before, StorageSight::Lost { .. })
            || self
                .hypervisor
                .processes()
                .map_or(true, |processes| !processes.is_empty())
    }

    async fn tell(&mut self, lost: bool, reason: &str) {
        let words = ["STORAGE_LOST", self.node.as_str()];
        let outcome = if lost {
            let what_follows = match self.policy {
                StorageLossPolicy::Wait => "its guests wait and go on when it is back",
                StorageLossPolicy::Restart => {
                    "its guests are ended after a minute and started afresh when it is back"
                }
            };
            let message = format!(
                "Node {} does not reach the storage cluster ({reason}); {what_follows}",
                self.node
            );
            faults::raise(
                &self.store,
                &self.clock,
                &Fault::new(&words, FAULT_DELTA, message),
            )
            .await
            .map(|_| ())
        } else if self.raised == Some(false) {
            Ok(())
        } else {
            faults::clear(&self.store, &fault_id(&words)).await
        };
        match outcome {
            Ok(()) => self.raised = Some(lost),
            Err(error) => {
                self.raised = None;
                debug!(%error, "the fault of the storage network was not written");
            }
        }
    }
}

#[cfg(test)]
mod tests;
