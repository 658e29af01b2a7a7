//! Statistics of the node and its guests, in the store for everyone to read.
//!
//! They are collected beside the heartbeat, each source under a limit of its own: a source that does not answer leaves
//! its figures as they were. Nobody judges by them whether this node is alive.
//!
//! * [`collect`] asks the sources and makes a [`NodeStatistics`].
//! * [`NodeStatistics::writes`] says what to write, purely.
//! * [`publish`] writes all of it in one transaction.

mod interfaces;
mod proc;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use pvc_common::clock::Clock;
use pvc_common::keys::values::{Json, Load, RunningDomains, StaticData};
use pvc_common::keys::{domain, node};
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::records::AgentFigures;
use pvc_core::states::DaemonState;
use serde_json::Value;

use crate::host::{DomainStatus, GuestStatistics, Hypervisor, HypervisorError};

pub use interfaces::InterfaceSampler;
pub use proc::Memory;
pub(crate) use proc::load;

/// Where the host's figures are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFiles {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for HostFiles {
    fn default() -> HostFiles {
        HostFiles {
            proc: "/proc".into(),
            sys: "/sys".into(),
        }
    }
}

/// What a node is made of, told once at each start.
pub fn static_data() -> StaticData {
    let uname = rustix::system::uname();
    // The value is one line of words.
    let word = |text: &std::ffi::CStr| text.to_string_lossy().replace(char::is_whitespace, "_");
    StaticData {
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|count| u32::try_from(count.get()).ok())
            .unwrap_or(1),
        kernel: word(uname.release()),
        os: word(uname.sysname()),
        arch: word(uname.machine()),
    }
}

/// Figures of a node at one moment. What could not be found out is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeStatistics {
    /// When they were collected, in seconds since 1970: for people and for clients of PVC 1.0.3.
    pub collected_at: u64,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Its load average over one minute.
    pub load: Option<f64>,
    /// The guests that run there.
    pub guests: Option<Guests>,
    /// Memory of all guests placed there, running or not, in MiB.
    pub provisioned_mib: Option<u64>,
    /// Rates of its network interfaces; none before the second sample.
    pub interfaces: Option<Value>,
    /// What its agent measures of itself.
    pub agent: Option<AgentFigures>,
}

/// The guests that run on a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guests {
    /// Which, in order of their UUIDs.
    pub running: Vec<VmId>,
    /// Their vCPUs and memory; none if libvirt did not say.
    pub allocated: Option<Allocated>,
}

/// What the running guests of a node have been given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocated {
    /// vCPUs.
    pub vcpus: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

impl Allocated {
    /// Sums the figures of all guests up.
    fn of(figures: &BTreeMap<VmId, GuestStatistics>) -> Allocated {
        let sum = |field: &str| {
            let numbers = figures.values().filter_map(|guest| guest.get(field)?.as_u64());
            numbers.fold(0_u64, u64::saturating_add)
        };
        Allocated {
            vcpus: sum("cpus"),
            memory_mib: sum("maxmem") / 1024,
        }
    }
}

impl NodeStatistics {
    /// What to write for `name`: everything that is known and differs from `before`, what was written last.
    ///
    /// No version is named: the values are this node's own and depend on nothing read.
    pub fn writes(&self, name: &NodeName, before: Option<&NodeStatistics>) -> Txn {
        let keys = node(name);
        let mut txn = Txn::new().overwrite(&keys.keepalive(), &self.collected_at);
        let memory = before.and_then(|before| before.memory);
        if let Some(now) = self.memory {
            if memory.map(|memory| memory.total_mib) != Some(now.total_mib) {
                txn = txn.overwrite(&keys.memory_total_mib(), &now.total_mib);
            }
            if memory.map(|memory| memory.used_mib) != Some(now.used_mib) {
                txn = txn.overwrite(&keys.memory_used_mib(), &now.used_mib);
            }
            if memory.map(|memory| memory.free_mib) != Some(now.free_mib) {
                txn = txn.overwrite(&keys.memory_free_mib(), &now.free_mib);
            }
        }
        if let Some(load) = self.load
            && before.and_then(|before| before.load) != Some(load)
        {
            txn = txn.overwrite(&keys.cpu_load(), &Load(load));
        }
        if let Some(guests) = &self.guests {
            let before = before.and_then(|before| before.guests.as_ref());
            if before.map(|before| &before.running) != Some(&guests.running) {
                let count = u32::try_from(guests.running.len()).unwrap_or(u32::MAX);
                txn = txn
                    .overwrite(&keys.running_domains(), &RunningDomains(guests.running.clone()))
                    .overwrite(&keys.domains_count(), &count);
            }
            if let Some(allocated) = guests.allocated
                && before.and_then(|before| before.allocated) != Some(allocated)
            {
                txn = txn
                    .overwrite(&keys.vcpu_allocated(), &allocated.vcpus)
                    .overwrite(&keys.memory_allocated_mib(), &allocated.memory_mib);
            }
        }
        if let Some(provisioned) = self.provisioned_mib
            && before.and_then(|before| before.provisioned_mib) != Some(provisioned)
        {
            txn = txn.overwrite(&keys.memory_provisioned_mib(), &provisioned);
        }
        if self.interfaces.is_some()
            && before.and_then(|before| before.interfaces.as_ref()) != self.interfaces.as_ref()
        {
            txn = txn.overwrite(&keys.network_stats(), &self.interfaces.clone().map(Json));
        }
        if self.agent.is_some() && before.and_then(|before| before.agent.as_ref()) != self.agent.as_ref() {
            txn = txn.overwrite(&keys.agent_stats(), &self.agent);
        }
        txn
    }
}

/// Everything that one collection found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// The node's figures.
    pub node: NodeStatistics,
    /// The figures of each running guest.
    pub guests: BTreeMap<VmId, GuestStatistics>,
}

/// Asks all sources, each for at most `limit`. `provisioned_mib` is what the caller has read of the guests placed here.
/// What could not be found out is none, and logged at debug: the sources' own watchers tell of their loss.
pub async fn collect<C: Clock, H: Hypervisor>(
    clock: &C,
    hypervisor: Option<&H>,
    files: &HostFiles,
    interfaces: &mut InterfaceSampler,
    provisioned_mib: Option<u64>,
    limit: Duration,
) -> Collected {
    let (guests, figures) = match hypervisor {
        Some(hypervisor) => guests(clock, hypervisor, limit).await,
        None => (Some(Guests::default()), BTreeMap::new()),
    };
    let rates = known("network interfaces", interfaces.sample(&files.sys, clock.now()));
    Collected {
        node: NodeStatistics {
            collected_at: clock
                .wall()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            memory: known("memory", proc::memory(&files.proc)),
            load: known("load", proc::load(&files.proc)),
            guests,
            provisioned_mib,
            interfaces: rates.flatten(),
            agent: None,
        },
        guests: figures,
    }
}

fn known<T>(what: &str, outcome: io::Result<T>) -> Option<T> {
    outcome
        .inspect_err(|error| tracing::debug!(what, %error, "a figure of this host can't be read"))
        .ok()
}

async fn guests<C: Clock, H: Hypervisor>(
    clock: &C,
    hypervisor: &H,
    limit: Duration,
) -> (Option<Guests>, BTreeMap<VmId, GuestStatistics>) {
    let both = async {
        let domains = hypervisor.domains().await?;
        let figures = hypervisor.statistics().await;
        Ok::<_, HypervisorError>((domains, figures))
    };
    let Some(Ok((domains, figures))) = clock.timeout(limit, both).await else {
        tracing::debug!("libvirt does not say which guests run here");
        return (None, BTreeMap::new());
    };
    let running: Vec<VmId> = domains
        .into_iter()
        .filter(|(_, status)| has_process(*status))
        .map(|(vm, _)| vm)
        .collect();
    let figures = figures.ok();
    let guests = Guests {
        running,
        allocated: figures.as_ref().map(Allocated::of),
    };
    (Some(guests), figures.unwrap_or_default())
}

/// Whether such a guest is counted as running.
fn has_process(status: DomainStatus) -> bool {
    match status {
        DomainStatus::Running | DomainStatus::Paused(_) | DomainStatus::ShuttingDown => true,
        DomainStatus::Off | DomainStatus::Crashed => false,
    }
}

/// Writes the state of the node's agent, the node's figures and those of its guests in one transaction. A guest that was
/// deleted meanwhile is left out.
///
/// # Errors
/// As [`Store::commit`]; after [`StoreError::Unknown`] some later call writes fresh figures anyway.
pub async fn publish<S: Store>(
    store: &S,
    name: &NodeName,
    state: DaemonState,
    collected: &Collected,
    before: Option<&NodeStatistics>,
) -> Result<(), StoreError> {
    let node_writes = collected
        .node
        .writes(name, before)
        .overwrite(&node(name).daemon_state(), &state);
    let mut guests: Vec<_> = collected.guests.iter().collect();
    loop {
        let own = node_writes.ops.len();
        let txn = guests.iter().fold(node_writes.clone(), |txn, (vm, figures)| {
            txn.overwrite(&domain(**vm).stats(), &Some(Json((*figures).clone())))
        });
        match store.commit(txn).await {
            Ok(_) => return Ok(()),
            // At most once for each guest.
            Err(StoreError::NoNode { index, .. }) if index >= own && index - own < guests.len() => {
                guests.remove(index - own);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
