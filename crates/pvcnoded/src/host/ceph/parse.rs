//! Output of `rbd` and `ceph` with `--format json`, read into types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pvc_core::ids::CephClient;
use serde::Deserialize;

use crate::host::{MapEpoch, OsdState, RbdLock};

#[derive(Deserialize)]
struct Status {
    watchers: Vec<Watcher>,
}

#[derive(Deserialize)]
struct Watcher {
    address: CephClient,
}

#[derive(Deserialize)]
struct Lock {
    id: String,
    locker: String,
    address: CephClient,
}

/// `rbd status`: who has the image open.
pub(super) fn watchers(text: &str) -> Result<Vec<CephClient>, serde_json::Error> {
    let status: Status = serde_json::from_str(text)?;
    Ok(status
        .watchers
        .into_iter()
        .map(|watcher| watcher.address)
        .collect())
}

/// `rbd lock list`.
pub(super) fn locks(text: &str) -> Result<Vec<RbdLock>, serde_json::Error> {
    let locks: Vec<Lock> = serde_json::from_str(text)?;
    Ok(locks
        .into_iter()
        .map(|lock| RbdLock {
            id: lock.id,
            locker: lock.locker,
            client: lock.address,
        })
        .collect())
}

/// `rbd ls`: the images of a pool.
pub(super) fn images(text: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(text)
}

/// What we read of the OSD map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsdMap {
    /// Its number.
    pub(super) epoch: MapEpoch,
    /// The clients that are barred.
    pub(super) blocklist: BTreeSet<CephClient>,
    /// The OSDs that have ever been up.
    pub(super) osds: Vec<OsdState>,
}

#[derive(Deserialize)]
struct Dump {
    epoch: u64,
    osds: Vec<DumpedOsd>,
    /// By address, with the end of each entry.
    blocklist: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct DumpedOsd {
    osd: u32,
    up: u8,
    public_addr: String,
}

/// `ceph osd dump`: the committed map, with the blocklist as of the same epoch.
pub(super) fn osd_map(text: &str) -> Result<OsdMap, serde_json::Error> {
    let dump: Dump = serde_json::from_str(text)?;
    let mut osds = Vec::with_capacity(dump.osds.len());
    for osd in dump.osds {
        let up = osd.up != 0;
        match host_of(&osd.public_addr) {
            Some(ip) => osds.push(OsdState { id: osd.osd, up, ip }),
            // Never been up. One that is up has an address: not to see it would leave it out of the proof.
            None if up => {
                return Err(serde::de::Error::custom(format_args!(
                    "osd.{} is up at {:?}, which is no address",
                    osd.osd, osd.public_addr
                )));
            }
            None => {}
        }
    }
    Ok(OsdMap {
        epoch: MapEpoch(dump.epoch),
        // What is no client (a whole host, `ADDRESS:0/0`, is one here) can't be one that we look for.
        blocklist: dump
            .blocklist
            .keys()
            .filter_map(|addr| addr.parse().ok())
            .collect(),
        osds,
    })
}

/// The host in `ADDRESS:PORT/NONCE`. One that never was up is at `:/0` or `-`.
fn host_of(address: &str) -> Option<IpAddr> {
    let client: CephClient = address.parse().ok()?;
    let ip = client.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// `ceph tell osd.N status`: the newest map that this OSD has.
pub(super) fn newest_map(text: &str) -> Result<MapEpoch, serde_json::Error> {
    #[derive(Deserialize)]
    struct OsdStatus {
        newest_map: u64,
    }
    let status: OsdStatus = serde_json::from_str(text)?;
    Ok(MapEpoch(status.newest_map))
}
