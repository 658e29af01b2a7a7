//! The heartbeat for people and for clients of PVC 1.0.3: the keepalive, the daemon state and what is measured on this
//! node, once per interval.
//!
//! It is not what liveness is judged by (that is the node lease): it may be late or fail without consequence, and
//! whatever hangs in collecting costs its own figures alone.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::select;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::config::Config;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, ZnodeVersion};
use pvc_core::guest_xml;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::DaemonState;
use tracing::{info, warn};

use crate::agent::{AgentPhase, AgentState};
use crate::host::Hypervisor;
use crate::measures::Duty;
use crate::stats::{self, HostFiles, InterfaceSampler, NodeStatistics};

/// How long libvirt may take to tell its figures.
const COLLECT_WITHIN: Duration = Duration::from_secs(3);

/// What is provisioned changes by definitions alone: it is read at every so many beats.
const PROVISIONED_EVERY: u32 = 3;

/// Publishes the heartbeat.
#[derive(Debug)]
pub struct Heartbeat<S, H> {
    store: S,
    node: NodeName,
    interval: Duration,
    agent: AgentState,
    hypervisor: Option<H>,
    files: HostFiles,
    interfaces: InterfaceSampler,
    published: Option<NodeStatistics>,
    /// Memory of the guests placed here, by the version of the XML that it was read from.
    memory_mib: BTreeMap<VmId, (ZnodeVersion, u64)>,
    provisioned_mib: Option<u64>,
    beats: u32,
}

impl<S: Store, H: Hypervisor> Heartbeat<S, H> {
    /// The heartbeat of this node; guests are measured through `hypervisor` on a node that runs any.
    pub fn new(config: &Config, store: S, agent: AgentState, hypervisor: Option<H>) -> Self {
        Self {
            store,
            node: config.node.clone(),
            interval: config.timers.keepalive_interval,
            agent,
            hypervisor,
            files: HostFiles::default(),
            interfaces: InterfaceSampler::default(),
            published: None,
            memory_mib: BTreeMap::new(),
            provisioned_mib: None,
            beats: 0,
        }
    }

    /// Beats until dropped.
    pub async fn run(mut self) {
        let mut failing = false;
        loop {
            let next = HostClock.now() + self.interval;
            let measures = self.agent.measures().clone();
            measures.began(Duty::Statistics, HostClock.now());
            let beat = self.beat().await;
            measures.ended(Duty::Statistics, HostClock.now());
            match beat {
                Ok(()) if failing => {
                    failing = false;
                    info!("the heartbeat can be published again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, "the heartbeat was not published");
                }
                Err(_) => {}
            }
            // Whoever waits for this node to run, or to stop, should not wait for a whole interval.
            let (sleep, phase) = (HostClock.sleep_until(next), self.agent.phase_changed());
            let _ = select(pin!(sleep), pin!(phase)).await;
        }
    }

    async fn beat(&mut self) -> Result<(), ReadError> {
        // `dead`, written by another node that did not hear from us, is answered by `run`.
        let state = match self.agent.phase() {
            AgentPhase::Starting => DaemonState::Init,
            AgentPhase::Running => DaemonState::Run,
            AgentPhase::ShuttingDown => DaemonState::Shutdown,
        };
        if self.beats.is_multiple_of(PROVISIONED_EVERY) {
            self.provisioned_mib = Some(self.read_provisioned_mib().await?);
        }
        self.beats = self.beats.wrapping_add(1);
        let mut collected = stats::collect(
            &HostClock,
            self.hypervisor.as_ref(),
            &self.files,
            &mut self.interfaces,
            self.provisioned_mib,
            COLLECT_WITHIN,
        )
        .await;
        collected.node.agent = Some(self.agent.measures().figures(HostClock.now()));
        stats::publish(
            &self.store,
            &self.node,
            state,
            &collected,
            self.published.as_ref(),
        )
        .await?;
        self.published = Some(collected.node);
        Ok(())
    }

    /// Memory of all guests that are placed here, running or not. A definition that can't be read counts for nothing.
    async fn read_provisioned_mib(&mut self) -> Result<u64, ReadError> {
        let vms = self.store.children_as(&keys::domains()).await?;
        let homes: Vec<_> = vms.iter().map(|vm| keys::domain(*vm).node()).collect();
        let paths: Vec<String> = homes.iter().map(|key| key.path().to_owned()).collect();
        let znodes = self.store.read_many(&paths).await?;
        let here: Vec<VmId> = vms
            .iter()
            .zip(&homes)
            .zip(&znodes)
            .filter(|((_, key), znode)| {
                matches!(key.decode(znode.as_ref()), Ok(Some(home)) if home.value == self.node)
            })
            .map(|((vm, _), _)| *vm)
            .collect();
        self.memory_mib.retain(|vm, _| here.contains(vm));
        let paths: Vec<String> = here
            .iter()
            .map(|vm| keys::domain(*vm).xml().path().to_owned())
            .collect();
        for (vm, znode) in here.iter().zip(self.store.read_many(&paths).await?) {
            let Some(znode) = znode else { continue };
            if self
                .memory_mib
                .get(vm)
                .is_some_and(|(version, _)| *version == znode.version)
            {
                continue;
            }
            let memory = String::from_utf8(znode.data)
                .ok()
                .and_then(|xml| guest_xml::parse_size(&xml).ok());
            self.memory_mib
                .insert(*vm, (znode.version, memory.map_or(0, |guest| guest.memory_mib)));
        }
        Ok(self.memory_mib.values().map(|(_, memory)| memory).sum())
    }
}
