//! Holding still while the store may tell of the past.
//!
//! A store that was restored from a snapshot looks like any other, but what it says of owners and leases is old: a
//! guest that it shows as stopped may run, one that it gives to this node may run on another. An agent that finds the
//! store *behind* what it has seen itself goes on hold: it publishes what runs, and starts, ends and fences nothing,
//! until an administrator orders that what really runs is taken as the truth (`pvc cluster adopt`).
//!
//! ```text
//!            the store is behind, empty, or of PVC 1.0.3 with guests
//!   Free ─────────────────────────────────────────────────────────▶ Held
//!                                                                    │ an order to adopt that came after the hold
//!                                                                    ▼
//!   Lifted ◀───────────────────────────────────────────────────── Adopted
//!            every node has adopted, holds nothing back, or is vouched for as off
//! ```
//!
//! No node goes on before every other has put on record what runs there: a guest that the old store gives to the first
//! may run on the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, NodeName, VmId};
use crate::records::{Owner, Record};

/// Why an agent is on hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum HoldReason {
    /// The store's last write is older than one that this node has seen: it was restored from a snapshot.
    StoreBehind {
        /// The newest write seen before (ZooKeeper's zxid).
        seen: i64,
        /// The newest found now.
        found: i64,
    },
    /// The store does not know this node, and guests run here.
    StoreEmpty {
        /// How many.
        guests: u32,
    },
    /// The store is that of PVC 1.0.3 and its guests may be running; nobody is on record as their owner.
    EarlierRelease {
        /// How many may be.
        guests: u32,
    },
    /// A backup is being or was put into the store through the API: its last write is new, what it tells is not.
    Restored {
        /// The restore.
        id: String,
    },
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HoldReason::StoreBehind { seen, found } => write!(
                f,
                "the coordination store is older than this node has seen it (write {found:#x}, seen {seen:#x}): it was restored from a snapshot"
            ),
            HoldReason::StoreEmpty { guests } => write!(
                f,
                "the coordination store does not know this node, and {guests} guests run here"
            ),
            HoldReason::EarlierRelease { guests } => write!(
                f,
                "{guests} guests of PVC 1.0.3 may be running, and nobody is on record as their owner"
            ),
            HoldReason::Restored { .. } => f.write_str("a backup was put into the coordination store"),
        }
    }
}

/// How far a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum HoldPhase {
    /// It is not on hold.
    Free,
    /// It is, and waits for an order to adopt.
    Held {
        /// Why.
        reason: HoldReason,
    },
    /// It puts on record what runs here.
    Adopting {
        /// The order's id.
        order: String,
    },
    /// It has put on record what runs here, and waits for the others.
    Adopted {
        /// The order's id.
        order: String,
        /// Nodes that have not, or are not seen alive.
        waits_for: Vec<NodeName>,
    },
    /// It goes on.
    Lifted {
        /// The order's id.
        order: String,
    },
}

/// `/nodes/N/hold`: written by each life of each agent, so that others can tell "not on hold" from "has not said yet".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// The life of the agent that says so.
    pub incarnation: Incarnation,
    /// How far it is.
    pub phase: HoldPhase,
    /// Since when, in seconds since 1970; to be shown, nothing is decided by it.
    pub since: u64,
    /// While on hold: the guests that run here, as `/proc` shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<VmId>,
    /// Guests that were put on record as this node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<VmId>,
    /// What an administrator must look at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

impl Record for HoldRecord {}

/// `/config/adopt`: an administrator's order that what really runs on the nodes is the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptOrder {
    /// Tells it from every other order: a fresh UUID.
    pub id: String,
    /// Who gave it: the name of the user or token.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Nodes that are off, on the administrator's word: they are not waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<NodeName>,
}

impl Record for AdoptOrder {}

/// `/config/restore`: the last time that a backup was put into the store through the API. It is written before anything
/// else of it, so that every agent holds still by then; it stays, so that one that was off notices later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// Tells it from every other restore: a fresh UUID.
    pub id: String,
    /// Who ordered it: the name of the user or token.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// How far it is.
    pub phase: RestorePhase,
}

impl Record for RestoreRecord {}

/// How far a restore is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RestorePhase {
    /// Agents are waited for. Nothing of the backup has been written.
    Preparing,
    /// The store is partly as it was and partly as the backup has it. If nobody is at it any more, it is ordered again.
    Writing,
    /// The store is as the backup has it.
    Done,
    /// It was given up before anything of the backup was written.
    Abandoned,
}

impl RestorePhase {
    /// Whether the store is whole: what really runs can be taken as the truth then, and not before.
    pub fn is_over(&self) -> bool {
        match self {
            RestorePhase::Preparing | RestorePhase::Writing => false,
            RestorePhase::Done | RestorePhase::Abandoned => true,
        }
    }
}

/// What a node keeps on its own disk of what it has seen in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMemory {
    /// The newest write seen (ZooKeeper's zxid) of the records that all nodes share, the role lease among them.
    pub newest: i64,
    /// The write that last renewed this node's lease, as seen.
    pub own_lease: i64,
    /// This node's own guests with their owner records.
    #[serde(default)]
    pub guests: BTreeMap<VmId, Owner>,
    /// The hold that has not been lifted.
    #[serde(default)]
    pub held: Option<HeldNote>,
    /// The restore that stood in the store when it was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<String>,
}

impl Record for StoreMemory {}

/// A hold as it is remembered over restarts of the agent and of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldNote {
    /// Why.
    pub reason: HoldReason,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// The order that stood in the store when the hold began: it is part of the past and orders nothing.
    pub order_before: Option<String>,
}

/// What is read of the store to judge its age.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreReading {
    /// The newest write of the records that all nodes share. This node's own lease is judged for itself: it may have
    /// been removed on purpose.
    pub newest: i64,
    /// The last write of this node's lease; `None` if the store does not know this node.
    pub own_lease: Option<i64>,
    /// The last restore through the API.
    pub restore: Option<RestoreSeen>,
}

/// What is read of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreSeen {
    /// Which.
    pub id: String,
    /// Whether an order to adopt has been given since: a restore takes away the one before.
    pub adopted: bool,
}

/// Whether the store is one to act on. `processes` is the number of guests whose QEMU runs here.
///
/// # Errors
/// Why it is not.
pub fn judge_store(
    memory: Option<&StoreMemory>,
    reading: StoreReading,
    processes: u32,
) -> Result<(), HoldReason> {
    if let Some(memory) = memory {
        let behind = |seen, found| Err(HoldReason::StoreBehind { seen, found });
        if reading.newest < memory.newest {
            return behind(memory.newest, reading.newest);
        }
        if let Some(own_lease) = reading.own_lease
            && own_lease < memory.own_lease
        {
            return behind(memory.own_lease, own_lease);
        }
    }
    if let Some(restore) = &reading.restore {
        // A node without a memory can't tell whether it has seen this one; while nobody has said what runs where, no
        // node may believe what the store says of guests.
        let dealt_with = match memory {
            Some(memory) => memory.restore.as_ref() == Some(&restore.id),
            None => restore.adopted,
        };
        if !dealt_with {
            return Err(HoldReason::Restored {
                id: restore.id.clone(),
            });
        }
    }
    match reading.own_lease {
        None if processes > 0 => Err(HoldReason::StoreEmpty { guests: processes }),
        None | Some(_) => Ok(()),
    }
}

/// What a node on hold sees of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHold {
    /// Its word.
    pub record: Option<HoldRecord>,
    /// The life that renews its lease, if that was seen to move during this hold.
    pub alive: Option<Incarnation>,
}

/// The nodes that an adopting node has to wait for: all but those that have adopted under the same order, say that they
/// are not on hold, or are off on the administrator's word. What a node says counts only from the life that is seen
/// alive now: the rest is part of the past.
pub fn waits_for(order: &AdoptOrder, peers: &BTreeMap<NodeName, PeerHold>) -> Vec<NodeName> {
    let off: BTreeSet<&NodeName> = order.without.iter().collect();
    peers
        .iter()
        .filter(|(name, peer)| !off.contains(name) && !has_answered(order, peer))
        .map(|(name, _)| name.clone())
        .collect()
}

fn has_answered(order: &AdoptOrder, peer: &PeerHold) -> bool {
    let (Some(record), Some(alive)) = (&peer.record, &peer.alive) else {
        return false;
    };
    if record.incarnation != *alive {
        return false;
    }
    match &record.phase {
        HoldPhase::Free => true,
        HoldPhase::Held { .. } | HoldPhase::Adopting { .. } => false,
        HoldPhase::Adopted { order: answered, .. } | HoldPhase::Lifted { order: answered } => {
            *answered == order.id
        }
    }
}

/// What an adopting node does about one guest whose process runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// It is on record as this boot's already.
    AlreadySo,
    /// Put this node on record as its owner and its place, and let it run.
    Take(Owner),
    /// Leave it, and tell why.
    Refuse {
        /// Why, in words.
        reason: String,
    },
}

/// Whether the node that an old store names as owner can be writing that record, or starting that guest, just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerOwner {
    /// It can't: it is on hold too, or off on the administrator's word.
    Bound,
    /// It may.
    Free,
}

/// The owner record that says of a process found here that it is ours. Its Ceph clients are those on record for the
/// same boot, in the store or on this node's disk; else unknown.
pub fn adoption(
    me: &NodeName,
    incarnation: &Incarnation,
    stored: Option<&Owner>,
    remembered: Option<&Owner>,
    former: FormerOwner,
    epoch: u64,
) -> Adoption {
    let ours = |owner: &&Owner| owner.node == *me && owner.incarnation.same_boot(incarnation);
    if let Some(owner) = stored
        && owner.node != *me
        && former == FormerOwner::Free
    {
        return Adoption::Refuse {
            reason: format!(
                "{} is on record as its owner and is not on hold: look there first",
                owner.node
            ),
        };
    }
    if stored.is_some_and(|owner| ours(&owner) && owner.incarnation == *incarnation) {
        return Adoption::AlreadySo;
    }
    // What this node's disk says is newer than what an old store says.
    let known = remembered.filter(ours).or(stored.filter(ours));
    Adoption::Take(Owner {
        node: me.clone(),
        incarnation: incarnation.clone(),
        epoch,
        ceph_clients: known.map_or(crate::records::CephClients::Unknown, |owner| {
            owner.ceph_clients.clone()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BootId, MachineId};
    use crate::records::CephClients;

    fn node(number: u32) -> NodeName {
        NodeName::new(format!("hv{number}")).unwrap()
    }

    fn life(machine: u32, boot: u32, counter: u64) -> Incarnation {
        Incarnation {
            machine_id: MachineId::new(machine.to_string().repeat(32)).unwrap(),
            boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{boot:012}")).unwrap(),
            counter,
        }
    }

    fn memory() -> StoreMemory {
        StoreMemory {
            newest: 0x5_0000_0100,
            own_lease: 0x5_0000_00f0,
            ..StoreMemory::default()
        }
    }

    #[test]
    fn a_store_is_judged_by_what_this_node_has_seen_of_it() {
        let check = |newest, own_lease, processes| {
            judge_store(Some(&memory()), reading(newest, own_lease), processes)
        };
        // As it was, and newer.
        assert_eq!(check(0x5_0000_0100, Some(0x5_0000_00f0), 3), Ok(()));
        assert_eq!(check(0x6_0000_0001, Some(0x6_0000_0001), 0), Ok(()));
        // Yesterday's snapshot. It counts on an empty node too: what it starts may run on another.
        for processes in [0, 3] {
            let behind = check(0x4_0000_0100, Some(0x4_0000_00f0), processes);
            let reason = HoldReason::StoreBehind {
                seen: 0x5_0000_0100,
                found: 0x4_0000_0100,
            };
            assert_eq!(behind, Err(reason));
        }
        // The servers kept their epoch, and others have written to the old data meanwhile.
        assert!(matches!(
            check(0x6_0000_0001, Some(0x4_0000_00f0), 0),
            Err(HoldReason::StoreBehind { .. })
        ));
        // Taken out of the cluster on purpose: joins anew if nothing runs here.
        assert_eq!(check(0x6_0000_0001, None, 0), Ok(()));
        assert_eq!(
            check(0x6_0000_0001, None, 2),
            Err(HoldReason::StoreEmpty { guests: 2 })
        );
        // A host that has seen no store yet.
        let fresh = |own_lease, processes| judge_store(None, reading(7, own_lease), processes);
        assert_eq!(fresh(None, 0), Ok(()));
        assert_eq!(fresh(Some(1), 4), Ok(()));
        assert_eq!(fresh(None, 1), Err(HoldReason::StoreEmpty { guests: 1 }));
    }

    fn reading(newest: i64, own_lease: Option<i64>) -> StoreReading {
        StoreReading {
            newest,
            own_lease,
            restore: None,
        }
    }

    #[test]
    fn a_backup_that_was_put_into_the_store_is_noticed_though_its_writes_are_new() {
        // Every write of a restore through the API is newer than what anybody has seen.
        let check = |memory: Option<&StoreMemory>, id: &str, adopted| {
            let restore = Some(RestoreSeen {
                id: id.to_owned(),
                adopted,
            });
            let reading = StoreReading {
                restore,
                ..reading(0x7_0000_0000, Some(0x7_0000_0000))
            };
            judge_store(memory, reading, 0)
        };
        let held = |id: &str| Err(HoldReason::Restored { id: id.to_owned() });
        let seen = |id: &str| StoreMemory {
            restore: Some(id.to_owned()),
            ..memory()
        };
        assert_eq!(check(Some(&memory()), "a", false), held("a"));
        assert_eq!(check(Some(&seen("a")), "a", false), Ok(()));
        assert_eq!(check(Some(&seen("a")), "b", false), held("b"));
        // It was off while the others adopted: what the order says of them it has to hear as well.
        assert_eq!(check(Some(&seen("a")), "b", true), held("b"));
        // A host that has seen no store yet: it may be the home of a guest that runs elsewhere.
        assert_eq!(check(None, "a", false), held("a"));
        assert_eq!(check(None, "a", true), Ok(()));
    }

    fn order() -> AdoptOrder {
        AdoptOrder {
            id: "now".into(),
            by: "admin".into(),
            at: 1,
            without: vec![],
        }
    }

    fn says(phase: HoldPhase, incarnation: Incarnation) -> Option<HoldRecord> {
        Some(HoldRecord {
            incarnation,
            phase,
            since: 1,
            running: vec![],
            adopted: vec![],
            trouble: vec![],
        })
    }

    #[test]
    fn nobody_goes_on_before_every_node_has_said_what_runs_there() {
        // A guest that the old store gives to this node may run on the one that has not answered.
        let adopted = |order: &str| HoldPhase::Adopted {
            order: order.into(),
            waits_for: vec![],
        };
        let held = HoldPhase::Held {
            reason: HoldReason::StoreEmpty { guests: 1 },
        };
        let check = |record: Option<HoldRecord>, alive: Option<Incarnation>| {
            let peers = BTreeMap::from([(node(2), PeerHold { record, alive })]);
            waits_for(&order(), &peers).is_empty()
        };
        let alive = Some(life(2, 2, 3));
        for answered in [
            HoldPhase::Free,
            adopted("now"),
            HoldPhase::Lifted { order: "now".into() },
        ] {
            assert!(
                check(says(answered.clone(), life(2, 2, 3)), alive.clone()),
                "{answered:?}"
            );
            // The same word of an earlier life, or of one that is not seen alive, is a word of the past.
            assert!(!check(says(answered.clone(), life(2, 2, 2)), alive.clone()));
            assert!(!check(says(answered.clone(), life(2, 2, 3)), None));
        }
        for not_yet in [
            held,
            HoldPhase::Adopting { order: "now".into() },
            adopted("last month"),
            HoldPhase::Lifted {
                order: "last month".into(),
            },
        ] {
            assert!(
                !check(says(not_yet.clone(), life(2, 2, 3)), alive.clone()),
                "{not_yet:?}"
            );
        }
        assert!(!check(None, alive));
        // Off, on the administrator's word.
        let peers = BTreeMap::from([(
            node(2),
            PeerHold {
                record: None,
                alive: None,
            },
        )]);
        let without = AdoptOrder {
            without: vec![node(2)],
            ..order()
        };
        assert_eq!(waits_for(&without, &peers), []);
    }

    #[test]
    fn what_runs_here_becomes_ours_with_the_clients_that_are_known() {
        let clients = CephClients::Recorded(vec!["10.102.0.1:0/77".parse().unwrap()]);
        let owner = |number, incarnation, ceph_clients| Owner {
            node: node(number),
            incarnation,
            epoch: 3,
            ceph_clients,
        };
        let me = life(1, 1, 9);
        let check = |stored: Option<Owner>, remembered: Option<Owner>, former| {
            adoption(&node(1), &me, stored.as_ref(), remembered.as_ref(), former, 8)
        };
        let taken = |ceph_clients| Adoption::Take(owner_of(8, &me, ceph_clients));
        let bound = FormerOwner::Bound;
        assert_eq!(check(None, None, bound), taken(CephClients::Unknown));
        // From this node's disk, which is newer than the store; from the store if it is of this boot.
        let here = owner(1, life(1, 1, 7), clients.clone());
        assert_eq!(check(None, Some(here.clone()), bound), taken(clients.clone()));
        assert_eq!(check(Some(here.clone()), None, bound), taken(clients.clone()));
        let elsewhere = owner(2, life(2, 2, 1), CephClients::Recorded(vec![]));
        assert_eq!(
            check(Some(elsewhere.clone()), Some(here), bound),
            taken(clients.clone())
        );
        // Clients of another boot are not those of the process that runs now.
        let before = owner(1, life(1, 2, 7), clients.clone());
        assert_eq!(
            check(Some(before.clone()), Some(before), bound),
            taken(CephClients::Unknown)
        );
        assert_eq!(
            check(Some(owner_of(3, &me, clients.clone())), None, bound),
            Adoption::AlreadySo
        );
        // An owner that is not on hold may have claimed it a moment ago.
        assert!(matches!(
            check(Some(elsewhere), None, FormerOwner::Free),
            Adoption::Refuse { .. }
        ));
    }

    fn owner_of(epoch: u64, incarnation: &Incarnation, ceph_clients: CephClients) -> Owner {
        Owner {
            node: node(1),
            incarnation: incarnation.clone(),
            epoch,
            ceph_clients,
        }
    }
}
