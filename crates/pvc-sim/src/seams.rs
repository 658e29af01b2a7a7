//! The agents' seams: the fakes of `pvcnoded`, behind the hooks.

use std::collections::BTreeMap;
use std::fmt;

use pvc_common::clock::Clock as _;
use pvc_common::store::memory::MemoryStore;
use pvc_common::store::{Applied, SessionState, Store, StoreError, Txn, Znode};
use pvc_core::ids::{CephClient, VmId, VmName, VolumeId};
use pvc_core::records::LogMark;
use pvc_core::time::BootTime;
use pvcnoded::host::fake::power::FakePower;
use pvcnoded::host::fake::{FakeHypervisor, FakeNetwork, FakeStorage};
use pvcnoded::host::power::{BmcAccess, PowerControl, PowerError, PowerState};
use pvcnoded::host::{
    AddressOutcome, Changed, DomainStatus, EndBy, Ending, GuestProcess, GuestStatistics, HostNetwork,
    Hypervisor, HypervisorError, JobReading, MapEpoch, MigrationOrder, NetworkError, OsdDown, OsdState,
    PauseReason, RbdLock, RoleAddress, Storage, StorageError, VolumeUse,
};

use crate::hooks::{Gate, Pass};
use crate::truth::Truth;

/// A client of the store whose calls take time and meet what was ordered.
#[derive(Clone)]
pub(crate) struct SimStore {
    inner: MemoryStore,
    gate: Gate,
    truth: Truth,
}

impl SimStore {
    pub(crate) fn new(inner: MemoryStore, gate: Gate, truth: Truth) -> SimStore {
        SimStore { inner, gate, truth }
    }

    /// The answer to a write comes back, unless the connection is lost meanwhile.
    async fn back<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.gate.store_way().await;
        if answer.is_ok() && self.inner.session() != SessionState::Connected {
            return Err(StoreError::Unknown {
                reason: "the connection was lost".to_owned(),
            });
        }
        answer
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").finish_non_exhaustive()
    }
}

impl Store for SimStore {
    type Watch = <MemoryStore as Store>::Watch;

    fn session(&self) -> SessionState {
        self.inner.session()
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        self.gate.orders("read", None).await;
        self.gate.store_way().await;
        self.inner.read(path).await
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        self.gate.orders("read", None).await;
        self.gate.store_way().await;
        self.inner.read_many(paths).await
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        self.gate.store_way().await;
        self.inner.children(path).await
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        let decided = self.truth.now();
        if self.gate.orders("write", Some(&txn)).await == Pass::Fail {
            return Err(StoreError::Unavailable {
                reason: "refused on order".to_owned(),
            });
        }
        self.gate.store_way().await;
        let answer = self.inner.commit(txn.clone()).await;
        self.truth.catch_up_with(decided);
        if answer.is_ok() {
            self.truth.committed(self.gate.host, &txn);
        }
        self.gate.after("write", Some(&txn)).await;
        self.back(answer).await
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        self.gate.orders("lock", None).await;
        self.gate.store_way().await;
        let answer = self.inner.create_ephemeral_sequential(prefix, data).await;
        self.back(answer).await
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        self.inner.withdraw_ephemeral(prefix);
    }

    fn watch_tree(&self, path: &str) -> Self::Watch {
        self.inner.watch_tree(path)
    }
}

/// A host's addresses.
#[derive(Clone)]
pub(crate) struct SimNetwork {
    inner: FakeNetwork,
    gate: Gate,
    truth: Truth,
}

impl SimNetwork {
    pub(crate) fn new(inner: FakeNetwork, gate: Gate, truth: Truth) -> SimNetwork {
        SimNetwork { inner, gate, truth }
    }

    /// Whatever the caller is told is set must not outlast the right.
    fn set_in_time(&self, right_ends: BootTime) {
        if self.gate.clock.now() >= right_ends {
            self.gate.hooks.breach(format!(
                "hv{}: an address was left though the right had ended during the call",
                self.gate.host + 1
            ));
        }
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork").finish_non_exhaustive()
    }
}

impl HostNetwork for SimNetwork {
    fn add(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        let outcome = self.inner.add(address, right_ends)?;
        if matches!(outcome, AddressOutcome::Set { .. }) {
            self.gate
                .hooks
                .say(|| format!("hv{} address {} added", self.gate.host + 1, address.ip));
            self.set_in_time(right_ends);
            self.truth.address_set(self.gate.host, address);
        }
        Ok(outcome)
    }

    fn refresh(&self, address: &RoleAddress, right_ends: BootTime) -> Result<AddressOutcome, NetworkError> {
        let was_there = self.present(std::slice::from_ref(address))?;
        let outcome = self.inner.refresh(address, right_ends)?;
        if matches!(outcome, AddressOutcome::Set { .. }) {
            if was_there.is_empty() {
                self.gate
                    .hooks
                    .breach(format!("hv{}: a refresh added an address", self.gate.host + 1));
            }
            self.set_in_time(right_ends);
            self.truth.address_set(self.gate.host, address);
        }
        Ok(outcome)
    }

    fn remove(&self, address: &RoleAddress) -> Result<Changed, NetworkError> {
        let changed = self.inner.remove(address)?;
        if changed == Changed::Done {
            self.gate
                .hooks
                .say(|| format!("hv{} address {} removed", self.gate.host + 1, address.ip));
        }
        Ok(changed)
    }

    fn present(&self, addresses: &[RoleAddress]) -> Result<Vec<RoleAddress>, NetworkError> {
        self.inner.present(addresses)
    }

    fn announce(&self, address: &RoleAddress) -> Result<(), NetworkError> {
        self.inner.announce(address)
    }
}

/// A host's hypervisor.
#[derive(Clone)]
pub(crate) struct SimHypervisor {
    inner: FakeHypervisor,
    gate: Gate,
    truth: Truth,
}

impl SimHypervisor {
    pub(crate) fn new(inner: FakeHypervisor, gate: Gate, truth: Truth) -> SimHypervisor {
        SimHypervisor { inner, gate, truth }
    }

    async fn before(&self, call: &str, low: u64, high: u64) -> Result<(), HypervisorError> {
        match self.gate.before(call, low, high).await {
            Pass::Go => Ok(()),
            Pass::Fail => Err(HypervisorError::Unavailable {
                reason: "failed on order".to_owned(),
            }),
        }
    }

    fn say(&self, vm: VmId, what: &str) {
        self.gate
            .hooks
            .say(|| format!("hv{} guest {} {what}", self.gate.host + 1, crate::guest_name(vm)));
    }
}

impl fmt::Debug for SimHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHypervisor").finish_non_exhaustive()
    }
}

impl Hypervisor for SimHypervisor {
    async fn domains(&self) -> Result<BTreeMap<VmId, DomainStatus>, HypervisorError> {
        self.inner.domains().await
    }

    fn processes(&self) -> std::io::Result<Vec<GuestProcess>> {
        self.inner.processes()
    }

    async fn create_paused(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        self.before("create", 50, 300).await?;
        let outcome = self.inner.create_paused(vm, xml).await;
        if outcome.is_ok() {
            self.say(vm, "created, paused");
        }
        self.gate.after("create", None).await;
        outcome
    }

    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.before("resume", 1, 20).await?;
        if let Some(DomainStatus::Paused(reason @ (PauseReason::Migration | PauseReason::IoError))) =
            self.inner.status(vm)
        {
            self.gate.hooks.breach(format!(
                "hv{} resumes guest {}, which is paused by {reason:?}",
                self.gate.host + 1,
                crate::guest_name(vm)
            ));
        }
        let has_old_memory = self.inner.has_old_memory(vm);
        let outcome = self.inner.resume(vm).await;
        if outcome.is_ok() {
            // A call that was under way when the node was fenced lets a process go on whose clients are all barred.
            if has_old_memory && self.truth.can_write(self.gate.host, vm) {
                self.gate.hooks.breach(format!(
                    "hv{} lets guest {} run with a memory that is older than its volumes",
                    self.gate.host + 1,
                    crate::guest_name(vm)
                ));
            }
            self.say(vm, "runs");
            self.truth.resumed(self.gate.host, vm);
        }
        self.gate.after("resume", None).await;
        outcome
    }

    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.before("suspend", 1, 20).await?;
        let outcome = self.inner.suspend(vm).await;
        if outcome.is_ok() {
            self.say(vm, "stands still");
        }
        self.gate.after("suspend", None).await;
        outcome
    }

    async fn attach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        self.before("attach", 20, 200).await?;
        let running = self.inner.status(vm) == Some(DomainStatus::Running);
        let opened = self.inner.opened(vm).len();
        let outcome = self.inner.attach_device(vm, xml).await;
        if self.inner.opened(vm).len() > opened {
            self.say(vm, "has a volume attached");
            if running && self.truth.can_write(self.gate.host, vm) {
                self.gate.hooks.breach(format!(
                    "hv{} attaches a volume to guest {} while it runs",
                    self.gate.host + 1,
                    crate::guest_name(vm)
                ));
            }
        }
        self.gate.after("attach", None).await;
        outcome
    }

    async fn detach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        self.before("detach", 20, 200).await?;
        let outcome = self.inner.detach_device(vm, xml).await;
        self.gate.after("detach", None).await;
        outcome
    }

    async fn shutdown(&self, vm: VmId) -> Result<(), HypervisorError> {
        self.before("shutdown", 1, 20).await?;
        self.inner.shutdown(vm).await
    }

    async fn destroy(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        self.before("destroy", 10, 100).await?;
        self.truth.about_to_destroy(self.gate.host, vm);
        let outcome = self.inner.destroy(vm).await;
        if let Ok(Changed::Done) = outcome {
            self.say(vm, "destroyed");
        }
        self.gate.after("destroy", None).await;
        outcome
    }

    async fn send(&self, vm: VmId, order: &MigrationOrder) -> Result<(), HypervisorError> {
        self.before("send", 1, 20).await?;
        self.say(vm, "is being sent");
        self.inner.send(vm, order).await
    }

    async fn sending(&self, vm: VmId) -> JobReading {
        self.inner.sending(vm).await
    }

    async fn cancel_sending(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        self.before("cancel-sending", 1, 20).await?;
        self.inner.cancel_sending(vm).await
    }

    fn log_mark(&self, vm: VmId, name: &VmName) -> std::io::Result<LogMark> {
        self.inner.log_mark(vm, name)
    }

    fn ending(&self, vm: VmId, name: &VmName, since: LogMark) -> Ending {
        self.inner.ending(vm, name, since)
    }

    fn end_process(&self, process: &GuestProcess, by: EndBy) -> std::io::Result<Changed> {
        // Always after an order to libvirt, which was judged.
        let outcome = self.inner.end_process(process, by);
        if let Ok(Changed::Done) = outcome {
            self.say(process.vm, "ended by its process id");
        }
        outcome
    }

    async fn statistics(&self) -> Result<BTreeMap<VmId, GuestStatistics>, HypervisorError> {
        self.inner.statistics().await
    }

    async fn live_xml(&self, vm: VmId) -> Result<String, HypervisorError> {
        self.inner.live_xml(vm).await
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}

/// A host's way to Ceph.
#[derive(Clone)]
pub(crate) struct SimStorage {
    inner: FakeStorage,
    gate: Gate,
    truth: Truth,
}

impl SimStorage {
    pub(crate) fn new(inner: FakeStorage, gate: Gate, truth: Truth) -> SimStorage {
        SimStorage { inner, gate, truth }
    }

    async fn before(&self, call: &str, low: u64, high: u64) -> Result<(), StorageError> {
        match self.gate.before(call, low, high).await {
            Pass::Go => Ok(()),
            Pass::Fail => Err(StorageError::Failed {
                action: call.to_owned(),
                reason: "failed on order".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStorage").finish_non_exhaustive()
    }
}

impl Storage for SimStorage {
    async fn volume_use(&self, volume: &VolumeId) -> Result<VolumeUse, StorageError> {
        self.before("volume-use", 60, 100).await?;
        self.inner.volume_use(volume).await
    }

    async fn blocklist(&self, clients: &[CephClient]) -> Result<MapEpoch, StorageError> {
        self.before("blocklist", 300, 1000).await?;
        for client in clients {
            self.truth.bars(self.gate.host, client);
        }
        let outcome = self.inner.blocklist(clients).await;
        if outcome.is_ok() {
            self.gate.hooks.say(|| {
                let list: Vec<_> = clients.iter().map(CephClient::to_string).collect();
                format!("hv{} blocklisted {}", self.gate.host + 1, list.join(", "))
            });
        }
        self.gate.after("blocklist", None).await;
        outcome
    }

    async fn osds(&self) -> Result<Vec<OsdState>, StorageError> {
        self.before("osds", 200, 300).await?;
        self.inner.osds().await
    }

    async fn every_osd_knows(&self, epoch: MapEpoch) -> Result<(), StorageError> {
        self.before("every-osd-knows", 200, 400).await?;
        self.inner.every_osd_knows(epoch).await
    }

    async fn osd_down(&self, osds: &[u32], how: OsdDown) -> Result<(), StorageError> {
        self.before("osd-down", 300, 1000).await?;
        let outcome = self.inner.osd_down(osds, how).await;
        self.gate
            .hooks
            .say(|| format!("hv{} marked OSDs {osds:?} down ({how:?})", self.gate.host + 1));
        outcome
    }

    async fn remove_lock(&self, volume: &VolumeId, lock: &RbdLock) -> Result<Changed, StorageError> {
        self.before("remove-lock", 80, 400).await?;
        self.truth.bars(self.gate.host, &lock.client);
        let outcome = self.inner.remove_lock(volume, lock).await;
        if let Ok(Changed::Done) = outcome {
            self.gate.hooks.say(|| {
                format!(
                    "hv{} removed the lock of {} on {volume}",
                    self.gate.host + 1,
                    lock.client
                )
            });
        }
        outcome
    }
}

/// A host's way to the BMCs.
#[derive(Clone)]
pub(crate) struct SimPower {
    inner: FakePower,
    gate: Gate,
    truth: Truth,
}

impl SimPower {
    pub(crate) fn new(inner: FakePower, gate: Gate, truth: Truth) -> SimPower {
        SimPower { inner, gate, truth }
    }

    async fn before(&self, call: &str, bmc: &BmcAccess) -> Result<(), PowerError> {
        match self.gate.before(call, 30, 60).await {
            Pass::Go => Ok(()),
            Pass::Fail => Err(PowerError::NoAnswer {
                host: bmc.host.clone(),
                reason: "failed on order".to_owned(),
            }),
        }
    }

    fn say(&self, what: &str, bmc: &BmcAccess) {
        self.gate
            .hooks
            .say(|| format!("hv{} {what} {}", self.gate.host + 1, bmc.host));
    }
}

impl fmt::Debug for SimPower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPower").finish_non_exhaustive()
    }
}

impl PowerControl for SimPower {
    async fn state(&self, bmc: &BmcAccess) -> Result<PowerState, PowerError> {
        self.before("power-state", bmc).await?;
        self.inner.state(bmc).await
    }

    async fn order_off(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.before("power-off", bmc).await?;
        self.say("orders off", bmc);
        self.truth.acts(self.gate.host, &bmc.host);
        let outcome = self.inner.order_off(bmc).await;
        self.gate.after("power-off", None).await;
        outcome
    }

    async fn order_on(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.before("power-on", bmc).await?;
        self.say("orders on", bmc);
        self.truth.powered_on_by(self.gate.host, &bmc.host);
        let outcome = self.inner.order_on(bmc).await;
        self.gate.after("power-on", None).await;
        outcome
    }

    async fn guid(&self, bmc: &BmcAccess) -> Result<String, PowerError> {
        self.before("guid", bmc).await?;
        self.inner.guid(bmc).await
    }
}
