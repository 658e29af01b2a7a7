//! What is known of the other coordinators: who is alive, and who reaches the upstream network.

use std::collections::BTreeMap;
use std::time::Duration;

use super::view::Peer;
use crate::ids::NodeName;
use crate::states::DaemonState;
use crate::time::BootTime;

/// The coordinators as last seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    seen: BTreeMap<NodeName, Seen>,
    observed_at: Option<BootTime>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    peer: Peer,
    /// When its lease was seen to move between two looks that followed each other closely.
    moved_at: Option<BootTime>,
}

impl Peers {
    /// Takes in a look. A lease that has moved since a look long ago says nothing: its holder may have died meanwhile.
    pub(super) fn observed(&mut self, peers: &BTreeMap<NodeName, Peer>, now: BootTime, fresh: Duration) {
        let followed = self.observed_at.is_some_and(|before| now.since(before) <= fresh);
        self.observed_at = Some(now);
        self.seen = peers
            .iter()
            .map(|(name, peer)| {
                let before = self.seen.get(name);
                let moved = followed
                    && before.is_some_and(|before| peer.lease.is_some() && before.peer.lease != peer.lease);
                let moved_at = match moved {
                    true => Some(now),
                    false => before.and_then(|before| before.moved_at),
                };
                (
                    name.clone(),
                    Seen {
                        peer: *peer,
                        moved_at,
                    },
                )
            })
            .collect();
    }

    /// Whether a coordinator other than `me` runs, is alive, and says that it reaches the upstream network.
    pub(super) fn one_reaches_upstream(&self, me: &NodeName, now: BootTime, fresh: Duration) -> bool {
        self.seen.iter().any(|(name, seen)| {
            name != me
                && seen.peer.daemon_state == Some(DaemonState::Run)
                && seen.peer.upstream_up == Some(true)
                && seen.moved_at.is_some_and(|moved_at| now.since(moved_at) <= fresh)
        })
    }
}
