//! What really is so, whatever the agents believe: the invariants are judged by this.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pvc_common::keys;
use pvc_common::store::memory::{MemoryServer, Written};
use pvc_common::store::{Op, Txn};
use pvc_core::device_order::{DeviceOrder, DeviceOrderState};
use pvc_core::fence::{FencePhase, FenceRecord, Proof, ProofKind};
use pvc_core::ids::{CephClient, VmId};
use pvc_core::lease::LeaseTiming;
use pvc_core::records::{CephClients, Incoming, Owner, PrimaryRecord};
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use pvcnoded::host::fake::{FakeCeph, FakeHypervisor, FakeNetwork};
use pvcnoded::host::{DomainStatus, HostNetwork as _, RoleAddress};

use crate::hooks::Hooks;
use crate::{bmc_name, guest_name, incarnation, node_name, storage_ip};

/// A little less than a node must be silent for before it is suspected.
const SILENT_FOR: Duration = Duration::from_millis(5500);

/// The world as it is.
#[derive(Clone)]
pub(crate) struct Truth {
    inner: Arc<Inner>,
}

struct Inner {
    hooks: Hooks,
    server: MemoryServer,
    ceph: FakeCeph,
    hosts: OnceLock<Vec<HostTruth>>,
    memory: Mutex<Memory>,
}

/// What really is on a host.
pub(crate) struct HostTruth {
    pub(crate) network: FakeNetwork,
    pub(crate) hypervisor: FakeHypervisor,
    pub(crate) boot: Arc<AtomicU64>,
}

#[derive(Default)]
struct Memory {
    /// Whose clients of the store have which number.
    clients: BTreeMap<u64, usize>,
    /// Whether the guest was healthy on that host when its agent last checked that it owns it.
    vouched: BTreeMap<(usize, VmId), bool>,
    /// When the role lease was last written, and by whom it is held.
    role_lease: Option<(BootTime, Option<String>)>,
    /// When each node lease was last written.
    renewed: BTreeMap<String, BootTime>,
    /// When each host last could hear nothing for a while: the end of that.
    deaf_until: BTreeMap<usize, BootTime>,
    /// When the write that is being taken in was decided on, if that is known.
    decided: Option<BootTime>,
    /// The clock of these hosts stood still; until then they may answer for an address too long.
    excused: BTreeMap<usize, BootTime>,
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truth").finish_non_exhaustive()
    }
}

/// Which writes the truth is told of.
pub(crate) fn looks_at(path: &str) -> bool {
    if let Some(rest) = path.strip_prefix("/domains/") {
        return rest
            .split_once('/')
            .is_some_and(|(_, key)| matches!(key, "owner" | "incoming" | "node" | "state" | "device_order"));
    }
    if let Some(rest) = path.strip_prefix("/nodes/") {
        return rest
            .split_once('/')
            .is_some_and(|(_, key)| matches!(key, "daemonstate" | "domainstate" | "routerstate"));
    }
    path.starts_with("/fences/") && !path.contains("__lock__")
        || path == "/config/primary_node"
        || path == "/config/maintenance"
        || path.starts_with("/leases/")
}

impl Truth {
    pub(crate) fn new(hooks: Hooks, server: MemoryServer, ceph: FakeCeph) -> Truth {
        Truth {
            inner: Arc::new(Inner {
                hooks,
                server,
                ceph,
                hosts: OnceLock::new(),
                memory: Mutex::default(),
            }),
        }
    }

    pub(crate) fn set_hosts(&self, hosts: Vec<HostTruth>) {
        // Called once, when the world is made.
        let _ = self.inner.hosts.set(hosts);
    }

    fn hosts(&self) -> &[HostTruth] {
        self.inner.hosts.get().map(Vec::as_slice).unwrap_or_default()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.inner.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn client_of(&self, client: u64, host: usize) {
        self.memory().clients.insert(client, host);
    }

    /// The host's clock has stood still: documented to answer for an address for a while after it goes on.
    pub(crate) fn excuse(&self, host: usize, until: BootTime) {
        self.memory().excused.insert(host, until);
    }

    /// This host's agent has heard nothing of others for a while, up to now.
    pub(crate) fn was_deaf(&self, host: usize) {
        let now = self.inner.hooks.clock.world_now();
        self.memory().deaf_until.insert(host, now);
    }

    /// I6: a node is suspected, and acted upon, only after it has been silent for so long in rounds of the fencer
    /// without a gap. A write that stood still on its way was decided on before that: what it was decided on stands in
    /// its own conditions.
    fn suspected(&self, victim: &str, fencer: usize) {
        let (silent, heard) = {
            let memory = self.memory();
            let silent = memory.renewed.get(victim).map(|at| self.now().since(*at));
            let deaf_until = memory.deaf_until.get(&fencer);
            let heard = match (memory.decided, deaf_until) {
                (Some(decided), Some(until)) if decided >= *until => Some(decided.since(*until)),
                (Some(_) | None, Some(_) | None) => None,
            };
            (silent, heard)
        };
        if let Some(silent) = silent.filter(|silent| *silent < SILENT_FOR) {
            self.inner.hooks.breach(format!(
                "hv{} fences {victim}, which renewed its lease {silent:?} ago",
                fencer + 1
            ));
        }
        if let Some(heard) = heard.filter(|heard| *heard < SILENT_FOR) {
            self.inner.hooks.breach(format!(
                "hv{} fences {victim}, and has listened for {heard:?} only",
                fencer + 1
            ));
        }
    }

    /// A fencer acts on what is on record, and on nothing else.
    pub(crate) fn acts(&self, fencer: usize, bmc: &str) {
        let Some(victim) = (0..self.hosts().len()).find(|host| bmc_name(*host) == bmc) else {
            return;
        };
        let intended = self
            .read(&keys::fence(&node_name(victim)))
            .flatten()
            .is_some_and(|fence| fence.past_return());
        if !intended {
            self.inner.hooks.breach(format!(
                "hv{} orders hv{} off and no record says so",
                fencer + 1,
                victim + 1
            ));
        }
    }

    /// Clients are barred of the own host, and of nodes that are being fenced.
    pub(crate) fn bars(&self, host: usize, client: &CephClient) {
        if client.ip() == storage_ip(host) {
            return;
        }
        let owner = (0..self.hosts().len()).find(|other| client.ip() == storage_ip(*other));
        let fenced = owner.is_some_and(|other| {
            self.read(&keys::fence(&node_name(other)))
                .flatten()
                .is_some_and(|fence| fence.past_return())
        });
        if !fenced {
            self.inner.hooks.breach(format!(
                "hv{} bars {client}, which is nobody's that is fenced",
                host + 1
            ));
        }
    }

    fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> Option<T> {
        let znode = self.inner.server.peek(key.path());
        key.decode(znode.as_ref()).ok().flatten().map(|seen| seen.value)
    }

    /// I1: an address was set on `host`; nobody else may have it.
    pub(crate) fn address_set(&self, host: usize, address: &RoleAddress) {
        let now = self.inner.hooks.clock.world_now();
        for (other, truth) in self.hosts().iter().enumerate() {
            if other == host
                || self
                    .memory()
                    .excused
                    .get(&other)
                    .is_some_and(|until| now < *until)
            {
                continue;
            }
            let there = truth.network.present(std::slice::from_ref(address));
            if there.is_ok_and(|there| !there.is_empty()) {
                self.inner.hooks.breach(format!(
                    "address {} is on hv{} and on hv{}",
                    address.ip,
                    other + 1,
                    host + 1
                ));
            }
        }
    }

    /// Whether a process of the guest on this host can write to its volumes, now or when it is thawed.
    pub(crate) fn can_write(&self, host: usize, vm: VmId) -> bool {
        let Some(truth) = self.hosts().get(host) else {
            return false;
        };
        if truth.hypervisor.status(vm) != Some(DomainStatus::Running) {
            return false;
        }
        truth
            .hypervisor
            .clients(vm)
            .iter()
            .any(|client| self.inner.ceph.takes_writes_of(client))
    }

    /// I2: at most one process can write a guest's volumes.
    pub(crate) fn check_writers(&self, vm: VmId) {
        let running: Vec<usize> = (0..self.hosts().len())
            .filter(|host| self.hosts()[*host].hypervisor.status(vm) == Some(DomainStatus::Running))
            .collect();
        if running.len() < 2 {
            return;
        }
        let writers: Vec<String> = running
            .into_iter()
            .filter(|host| self.can_write(*host, vm))
            .map(|host| format!("hv{}", host + 1))
            .collect();
        if writers.len() > 1 {
            self.inner.hooks.breach(format!(
                "guest {} can write on {}",
                guest_name(vm),
                writers.join(" and ")
            ));
        }
    }

    pub(crate) fn resumed(&self, host: usize, vm: VmId) {
        self.inner.hooks.lock().coverage.count("starts");
        let Some(truth) = self.hosts().get(host) else {
            return;
        };
        let me = incarnation(host, truth.boot.load(Ordering::Relaxed), 0);
        let owner = self.read(&keys::domain(vm).owner()).flatten();
        let owned = owner
            .as_ref()
            .is_some_and(|owner| owner.incarnation.same_boot(&me));
        let recorded = owner.as_ref().is_some_and(|owner| match &owner.ceph_clients {
            CephClients::Recorded(list) => truth
                .hypervisor
                .clients(vm)
                .iter()
                .all(|client| list.contains(client)),
            CephClients::Unknown => true,
            CephClients::Unrecorded => false,
        });
        if self.can_write(host, vm) && !(owned && recorded) {
            self.inner.hooks.breach(format!(
                "hv{} lets guest {} run {}",
                host + 1,
                guest_name(vm),
                if owned {
                    "with clients that are not on record"
                } else {
                    "without owning it"
                }
            ));
        }
        self.check_writers(vm);
    }

    /// An agent's write went through: what it checked was so at this moment.
    pub(crate) fn committed(&self, host: usize, txn: &Txn) {
        for op in &txn.ops {
            let path = match op {
                Op::Check { path, .. } | Op::Set { path, .. } => path,
                Op::Guard { .. } | Op::Create { .. } | Op::Delete { .. } => continue,
            };
            if let Some(vm) = vm_of(path, "owner") {
                let healthy = self.is_healthy(host, vm);
                self.memory().vouched.insert((host, vm), healthy);
            }
        }
    }

    /// It runs where it should, by everything that is on record, and nothing speaks against it.
    fn is_healthy(&self, host: usize, vm: VmId) -> bool {
        let Some(truth) = self.hosts().get(host) else {
            return false;
        };
        let domain = keys::domain(vm);
        let me = incarnation(host, truth.boot.load(Ordering::Relaxed), 0);
        let owned = self
            .read(&domain.owner())
            .flatten()
            .is_some_and(|owner| owner.incarnation.same_boot(&me));
        let name = node_name(host);
        owned
            && self.read(&domain.state()) == Some(VmState::Start)
            && self.read(&domain.node()).as_ref() == Some(&name)
            && self.read(&domain.incoming()).flatten().is_none()
            && self.can_write(host, vm)
            && !self
                .read(&keys::fence(&name))
                .flatten()
                .is_some_and(|fence| Proof::is_evidence_about(&fence, &me, vm))
    }

    /// I5: no healthy guest is destroyed.
    pub(crate) fn about_to_destroy(&self, host: usize, vm: VmId) {
        let vouched = self.memory().vouched.remove(&(host, vm));
        if vouched.unwrap_or_else(|| self.is_healthy(host, vm)) {
            self.inner.hooks.breach(format!(
                "hv{} destroys guest {} without evidence",
                host + 1,
                guest_name(vm)
            ));
        }
    }

    /// A node that a fencer switches on must own nothing any more.
    pub(crate) fn powered_on_by(&self, fencer: usize, bmc: &str) {
        let Some(victim) = (0..self.hosts().len()).find(|host| bmc_name(*host) == bmc) else {
            return;
        };
        let name = node_name(victim);
        let boot = incarnation(victim, self.hosts()[victim].boot.load(Ordering::Relaxed), 0);
        for vm in self.inner.server.peek_children("/domains") {
            let Ok(vm) = vm.parse::<VmId>() else { continue };
            let owned = self
                .read(&keys::domain(vm).owner())
                .flatten()
                .is_some_and(|owner| owner.node == name && owner.incarnation.same_boot(&boot));
            let left = self
                .read(&keys::fence(&name))
                .flatten()
                .is_some_and(|fence| fence.left.contains(&vm));
            if owned && !left {
                self.inner.hooks.breach(format!(
                    "hv{} switches hv{} on while guest {} belongs to it",
                    fencer + 1,
                    victim + 1,
                    guest_name(vm)
                ));
            }
        }
    }

    pub(crate) fn now(&self) -> BootTime {
        self.inner.hooks.clock.world_now()
    }

    /// Takes in what was written to the store since the last time.
    pub(crate) fn catch_up(&self) {
        for written in self.inner.server.seen() {
            self.take_in(&written);
        }
    }

    /// As [`Truth::catch_up`], after a write that was decided on at `decided` and may have been under way for long.
    pub(crate) fn catch_up_with(&self, decided: BootTime) {
        self.memory().decided = Some(decided);
        self.catch_up();
        self.memory().decided = None;
    }

    fn take_in(&self, written: &Written) {
        let writer = self.memory().clients.get(&written.client).copied();
        let path = written.path.as_str();
        if let Some(node) = path.strip_prefix("/leases/nodes/") {
            let now = self.inner.hooks.clock.world_now();
            self.memory().renewed.insert(node.to_owned(), now);
        } else if path == "/leases/primary" {
            self.role_lease(written);
        } else if path == "/config/primary_node" {
            self.primary_record(written, writer);
        } else if let Some(vm) = vm_of(path, "owner") {
            self.owner(vm, written, writer);
        } else if path.starts_with("/fences/") {
            self.fence(written, writer);
        } else if let Some(vm) = vm_of(path, "device_order") {
            self.device_order(vm, written, writer);
        } else {
            self.say_value(written, writer);
        }
    }

    fn fence(&self, written: &Written, writer: Option<usize>) {
        let decode = |data: &Option<Vec<u8>>| -> Option<FenceRecord> {
            let data = data.as_deref().filter(|data| !data.is_empty())?;
            pvc_core::records::Record::decode(data).ok()
        };
        let (before, after) = (decode(&written.before), decode(&written.after));
        let Some(after) = after else { return };
        let victim = written.path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(fencer) = writer
            && node_name(fencer).as_str() != victim
        {
            let was_open = before.as_ref().is_some_and(FenceRecord::is_open);
            let was_past = before.as_ref().is_some_and(FenceRecord::past_return);
            let begins = after.phase == FencePhase::Suspected && !was_open;
            let acts = after.phase == FencePhase::Proving && after.past_return() && !(was_open && was_past);
            if begins || acts {
                self.suspected(&victim, fencer);
            }
            self.holds_fence_lock(fencer);
        }
        {
            let mut inner = self.inner.hooks.lock();
            let begun = before.as_ref().is_some_and(FenceRecord::is_open);
            if begun
                && before
                    .as_ref()
                    .is_some_and(|before| before.fencer != after.fencer)
            {
                inner.coverage.count("resumed fences");
            }
            let was_proven = before.as_ref().is_some_and(is_proven);
            match &after.phase {
                FencePhase::Proven { by } if !was_proven => inner.coverage.count(match by {
                    ProofKind::Power => "fences by power",
                    ProofKind::Storage => "fences by storage",
                    ProofKind::NewBoot => "fences by new boot",
                    ProofKind::Administrator => "fences by administrator",
                }),
                FencePhase::Abandoned { .. } if begun => inner.coverage.count("saving throws"),
                FencePhase::Done { .. } if begun => inner.coverage.count("fences done"),
                _ => {}
            }
            if after.waits_for.contains("fell silent within")
                && before.is_none_or(|before| before.waits_for != after.waits_for)
            {
                inner.coverage.count("brakes");
            }
        }
        self.inner
            .hooks
            .say(|| format!("{} fence of {victim}: {}", Truth::who(writer), in_words(&after)));
    }

    fn who(writer: Option<usize>) -> String {
        writer.map_or_else(|| "admin".to_owned(), |host| format!("hv{}", host + 1))
    }

    fn say_value(&self, written: &Written, writer: Option<usize>) {
        if written.before == written.after {
            return;
        }
        self.inner.hooks.say(|| {
            let value = written.after.as_deref().map(String::from_utf8_lossy);
            let path = written
                .path
                .replace("/domains/00000000-0000-0000-0000-00000000000", "/domains/g");
            format!(
                "{} wrote {path} = {}",
                Truth::who(writer),
                value.as_deref().unwrap_or("(gone)")
            )
        });
    }

    fn device_order(&self, vm: VmId, written: &Written, writer: Option<usize>) {
        let data = written.after.as_deref().unwrap_or_default();
        let Ok(order) = <DeviceOrder as pvc_core::records::Record>::decode(data) else {
            return;
        };
        if order.state == DeviceOrderState::Done {
            self.inner.hooks.lock().coverage.count("attachments");
        }
        self.inner.hooks.say(|| {
            let state = match &order.state {
                DeviceOrderState::Ordered => "ordered".to_owned(),
                DeviceOrderState::Working { before, .. } => {
                    format!("working, {} watched before", before.len())
                }
                DeviceOrderState::Recorded { .. } => "recorded".to_owned(),
                DeviceOrderState::Done => "done".to_owned(),
                DeviceOrderState::Failed { reason } => format!("failed: {reason}"),
            };
            format!(
                "{} wrote the order to attach a volume to {}: {state}",
                Truth::who(writer),
                guest_name(vm)
            )
        });
    }

    /// Fences are written by the holder of their lock alone.
    fn holds_fence_lock(&self, fencer: usize) {
        let path = keys::config().fence_lock();
        let mut queue = self.inner.server.peek_children(path.path());
        queue.retain(|name| name.contains("__lock__"));
        queue.sort_by_key(|name| name.rsplit("__").next().unwrap_or_default().to_owned());
        let holder = queue
            .first()
            .and_then(|first| self.inner.server.peek(&format!("{}/{first}", path.path())));
        let own = node_name(fencer);
        if holder.is_none_or(|holder| holder.data != own.as_str().as_bytes()) {
            self.inner.hooks.breach(format!(
                "hv{} writes a fence without holding the lock",
                fencer + 1
            ));
        }
    }

    fn role_lease(&self, written: &Written) {
        let holder = |data: &Option<Vec<u8>>| -> Option<String> {
            let text = std::str::from_utf8(data.as_deref()?).ok()?;
            let (_, rest) = text.split_once("\"holder\":\"")?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let now = self.inner.hooks.clock.world_now();
        self.memory().role_lease = Some((now, holder(&written.after)));
        let same = match (&written.before, &written.after) {
            (Some(before), Some(after)) => {
                let end = |data: &[u8]| data.windows(9).position(|part| part == b"\"counter\"");
                end(before).is_some()
                    && end(before) == end(after)
                    && before.get(..end(before).unwrap_or(0)) == after.get(..end(after).unwrap_or(0))
            }
            _ => false,
        };
        let (before, after) = (holder(&written.before), holder(&written.after));
        if let Some(holder) = &after {
            let record = self.read(&keys::config().primary_node());
            let named = record.is_some_and(
                |record| matches!(record, PrimaryRecord::Node(named) if named.as_str() == holder),
            );
            if !named {
                self.inner
                    .hooks
                    .breach(format!("{holder} holds the role lease against the record"));
            }
        }
        if same {
            return;
        }
        let mut inner = self.inner.hooks.lock();
        match (&before, &after) {
            (None, Some(_)) => inner.coverage.count("hand-overs"),
            (Some(before), Some(after)) if before != after => inner.coverage.count("lease-takeovers"),
            (Some(_), Some(_)) | (_, None) => {}
        }
        drop(inner);
        self.inner.hooks.say(|| match after {
            Some(holder) => format!("role lease held by {holder}"),
            None => "role lease released".to_owned(),
        });
    }

    fn primary_record(&self, written: &Written, writer: Option<usize>) {
        let text = written
            .after
            .as_deref()
            .and_then(|data| std::str::from_utf8(data).ok())
            .unwrap_or_default();
        if let Some(host) = writer
            && text
                .parse::<PrimaryRecord>()
                .is_ok_and(|record| record.names(&node_name(host)))
        {
            self.inner.hooks.lock().coverage.count("claims");
            self.claimed(host, written);
        }
        self.inner
            .hooks
            .say(|| format!("{} set the primary record to {text}", Truth::who(writer)));
    }

    /// The role is claimed from nobody, or from a holder that has been silent for long enough.
    fn claimed(&self, host: usize, written: &Written) {
        let text = written
            .before
            .as_deref()
            .and_then(|data| std::str::from_utf8(data).ok());
        let Some(Ok(PrimaryRecord::Node(named))) = text.map(str::parse::<PrimaryRecord>) else {
            return;
        };
        let now = self.inner.hooks.clock.world_now();
        let silent = match &self.memory().role_lease {
            Some((renewed, _)) => now.since(*renewed),
            None => return,
        };
        // The claimant counts from its own first sight, which is later than the writing.
        if silent < LeaseTiming::DEFAULT.claim_after() && named != node_name(host) {
            self.inner.hooks.breach(format!(
                "hv{} claims the role from {named}, whose lease has stood for {silent:?} only",
                host + 1
            ));
        }
    }

    /// I3: a guest is taken from its owner only when that can't write any more, and by a proof on record.
    fn owner(&self, vm: VmId, written: &Written, writer: Option<usize>) {
        let decode = |data: &Option<Vec<u8>>| -> Option<Owner> {
            let data = data.as_deref().filter(|data| !data.is_empty())?;
            pvc_core::records::Record::decode(data).ok()
        };
        let (before, after) = (decode(&written.before), decode(&written.after));
        self.inner.hooks.say(|| {
            let owner = after.as_ref().map_or_else(
                || "nobody".to_owned(),
                |owner| {
                    let clients = match &owner.ceph_clients {
                        CephClients::Unrecorded => "clients unrecorded".to_owned(),
                        CephClients::Recorded(list) => {
                            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
                            format!("clients {}", list.join(", "))
                        }
                        CephClients::Unknown => "clients unknown".to_owned(),
                    };
                    format!("{} life {}, {clients}", owner.node, owner.incarnation.counter)
                },
            );
            format!(
                "{} wrote owner of {}: {owner}",
                Truth::who(writer),
                guest_name(vm)
            )
        });
        let Some(before) = before else { return };
        let former = (0..self.hosts().len())
            .find(|host| incarnation(*host, 0, 0).machine_id == before.incarnation.machine_id);
        let Some(former) = former else { return };
        let stays = after
            .as_ref()
            .is_some_and(|after| after.incarnation.same_machine(&before.incarnation));
        if stays || writer == Some(former) {
            return;
        }
        if self.can_write(former, vm) {
            self.inner.hooks.breach(format!(
                "guest {} was taken from hv{} while it can write there",
                guest_name(vm),
                former + 1
            ));
        }
        let moved: bool = after.as_ref().is_some_and(|after| {
            self.read::<Option<Incoming>>(&keys::domain(vm).incoming())
                .flatten()
                .is_none_or(|incoming| incoming.target == after.node)
                && writer.is_some_and(|writer| node_name(writer) == after.node)
        });
        let proven = self
            .read::<Option<FenceRecord>>(&keys::fence(&before.node))
            .flatten()
            .is_some_and(|fence| is_proven(&fence) && fence.victim.same_boot(&before.incarnation));
        if proven {
            self.inner.hooks.lock().coverage.count("recoveries");
        }
        if moved {
            self.inner.hooks.lock().coverage.count("migrations");
        }
        if !moved && !proven && writer.is_some() {
            self.inner.hooks.breach(format!(
                "guest {} was taken from hv{} without a proof on record",
                guest_name(vm),
                former + 1
            ));
        }
    }
}

fn is_proven(fence: &FenceRecord) -> bool {
    match fence.phase {
        FencePhase::Proven { .. } | FencePhase::Recovering { .. } | FencePhase::Done { .. } => true,
        FencePhase::Suspected | FencePhase::Proving | FencePhase::Abandoned { .. } => false,
    }
}

/// A fence in a line.
fn in_words(fence: &FenceRecord) -> String {
    let tag = |value: serde_json::Result<serde_json::Value>| {
        value
            .ok()
            .and_then(|value| value.get("is").and_then(|is| is.as_str().map(str::to_owned)))
            .unwrap_or_default()
    };
    let mut text = format!(
        "{} (power {}, storage {}, restart {}) by {}",
        fence.phase.word(),
        tag(serde_json::to_value(&fence.power)),
        tag(serde_json::to_value(&fence.storage)),
        tag(serde_json::to_value(&fence.restart)),
        fence.fencer
    );
    if fence.returned.is_some() {
        text.push_str(", returned");
    }
    if !fence.waits_for.is_empty() {
        text.push_str(&format!(", waits: {}", fence.waits_for));
    }
    text
}

/// The guest of which `path` is that key.
fn vm_of(path: &str, key: &str) -> Option<VmId> {
    let (vm, rest) = path.strip_prefix("/domains/")?.split_once('/')?;
    (rest == key).then(|| vm.parse().ok())?
}
