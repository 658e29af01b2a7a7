//! Emptying this node (`flush`) and filling it again (`unflush`): observe, decide, carry out, a round at a time.
//!
//! What is ordered stands in the node's own domain state, and how far it is in the guests' records; what is remembered
//! between two rounds may be lost at any time. So a restart of the agent goes on where the order was. Every write is made
//! on condition of the order's version: once a newer order is written, nothing more happens by the older one.
//!
//! The decisions are [`pvc_core::drain`]. How far it is stands in `/nodes/N/drain` ([`DrainReport`]), and what is wrong
//! in a fault as well.
//!
//! [`DrainReport`]: pvc_core::records::DrainReport

mod flush;
mod read;
mod report;
mod unflush;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::placement::{Places, read_candidates};
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, Watch as _, ZnodeVersion};
use pvc_core::drain::DrainMemory;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::DomainState;
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::measures::Duty;
use report::Reporter;

/// Between two rounds while there is an order: guests' states are polled, since their changes are not watched here.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks while there is none: the safety net under the watch.
const IDLE: Duration = Duration::from_secs(10);
/// Between two tries while the store does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// What a drain is done with.
#[derive(Debug, Clone)]
pub struct DrainParts<S, C> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// This node.
    pub me: NodeName,
    /// How this agent is.
    pub agent: AgentState,
    /// How long a guest may take to shut down.
    pub shutdown_timeout: Duration,
}

/// An order as it was first seen by this life of the agent.
#[derive(Debug, Clone)]
struct Order {
    kind: OrderKind,
    /// Of the node's domain state.
    version: ZnodeVersion,
    /// When anything last came on.
    moved_at: BootTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderKind {
    Flush,
    Unflush,
}

impl OrderKind {
    fn of(state: DomainState) -> Option<OrderKind> {
        match state {
            DomainState::Flush => Some(OrderKind::Flush),
            DomainState::Unflush => Some(OrderKind::Unflush),
            DomainState::Ready | DomainState::Flushed | DomainState::FenceFlush => None,
        }
    }

    fn state(self) -> DomainState {
        match self {
            OrderKind::Flush => DomainState::Flush,
            OrderKind::Unflush => DomainState::Unflush,
        }
    }

    fn done(self) -> DomainState {
        match self {
            OrderKind::Flush => DomainState::Flushed,
            OrderKind::Unflush => DomainState::Ready,
        }
    }
}

/// Empties and fills this node as ordered.
#[derive(Debug)]
pub struct DrainRounds<S, C> {
    parts: DrainParts<S, C>,
    order: Option<Order>,
    memory: BTreeMap<VmId, DrainMemory>,
    /// What each node has to carry; none until it is needed, and again when others have placed guests meanwhile.
    places: Option<Places>,
    reporter: Reporter,
}

impl<S: Store, C: Clock> DrainRounds<S, C> {
    /// Begins with nothing remembered.
    pub fn new(parts: DrainParts<S, C>) -> Self {
        Self {
            parts,
            order: None,
            memory: BTreeMap::new(),
            places: None,
            reporter: Reporter::default(),
        }
    }

    /// Looks again and again until dropped. Dropping it is no harm: the next life goes on from what it reads.
    pub async fn run(mut self) {
        let key = keys::node(&self.parts.me).domain_state();
        let mut orders = self.parts.store.watch_tree(key.path());
        let mut failing = false;
        loop {
            let measures = self.parts.agent.measures().clone();
            measures.began(Duty::Drain, self.parts.clock.now());
            let looked = self.look().await;
            measures.ended(Duty::Drain, self.parts.clock.now());
            let pause = match looked {
                Ok(pause) => {
                    failing = false;
                    pause
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "a drain can't be looked after; guests go on as they are");
                    }
                    failing = true;
                    RETRY
                }
            };
            // Both branches are only a hint to look again, and cancel-safe.
            tokio::select! {
                biased;
                () = orders.changed() => {}
                () = self.parts.clock.sleep(pause) => {}
            }
        }
    }

    /// One round. Answers how long the next one may be away.
    ///
    /// # Errors
    /// When the store does not answer: what was done so far stands, and the next round goes on.
    pub async fn look(&mut self) -> Result<Duration, ReadError> {
        // On hold what it reads may be of the past: guests that it would move may have moved long ago.
        if self.parts.agent.phase() != AgentPhase::Running || self.parts.agent.hold().is_on() {
            return Ok(ROUND);
        }
        let key = keys::node(&self.parts.me).domain_state();
        let state = self.parts.store.require(&key).await?;
        let Some(kind) = OrderKind::of(state.value) else {
            self.order = None;
            self.memory.clear();
            self.reporter.at_rest(&self.parts).await;
            return Ok(IDLE);
        };
        let now = self.parts.clock.now();
        if self.order.as_ref().map(|order| (order.kind, order.version)) != Some((kind, state.version)) {
            info!(order = %kind.state(), "this node takes up an order");
            self.order = Some(Order {
                kind,
                version: state.version,
                moved_at: now,
            });
            self.memory.clear();
            self.reporter.begin(&self.parts, kind.state()).await?;
        }
        // Read anew in each round: it is cheap beside a migration, and others place guests too.
        self.places = None;
        let guests = read::guests(&self.parts.store).await?;
        self.memory
            .retain(|vm, _| guests.iter().any(|guest| guest.seen.vm == *vm));
        let over = match kind {
            OrderKind::Flush => self.flush_round(now, &guests).await?,
            OrderKind::Unflush => self.unflush_round(now, &guests).await?,
        };
        if over && self.finish(kind, state.version).await? {
            return Ok(Duration::ZERO);
        }
        Ok(ROUND)
    }

    /// Writes that the order is carried out, unless there is a newer one.
    async fn finish(&mut self, kind: OrderKind, version: ZnodeVersion) -> Result<bool, ReadError> {
        let key = keys::node(&self.parts.me).domain_state();
        let state = kind.done();
        if !self.write(Txn::new().set(&key, &state, version)).await? {
            return Ok(false);
        }
        info!(%state, "this node has carried its order out");
        self.reporter.end(&self.parts).await;
        if kind == OrderKind::Unflush {
            self.unpark().await?;
        }
        Ok(true)
    }

    /// Guests of dead nodes that found no place may find one here. The fencer tries them too.
    async fn unpark(&self) -> Result<(), ReadError> {
        let store = &self.parts.store;
        let nodes: Vec<NodeName> = store.children_as(&keys::fences()).await?;
        let fences: Vec<_> = nodes.iter().map(keys::fence).collect();
        let mut parked = Vec::new();
        for fence in store.get_many(&fences).await?.into_iter().flatten() {
            // Whoever is on the list was parked with a proof, whatever else its fence is still about.
            parked.extend(fence.value.map(|record| record.parked).unwrap_or_default());
        }
        crate::placement::try_unpark(store, &BTreeSet::new(), &parked).await?;
        Ok(())
    }

    /// Only while the order that is being carried out stands.
    fn under_order(&self) -> Txn {
        let key = keys::node(&self.parts.me).domain_state();
        match &self.order {
            Some(order) => Txn::new().check(&key, order.version),
            None => Txn::new(),
        }
    }

    /// What each node has to carry, read at most once in a round unless others get in between.
    async fn places(&mut self) -> Result<&mut Places, ReadError> {
        let places = match self.places.take() {
            Some(places) => places,
            None => read_candidates(&self.parts.store, &BTreeSet::new()).await?,
        };
        Ok(self.places.insert(places))
    }

    /// Whether the transaction was applied. If somebody else has changed what it depends on, the next round sees it.
    async fn write(&mut self, txn: Txn) -> Result<bool, ReadError> {
        match self.parts.store.commit(txn).await {
            Ok(_) => Ok(true),
            Err(
                error @ (StoreError::BadVersion { .. }
                | StoreError::NoNode { .. }
                | StoreError::Unknown { .. }),
            ) => {
                debug!(%error, "others were faster; looking again");
                self.places = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn memory_of(&mut self, vm: VmId) -> &mut DrainMemory {
        self.memory.entry(vm).or_default()
    }
}

#[cfg(test)]
mod tests;
