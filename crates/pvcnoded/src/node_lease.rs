//! The node lease: this agent is alive, and may act on what it knows.
//!
//! Renewed once a period by a write on condition of the own last version. It depends on nothing but the coordination
//! store, with a client of its own, so that neither a large reply nor anything on this host can delay it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt, Txn, ZnodeVersion};
use pvc_core::fence::{LeaseLook, SeenLease, SilenceJudge};
use pvc_core::ids::{Incarnation, NodeName};
use pvc_core::lease::{LeaseRight, LeaseTiming};
use pvc_core::records::{NodeLease, PROTOCOL};
use pvc_core::time::BootTime;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::agent::Pulse;
use crate::measures::{Duty, Measures, OwnLease};

/// In how many rounds the list of nodes is read once.
const NODES_EVERY: u32 = 5;

/// Until when this agent may act on what it knows; shared by everything that must ask.
#[derive(Debug, Clone, Default)]
pub struct NodeRight {
    right: Arc<Mutex<Option<LeaseRight>>>,
}

impl NodeRight {
    /// Whether the node lease holds at `now`.
    pub fn holds(&self, now: BootTime) -> bool {
        self.lock().is_some_and(|right| right.holds(now))
    }

    /// Whether the node lease will still hold at `now + ahead` if no further renewal is acknowledged: whoever is about
    /// to do something irreversible that may take that long asks this.
    pub fn holds_for(&self, now: BootTime, ahead: Duration) -> bool {
        self.holds(now + ahead)
    }

    /// How much of it is left at `now`; none if there never was a right, or it was taken.
    pub fn left(&self, now: BootTime) -> Option<Duration> {
        self.lock().map(|right| right.ends().since(now))
    }

    /// A renewal was acknowledged.
    pub fn renewed(&self, right: LeaseRight) {
        *self.lock() = Some(right);
    }

    /// The lease is another's: whatever was right a moment ago is not any more.
    fn revoke(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<LeaseRight>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node has heard of all others; shared with whoever judges them.
#[derive(Debug, Clone)]
pub struct Hearing {
    judge: Arc<Mutex<SilenceJudge>>,
    rounds: watch::Sender<u64>,
}

impl Hearing {
    /// Nothing heard yet.
    pub fn new() -> Hearing {
        Hearing {
            judge: Arc::default(),
            rounds: watch::Sender::new(0),
        }
    }

    /// What was heard up to now.
    pub fn so_far(&self) -> SilenceJudge {
        self.lock().clone()
    }

    /// Counts all silences anew.
    pub fn forget_silences(&self) {
        self.lock().forget_silences();
    }

    /// Told of every round.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    fn heard(&self, look: LeaseLook) {
        self.lock().look(look);
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SilenceJudge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hearing {
    fn default() -> Hearing {
        Hearing::new()
    }
}

/// The lease is not this agent's any more: it must stop acting, at once.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLost {
    /// Another machine, or another life of this agent, renews the lease of this node's name.
    #[error(
        "another agent ({other}) renews the lease of {node}: two nodes have this name, or two agents run here"
    )]
    Taken {
        /// This node.
        node: NodeName,
        /// Who does.
        other: Incarnation,
    },
    /// The store shows an earlier renewal than one that was acknowledged.
    #[error(
        "the lease of {node} is older in the store than this agent has renewed it: the store was restored from a snapshot"
    )]
    WentBack {
        /// This node.
        node: NodeName,
    },
    /// The lease was removed: this node has been taken out of the cluster.
    #[error("the lease of {node} has been removed: this node is no longer part of the cluster")]
    Removed {
        /// This node.
        node: NodeName,
    },
}

/// Keeps the node lease.
#[derive(Debug)]
pub struct NodeLeaseKeeper<S, C> {
    store: S,
    clock: C,
    node: NodeName,
    incarnation: Incarnation,
    timing: LeaseTiming,
    version: ZnodeVersion,
    counter: u64,
    right: NodeRight,
    failing_since: Option<BootTime>,
    pulse: Pulse,
    /// Where the leases of all nodes are reported to, on a coordinator.
    hearing: Option<Hearing>,
    /// The nodes there are, read now and then: they seldom change.
    nodes: Vec<NodeName>,
    rounds: u32,
    measures: Measures,
}

impl<S: Store, C: Clock> NodeLeaseKeeper<S, C> {
    /// Goes on from a registration whose write of the lease left `version`.
    pub fn new(
        store: S,
        clock: C,
        node: NodeName,
        incarnation: Incarnation,
        version: ZnodeVersion,
        right: NodeRight,
        pulse: Pulse,
    ) -> Self {
        let timing = LeaseTiming::DEFAULT;
        Self {
            store,
            clock,
            node,
            incarnation,
            timing,
            version,
            counter: 0,
            right,
            failing_since: None,
            pulse,
            hearing: None,
            nodes: Vec::new(),
            rounds: 0,
            measures: Measures::default(),
        }
    }

    /// Tells how much was left at each renewal, and how long renewals take.
    #[must_use]
    pub fn measured(mut self, measures: Measures) -> Self {
        self.measures = measures;
        self
    }

    /// Reads the leases of all nodes after each acknowledged renewal, and reports them to `hearing`.
    #[must_use]
    pub fn hearing(mut self, hearing: Hearing) -> Self {
        self.hearing = Some(hearing);
        self
    }

    /// One renewal, then the wait for the next.
    ///
    /// # Errors
    /// [`LeaseLost`] when this agent must stop acting. A store that does not answer is no error: the right then ends
    /// by itself.
    pub async fn round(&mut self) -> Result<(), LeaseLost> {
        let sent = self.clock.now();
        self.pulse.beat(sent);
        self.measures.began(Duty::Lease, sent);
        let renewal = self.renew(sent).await;
        self.measures.ended(Duty::Lease, self.clock.now());
        match renewal {
            Ok(Renewal::Acknowledged) => {
                let next = sent + self.timing.period;
                self.listen(next).await;
                self.clock.sleep_until(next).await;
            }
            // Found, not acknowledged: when it was sent is not known, so it prolongs nothing. Renew soon.
            Ok(Renewal::Adopted) => self.clock.sleep(self.timing.period / 5).await,
            Err(RoundError::Lost(lost)) => {
                self.right.revoke();
                return Err(lost);
            }
            Err(RoundError::Store(error)) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(sent);
                    warn!(%error, "node lease not renewed");
                } else {
                    debug!(%error, "node lease not renewed");
                }
                self.clock.sleep(self.timing.period / 5).await;
            }
        }
        Ok(())
    }

    async fn renew(&mut self, sent: BootTime) -> Result<Renewal, RoundError> {
        let key = keys::lease_node(&self.node);
        let lease = NodeLease {
            incarnation: self.incarnation.clone(),
            protocol: PROTOCOL,
            counter: self.counter + 1,
        };
        match self
            .store
            .commit(Txn::new().set(&key, &Some(lease), self.version))
            .await
        {
            Ok(applied) => {
                if let Some(version) = applied.first().and_then(|applied| applied.version()) {
                    self.version = version;
                }
                self.counter += 1;
                let now = self.clock.now();
                if let Some(left) = self.right.left(now) {
                    self.measures.renewed(OwnLease::Node, now, left);
                }
                self.right.renewed(LeaseRight::acknowledged(sent, &self.timing));
                if let Some(since) = self.failing_since.take() {
                    info!(seconds = sent.since(since).as_secs(), "node lease renewed again");
                }
                Ok(Renewal::Acknowledged)
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => self.adopt().await,
            Err(
                error @ (StoreError::Unknown { .. }
                | StoreError::Unavailable { .. }
                | StoreError::SessionExpired
                | StoreError::Refused { .. }
                | StoreError::NodeExists { .. }
                | StoreError::NotEmpty { .. }
                | StoreError::LockLost { .. }),
            ) => Err(RoundError::Store(error.into())),
        }
    }

    /// Reads all leases in the session in which the own renewal was just acknowledged: that makes the reading at least
    /// as new as the renewal. Nothing here delays the next renewal, which is due at `next`.
    async fn listen(&mut self, next: BootTime) {
        let Some(hearing) = self.hearing.clone() else {
            return;
        };
        // A little later, in place of the ping that the client would send into the idle session about now.
        self.clock.sleep(self.timing.period * 3 / 10).await;
        let limit = next.since(self.clock.now());
        let clock = self.clock.clone();
        match clock.timeout(limit, self.read_leases()).await {
            Some(Ok(look)) => hearing.heard(look),
            Some(Err(error)) => debug!(%error, "the leases of all nodes were not read"),
            None => debug!("the leases of all nodes were not read in time"),
        }
    }

    async fn read_leases(&mut self) -> Result<LeaseLook, ReadError> {
        if self.rounds.is_multiple_of(NODES_EVERY) {
            self.nodes = self.store.children_as(&keys::lease_nodes()).await?;
        }
        self.rounds = self.rounds.wrapping_add(1);
        let nodes = self.nodes.clone();
        let sent = self.clock.now();
        let keys: Vec<_> = nodes.iter().map(keys::lease_node).collect();
        let paths: Vec<String> = keys.iter().map(|key| key.path().to_owned()).collect();
        let znodes = self.store.read_many(&paths).await?;
        let answered = self.clock.now();
        let leases = nodes
            .into_iter()
            .zip(keys.iter().zip(&znodes))
            .filter_map(|(node, (key, znode))| {
                let version = znode.as_ref()?.version;
                // A lease that can't be read is a lease all the same: its version moves or does not.
                let lease = key
                    .decode(znode.as_ref())
                    .ok()
                    .flatten()
                    .and_then(|seen| seen.value);
                Some((node, SeenLease { version, lease }))
            })
            .collect();
        Ok(LeaseLook {
            sent,
            answered,
            leases,
        })
    }

    /// Somebody wrote the lease: a renewal of ours whose answer was lost, or another agent.
    async fn adopt(&mut self) -> Result<Renewal, RoundError> {
        let Some(seen) = self
            .store
            .get(&keys::lease_node(&self.node))
            .await
            .map_err(RoundError::Store)?
        else {
            return Err(RoundError::Lost(LeaseLost::Removed {
                node: self.node.clone(),
            }));
        };
        match seen.value {
            // A renewal of ours that arrived late has a number that none was acknowledged with. An earlier one, or that
            // of an earlier life of this boot, comes from a snapshot: the next life of this agent begins on hold.
            Some(lease)
                if lease.incarnation.same_boot(&self.incarnation)
                    && (lease.incarnation.counter, lease.counter)
                        < (self.incarnation.counter, self.counter) =>
            {
                Err(RoundError::Lost(LeaseLost::WentBack {
                    node: self.node.clone(),
                }))
            }
            Some(lease) if lease.incarnation == self.incarnation => {
                self.version = seen.version;
                Ok(Renewal::Adopted)
            }
            Some(lease) => Err(RoundError::Lost(LeaseLost::Taken {
                node: self.node.clone(),
                other: lease.incarnation,
            })),
            None => Err(RoundError::Lost(LeaseLost::Removed {
                node: self.node.clone(),
            })),
        }
    }
}

enum Renewal {
    Acknowledged,
    Adopted,
}

enum RoundError {
    Lost(LeaseLost),
    Store(ReadError),
}

#[cfg(test)]
mod tests;
