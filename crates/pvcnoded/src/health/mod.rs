//! Health checks of this node, under the names of PVC 1.0.3's plugins.
//!
//! Each runs by its own period and limit, beside everything else: one that hangs costs its own result alone. What is found
//! goes to `/nodes/N/monitoring_data`, and the node's health is what they leave of 100. Nothing is decided by it.
//!
//! * [`HealthKeeper`] runs the checks and publishes.
//! * `load`, `edac`, `nics`, `disk`, `hwrd`, `dpkg`, `psur`, `ipmi`, `lbvt`, `zkpr` - a check each.
//! * `publish` - what is written of them.

mod disk;
mod dpkg;
mod edac;
mod hwrd;
mod ipmi;
mod lbvt;
mod load;
mod nics;
mod psur;
mod publish;
#[cfg(test)]
mod tests;
mod zkpr;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use pvc_common::clock::Clock;
use pvc_common::command::CommandRunner;
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use pvc_core::time::BootTime;
use serde_json::{Map, Value};

use crate::host::Hypervisor;

/// A check, by the name that PVC 1.0.3 gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Disks tell that they are failing.
    Disk,
    /// Packages are broken, or could be upgraded.
    Dpkg,
    /// Memory has errors.
    Edac,
    /// Hardware RAID controllers.
    Hwrd,
    /// The node's own BMC answers.
    Ipmi,
    /// PVC 1.0.3's task queue.
    Kydb,
    /// libvirt answers.
    Lbvt,
    /// More work than CPUs.
    Load,
    /// Network devices run at their speed.
    Nics,
    /// PostgreSQL.
    Psql,
    /// Power supplies are redundant.
    Psur,
    /// ZooKeeper on this node answers.
    Zkpr,
}

impl Check {
    /// All, in the order of their names.
    pub const ALL: [Check; 12] = [
        Check::Disk,
        Check::Dpkg,
        Check::Edac,
        Check::Hwrd,
        Check::Ipmi,
        Check::Kydb,
        Check::Lbvt,
        Check::Load,
        Check::Nics,
        Check::Psql,
        Check::Psur,
        Check::Zkpr,
    ];

    /// Its name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Check::Disk => "disk",
            Check::Dpkg => "dpkg",
            Check::Edac => "edac",
            Check::Hwrd => "hwrd",
            Check::Ipmi => "ipmi",
            Check::Kydb => "kydb",
            Check::Lbvt => "lbvt",
            Check::Load => "load",
            Check::Nics => "nics",
            Check::Psql => "psql",
            Check::Psur => "psur",
            Check::Zkpr => "zkpr",
        }
    }

    /// The least time between two runs: asking disks and packages costs more than is gained by asking often.
    const fn period(self) -> Duration {
        match self {
            Check::Disk | Check::Hwrd | Check::Psur => Duration::from_secs(300),
            Check::Dpkg => Duration::from_secs(3600),
            Check::Edac
            | Check::Ipmi
            | Check::Kydb
            | Check::Lbvt
            | Check::Load
            | Check::Nics
            | Check::Psql
            | Check::Zkpr => Duration::ZERO,
        }
    }

    /// How long a run may take.
    const fn limit(self) -> Duration {
        match self {
            Check::Disk | Check::Dpkg => Duration::from_secs(60),
            Check::Psur => Duration::from_secs(20),
            Check::Hwrd => Duration::from_secs(25),
            Check::Edac
            | Check::Ipmi
            | Check::Kydb
            | Check::Lbvt
            | Check::Load
            | Check::Nics
            | Check::Psql
            | Check::Zkpr => Duration::from_secs(5),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it takes from the node's health, in percent.
    pub delta: u32,
    /// For people.
    pub message: String,
    /// For programs: an object.
    pub data: Value,
}

impl Finding {
    fn new(delta: u32, message: impl Into<String>, data: Value) -> Finding {
        Finding {
            delta,
            message: message.into(),
            data,
        }
    }

    /// It could not be checked, for that reason; that is no flaw of the node.
    fn not_checked(reason: impl std::fmt::Display) -> Finding {
        Finding::new(0, format!("not checked: {reason}"), Value::Object(Map::new()))
    }
}

/// Where checks look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthFiles {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
    /// What dpkg knows of each package.
    pub dpkg_status: PathBuf,
    /// The way to the BMC from inside.
    pub ipmi_device: PathBuf,
}

impl Default for HealthFiles {
    fn default() -> HealthFiles {
        HealthFiles {
            proc: "/proc".into(),
            sys: "/sys".into(),
            etc: "/etc".into(),
            dpkg_status: "/var/lib/dpkg/status".into(),
            ipmi_device: "/dev/ipmi0".into(),
        }
    }
}

/// What checks ask.
#[derive(Debug, Clone)]
pub struct HealthParts<S, C, H, R> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// libvirt; `None` on a node that runs no guests.
    pub hypervisor: Option<H>,
    /// Programs of the host.
    pub commands: R,
    /// Where files are.
    pub files: HealthFiles,
    /// This node.
    pub me: NodeName,
    /// ZooKeeper on this node; `None` where none should run.
    pub zookeeper: Option<SocketAddr>,
    /// The network devices that matter.
    pub devices: Vec<String>,
    /// How often the quick checks run.
    pub interval: Duration,
}

/// Runs the checks and publishes what they find.
#[derive(Debug)]
pub struct HealthKeeper<S, C, H, R> {
    parts: HealthParts<S, C, H, R>,
    results: BTreeMap<Check, CheckResult>,
    publisher: publish::Publisher,
}

/// The last result of a check.
#[derive(Debug, Clone, PartialEq)]
struct CheckResult {
    finding: Finding,
    /// When the run began.
    at: BootTime,
    /// The same for people, in seconds since 1970.
    at_wall: u64,
    took: Duration,
}

impl<S, C, H, R> HealthKeeper<S, C, H, R>
where
    S: Store,
    C: Clock,
    H: Hypervisor,
    R: CommandRunner + Clone + 'static,
{
    /// Nothing is known yet.
    pub fn new(parts: HealthParts<S, C, H, R>) -> Self {
        HealthKeeper {
            parts,
            results: BTreeMap::new(),
            publisher: publish::Publisher::default(),
        }
    }

    /// Checks until dropped.
    pub async fn run(mut self) {
        loop {
            let next = self.parts.clock.now() + self.parts.interval;
            self.round().await;
            self.parts.clock.sleep_until(next).await;
        }
    }

    /// Runs every check that is due, all at once, and publishes.
    pub async fn round(&mut self) {
        let now = self.parts.clock.now();
        let is_due = |check: &Check| {
            self.results
                .get(check)
                .is_none_or(|last| now.since(last.at) >= check.period())
        };
        let due: Vec<Check> = Check::ALL.into_iter().filter(is_due).collect();
        let found = join_all(due.iter().map(|check| self.run_one(*check))).await;
        for (check, result) in due.into_iter().zip(found) {
            // One that did not end keeps what it found before.
            match (result, self.results.get_mut(&check)) {
                (Ok(result), _) => {
                    self.results.insert(check, result);
                }
                (Err(late), Some(before)) => before.at = late.at,
                (Err(late), None) => {
                    self.results.insert(check, late);
                }
            }
        }
        self.publisher.publish(&self.parts, &self.results).await;
    }

    /// Runs a check; an error when it did not end within its limit.
    async fn run_one(&self, check: Check) -> Result<CheckResult, CheckResult> {
        let clock = &self.parts.clock;
        let at = clock.now();
        let at_wall = clock
            .wall()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let found = clock.timeout(check.limit(), self.look(check)).await;
        let result = |finding| CheckResult {
            finding,
            at,
            at_wall,
            took: clock.now().since(at),
        };
        match found {
            Some(finding) => Ok(result(finding)),
            None => {
                tracing::warn!(
                    check = check.name(),
                    "a health check did not end within its limit"
                );
                Err(result(Finding::not_checked(format!(
                    "it did not end within {} s",
                    check.limit().as_secs()
                ))))
            }
        }
    }

    async fn look(&self, check: Check) -> Finding {
        let parts = &self.parts;
        match check {
            Check::Disk => disk::check(&parts.commands).await,
            Check::Dpkg => dpkg::check(&parts.commands, &parts.files).await,
            Check::Edac => edac::check(&parts.files.sys),
            Check::Hwrd => {
                let before = self.results.get(&check).map(|result| &result.finding);
                hwrd::check(&parts.commands, before).await
            }
            Check::Ipmi => ipmi::check(&parts.store, &parts.me).await,
            Check::Kydb => {
                Finding::not_checked("this release has no task queue of its own; tasks are in ZooKeeper")
            }
            Check::Lbvt => lbvt::check(&parts.clock, parts.hypervisor.as_ref()).await,
            Check::Load => load::check(&parts.files.proc),
            Check::Nics => nics::check(&parts.files, &parts.devices),
            Check::Psql => Finding::not_checked("this release does not use PostgreSQL yet"),
            Check::Psur => psur::check(&parts.commands, &parts.files).await,
            Check::Zkpr => zkpr::check(&parts.clock, parts.zookeeper).await,
        }
    }
}
