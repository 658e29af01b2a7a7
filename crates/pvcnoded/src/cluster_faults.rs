//! Tells what is wrong with the cluster as a whole, as faults. The primary does: one that looks is enough.
//!
//! Nothing is remembered but what Ceph said last: which faults are over follows from those that are on record, so another
//! primary goes on where this one ends, and what an earlier release left is tidied up.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault};
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Znode};
use pvc_core::cluster_faults::{
    CephHealth, CephSight, ClusterFault, ClusterSight, FailedGuest, NodeSight, Seen, assess,
};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::records::PrimaryRecord;
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::host::StorageHealth;

/// Between two questions to Ceph: each costs a third of a second of a processor.
const CEPH_EVERY: Duration = Duration::from_secs(60);
/// As many questions without an answer are a fault: one may meet an election of the monitors.
const CEPH_SILENT_AFTER: u32 = 3;
/// Guests that are read in one request.
const GUESTS_PER_READ: usize = 500;

/// Tells of the cluster's faults.
#[derive(Debug)]
pub struct ClusterFaults<S, C, H> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// Ceph; `None` where this cluster has no storage of ours.
    pub ceph: Option<H>,
    /// This node.
    pub me: NodeName,
    /// How this agent is.
    pub agent: AgentState,
    /// Between two looks.
    pub interval: Duration,
}

/// What is remembered of Ceph while this node is primary.
#[derive(Debug, Default)]
pub struct Memory {
    asked: Option<BootTime>,
    said: Option<CephHealth>,
    /// Questions without an answer since then, and what came instead of the last.
    silent: u32,
    reason: String,
}

impl<S: Store, C: Clock, H: StorageHealth> ClusterFaults<S, C, H> {
    /// Looks again and again until dropped. Dropping it is no harm.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            let next = self.clock.now() + self.interval;
            if let Err(error) = self.look(&mut memory).await {
                debug!(%error, "the cluster's faults can't be looked for now");
            }
            self.clock.sleep_until(next).await;
        }
    }

    /// One look, if this node is primary.
    ///
    /// # Errors
    /// When the store does not answer: the next look goes on.
    pub async fn look(&self, memory: &mut Memory) -> Result<(), ReadError> {
        // On hold what it reads may be of the past.
        let works = self.agent.phase() == AgentPhase::Running && !self.agent.hold().is_on();
        if !works || !self.is_primary().await? {
            *memory = Memory::default();
            return Ok(());
        }
        self.ask_ceph(memory).await;
        let sight = ClusterSight {
            nodes: self.read_nodes().await?,
            failed_guests: self.read_failed_guests().await?,
            ceph: match (&self.ceph, &memory.said) {
                (None, _) => CephSight::None,
                (Some(_), _) if memory.silent >= CEPH_SILENT_AFTER => CephSight::Silent {
                    reason: memory.reason.clone(),
                },
                (Some(_), Some(health)) if memory.silent == 0 => CephSight::Known(health.clone()),
                (Some(_), _) => CephSight::Unknown,
            },
        };
        let found = assess(&sight);
        let recorded: Vec<String> = self.store.children_as(&keys::faults()).await?;
        let faults: Vec<Fault> = found.faults.into_iter().map(fault).collect();
        for id in recorded {
            let is_over = found.settled.iter().any(|family| family.has(&id))
                && faults.iter().all(|fault| fault.id != id);
            if !is_over {
                continue;
            }
            match faults::clear(&self.store, &id).await {
                Ok(()) => info!(fault = %id, "a fault of the cluster is over"),
                Err(error) => debug!(fault = %id, %error, "a fault was not cleared"),
            }
        }
        for fault in faults {
            match faults::raise(&self.store, &self.clock, &fault).await {
                Ok(faults::Raised::New) => {
                    warn!(fault = %fault.id, what = %fault.message, "the cluster has a fault");
                }
                Ok(faults::Raised::Renewed | faults::Raised::AlreadySo | faults::Raised::HeldBack) => {}
                Err(error) => debug!(fault = %fault.id, %error, "a fault was not written"),
            }
        }
        Ok(())
    }

    async fn is_primary(&self) -> Result<bool, ReadError> {
        let record = self.store.require(&keys::config().primary_node()).await?;
        Ok(match record.value {
            PrimaryRecord::Node(node) => node == self.me,
            PrimaryRecord::None => false,
        })
    }

    async fn ask_ceph(&self, memory: &mut Memory) {
        let Some(ceph) = &self.ceph else { return };
        let now = self.clock.now();
        if memory.asked.is_some_and(|asked| now.since(asked) < CEPH_EVERY) {
            return;
        }
        memory.asked = Some(now);
        match ceph.health().await {
            Ok(health) => {
                memory.said = Some(health);
                memory.silent = 0;
            }
            Err(error) => {
                debug!(%error, "Ceph does not say how it is");
                memory.silent = memory.silent.saturating_add(1);
                memory.reason = error.to_string();
            }
        }
    }

    async fn read_nodes(&self) -> Result<Seen<NodeSight>, StoreError> {
        let Some(names) = known(self.store.children_as::<NodeName>(&keys::nodes()).await)? else {
            return Ok(unseen());
        };
        let paths: Vec<String> = names
            .iter()
            .map(keys::node)
            .flat_map(|node| {
                [
                    node.daemon_state().path().to_owned(),
                    node.memory_total_mib().path().to_owned(),
                    node.memory_allocated_mib().path().to_owned(),
                ]
            })
            .collect();
        let znodes = self.store.read_many(&paths).await?;
        let mut seen = whole();
        for (name, znodes) in names.into_iter().zip(znodes.chunks_exact(3)) {
            match known(node_sight(name, znodes))? {
                Some(Some(node)) => seen.items.push(node),
                // It is just being removed.
                Some(None) => {}
                None => seen.whole = false,
            }
        }
        Ok(seen)
    }

    async fn read_failed_guests(&self) -> Result<Seen<FailedGuest>, StoreError> {
        let Some(vms) = known(self.store.children_as::<VmId>(&keys::domains()).await)? else {
            return Ok(unseen());
        };
        let mut seen = whole();
        for part in vms.chunks(GUESTS_PER_READ) {
            let states: Vec<_> = part.iter().map(|vm| keys::domain(*vm).state()).collect();
            let paths: Vec<String> = states.iter().map(|key| key.path().to_owned()).collect();
            let znodes = self.store.read_many(&paths).await?;
            for ((vm, key), znode) in part.iter().zip(&states).zip(&znodes) {
                let guest = match known(key.decode(znode.as_ref()))? {
                    Some(Some(state)) if state.value == VmState::Fail => known(self.read_failed(*vm).await)?,
                    // It is well, or just being removed.
                    Some(_) => continue,
                    None => None,
                };
                match guest {
                    Some(guest) => seen.items.extend(guest),
                    None => seen.whole = false,
                }
            }
        }
        Ok(seen)
    }

    async fn read_failed(&self, vm: VmId) -> Result<Option<FailedGuest>, ReadError> {
        let keys = keys::domain(vm);
        let Some(name) = self.store.get(&keys.name()).await? else {
            return Ok(None);
        };
        let reason = self.store.get(&keys.failed_reason()).await?;
        Ok(Some(FailedGuest {
            name: name.value.to_string(),
            reason: reason.map(|reason| reason.value).unwrap_or_default(),
        }))
    }
}

/// A node by its state and memory; none if there is no such node any more.
fn node_sight(name: NodeName, znodes: &[Option<Znode>]) -> Result<Option<NodeSight>, ReadError> {
    let keys = keys::node(&name);
    let znode = |place: usize| znodes.get(place).and_then(Option::as_ref);
    let Some(state) = keys.daemon_state().decode(znode(0))? else {
        return Ok(None);
    };
    Ok(Some(NodeSight {
        daemon_state: state.value,
        memory_total_mib: keys.memory_total_mib().decode_required(znode(1))?.value,
        memory_allocated_mib: keys.memory_allocated_mib().decode_required(znode(2))?.value,
        name,
    }))
}

/// What was read; `None` where it is not what it should be: nothing follows from it, and the rest goes on.
fn known<T>(read: Result<T, ReadError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(ReadError::Store(error)) => Err(error),
        Err(error @ (ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. })) => {
            debug!(%error, "what is on record can't be read");
            Ok(None)
        }
    }
}

fn whole<T>() -> Seen<T> {
    Seen {
        items: Vec::new(),
        whole: true,
    }
}

fn unseen<T>() -> Seen<T> {
    Seen {
        items: Vec::new(),
        whole: false,
    }
}

fn fault(found: ClusterFault) -> Fault {
    let words: Vec<&str> = found.words.iter().map(String::as_str).collect();
    Fault::new(&words, found.delta, found.message)
}

#[cfg(test)]
mod tests;
