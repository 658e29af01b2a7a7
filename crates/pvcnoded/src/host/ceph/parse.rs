//! What Ceph and the batch print as JSON, read into types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pvc_core::cluster_faults::{CephCheck, CephSeverity};
use pvc_core::ids::CephClient;
use serde::Deserialize;

use crate::host::{MapEpoch, OsdState, RbdLock, VolumeUse};

#[derive(Deserialize)]
struct Users {
    watchers: Vec<Watcher>,
    locks: Vec<Lock>,
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

/// Who uses a volume, as the batch prints it.
pub(super) fn volume_use(text: &str) -> Result<VolumeUse, serde_json::Error> {
    let users: Users = serde_json::from_str(text)?;
    Ok(VolumeUse {
        watchers: users
            .watchers
            .into_iter()
            .map(|watcher| watcher.address)
            .collect(),
        locks: users
            .locks
            .into_iter()
            .map(|lock| RbdLock {
                id: lock.id,
                locker: lock.locker,
                client: lock.address,
            })
            .collect(),
    })
}

/// What we read of the OSD map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsdMap {
    /// Its number.
    pub(super) epoch: MapEpoch,
    /// The clients that are barred.
    pub(super) blocklist: BTreeMap<CephClient, Entry>,
    /// The OSDs that have ever been up.
    pub(super) osds: Vec<OsdState>,
}

/// An entry of the blocklist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its end, as Ceph prints it.
    pub(super) until: String,
    /// From the map's last change until its end, in calendar years; both are times of the monitors.
    years: i32,
}

impl Entry {
    /// Whether it outlives every pause of its client. Our own last for ten years; one of five still does.
    pub(super) fn lasts(&self) -> bool {
        const YEARS: i32 = 5;
        self.years >= YEARS
    }
}

#[derive(Deserialize)]
struct Dump {
    epoch: u64,
    modified: String,
    osds: Vec<DumpedOsd>,
    /// By address, with the end of each entry.
    blocklist: BTreeMap<String, String>,
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
    let changed = year(&dump.modified)?;
    let mut blocklist = BTreeMap::new();
    for (address, until) in dump.blocklist {
        // What is no client can't be one that we look for.
        if let Ok(client) = address.parse() {
            let years = year(&until)? - changed;
            blocklist.insert(client, Entry { until, years });
        }
    }
    Ok(OsdMap {
        epoch: MapEpoch(dump.epoch),
        blocklist,
        osds,
    })
}

/// The year of a time such as `2036-11-19T22:31:30.301604+0000`.
fn year(time: &str) -> Result<i32, serde_json::Error> {
    let digits = time.split('-').next().filter(|digits| digits.len() == 4);
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| serde::de::Error::custom(format_args!("{time:?} is no time")))
}

/// The host in `ADDRESS:PORT/NONCE`. One that never was up is at `:/0` or `-`.
fn host_of(address: &str) -> Option<IpAddr> {
    let client: CephClient = address.parse().ok()?;
    let ip = client.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// `ceph health`: what is complained of, without what an administrator has muted.
pub(super) fn health(text: &str) -> Result<Vec<CephCheck>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Health {
        checks: BTreeMap<String, Check>,
    }
    #[derive(Deserialize)]
    struct Check {
        severity: String,
        summary: Summary,
        #[serde(default)]
        muted: bool,
    }
    #[derive(Deserialize)]
    struct Summary {
        message: String,
    }
    let health: Health = serde_json::from_str(text)?;
    let told = health.checks.into_iter().filter(|(_, check)| !check.muted);
    Ok(told
        .map(|(name, check)| CephCheck {
            name,
            // A word that nobody knows yet is not taken for a small matter.
            severity: match check.severity.as_str() {
                "HEALTH_WARN" => CephSeverity::Warning,
                _ => CephSeverity::Error,
            },
            summary: check.summary.message,
        })
        .collect())
}

/// `ceph osd dump`: the OSDs on which no data is placed.
pub(super) fn osds_out(text: &str) -> Result<Vec<u32>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Dump {
        osds: Vec<Osd>,
    }
    #[derive(Deserialize)]
    struct Osd {
        osd: u32,
        #[serde(rename = "in")]
        is_in: u8,
    }
    let dump: Dump = serde_json::from_str(text)?;
    let out = dump.osds.into_iter().filter(|osd| osd.is_in == 0);
    Ok(out.map(|osd| osd.osd).collect())
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
