//! Who uses a volume: the second look before a guest is started.
//!
//! librbd hands its exclusive lock over on request, so locks and watchers guard nothing; the owner record does. But a
//! lock or watcher that should not be there means that something else is wrong, and starting over it would make it
//! worse: the start fails, says what it saw, and removes nothing.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::CephClient;

/// A lock on an RBD image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbdLock {
    /// Its id, for example `auto 139725084130512`.
    pub id: String,
    /// Its holder's name, for example `client.4360`.
    pub locker: String,
    /// Its holder's address.
    pub client: CephClient,
}

/// Who uses a volume, as Ceph lists it: a second look, never a guard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeUse {
    /// Clients that have the image open. An entry lingers up to 30 s after its process died.
    pub watchers: Vec<CephClient>,
    /// Locks. They do not end by themselves.
    pub locks: Vec<RbdLock>,
}

/// Who "we" are to Ceph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnClients {
    /// This node's own addresses on the storage network.
    pub node_addresses: Vec<IpAddr>,
    /// The addresses that follow the primary: no client may use one.
    pub floating_addresses: Vec<IpAddr>,
    /// Clients on record under an earlier life of this guest on this node.
    pub recorded: Vec<CephClient>,
    /// Clients on record for other guests: alive, and none of ours though at one of our addresses.
    pub of_others: Vec<CephClient>,
}

/// What is in the way of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A lock.
    Lock(RbdLock),
    /// A watcher: somebody has the image open.
    Watcher(CephClient),
}

impl Obstacle {
    fn client(&self) -> &CephClient {
        match self {
            Obstacle::Lock(lock) => &lock.client,
            Obstacle::Watcher(client) => client,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Lock(lock) => write!(f, "a lock held by {} ({})", lock.client, lock.locker),
            Obstacle::Watcher(client) => write!(f, "a watcher, {client}"),
        }
    }
}

/// What follows from who uses a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UseVerdict {
    /// Nobody does.
    Free,
    /// Somebody does, perhaps only for a moment: look again.
    LookAgain(Obstacle),
    /// Only remnants of this guest's earlier lives on this node do: they may be cleared.
    Stale {
        /// Clients to bar from all further I/O before anything is removed.
        clients: Vec<CephClient>,
        /// Locks to remove then.
        locks: Vec<RbdLock>,
    },
    /// Somebody else does: the start fails and nothing is removed.
    Taken(Obstacle),
}

/// How long short openers (a snapshot, a resize) are waited for.
pub const SHORT_OPENERS: Duration = Duration::from_secs(5);

/// Judges who uses a volume, `waited` after the first look.
///
/// The caller owns the guest and has seen that no process of it is on this host; so a client at one of this node's
/// own addresses is a remnant of an earlier life: at once if it is on record, else when it is still there after the
/// time that a short opener takes. Unless it is another guest's: two guests that share a volume by mistake must not
/// bar each other.
pub fn judge_volume_use(seen: &VolumeUse, own: &OwnClients, waited: Duration) -> UseVerdict {
    let obstacles = seen
        .locks
        .iter()
        .cloned()
        .map(Obstacle::Lock)
        .chain(seen.watchers.iter().cloned().map(Obstacle::Watcher));
    let (mut clients, mut locks) = (Vec::new(), Vec::new());
    for obstacle in obstacles {
        let client = obstacle.client();
        let at_home = own.node_addresses.contains(&client.ip())
            && !own.floating_addresses.contains(&client.ip())
            && !own.of_others.contains(client);
        let certainly_ours = at_home && own.recorded.contains(client);
        if !certainly_ours && waited < SHORT_OPENERS {
            return UseVerdict::LookAgain(obstacle);
        }
        if !at_home {
            return UseVerdict::Taken(obstacle);
        }
        if !clients.contains(client) {
            clients.push(client.clone());
        }
        if let Obstacle::Lock(lock) = obstacle {
            locks.push(lock);
        }
    }
    if clients.is_empty() {
        UseVerdict::Free
    } else {
        UseVerdict::Stale { clients, locks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> CephClient {
        text.parse().unwrap()
    }

    fn lock(text: &str) -> RbdLock {
        RbdLock {
            id: "auto 1".into(),
            locker: "client.4".into(),
            client: client(text),
        }
    }

    fn own() -> OwnClients {
        OwnClients {
            // The second is a mistake in a configuration: it follows the primary, and a client there may be anybody's.
            node_addresses: vec!["10.102.0.1".parse().unwrap(), "10.102.0.250".parse().unwrap()],
            floating_addresses: vec!["10.102.0.250".parse().unwrap()],
            recorded: vec![client("10.102.0.1:0/11")],
            of_others: vec![client("10.102.0.1:0/77")],
        }
    }

    const EARLY: Duration = Duration::from_millis(4999);

    #[test]
    fn a_foreign_lock_or_watcher_is_waited_for_and_then_refused_with_nothing_to_remove() {
        // Lesson 55: the reference removes only its own locks too, but never looked at watchers, and a guest that has
        // not written yet has no lock.
        for (locks, watchers) in [
            (vec![lock("10.102.0.2:0/5")], vec![]),
            (vec![], vec![client("10.102.0.2:0/5")]),
            (vec![lock("10.102.0.250:0/5")], vec![]),
            (vec![lock("10.102.0.1:0/77")], vec![client("10.102.0.1:0/77")]),
            (
                vec![lock("10.102.0.1:0/11")],
                vec![client("10.102.0.1:0/11"), client("10.102.0.3:0/9")],
            ),
        ] {
            let seen = VolumeUse { watchers, locks };
            assert!(
                matches!(judge_volume_use(&seen, &own(), EARLY), UseVerdict::LookAgain(_)),
                "{seen:?}"
            );
            assert!(
                matches!(
                    judge_volume_use(&seen, &own(), SHORT_OPENERS),
                    UseVerdict::Taken(_)
                ),
                "{seen:?}"
            );
        }
    }

    #[test]
    fn our_own_recorded_remnants_are_cleared_at_once_and_others_at_our_address_later() {
        let recorded = VolumeUse {
            watchers: vec![client("10.102.0.1:0/11")],
            locks: vec![lock("10.102.0.1:0/11")],
        };
        assert_eq!(
            judge_volume_use(&recorded, &own(), Duration::ZERO),
            UseVerdict::Stale {
                clients: vec![client("10.102.0.1:0/11")],
                locks: vec![lock("10.102.0.1:0/11")]
            }
        );
        let unrecorded = VolumeUse {
            watchers: vec![client("10.102.0.1:0/12")],
            locks: vec![],
        };
        assert!(matches!(
            judge_volume_use(&unrecorded, &own(), EARLY),
            UseVerdict::LookAgain(_)
        ));
        assert_eq!(
            judge_volume_use(&unrecorded, &own(), SHORT_OPENERS),
            UseVerdict::Stale {
                clients: vec![client("10.102.0.1:0/12")],
                locks: vec![]
            }
        );
    }

    #[test]
    fn a_volume_that_nobody_uses_is_free() {
        assert_eq!(
            judge_volume_use(&VolumeUse::default(), &own(), Duration::ZERO),
            UseVerdict::Free
        );
    }
}
