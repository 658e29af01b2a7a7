//! Observe and decide, for all guests at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, Znode, ZnodeVersion};
use pvc_core::device_order::{DeviceOrder, DeviceTurn, device_turn};
use pvc_core::fence::Proof;
use pvc_core::guest_xml;
use pvc_core::ids::{CephClient, VmId};
use pvc_core::records::CephClients;
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use pvc_core::vm::{
    Calm, DomainReading, Ending, FenceEvidence, NodeFitness, Presence, RestartHistory, ShutdownProgress,
    VmRecord, VmStep, VmView, next_vm_step,
};
use tracing::{debug, info, warn};

use super::VmParts;
use super::carry_out::TaskOutcome;
use super::send::ending;
use crate::agent::AgentPhase;
use crate::host::{GuestProcess, Hypervisor, Storage};

/// Deaths are counted over this time.
const HISTORY: Duration = Duration::from_secs(600);
/// What failed for a passing reason (Ceph, libvirt or the store did not answer) is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// How many guests are read in one request: all of a large cluster's would be more than a request may carry.
const GUESTS_PER_READ: usize = 500;
/// Earlier Ceph clients remembered per guest; more than that are dead for long.
const CLIENTS_REMEMBERED: usize = 64;
/// Guests that are sent away at once: each takes a worker of libvirtd on both sides, and they share the network.
const SENDING_AT_ONCE: usize = 4;
/// How many keys make a guest's record.
pub(super) const RECORD_KEYS: usize = 6;

/// One thing to be done for one guest.
#[derive(Debug, Clone)]
pub struct VmTask {
    /// The guest.
    pub vm: VmId,
    /// What to do.
    pub step: VmStep,
    /// The record that this was decided on.
    pub record: VmRecord,
    /// The version of this node's fence record, which was empty.
    pub fence_version: ZnodeVersion,
    /// Ceph clients of this guest's earlier lives on this node.
    pub recorded_clients: Vec<CephClient>,
    /// Ceph clients on record for other guests, wherever they run.
    pub clients_of_others: Vec<CephClient>,
    /// The last order about one of its devices, with its version.
    pub device: Option<(DeviceOrder, ZnodeVersion)>,
}

/// What is remembered of a guest between looks. All of it may be lost at any time.
#[derive(Debug, Default)]
struct Memory {
    shutdown: Option<ShutdownProgress>,
    /// A shutdown was cancelled: until then its end is no death of its own.
    asked_until: Option<BootTime>,
    deaths: Vec<BootTime>,
    not_before: Option<BootTime>,
    /// Nothing is tried before, after something failed for a passing reason.
    retry_at: Option<BootTime>,
    recorded_clients: Vec<CephClient>,
    last_calm: Option<Calm>,
    unreadable: bool,
}

/// Observes and decides over all guests.
#[derive(Debug)]
pub struct VmRounds<S, C, H, T> {
    parts: VmParts<S, C, H, T>,
    memory: BTreeMap<VmId, Memory>,
    busy: BTreeSet<VmId>,
    /// Of these, the guests that are on their way from or to another node, or whose devices are worked on.
    travelling: BTreeSet<VmId>,
    sending: BTreeSet<VmId>,
    libvirt_silent: bool,
}

impl<S: Store, C: Clock, H: Hypervisor, T: Storage> VmRounds<S, C, H, T> {
    /// Begins with nothing remembered.
    pub fn new(parts: VmParts<S, C, H, T>) -> Self {
        Self {
            parts,
            memory: BTreeMap::new(),
            busy: BTreeSet::new(),
            travelling: BTreeSet::new(),
            sending: BTreeSet::new(),
            libvirt_silent: false,
        }
    }

    /// Whether something is under way that the start of an agent waits for. A guest that travels, or lets go of a device,
    /// may do so for long, and goes on only once the agent takes part: nobody waits for it.
    pub fn unsettled(&self) -> bool {
        self.busy.len() > self.travelling.len()
    }

    /// Reads everything and decides. Each task answered must be carried out and reported to [`VmRounds::finished`];
    /// until then its guest is left alone.
    ///
    /// # Errors
    /// When the store does not answer: nothing is done about any guest then.
    pub async fn look(&mut self) -> Result<Vec<VmTask>, ReadError> {
        let processes = self.parts.hypervisor.processes();
        let domains = self.read_domains().await;
        let vms: Vec<VmId> = self.parts.store.children_as(&keys::domains()).await?;
        let fence_key = keys::fence(&self.parts.me);
        let lease_key = keys::lease_node(&self.parts.me);
        let daemon_state = keys::node(&self.parts.me).daemon_state();
        let own = [fence_key.path(), lease_key.path(), daemon_state.path()].map(str::to_owned);
        let own = self.parts.store.read_many(&own).await?;
        let own_znode = |index: usize| own.get(index).and_then(Option::as_ref);
        let own_lease = own_znode(1).map(|lease| lease.modified.0);
        let mut znodes = Vec::new();
        for part in vms.chunks(GUESTS_PER_READ) {
            // Of one guest all is read as of one moment; of two it need not be.
            let paths: Vec<String> = part
                .iter()
                .map(|vm| (*vm, keys::domain(*vm)))
                .flat_map(|(vm, domain)| {
                    let order = keys::device_order(vm).path().to_owned();
                    record_paths(&domain).into_iter().chain([order])
                })
                .collect();
            znodes.extend(self.parts.store.read_many(&paths).await?);
        }
        let fence = fence_key.decode_required(own_znode(0))?;
        if self.parts.agent.hold().is_older(own_lease) {
            debug!("this reading of the store is older than an earlier one: nothing follows from it");
            return Ok(Vec::new());
        }
        let daemon_state = daemon_state.decode_required(own_znode(2))?.value;
        let now = self.parts.clock.now();
        let barred = fence
            .value
            .as_ref()
            .is_some_and(|record| record.bars(&self.parts.incarnation));
        let fitness = self.fitness(now, barred);
        self.memory.retain(|vm, _| vms.contains(vm));
        let on_storage = if fitness == NodeFitness::StorageLost
            && let Ok(list) = &processes
        {
            self.on_storage(list).await?
        } else {
            BTreeSet::new()
        };

        let mut tasks = Vec::new();
        let mut on_record = Vec::new();
        for (vm, znodes) in vms.iter().zip(znodes.chunks_exact(RECORD_KEYS + 1)) {
            let record = self.decode_record(*vm, znodes);
            let device = decode_order(*vm, znodes.last().and_then(Option::as_ref));
            if let Some(CephClients::Recorded(clients)) = record
                .as_ref()
                .and_then(|record| record.owner.as_ref())
                .map(|owner| &owner.ceph_clients)
            {
                on_record.extend(clients.iter().map(|client| (*vm, client.clone())));
            }
            let (false, Some(record)) = (self.busy.contains(vm), record) else {
                continue;
            };
            let process = match &processes {
                Err(_) => Presence::Unknown,
                Ok(list) if list.iter().any(|process| process.vm == *vm) => Presence::Present,
                Ok(_) => Presence::Absent,
            };
            let domain = match &domains {
                None => DomainReading::Unknown,
                Some(domains) => domains
                    .get(vm)
                    .map_or(DomainReading::Absent, |status| DomainReading::Is(*status)),
            };
            let evidence = match &fence.value {
                Some(record) if Proof::is_evidence_about(record, &self.parts.incarnation, *vm) => {
                    FenceEvidence::OnRecord
                }
                Some(_) | None => FenceEvidence::None,
            };
            let ending = match (process, &record.incoming, &record.owner) {
                (Presence::Absent, Some(incoming), Some(owner)) if owner.node == self.parts.me => {
                    ending(&self.parts, *vm, incoming).await
                }
                (Presence::Unknown | Presence::Absent | Presence::Present, _, _) => Ending::Unclear,
            };
            let memory = self.memory.entry(*vm).or_default();
            memory.update(&record, process, now, self.parts.shutdown_timeout);
            let view = VmView {
                now,
                me: &self.parts.me,
                incarnation: &self.parts.incarnation,
                record: &record,
                process,
                domain,
                ending,
                fitness,
                shutdown: memory.shutdown,
                shutdown_timeout: self.parts.shutdown_timeout,
                history: memory.history(),
                evidence,
                on_storage: on_storage.contains(vm),
                daemon_state,
            };
            let mut step = next_vm_step(&view);
            if let Some((order, _)) = &device {
                match device_turn(&view, &step, order) {
                    DeviceTurn::NotNow => {}
                    DeviceTurn::CarryOut => step = VmStep::Device,
                    DeviceTurn::Refuse(reason) => step = VmStep::RefuseDevice(reason),
                }
            }
            if memory.retry_at.is_some_and(|retry_at| now < retry_at) {
                continue;
            }
            memory.retry_at = None;
            if let VmStep::Leave(calm) = step {
                memory.calm(*vm, calm);
                continue;
            }
            if step == VmStep::Send && record.incoming.is_none() {
                // The next look comes when one of those under way has ended.
                if self.sending.len() >= SENDING_AT_ONCE {
                    continue;
                }
                self.sending.insert(*vm);
            }
            memory.last_calm = None;
            self.busy.insert(*vm);
            if matches!(step, VmStep::Send | VmStep::Receive | VmStep::Device) {
                self.travelling.insert(*vm);
            }
            tasks.push(VmTask {
                vm: *vm,
                step,
                record,
                fence_version: fence.version,
                recorded_clients: memory.recorded_clients.clone(),
                clients_of_others: Vec::new(),
                device,
            });
        }
        for task in &mut tasks {
            task.clients_of_others = on_record
                .iter()
                .filter(|(vm, _)| *vm != task.vm)
                .map(|(_, client)| client.clone())
                .collect();
        }
        Ok(tasks)
    }

    /// The guests among these that have a disk on the storage cluster. One whose definition can't be read is none: it is
    /// not ended for what it may not need.
    async fn on_storage(&self, processes: &[GuestProcess]) -> Result<BTreeSet<VmId>, ReadError> {
        let vms: Vec<VmId> = processes.iter().map(|process| process.vm).collect();
        let paths: Vec<String> = vms
            .iter()
            .map(|vm| keys::domain(*vm).xml().path().to_owned())
            .collect();
        let definitions = self.parts.store.read_many(&paths).await?;
        let on_storage = |znode: Znode| {
            String::from_utf8(znode.data)
                .ok()
                .and_then(|xml| guest_xml::parse(&xml).ok())
                .is_some_and(|guest| guest.volumes().next().is_some())
        };
        Ok(vms
            .into_iter()
            .zip(definitions)
            .filter_map(|(vm, znode)| znode.is_some_and(on_storage).then_some(vm))
            .collect())
    }

    /// Whether some guest needs a look at a certain time, whatever happens.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.memory
            .values()
            .flat_map(|memory| {
                let asked = memory
                    .shutdown
                    .map(|progress| progress.asked_at + Duration::from_secs(10));
                [memory.not_before, memory.retry_at, asked]
            })
            .flatten()
            .min()
    }

    /// Takes in what came of a task.
    pub fn finished(&mut self, task: &VmTask, outcome: &TaskOutcome) {
        self.busy.remove(&task.vm);
        self.travelling.remove(&task.vm);
        self.sending.remove(&task.vm);
        let now = self.parts.clock.now();
        let memory = self.memory.entry(task.vm).or_default();
        match outcome {
            TaskOutcome::Done => {}
            TaskOutcome::ShutdownAsked => {
                let since = memory.shutdown.map_or(now, |progress| progress.since);
                memory.shutdown = Some(ShutdownProgress { since, asked_at: now });
            }
            TaskOutcome::Started => memory.not_before = None,
            TaskOutcome::Released { clients } => {
                memory.remember_clients(clients);
                memory.shutdown = None;
                let cancelled = memory.asked_until.take().is_some_and(|until| now < until);
                if matches!(task.step, VmStep::Release { died: true, .. }) && !cancelled {
                    memory.died(task.vm, now);
                }
            }
            TaskOutcome::TryLater => memory.retry_at = Some(now + RETRY),
        }
    }

    async fn read_domains(&mut self) -> Option<BTreeMap<VmId, crate::host::DomainStatus>> {
        match self.parts.hypervisor.domains().await {
            Ok(domains) => {
                if self.libvirt_silent {
                    self.libvirt_silent = false;
                    info!("libvirt answers again");
                }
                Some(domains)
            }
            Err(error) => {
                if !self.libvirt_silent {
                    self.libvirt_silent = true;
                    warn!(%error, "libvirt can't be read; guests go on, their states are not known");
                }
                None
            }
        }
    }

    fn fitness(&self, now: BootTime, fenced: bool) -> NodeFitness {
        if self.parts.agent.hold().is_on() {
            NodeFitness::OnHold
        } else if self.parts.agent.phase() != AgentPhase::Running {
            NodeFitness::NotRunning
        } else if !self.parts.agent.node_right().holds(now) {
            NodeFitness::LeaseEnded
        } else if fenced {
            NodeFitness::Fenced
        } else if self.parts.agent.storage().ends_guests(now) {
            NodeFitness::StorageLost
        } else {
            NodeFitness::Fit
        }
    }

    /// One bad record must not keep the other guests from being looked after.
    fn decode_record(&mut self, vm: VmId, znodes: &[Option<Znode>]) -> Option<VmRecord> {
        let memory = self.memory.entry(vm).or_default();
        match decode_record(vm, znodes) {
            Ok(record) => {
                memory.unreadable = false;
                Some(record)
            }
            Err(error) => {
                if !memory.unreadable {
                    warn!(%vm, %error, "a guest's record can't be read; it is left alone");
                }
                memory.unreadable = true;
                None
            }
        }
    }
}

/// The order about a device of the guest, if there is one. One that can't be read is none: the next one overwrites it.
fn decode_order(vm: VmId, znode: Option<&Znode>) -> Option<(DeviceOrder, ZnodeVersion)> {
    match keys::device_order(vm).decode(znode) {
        Ok(found) => found.and_then(|found| Some((found.value?, found.version))),
        Err(error) => {
            debug!(%vm, %error, "an order about a device of a guest can't be read");
            None
        }
    }
}

/// The keys of a guest's record, to be read as of one moment.
pub(super) fn record_paths(domain: &keys::DomainKeys) -> [String; RECORD_KEYS] {
    [
        domain.node().path(),
        domain.state().path(),
        domain.owner().path(),
        domain.last_node().path(),
        domain.migration_method().path(),
        domain.incoming().path(),
    ]
    .map(str::to_owned)
}

/// The record in what was read at [`record_paths`].
pub(super) fn decode_record(vm: VmId, znodes: &[Option<Znode>]) -> Result<VmRecord, ReadError> {
    let domain = keys::domain(vm);
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let node = domain.node().decode_required(at(0))?;
    let state = domain.state().decode_required(at(1))?;
    let owner = domain.owner().decode_required(at(2))?;
    let last_node = domain.last_node().decode_required(at(3))?;
    let migration_method = domain.migration_method().decode_required(at(4))?;
    let incoming = domain.incoming().decode_required(at(5))?;
    Ok(VmRecord {
        node: node.value,
        node_version: node.version,
        state: state.value,
        state_version: state.version,
        owner: owner.value,
        owner_version: owner.version,
        last_node: last_node.value,
        last_node_version: last_node.version,
        migration_method: migration_method.value,
        incoming: incoming.value,
        incoming_version: incoming.version,
    })
}

impl Memory {
    fn update(&mut self, record: &VmRecord, process: Presence, now: BootTime, shutdown_timeout: Duration) {
        let shutting_down = matches!(record.state, VmState::Shutdown | VmState::Restart);
        if self.shutdown.is_some() && !shutting_down && process == Presence::Present {
            self.shutdown = None;
            self.asked_until = Some(now + shutdown_timeout);
        }
        self.deaths.retain(|death| now.since(*death) < HISTORY);
        if record.state != VmState::Start {
            // Whoever stops and starts it again has looked.
            self.deaths.clear();
            self.not_before = None;
        }
        if self.not_before.is_some_and(|not_before| not_before <= now) {
            self.not_before = None;
        }
    }

    fn history(&self) -> RestartHistory {
        RestartHistory {
            deaths: u32::try_from(self.deaths.len()).unwrap_or(u32::MAX),
            not_before: self.not_before,
        }
    }

    fn died(&mut self, vm: VmId, now: BootTime) {
        self.deaths.push(now);
        // At once, then after 2, 4, 8 s.
        let doublings = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX).min(5);
        let wait = if doublings <= 1 {
            Duration::ZERO
        } else {
            Duration::from_secs(1 << (doublings - 1))
        };
        self.not_before = Some(now + wait);
        warn!(%vm, deaths = self.deaths.len(), "a guest ended by itself; it is started again");
    }

    fn remember_clients(&mut self, clients: &CephClients) {
        if let CephClients::Recorded(list) = clients {
            self.recorded_clients.extend(list.iter().cloned());
            let surplus = self.recorded_clients.len().saturating_sub(CLIENTS_REMEMBERED);
            self.recorded_clients.drain(..surplus);
        }
    }

    fn calm(&mut self, vm: VmId, calm: Calm) {
        if self.last_calm.as_ref() == Some(&calm) {
            return;
        }
        match &calm {
            Calm::PausedByIoError => {
                warn!(%vm, "a guest was stopped by an I/O error; it is not resumed, stop and start it once its storage is well");
            }
            Calm::LibvirtForgot => warn!(%vm, "a guest's process is here but libvirt does not know it"),
            Calm::OwnedByFormerMachine => {
                warn!(%vm, "a guest belongs to a former machine of this node's name: it can't be started without proof that this machine is off");
            }
            Calm::Runs
            | Calm::Rests
            | Calm::NotHere
            | Calm::OwnedElsewhere(_)
            | Calm::NotFit(_)
            | Calm::BackingOff(_)
            | Calm::BeingBuilt
            | Calm::ShuttingDown
            | Calm::PausedByHand
            | Calm::HandedOver(_)
            | Calm::ExpectedElsewhere(_)
            | Calm::LibvirtSilent
            | Calm::ProcessesUnknown => debug!(%vm, reason = ?calm, "nothing to do for a guest"),
        }
        self.last_calm = Some(calm);
    }
}
