//! What the observer sees, as it tells it: one JSON object a line.

use std::net::IpAddr;

use pvc_core::ids::VmId;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When, in seconds since 1970.
    pub(crate) at: f64,
    /// What.
    #[serde(flatten)]
    pub(crate) what: What,
}

impl Event {
    /// Seen now.
    pub(crate) fn now(what: What) -> Event {
        Event {
            at: Moment::now().seconds(),
            what,
        }
    }
}

/// Whether a node has power and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Life {
    /// It runs, or boots.
    On,
    /// Every process of it stands still.
    Frozen,
    /// It has no power.
    Off,
}

/// What a QEMU process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// It runs its guest from the beginning.
    Start,
    /// It was made to take its guest over in a live migration.
    Incoming,
}

/// A record of the tiny guest in its volume: see tiny.asm of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// How far it has counted.
    pub(crate) n: u32,
    /// Which boot wrote it.
    pub(crate) tag: u32,
    /// The `n` that this boot found.
    pub(crate) base: u32,
    /// How often this boot found a record that was not its own last one.
    pub(crate) alien: u32,
}

/// What the process of a guest is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Qemu {
    /// The guest.
    pub(crate) guest: VmId,
    /// The guest's name.
    pub(crate) name: String,
    /// The node.
    pub(crate) node: String,
    /// Process id on this machine.
    pub(crate) pid: u32,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum What {
    /// Everything is being watched.
    Ready,
    /// A node was switched, frozen or thawed.
    Node {
        /// The node.
        node: String,
        /// How it is now.
        life: Life,
    },
    /// A node got a floating address.
    AddressUp {
        /// The address.
        address: IpAddr,
        /// The node.
        node: String,
    },
    /// A node has lost a floating address.
    AddressDown {
        /// The address.
        address: IpAddr,
        /// The node.
        node: String,
    },
    /// The vCPUs of a QEMU process have run: before that it is paused, and writes nothing.
    Ran {
        /// The process.
        process: Qemu,
    },
    /// A QEMU process of a guest is there.
    Began {
        /// The process.
        process: Qemu,
        /// What for.
        purpose: Purpose,
        /// The guest's volumes, as `pool/image`.
        volumes: Vec<String>,
    },
    /// A QEMU process is gone.
    Ended {
        /// The process.
        process: Qemu,
    },
    /// A guest has written.
    Wrote {
        /// The volume, as `pool/image`.
        image: String,
        /// Its id in Ceph: another volume of the same name has another.
        volume: String,
        /// What is in it.
        record: Written,
        /// When it was asked for; it was there at some time from then on.
        asked: f64,
    },
    /// A volume was removed.
    Gone {
        /// The volume.
        image: String,
    },
    /// The users of a volume have changed.
    Users {
        /// The volume.
        image: String,
        /// Addresses of the holders of locks.
        locks: Vec<String>,
        /// Addresses of the watchers.
        watchers: Vec<String>,
    },
    /// The OSD map has changed.
    Map {
        /// Its epoch.
        epoch: u64,
        /// The OSDs that are up.
        up: Vec<u32>,
        /// The clients that are on the blocklist.
        barred: Vec<String>,
        /// When it was asked for.
        asked: f64,
    },
    /// The monitors answered that the OSD map is the same in all that matters.
    MapSame {
        /// When it was asked for.
        asked: f64,
    },
    /// The monitors' quorum has changed.
    Quorum {
        /// Who is in it.
        members: Vec<String>,
    },
    /// What the store says of a node's agent.
    Agent {
        /// The node.
        node: String,
        /// The daemon's state.
        state: String,
    },
    /// What the store says of a node's fence.
    Fence {
        /// The node.
        node: String,
        /// The word for its phase; none: there is no fence.
        phase: Option<String>,
        /// The proof, the tracks, what it waits for.
        detail: String,
    },
    /// What the store says of a guest.
    Guest {
        /// The guest.
        guest: VmId,
        /// Where it should run.
        node: String,
        /// Its state.
        state: String,
        /// The node that owns it.
        owner: Option<String>,
    },
    /// All records of a guest's log.
    Audit {
        /// The volume.
        image: String,
        /// Its records, in the order of `n`.
        records: Vec<Written>,
    },
    /// Something that must never be.
    Breach {
        /// What.
        text: String,
    },
    /// Something could not be seen.
    Trouble {
        /// What.
        text: String,
    },
}
