//! The other side of a fence: what a node does that is, or was, fenced.
//!
//! While its fence record is open the agent takes no part: it starts nothing and claims nothing. A record that says its
//! own boot was proven dead is evidence that its guests run elsewhere, or are about to: the guests' rounds end them. Once
//! none is left and the fence is done, the node says so in the record and takes part again, empty (`flushed`).

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, Watch as _};
use pvc_core::fence::{AbandonReason, FencePhase, FenceRecord, ORDER_OUTLIVED};
use pvc_core::ids::{Incarnation, NodeName, ZnodeVersion};
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use super::faults::tell;
use crate::agent::{AgentPhase, AgentState};
use crate::registration::wall_seconds;

/// The safety net under the watch.
const POLL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Watches the own fence record.
#[derive(Debug)]
pub struct OwnFence<S, C, E> {
    store: S,
    clock: C,
    me: NodeName,
    incarnation: Incarnation,
    agent: AgentState,
    /// Whether no process of any guest is on this host.
    empty: E,
    /// The version of the record that was last seen, and since when.
    seen: Option<(ZnodeVersion, BootTime)>,
}

impl<S: Store, C: Clock, E: Fn() -> bool + Send> OwnFence<S, C, E> {
    /// The own record of the life `incarnation`. `empty` tells whether no process of any guest is on this host.
    pub fn new(
        store: S,
        clock: C,
        me: NodeName,
        incarnation: Incarnation,
        agent: AgentState,
        empty: E,
    ) -> Self {
        Self {
            store,
            clock,
            me,
            incarnation,
            agent,
            empty,
            seen: None,
        }
    }

    /// Lets the agent take part as soon as no fence bars it, and takes it out when one does. Runs until dropped.
    pub async fn run(mut self) {
        let mut changes = self.store.watch_tree(keys::fence(&self.me).path());
        let mut said = false;
        loop {
            let wait = match self.round().await {
                Ok(()) => {
                    said = false;
                    POLL
                }
                Err(error) => {
                    if !said {
                        warn!(%error, "the own fence record can't be looked after");
                    }
                    said = true;
                    RETRY
                }
            };
            // A watch and a poll are only hints to look again.
            let _ = self.clock.timeout(wait, changes.changed()).await;
        }
    }

    /// One look.
    ///
    /// # Errors
    /// When the store does not answer; the agent stays as it is.
    pub async fn round(&mut self) -> Result<(), ReadError> {
        let key = keys::fence(&self.me);
        let seen = self.store.require(&key).await?;
        let now = self.clock.now();
        let unchanged_for = match self.seen {
            Some((version, since)) if version == seen.version => now.since(since),
            Some(_) | None => {
                self.seen = Some((seen.version, now));
                Duration::ZERO
            }
        };
        let Some(record) = seen.value else {
            self.take_part();
            return Ok(());
        };
        if !record.bars(&self.incarnation) {
            self.take_part();
            if matches!(record.phase, FencePhase::Done { .. }) && record.returned.is_none() {
                self.say_returned(&record, seen.version).await?;
            }
            return Ok(());
        }
        match self.standing(&record) {
            Barred::Suspected => self.answer(&record, seen.version, AbandonReason::Renewed).await?,
            Barred::OutOfIt => {
                self.stand_aside(&record);
                // Whoever ordered this node off may have died since, and every other coordinator be out of it as well.
                if record.may_be_outlived() && unchanged_for >= ORDER_OUTLIVED {
                    self.answer(&record, seen.version, AbandonReason::OrderOutlived)
                        .await?;
                }
            }
            Barred::MayReturn => self.say_returned(&record, seen.version).await?,
        }
        Ok(())
    }

    /// The fence is over: this life runs nothing of the one that was fenced.
    async fn say_returned(&self, record: &FenceRecord, version: ZnodeVersion) -> Result<(), ReadError> {
        let mut returned = record.clone();
        returned.returned = Some(self.incarnation.clone());
        returned.note(
            wall_seconds(&self.clock),
            &self.me,
            "it is back, and runs nothing of its old life",
        );
        let txn = Txn::new().set(&keys::fence(&self.me), &Some(returned), version);
        match self.store.commit(txn).await {
            Ok(_) => {
                self.take_part();
                tell(&self.store, &self.clock, &self.me, None).await;
                Ok(())
            }
            Err(StoreError::BadVersion { .. }) => {
                debug!("the own fence record moved meanwhile");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A suspicion with nothing done yet, or an order that was outlived: this life renews its lease, so it ends that itself. Two fencers that
    /// suspect each other while whoever wrote it has died would otherwise wait for each other for ever.
    async fn answer(
        &self,
        record: &FenceRecord,
        version: ZnodeVersion,
        reason: AbandonReason,
    ) -> Result<(), ReadError> {
        if !self.agent.node_right().holds(self.clock.now()) {
            return Ok(());
        }
        let mut answered = record.clone();
        answered.phase = FencePhase::Abandoned {
            reason: reason.to_string(),
        };
        answered.waits_for.clear();
        answered.note(wall_seconds(&self.clock), &self.me, "I live, and renew my lease");
        let txn = Txn::new().set(&keys::fence(&self.me), &Some(answered), version);
        match self.store.commit(txn).await {
            Ok(_) => {
                self.take_part();
                tell(&self.store, &self.clock, &self.me, None).await;
                Ok(())
            }
            Err(StoreError::BadVersion { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn standing(&self, record: &FenceRecord) -> Barred {
        match record.phase {
            // A living node renews its lease, and that ends the suspicion. Its guests' claims wait until then.
            FencePhase::Suspected => Barred::Suspected,
            FencePhase::Proving if !record.past_return() => Barred::Suspected,
            FencePhase::Proving | FencePhase::Proven { .. } | FencePhase::Recovering { .. } => {
                Barred::OutOfIt
            }
            FencePhase::Done { .. } if (self.empty)() => Barred::MayReturn,
            FencePhase::Done { .. } => Barred::OutOfIt,
            FencePhase::Abandoned { .. } => Barred::Suspected,
        }
    }

    fn take_part(&self) {
        if self.agent.enter_from(AgentPhase::Starting, AgentPhase::Running) {
            info!("no fence bars this node: it takes part");
        }
    }

    fn stand_aside(&self, record: &FenceRecord) {
        if self.agent.enter_from(AgentPhase::Running, AgentPhase::Starting) {
            warn!(
                phase = record.phase.word(),
                fencer = %record.fencer,
                "this node is being fenced: it takes no part until that is over"
            );
        }
    }
}

enum Barred {
    /// Others suspect this life, and nothing was done yet.
    Suspected,
    /// It takes no part.
    OutOfIt,
    /// The fence is done and nothing of the old life runs here.
    MayReturn,
}
