//! A hypervisor in virtual time: guests with processes and Ceph clients, and a libvirt that can be away, forget a
//! guest, or lose its answer.

mod devices;
pub(super) mod log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use pvc_common::clock::Clock;
use pvc_core::ids::{CephClient, NodeName, VmId, VmName, VolumeId};
use pvc_core::records::LogMark;
use pvc_core::time::BootTime;
use tokio::sync::Notify;

use super::storage::{FakeCeph, WriteOutcome};

use super::wire::FakeWire;
use super::{VirtualClock, locked};
use crate::host::{
    Changed, DomainStatus, EndBy, Ending, GuestProcess, GuestStatistics, Hypervisor, HypervisorError,
    JobReading, MigrationOrder, PauseReason,
};
use log::{Logs, Shutoff};

/// What happened to a guest on a fake host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEvent {
    /// Its process was created, paused.
    Created,
    /// Its vCPUs were let run.
    Resumed,
    /// The power button was pressed.
    ShutdownAsked,
    /// Its process ended: by itself, or destroyed.
    Ended,
    /// Its process was killed, or the host lost power.
    Killed,
    /// QEMU stopped it at an I/O error.
    IoError,
    /// The receiving half of a migration was made, paused.
    Arrived,
    /// Its vCPUs were stopped for the switch-over of a migration.
    SwitchedOver,
    /// Its vCPUs were stopped by request.
    Suspended,
    /// A device was plugged in.
    Attached,
    /// A device was pulled out.
    Detached,
}

/// One line of the journal: when, which guest, what.
pub type JournalLine = (BootTime, VmId, GuestEvent);

/// The hypervisor of one host. Clones are the same host, as guests outlive the agent.
#[derive(Debug, Clone)]
pub struct FakeHypervisor {
    clock: VirtualClock,
    ceph: FakeCeph,
    /// By which Ceph knows this host.
    ip: IpAddr,
    state: Arc<Mutex<State>>,
    happened: Arc<Notify>,
    /// Its name and its way to the other hosts, once it has them.
    wire: Arc<Mutex<Option<(NodeName, FakeWire)>>>,
}

/// A host that does not keep itself alive: hosts know each other by the wire.
#[derive(Debug, Clone)]
pub(super) struct WeakHost {
    clock: VirtualClock,
    ceph: FakeCeph,
    ip: IpAddr,
    state: Weak<Mutex<State>>,
    happened: Weak<Notify>,
    wire: Weak<Mutex<Option<(NodeName, FakeWire)>>>,
}

impl WeakHost {
    pub(super) fn upgrade(&self) -> Option<FakeHypervisor> {
        Some(FakeHypervisor {
            clock: self.clock.clone(),
            ceph: self.ceph.clone(),
            ip: self.ip,
            state: self.state.upgrade()?,
            happened: self.happened.upgrade()?,
            wire: self.wire.upgrade()?,
        })
    }
}

#[derive(Debug)]
struct State {
    guests: BTreeMap<VmId, Guest>,
    /// What libvirt has forgotten though its process lives.
    forgotten: BTreeSet<VmId>,
    stubborn: BTreeSet<VmId>,
    /// Guests that do not let go of a device.
    clinging: BTreeSet<VmId>,
    available: bool,
    /// Every process of the host stands still.
    frozen: bool,
    refusals: VecDeque<String>,
    lost_answers: u32,
    shutdown_takes: Duration,
    next_pid: u32,
    journal: Vec<JournalLine>,
    /// What libvirt writes about the guests; it outlives them, and the host's boots.
    logs: Logs,
}

#[derive(Debug, Clone)]
struct Guest {
    xml: String,
    status: DomainStatus,
    pid: u32,
    started: BootTime,
    ends_at: Option<BootTime>,
    clients: Vec<(VolumeId, CephClient)>,
    /// How often the guest had been let run, anywhere, when the memory was taken that this half has received.
    memory_of: Option<u64>,
}

impl State {
    /// Lets end what has shut down by now. Returns their Ceph clients.
    fn settle(&mut self, now: BootTime) -> Vec<CephClient> {
        let ended: Vec<_> = self
            .guests
            .iter()
            .filter_map(|(vm, guest)| Some((guest.ends_at?, *vm)))
            .filter(|(ends_at, _)| *ends_at <= now)
            .collect();
        let mut clients = Vec::new();
        for (ends_at, vm) in ended {
            clients.extend(self.end(vm, ends_at, GuestEvent::Ended, Some(Shutoff::Shutdown)));
        }
        clients
    }

    /// The guest's process ends, and libvirt notes `shutoff` unless it has gone with the host.
    fn end(
        &mut self,
        vm: VmId,
        when: BootTime,
        event: GuestEvent,
        shutoff: Option<Shutoff>,
    ) -> Vec<CephClient> {
        self.forgotten.remove(&vm);
        let Some(guest) = self.guests.remove(&vm) else {
            return Vec::new();
        };
        if let Some(shutoff) = shutoff {
            self.logs.shutting_down(vm, shutoff);
        }
        self.journal.push((when, vm, event));
        guest.clients.into_iter().map(|(_, client)| client).collect()
    }

    fn known(&mut self, vm: VmId) -> Result<&mut Guest, HypervisorError> {
        if self.forgotten.contains(&vm) {
            return Err(HypervisorError::NoDomain { vm });
        }
        self.guests.get_mut(&vm).ok_or(HypervisorError::NoDomain { vm })
    }

    fn answer(&mut self) -> Result<(), HypervisorError> {
        if !self.available {
            return Err(unavailable());
        }
        match self.refusals.pop_front() {
            Some(message) => Err(HypervisorError::Refused { message }),
            None => Ok(()),
        }
    }
}

fn unavailable() -> HypervisorError {
    HypervisorError::Unavailable {
        reason: "the fake libvirtd is away".to_owned(),
    }
}

impl FakeHypervisor {
    /// The hypervisor of a host that Ceph knows by `ip`.
    pub fn new(clock: VirtualClock, ceph: FakeCeph, ip: IpAddr) -> FakeHypervisor {
        FakeHypervisor {
            clock,
            ceph,
            ip,
            state: Arc::new(Mutex::new(State {
                guests: BTreeMap::new(),
                forgotten: BTreeSet::new(),
                stubborn: BTreeSet::new(),
                clinging: BTreeSet::new(),
                available: true,
                frozen: false,
                refusals: VecDeque::new(),
                lost_answers: 0,
                shutdown_takes: Duration::from_secs(2),
                next_pid: 1000,
                journal: Vec::new(),
                logs: Logs::default(),
            })),
            happened: Arc::default(),
            wire: Arc::default(),
        }
    }

    /// Connects this host, as node `node`, with the others on `wire`: guests can be sent from and to it.
    pub fn connect(&self, node: &NodeName, wire: &FakeWire) {
        *locked(&self.wire) = Some((node.clone(), wire.clone()));
        wire.join(
            node,
            WeakHost {
                clock: self.clock.clone(),
                ceph: self.ceph.clone(),
                ip: self.ip,
                state: Arc::downgrade(&self.state),
                happened: Arc::downgrade(&self.happened),
                wire: Arc::downgrade(&self.wire),
            },
        );
    }

    /// Every process of the host stands still: no guest writes, nothing is sent or received, no shutdown comes to its
    /// end. Its agent has to be frozen beside.
    pub fn freeze(&self) {
        self.settle();
        locked(&self.state).frozen = true;
    }

    /// Ends [`FakeHypervisor::freeze`].
    pub fn thaw(&self) {
        locked(&self.state).frozen = false;
        self.happened.notify_one();
    }

    pub(super) fn is_frozen(&self) -> bool {
        locked(&self.state).frozen
    }

    pub(super) fn is_available(&self) -> bool {
        locked(&self.state).available
    }

    pub(super) fn has(&self, vm: VmId) -> bool {
        locked(&self.state).guests.contains_key(&vm)
    }

    /// The live definition of the guest's process; `None` if it has none here.
    pub fn live(&self, vm: VmId) -> Option<String> {
        locked(&self.state).guests.get(&vm).map(|guest| guest.xml.clone())
    }

    /// The receiving half of a migration. Says whether it could be made.
    pub(super) fn make_half(&self, vm: VmId, xml: &str, at: BootTime) -> bool {
        if self.has(vm) {
            return false;
        }
        let made = self
            .insert(vm, xml, at, PauseReason::Migration, GuestEvent::Arrived)
            .is_ok();
        self.happened.notify_one();
        made
    }

    /// A change of status by a migration.
    pub(super) fn set_status(&self, vm: VmId, status: DomainStatus, at: BootTime) {
        let mut state = locked(&self.state);
        let Some(guest) = state.guests.get_mut(&vm) else {
            return;
        };
        guest.status = status;
        match status {
            DomainStatus::Running => state.journal.push((at, vm, GuestEvent::Resumed)),
            DomainStatus::Paused(PauseReason::Migration) => {
                state.journal.push((at, vm, GuestEvent::SwitchedOver));
            }
            DomainStatus::Paused(PauseReason::Other) => state.journal.push((at, vm, GuestEvent::Suspended)),
            DomainStatus::Paused(PauseReason::StartingUp | PauseReason::IoError)
            | DomainStatus::ShuttingDown
            | DomainStatus::Off
            | DomainStatus::Crashed => {}
        }
        drop(state);
        self.happened.notify_one();
    }

    /// The half has received everything, as of the `runs`-th time that the guest was let run.
    pub(super) fn complete_half(&self, vm: VmId, runs: u64, at: BootTime) {
        if let Some(guest) = locked(&self.state).guests.get_mut(&vm) {
            guest.memory_of = Some(runs);
        }
        self.set_status(vm, DomainStatus::Paused(PauseReason::StartingUp), at);
    }

    /// Whether the guest here stands still with a memory that is older than its volumes: it was let run elsewhere since
    /// that memory was received. Letting it run would destroy what is on them.
    pub fn has_old_memory(&self, vm: VmId) -> bool {
        self.settle();
        let Some((_, wire)) = self.wire() else {
            return false;
        };
        let memory_of = locked(&self.state)
            .guests
            .get(&vm)
            .and_then(|guest| guest.memory_of);
        memory_of.is_some_and(|runs| runs != wire.runs(vm))
    }

    /// The process ends and closes its volumes.
    pub(super) fn end_in_order(&self, vm: VmId, at: BootTime, shutoff: Shutoff) {
        let clients = locked(&self.state).end(vm, at, GuestEvent::Ended, Some(shutoff));
        clients.iter().for_each(|client| self.ceph.close(client));
        self.happened.notify_one();
    }

    fn wire(&self) -> Option<(NodeName, FakeWire)> {
        locked(&self.wire).clone()
    }

    /// libvirtd goes away (guests stay).
    pub fn go_away(&self) {
        locked(&self.state).available = false;
        self.happened.notify_one();
    }

    /// libvirtd comes back.
    pub fn come_back(&self) {
        locked(&self.state).available = true;
        self.happened.notify_one();
    }

    /// The next call that is answered is refused. Orders queue up.
    pub fn refuse_next(&self, message: &str) {
        locked(&self.state).refusals.push_back(message.to_owned());
    }

    /// The next `create_paused` or `attach_device` does its work, and its caller is told that libvirt does not answer.
    pub fn lose_next_answer(&self) {
        locked(&self.state).lost_answers += 1;
    }

    /// libvirt forgets the guest while its process lives.
    pub fn forget(&self, vm: VmId) {
        locked(&self.state).forgotten.insert(vm);
        self.happened.notify_one();
    }

    /// How long a guest takes to shut down from now on; 2 s at first.
    pub fn set_shutdown_takes(&self, duration: Duration) {
        locked(&self.state).shutdown_takes = duration;
    }

    /// This guest does not react to the power button.
    pub fn set_stubborn(&self, vm: VmId) {
        locked(&self.state).stubborn.insert(vm);
    }

    /// From now on this guest does not let go of any device, or does again.
    pub fn set_clinging(&self, vm: VmId, clinging: bool) {
        let mut state = locked(&self.state);
        if clinging {
            state.clinging.insert(vm);
        } else {
            state.clinging.remove(&vm);
        }
    }

    /// An administrator stops the guest's vCPUs, as with `virsh suspend`.
    pub fn suspend_by_hand(&self, vm: VmId) {
        let now = self.clock.now();
        self.set_status(vm, DomainStatus::Paused(PauseReason::Other), now);
    }

    /// Kills the guest's process: its Ceph watch lingers, its lock stays.
    pub fn kill_process(&self, vm: VmId) {
        self.settle();
        self.lose_process(vm, Some(Shutoff::Crashed));
    }

    fn lose_process(&self, vm: VmId, shutoff: Option<Shutoff>) {
        let now = self.clock.now();
        let clients = locked(&self.state).end(vm, now, GuestEvent::Killed, shutoff);
        clients.iter().for_each(|client| self.ceph.abandon(client));
        self.happened.notify_one();
    }

    /// The host loses power: every process is gone, without a word to Ceph.
    pub fn power_off(&self) {
        let vms: Vec<_> = locked(&self.state).guests.keys().copied().collect();
        for vm in vms {
            self.lose_process(vm, None);
        }
    }

    /// From now on nothing is written to libvirt's logs and nothing can be read there, as on a full or broken disk.
    pub fn lose_logs(&self) {
        locked(&self.state).logs.set_lost(true);
    }

    /// Ends [`FakeHypervisor::lose_logs`].
    pub fn find_logs(&self) {
        locked(&self.state).logs.set_lost(false);
    }

    /// Lets every running guest write once to each of its volumes. One that is barred from Ceph is stopped by QEMU at
    /// this (`error_policy='stop'`).
    pub fn guests_write(&self) {
        let now = self.clock.now();
        self.settle();
        if self.is_frozen() {
            return;
        }
        let running: Vec<_> = locked(&self.state)
            .guests
            .iter()
            .filter(|(_, guest)| guest.status == DomainStatus::Running)
            .map(|(vm, guest)| (*vm, guest.clients.clone()))
            .collect();
        for (vm, clients) in running {
            let barred = clients
                .iter()
                .any(|(volume, client)| self.ceph.write(volume, client) == WriteOutcome::Blocklisted);
            if barred {
                let mut state = locked(&self.state);
                if let Some(guest) = state.guests.get_mut(&vm) {
                    guest.status = DomainStatus::Paused(PauseReason::IoError);
                    state.journal.push((now, vm, GuestEvent::IoError));
                }
                drop(state);
                self.happened.notify_one();
            }
        }
    }

    /// The Ceph clients of the guest's process; empty if it has none here.
    pub fn clients(&self, vm: VmId) -> Vec<CephClient> {
        let state = locked(&self.state);
        let Some(guest) = state.guests.get(&vm) else {
            return Vec::new();
        };
        guest.clients.iter().map(|(_, client)| client.clone()).collect()
    }

    /// The volumes that the guest's process has opened, each with the client by which it did.
    pub fn opened(&self, vm: VmId) -> Vec<(VolumeId, CephClient)> {
        let state = locked(&self.state);
        state
            .guests
            .get(&vm)
            .map(|guest| guest.clients.clone())
            .unwrap_or_default()
    }

    /// How the guest really is, whatever libvirt knows; `None` if it has no process here.
    pub fn status(&self, vm: VmId) -> Option<DomainStatus> {
        self.settle();
        locked(&self.state).guests.get(&vm).map(|guest| guest.status)
    }

    /// Everything that happened so far.
    pub fn journal(&self) -> Vec<JournalLine> {
        self.settle();
        locked(&self.state).journal.clone()
    }

    fn settle(&self) {
        let now = self.clock.now();
        if let Some((_, wire)) = self.wire() {
            wire.settle(now);
        }
        if self.is_frozen() {
            return;
        }
        let clients = locked(&self.state).settle(now);
        clients.iter().for_each(|client| self.ceph.close(client));
    }

    fn next_end(&self) -> Option<BootTime> {
        let jobs = self.wire().and_then(|(_, wire)| wire.next_deadline());
        let state = locked(&self.state);
        let ends = state.guests.values().filter_map(|guest| guest.ends_at);
        ends.chain(jobs).min()
    }

    fn create(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let refused = |message: String| HypervisorError::Refused { message };
        let now = self.clock.now();
        {
            let mut state = locked(&self.state);
            state.answer()?;
            if state.guests.contains_key(&vm) && !state.forgotten.contains(&vm) {
                return Err(refused(format!("domain {vm} is already active")));
            }
        }
        self.insert(vm, xml, now, PauseReason::StartingUp, GuestEvent::Created)
            .map_err(refused)?;
        let mut state = locked(&self.state);
        if state.lost_answers > 0 {
            state.lost_answers -= 1;
            return Err(unavailable());
        }
        Ok(())
    }
}

impl FakeHypervisor {
    /// Makes a process that stands still. If it can't open a volume: what QEMU says.
    fn insert(
        &self,
        vm: VmId,
        xml: &str,
        now: BootTime,
        reason: PauseReason,
        event: GuestEvent,
    ) -> Result<(), String> {
        let mut clients = Vec::new();
        for volume in rbd_volumes(xml)? {
            match self.ceph.open(&volume, self.ip) {
                Some(client) => clients.push((volume, client)),
                None => {
                    clients.iter().for_each(|(_, client)| self.ceph.close(client));
                    return Err(format!("error reading header from {volume}"));
                }
            }
        }
        let mut state = locked(&self.state);
        state.next_pid += 1;
        let guest = Guest {
            xml: xml.to_owned(),
            status: DomainStatus::Paused(reason),
            pid: state.next_pid,
            started: now,
            ends_at: None,
            clients,
            memory_of: None,
        };
        state.guests.insert(vm, guest);
        state.journal.push((now, vm, event));
        state.logs.starting_up(vm);
        Ok(())
    }
}

/// The RBD volumes of a domain's disks.
fn rbd_volumes(xml: &str) -> Result<Vec<VolumeId>, String> {
    let document = roxmltree::Document::parse(xml).map_err(|error| error.to_string())?;
    document
        .descendants()
        .filter(|node| node.has_tag_name("source") && node.attribute("protocol") == Some("rbd"))
        .map(|node| {
            let name = node.attribute("name").unwrap_or_default();
            name.parse().map_err(|error| format!("{error}"))
        })
        .collect()
}

impl Hypervisor for FakeHypervisor {
    async fn domains(&self) -> Result<BTreeMap<VmId, DomainStatus>, HypervisorError> {
        self.settle();
        let mut state = locked(&self.state);
        state.answer()?;
        Ok(state
            .guests
            .iter()
            .filter(|(vm, _)| !state.forgotten.contains(vm))
            .map(|(vm, guest)| (*vm, guest.status))
            .collect())
    }

    fn processes(&self) -> std::io::Result<Vec<GuestProcess>> {
        self.settle();
        let state = locked(&self.state);
        Ok(state
            .guests
            .iter()
            .map(|(vm, guest)| GuestProcess {
                vm: *vm,
                pid: guest.pid,
                // 100 clock ticks a second, as on every Linux we run on.
                start_ticks: u64::try_from(guest.started.since_boot().as_millis() / 10).unwrap_or(u64::MAX),
            })
            .collect())
    }

    async fn create_paused(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        self.settle();
        let outcome = self.create(vm, xml);
        self.happened.notify_one();
        outcome
    }

    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let running = {
            let mut state = locked(&self.state);
            state.answer()?;
            state.known(vm)?.status == DomainStatus::Running
        };
        if running {
            self.set_status(vm, DomainStatus::Paused(PauseReason::Other), now);
        }
        Ok(())
    }

    async fn attach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let outcome = devices::attach(self, vm, xml, now);
        self.happened.notify_one();
        outcome
    }

    async fn detach_device(&self, vm: VmId, xml: &str) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let outcome = devices::detach(self, vm, xml, now);
        self.happened.notify_one();
        outcome
    }

    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let wire = self.wire();
        let busy = wire.as_ref().is_some_and(|(node, wire)| wire.is_busy(vm, node));
        let mut state = locked(&self.state);
        state.answer()?;
        if busy {
            return Err(HypervisorError::Refused {
                message: "the domain is being migrated".to_owned(),
            });
        }
        let guest = state.known(vm)?;
        guest.status = DomainStatus::Running;
        guest.memory_of = None;
        state.journal.push((now, vm, GuestEvent::Resumed));
        drop(state);
        if let Some((_, wire)) = wire {
            wire.count_run(vm);
        }
        self.happened.notify_one();
        Ok(())
    }

    async fn shutdown(&self, vm: VmId) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let mut state = locked(&self.state);
        state.answer()?;
        let (stubborn, takes) = (state.stubborn.contains(&vm), state.shutdown_takes);
        let guest = state.known(vm)?;
        if !stubborn && guest.status == DomainStatus::Running {
            guest.ends_at.get_or_insert(now + takes);
        }
        state.journal.push((now, vm, GuestEvent::ShutdownAsked));
        drop(state);
        self.happened.notify_one();
        Ok(())
    }

    async fn destroy(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        let now = self.clock.now();
        self.settle();
        let clients = {
            let mut state = locked(&self.state);
            state.answer()?;
            if state.known(vm).is_err() {
                return Ok(Changed::AlreadySo);
            }
            state.end(vm, now, GuestEvent::Ended, Some(Shutoff::Destroyed))
        };
        clients.iter().for_each(|client| self.ceph.close(client));
        self.happened.notify_one();
        Ok(Changed::Done)
    }

    async fn send(&self, vm: VmId, order: &MigrationOrder) -> Result<(), HypervisorError> {
        let now = self.clock.now();
        self.settle();
        {
            let mut state = locked(&self.state);
            state.answer()?;
            if state.known(vm)?.status != DomainStatus::Running {
                return Err(HypervisorError::Refused {
                    message: "the domain does not run".to_owned(),
                });
            }
        }
        let Some((node, wire)) = self.wire() else {
            return Err(HypervisorError::Refused {
                message: "this host is connected to no other".to_owned(),
            });
        };
        let job = wire.begin(vm, &node, &order.target, now)?;
        loop {
            self.settle();
            if let Some(outcome) = locked(&job.outcome).take() {
                self.happened.notify_one();
                return outcome;
            }
            let ended = std::pin::pin!(job.ended.notified());
            let next = wire.next_deadline().unwrap_or(self.clock.now());
            select(ended, std::pin::pin!(self.clock.sleep_until(next))).await;
        }
    }

    async fn sending(&self, vm: VmId) -> JobReading {
        self.settle();
        if !self.is_available() {
            return JobReading::Unknown;
        }
        self.wire()
            .map_or(JobReading::Idle, |(node, wire)| wire.reading(vm, &node))
    }

    async fn cancel_sending(&self, vm: VmId) -> Result<Changed, HypervisorError> {
        self.settle();
        locked(&self.state).answer()?;
        let cancelled = self.wire().is_some_and(|(node, wire)| wire.cancel(vm, &node));
        self.settle();
        Ok(if cancelled {
            Changed::Done
        } else {
            Changed::AlreadySo
        })
    }

    fn log_mark(&self, vm: VmId, _: &VmName) -> std::io::Result<LogMark> {
        self.settle();
        locked(&self.state).logs.mark(vm)
    }

    fn ending(&self, vm: VmId, _: &VmName, since: LogMark) -> Ending {
        self.settle();
        locked(&self.state).logs.ending(vm, since)
    }

    fn end_process(&self, process: &GuestProcess, by: EndBy) -> std::io::Result<Changed> {
        if !self.processes()?.contains(process) {
            return Ok(Changed::AlreadySo);
        }
        match by {
            EndBy::Term => self.end_in_order(process.vm, self.clock.now(), Shutoff::Shutdown),
            EndBy::Kill => self.kill_process(process.vm),
        }
        Ok(Changed::Done)
    }

    async fn statistics(&self) -> Result<BTreeMap<VmId, GuestStatistics>, HypervisorError> {
        let domains = self.domains().await?;
        let figures = serde_json::json!({
            "state": "running", "maxmem": 1024, "livemem": 1024, "cpus": 1, "cputime": 0.0,
            "mem_stats": {}, "cpu_stats": {}, "disk_stats": [], "net_stats": [],
        });
        Ok(domains.keys().map(|vm| (*vm, figures.clone())).collect())
    }

    async fn live_xml(&self, vm: VmId) -> Result<String, HypervisorError> {
        self.settle();
        let mut state = locked(&self.state);
        state.answer()?;
        Ok(state.known(vm)?.xml.clone())
    }

    async fn changed(&self) {
        let happened = std::pin::pin!(self.happened.notified());
        let Some(end) = self.next_end() else {
            return happened.await;
        };
        if let Either::Right(_) = select(happened, std::pin::pin!(self.clock.sleep_until(end))).await {
            self.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Storage;

    const MINUTE: Duration = Duration::from_secs(60);
    const XML: &str =
        "<domain><devices><disk><source protocol='rbd' name='vms/web_disk0'/></disk></devices></domain>";

    struct Host {
        clock: VirtualClock,
        ceph: FakeCeph,
        hypervisor: FakeHypervisor,
    }

    fn vm() -> VmId {
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap()
    }

    fn volume() -> VolumeId {
        "vms/web_disk0".parse().unwrap()
    }

    impl Host {
        fn new() -> Host {
            let clock = VirtualClock::default();
            let ceph = FakeCeph::new(clock.clone());
            ceph.add_volume(&volume());
            let hypervisor = FakeHypervisor::new(clock.clone(), ceph.clone(), [10, 102, 0, 1].into());
            Host {
                clock,
                ceph,
                hypervisor,
            }
        }

        fn run<T>(&self, work: impl Future<Output = T>) -> T {
            self.clock.run(MINUTE, work).unwrap()
        }

        fn watchers(&self) -> Vec<CephClient> {
            let connection = self.ceph.connection();
            self.run(connection.volume_use(&volume())).unwrap().watchers
        }
    }

    #[test]
    fn a_guest_is_created_paused_writes_when_resumed_and_shuts_down_in_its_time() {
        let host = Host::new();
        let hypervisor = &host.hypervisor;
        host.run(hypervisor.create_paused(vm(), XML)).unwrap();
        hypervisor.guests_write();
        assert_eq!(host.ceph.writes(&volume()), []);
        assert_eq!(host.watchers(), hypervisor.clients(vm()));
        host.run(hypervisor.resume(vm())).unwrap();
        hypervisor.guests_write();
        assert_eq!(host.ceph.writes(&volume()).len(), 1);

        host.run(hypervisor.changed());
        host.run(hypervisor.shutdown(vm())).unwrap();
        host.run(hypervisor.changed());
        assert!(hypervisor.status(vm()).is_some());
        let start = host.clock.now();
        host.run(hypervisor.changed());
        assert_eq!(host.clock.now().since(start), Duration::from_secs(2));
        assert_eq!(hypervisor.status(vm()), None);
        assert_eq!(host.watchers(), []);
        assert_eq!(host.run(hypervisor.destroy(vm())).unwrap(), Changed::AlreadySo);
    }

    #[test]
    fn a_barred_guest_stops_at_its_next_write() {
        let host = Host::new();
        let hypervisor = &host.hypervisor;
        host.run(hypervisor.create_paused(vm(), XML)).unwrap();
        host.run(hypervisor.resume(vm())).unwrap();
        host.run(host.ceph.connection().blocklist(&hypervisor.clients(vm())))
            .unwrap();
        hypervisor.guests_write();
        let expected = DomainStatus::Paused(PauseReason::IoError);
        assert_eq!(hypervisor.status(vm()), Some(expected));
        assert_eq!(host.ceph.writes(&volume()), []);
    }

    #[test]
    fn what_libvirt_says_and_what_is_there_can_differ() {
        let host = Host::new();
        let hypervisor = &host.hypervisor;
        hypervisor.lose_next_answer();
        let outcome = host.run(hypervisor.create_paused(vm(), XML));
        assert!(matches!(outcome, Err(HypervisorError::Unavailable { .. })));
        assert_eq!(hypervisor.processes().unwrap().len(), 1);
        hypervisor.forget(vm());
        assert!(host.run(hypervisor.domains()).unwrap().is_empty());
        assert_eq!(hypervisor.processes().unwrap()[0].vm, vm());
        hypervisor.go_away();
        assert!(host.run(hypervisor.domains()).is_err());
        hypervisor.kill_process(vm());
        assert!(hypervisor.processes().unwrap().is_empty());
        assert_eq!(host.watchers().len(), 1, "a killed client's watch lingers");
    }

    #[test]
    fn a_guest_without_its_volume_does_not_start() {
        let host = Host::new();
        let xml = XML.replace("web_disk0", "other");
        let outcome = host.run(host.hypervisor.create_paused(vm(), &xml));
        assert!(matches!(outcome, Err(HypervisorError::Refused { .. })));
        assert!(host.hypervisor.processes().unwrap().is_empty());
    }
}
