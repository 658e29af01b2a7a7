//! Looks whether this coordinator reaches the upstream network, and says so.
//!
//! The reading goes two ways: to this node's own part in the primary role through [`AgentState`], which needs no store,
//! and to the other coordinators through `/nodes/N/upstream`, written when it changes. What follows from it is decided
//! in `pvc_core::role`; nobody is ever fenced for it.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn};
use pvc_core::ids::NodeName;
use pvc_core::records::UpstreamReading;
use pvc_core::role::OwnUpstream;
use pvc_core::upstream::{UpstreamJudge, UpstreamLook};
use tracing::{info, warn};

use crate::agent::AgentState;
use crate::host::upstream::UpstreamProbe;

/// Between the beginnings of two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A look that takes longer says nothing.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// Watches the upstream network.
#[derive(Debug)]
pub struct UpstreamWatcher<S, C, P> {
    store: S,
    clock: C,
    probe: P,
    node: NodeName,
    agent: AgentState,
    judge: UpstreamJudge,
    /// What the store holds, if that is known.
    published: Option<Option<UpstreamReading>>,
    blind: bool,
}

impl<S: Store, C: Clock, P: UpstreamProbe> UpstreamWatcher<S, C, P> {
    /// Begins with nothing known.
    pub fn new(store: S, clock: C, probe: P, node: NodeName, agent: AgentState) -> Self {
        Self {
            store,
            clock,
            probe,
            node,
            agent,
            judge: UpstreamJudge::default(),
            published: None,
            blind: false,
        }
    }

    /// Watches until dropped.
    pub async fn run(mut self) {
        loop {
            self.round().await;
        }
    }

    /// One look, then the wait for the next.
    pub async fn round(&mut self) {
        let begun = self.clock.now();
        let look = self
            .clock
            .timeout(LOOK_WITHIN, self.probe.look())
            .await
            .unwrap_or_else(|| UpstreamLook::CantTell {
                reason: "the look did not end in time".to_owned(),
            });
        self.tell_if_blind(&look);
        let before = self.agent.upstream().get();
        let sight = self.judge.looked(&look, begun);
        self.agent.upstream().set(sight);
        let reason = in_words(&look);
        match (before, sight) {
            (OwnUpstream::Unknown | OwnUpstream::Up, OwnUpstream::Down { .. }) => {
                warn!(reason, "the upstream network is not reached");
            }
            (OwnUpstream::Down { .. }, OwnUpstream::Up) => info!("the upstream network is reached again"),
            (OwnUpstream::Unknown | OwnUpstream::Up, OwnUpstream::Unknown | OwnUpstream::Up)
            | (OwnUpstream::Down { .. }, OwnUpstream::Unknown | OwnUpstream::Down { .. }) => {}
        }
        let up = match sight {
            OwnUpstream::Unknown => None,
            OwnUpstream::Up => Some(true),
            OwnUpstream::Down { .. } => Some(false),
        };
        if let Some(up) = up
            && let Err(error) = self.publish(up, reason).await
        {
            // Tried again at the next look: the others judge by what stands there.
            tracing::debug!(%error, "the upstream reading was not published");
        }
        self.clock.sleep_until(begun + PERIOD).await;
    }

    /// Writes the reading if it has changed. The key is this node's own, and the reading depends on nothing read.
    async fn publish(&mut self, up: bool, reason: String) -> Result<(), ReadError> {
        let key = keys::node(&self.node).upstream();
        let before = match &self.published {
            Some(known) => known.clone(),
            None => self.store.require(&key).await?.value,
        };
        self.published = Some(before.clone());
        if before.as_ref().is_some_and(|reading| reading.up == up) {
            return Ok(());
        }
        let reading = UpstreamReading {
            up,
            reason,
            changes: before.map_or(0, |reading| reading.changes) + 1,
        };
        // Until it is acknowledged nobody knows what stands there.
        self.published = None;
        let txn = Txn::new().overwrite(&key, &Some(reading.clone()));
        self.store.commit(txn).await.map_err(ReadError::Store)?;
        self.published = Some(Some(reading));
        Ok(())
    }

    fn tell_if_blind(&mut self, look: &UpstreamLook) {
        match look {
            UpstreamLook::CantTell { reason } if !self.blind => {
                self.blind = true;
                warn!(%reason, "whether the upstream network is reached can't be told");
            }
            UpstreamLook::CantTell { .. } => {}
            UpstreamLook::Reached | UpstreamLook::NoCarrier | UpstreamLook::GatewaySilent => {
                self.blind = false
            }
        }
    }
}

fn in_words(look: &UpstreamLook) -> String {
    match look {
        UpstreamLook::Reached => "the link is up and the gateway answers".to_owned(),
        UpstreamLook::NoCarrier => "the link has no carrier".to_owned(),
        UpstreamLook::GatewaySilent => "the gateway does not answer".to_owned(),
        UpstreamLook::CantTell { reason } => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::store::memory::MemoryServer;

    use super::*;
    use crate::host::fake::VirtualClock;
    use crate::host::fake::upstream::FakeUpstream;

    #[test]
    fn a_reading_is_published_when_it_changes_and_survives_a_store_that_is_away() {
        // The others judge by it: one that is late or lost leaves the role where nobody reaches it.
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let store = server.client();
        let node = NodeName::new("hv1").unwrap();
        let key = keys::node(&node).upstream();
        let tree = Txn::new()
            .create_path("/nodes", "")
            .create_path("/nodes/hv1", "")
            .create(&key, &None);
        clock.run(PERIOD, store.commit(tree)).unwrap().unwrap();
        let agent = AgentState::new();
        let upstream = FakeUpstream::new();
        let mut watcher = UpstreamWatcher::new(
            store.clone(),
            clock.clone(),
            upstream.clone(),
            node,
            agent.clone(),
        );
        let mut rounds = |count: u32| {
            for _ in 0..count {
                clock.run(PERIOD * 20, watcher.round()).unwrap();
            }
        };
        let read = || clock.run(PERIOD, server.client().require(&key)).unwrap().unwrap();
        rounds(1);
        assert_eq!(
            read().value.map(|reading| (reading.up, reading.changes)),
            Some((true, 1))
        );
        let written = read().version;
        rounds(5);
        assert_eq!(
            read().version,
            written,
            "nothing is written while nothing changes"
        );
        upstream.show(UpstreamLook::GatewaySilent);
        let down_at = clock.now();
        rounds(1);
        assert!(read().value.unwrap().up);
        rounds(1);
        assert_eq!(agent.upstream().get(), OwnUpstream::Down { since: down_at });
        let reading = read().value.unwrap();
        assert_eq!((reading.up, reading.changes), (false, 2));
        assert_eq!(reading.reason, "the gateway does not answer");
        // It comes back while the store is away: this node knows at once, the others as soon as they can.
        server.lose_quorum();
        upstream.show(UpstreamLook::Reached);
        rounds(4);
        assert_eq!(agent.upstream().get(), OwnUpstream::Up);
        server.restore_quorum();
        rounds(2);
        assert!(read().value.unwrap().up);
    }
}
