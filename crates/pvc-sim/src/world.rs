//! The world: hosts, networks, Ceph and the store on one virtual clock, and the agents in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::schema::{self, NewDomain};
use pvc_common::store::memory::{MemoryServer, MemoryStore, Snapshot};
use pvc_common::store::{SessionState, Store as _, StoreError, Txn};
use pvc_core::fence::{Confirmation, ConfirmationKind, FencePhase, FenceRecord};
use pvc_core::hold::AdoptOrder;
use pvc_core::ids::{CephClient, NodeName};
use pvc_core::records::{PrimaryRecord, RoleLease};
use pvc_core::states::{CoordinatorState, DaemonMode, DomainState, MigrationMethod, NodeSelector, VmState};
use pvc_core::time::BootTime;
use pvc_core::upstream::UpstreamLook;
use pvcnoded::agent::AgentState;
use pvcnoded::host::fake::power::{BmcMood, FakeBmc, FakeBmcNetwork, FakePower};
use pvcnoded::host::fake::upstream::FakeUpstream;
use pvcnoded::host::fake::wire::{FakeWire, MigrationPhase, MigrationTiming};
use pvcnoded::host::fake::{FakeCeph, FakeHypervisor, FakeNetwork, FakeStorage, VirtualClock};
use pvcnoded::host::power::PowerState;
use pvcnoded::host::{DomainStatus, HostNetwork as _, RoleAddress, RoleNetwork};
use pvcnoded::role::TenureFile;

use crate::agent::{AgentParts, live};
use crate::executor::{Executor, Group, Stuck};
use crate::hooks::{Demand, Gate, Hooks};
use crate::rng::Rng;
use crate::run::Logging;
use crate::schedule::{ClusterPlan, Expectation, Link};
use crate::seams::{SimHypervisor, SimNetwork, SimPower, SimStorage, SimStore};
use crate::truth::{HostTruth, Truth, looks_at};
use crate::{START, bmc_name, guest_name, incarnation, machine_guid, node_name, storage_ip, vm_id};

/// How long the server keeps the session of a client that is silent.
const SESSION: Duration = Duration::from_secs(6);
/// How long a client takes to make a new session.
const NEW_SESSION: Duration = Duration::from_millis(150);
/// As the service manager: clean up at once, start again after a second.
const STOP_POST: Duration = Duration::from_millis(100);
const RESTART: Duration = Duration::from_millis(1100);
/// From power-on to the agent's start.
const BOOT: Duration = Duration::from_secs(8);
/// How long the kernel may be late with an address (measured: up to 1.0 s).
const LATENESS: Duration = Duration::from_millis(1100);
/// Who has heard nothing for so long has surely missed a round.
const DEAF: Duration = Duration::from_secs(4);
/// How long a host may answer for an address after its clock stood still: the longest lifetime and the lateness.
const AFTER_A_STOPPED_CLOCK: Duration = Duration::from_secs(7);

/// A host and the agent on it.
pub(crate) struct Host {
    pub(crate) clock: VirtualClock,
    pub(crate) network: FakeNetwork,
    pub(crate) hypervisor: FakeHypervisor,
    pub(crate) storage: FakeStorage,
    pub(crate) power: FakePower,
    pub(crate) bmc: FakeBmc,
    pub(crate) upstream: FakeUpstream,
    pub(crate) gate: Gate,
    boot: Arc<AtomicU64>,
    lives: u64,
    pub(crate) powered: bool,
    agent: Option<Group>,
    pub(crate) lease_store: MemoryStore,
    pub(crate) store: MemoryStore,
    frozen: bool,
    host_frozen: bool,
    suspended: bool,
    still_since: Option<BootTime>,
    suspended_at: BootTime,
    cut: BTreeSet<Link>,
    /// Grows with each change that matters to the sessions of the agent.
    connection: u64,
    runtime_directory: PathBuf,
    /// What its agent calls itself.
    name: NodeName,
}

impl Host {
    fn stands_still(&self) -> bool {
        self.frozen || self.host_frozen || self.suspended
    }
}

/// Something that comes by itself.
enum Event {
    DropRole { host: usize, life: u64 },
    StartAgent { host: usize, boot: u64 },
    Thaw { host: usize, life: u64 },
    EndSession { host: usize, connection: u64 },
    EndOrphans(Vec<MemoryStore>),
    Reconnect { host: usize },
    Close(CephClient),
}

/// The world.
pub(crate) struct World {
    pub(crate) plan: ClusterPlan,
    pub(crate) hooks: Hooks,
    pub(crate) clock: VirtualClock,
    pub(crate) server: MemoryServer,
    pub(crate) admin: MemoryStore,
    pub(crate) ceph: FakeCeph,
    pub(crate) bmcs: FakeBmcNetwork,
    pub(crate) wire: FakeWire,
    pub(crate) hosts: Vec<Host>,
    pub(crate) truth: Truth,
    executor: Executor,
    order: Rng,
    events: BTreeMap<(BootTime, u64), Event>,
    next_event: u64,
    quorum: bool,
    lost_at: BootTime,
    snapshot: Option<Snapshot>,
    /// What administrators asked last of each guest, and were told is done.
    pub(crate) asked: Vec<VmState>,
    pub(crate) stuck: Option<Stuck>,
}

/// The addresses that follow the role.
pub(crate) fn role_addresses() -> Vec<RoleAddress> {
    [
        (RoleNetwork::Upstream, "brupstream", [10, 100, 0, 250]),
        (RoleNetwork::Cluster, "brcluster", [10, 101, 0, 250]),
    ]
    .map(|(network, interface, ip)| RoleAddress {
        network,
        interface: interface.to_owned(),
        ip: IpAddr::from(ip),
    })
    .into()
}

fn xml(guest: usize) -> String {
    let vm = vm_id(guest);
    format!(
        "<domain type='kvm'><name>g{0}</name><uuid>{vm}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>\
         <disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='rbd' name='vms/g{0}_disk0'><host name='10.102.0.1' port='3300'/></source>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>",
        guest + 1
    )
}

pub(crate) fn volume(guest: usize) -> pvc_core::ids::VolumeId {
    format!("vms/g{}_disk0", guest + 1)
        .parse()
        .expect("a valid volume name")
}

impl World {
    pub(crate) fn new(plan: &ClusterPlan, runtime: &std::path::Path, logging: Logging) -> World {
        let clock = VirtualClock::starting_at(START);
        let server = MemoryServer::new();
        let ceph = FakeCeph::new(clock.clone());
        let hooks = Hooks::new(clock.clone(), plan.seed, logging);
        let admin = server.client();
        let truth = Truth::new(hooks.clone(), server.clone(), ceph.clone());
        let mut world = World {
            plan: plan.clone(),
            hooks,
            clock,
            server,
            admin,
            ceph,
            bmcs: FakeBmcNetwork::default(),
            wire: FakeWire::default(),
            hosts: Vec::new(),
            truth,
            executor: Executor::new(),
            order: match logging {
                Logging::Calm => Rng::always_least(),
                Logging::On | Logging::Off => Rng::new(plan.seed),
            },
            events: BTreeMap::new(),
            next_event: 0,
            quorum: true,
            lost_at: START,
            snapshot: None,
            asked: vec![VmState::Start; plan.guests],
            stuck: None,
        };
        world.define();
        if logging != Logging::Calm {
            // Longer than real ones, so that something comes in between.
            let mut rng = Rng::new(plan.seed ^ 0x717e);
            let mut phase = |low, high| Duration::from_millis(rng.between(low, high));
            world.wire.set_timing(MigrationTiming {
                prepare: phase(100, 800),
                pre_copy: phase(500, 4000),
                switch_over: phase(50, 1200),
                finish: phase(50, 1200),
            });
        }
        for host in 0..plan.nodes {
            world.add_host(host, runtime);
        }
        world.truth.set_hosts(
            world
                .hosts
                .iter()
                .map(|host| HostTruth {
                    network: host.network.clone(),
                    hypervisor: host.hypervisor.clone(),
                    boot: Arc::clone(&host.boot),
                })
                .collect(),
        );
        world.server.observe(looks_at);
        for host in 0..plan.nodes {
            world.start_agent(host);
        }
        world
    }

    /// The store and the volumes of a cluster whose guests should run.
    fn define(&mut self) {
        let mut tree = schema::base_keys();
        for guest in 0..self.plan.guests {
            self.ceph.add_volume(&volume(guest));
            tree.ops.extend(
                schema::domain_keys(&NewDomain {
                    id: vm_id(guest),
                    name: format!("g{}", guest + 1).parse().expect("a valid name"),
                    xml: xml(guest),
                    state: VmState::Start,
                    node: node_name(guest % self.plan.nodes),
                    profile: None,
                    volumes: vec![volume(guest)],
                    node_limit: vec![],
                    node_selector: NodeSelector::None,
                    autostart: false,
                    migration_method: MigrationMethod::None,
                    migration_max_downtime_ms: 300,
                    tags: vec![],
                })
                .ops,
            );
        }
        let made = self.admin.commit(tree).now_or_never();
        assert!(matches!(made, Some(Ok(_))), "the store can't be made: {made:?}");
    }

    fn add_host(&mut self, host: usize, runtime: &std::path::Path) {
        let clock = self.clock.of_host();
        let network = FakeNetwork::new(clock.clone());
        network.set_lateness(LATENESS);
        let runtime_directory = runtime.join(format!("hv{}", host + 1));
        // Made anew for each schedule; what can't be removed is found when it is read.
        let state = runtime_directory.join("state");
        let _ = std::fs::remove_dir_all(&state);
        let _ = std::fs::create_dir_all(&state);
        TenureFile::in_directory(&runtime_directory).clear();
        let gate = Gate::new(self.hooks.clone(), host, clock.clone());
        self.ceph
            .add_osd(u32::try_from(host).unwrap_or(u32::MAX), storage_ip(host));
        let bmc = FakeBmc::new(self.clock.clone(), &machine_guid(host));
        let hooks = self.hooks.clone();
        bmc.on_switch(move |_| hooks.demand(Demand::Switched { host }));
        self.bmcs.attach(&bmc_name(host), bmc.clone());
        let hypervisor = FakeHypervisor::new(clock.clone(), self.ceph.clone(), storage_ip(host));
        hypervisor.connect(&node_name(host), &self.wire);
        self.hosts.push(Host {
            network,
            hypervisor,
            storage: self.ceph.connection(),
            power: self.bmcs.connection(clock.clone()),
            bmc,
            upstream: FakeUpstream::new(),
            gate,
            clock,
            boot: Arc::new(AtomicU64::new(1)),
            lives: 0,
            powered: true,
            agent: None,
            lease_store: self.server.client(),
            store: self.server.client(),
            frozen: false,
            host_frozen: false,
            suspended: false,
            still_since: None,
            suspended_at: START,
            cut: BTreeSet::new(),
            connection: 0,
            runtime_directory,
            name: node_name(host),
        });
    }

    fn coordinators(&self) -> Vec<NodeName> {
        (0..self.plan.nodes.min(3)).map(node_name).collect()
    }

    /// A new life of the agent, unless one lives.
    fn start_agent(&mut self, number: usize) {
        let coordinators = self.coordinators();
        let (lease_store, store) = (self.server.client(), self.server.client());
        self.truth.client_of(lease_store.number(), number);
        self.truth.client_of(store.number(), number);
        let host = &mut self.hosts[number];
        if host.agent.is_some() || !host.powered {
            return;
        }
        host.lives += 1;
        host.frozen = false;
        host.lease_store = lease_store;
        host.store = store;
        let boot = host.boot.load(Ordering::Relaxed);
        let gate = host.gate.clone();
        let agent = AgentState::new();
        let parts = AgentParts {
            me: host.name.clone(),
            incarnation: incarnation(number, boot, host.lives),
            mode: match number < coordinators.len() {
                true => DaemonMode::Coordinator,
                false => DaemonMode::Hypervisor,
            },
            coordinators,
            addresses: role_addresses(),
            storage_ip: storage_ip(number),
            floating: vec![IpAddr::from([10, 102, 0, 250])],
            clock: host.clock.clone(),
            lease_store: SimStore::new(host.lease_store.clone(), gate.clone(), self.truth.clone()),
            store: SimStore::new(host.store.clone(), gate.clone(), self.truth.clone()),
            network: SimNetwork::new(host.network.clone(), gate.clone(), self.truth.clone()),
            hypervisor: SimHypervisor::new(host.hypervisor.clone(), gate.clone(), self.truth.clone()),
            storage: SimStorage::new(host.storage.clone(), gate.clone(), self.truth.clone()),
            power: SimPower::new(host.power.clone(), gate.clone(), self.truth.clone()),
            upstream: host.upstream.clone(),
            gate,
            runtime_directory: host.runtime_directory.clone(),
            state_directory: host.runtime_directory.join("state"),
            agent,
        };
        let life = host.lives;
        let spawner = self.executor.group();
        host.agent = Some(spawner.group());
        spawner.spawn(live(parts, spawner.clone()));
        if life > 1 {
            self.hooks.lock().coverage.count("restarts");
        }
        self.hooks
            .say(|| format!("{} agent starts (boot {boot}, life {life})", node_name(number)));
        self.connection_changed(number);
        self.apply_stillness(number);
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events
            .insert((self.clock.world_now() + after, self.next_event), event);
    }

    /// The agent ends without a word.
    pub(crate) fn kill_agent(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let Some(group) = host.agent.take() else {
            return;
        };
        self.executor.kill(group);
        host.connection += 1;
        let orphans = vec![host.lease_store.clone(), host.store.clone()];
        let (life, boot, powered) = (host.lives, host.boot.load(Ordering::Relaxed), host.powered);
        // Whoever is frozen is killed all the same.
        host.frozen = false;
        self.hooks
            .say(|| format!("{} agent is killed", node_name(number)));
        self.at(SESSION, Event::EndOrphans(orphans));
        if powered {
            self.at(STOP_POST, Event::DropRole { host: number, life });
            self.at(RESTART, Event::StartAgent { host: number, boot });
        }
    }

    pub(crate) fn power_loss(&mut self, number: usize) {
        if !self.hosts[number].powered {
            return;
        }
        self.hooks.say(|| format!("{} loses power", node_name(number)));
        let host = &mut self.hosts[number];
        host.powered = false;
        host.frozen = false;
        host.host_frozen = false;
        if host.suspended {
            host.suspended = false;
            host.clock.go_on();
        }
        host.network.power_off();
        host.hypervisor.power_off();
        host.bmc.set_machine(PowerState::Off);
        self.kill_agent(number);
        self.heed_ceph(number);
    }

    pub(crate) fn power_on(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.powered {
            return;
        }
        host.powered = true;
        host.lives = 0;
        let boot = host.boot.fetch_add(1, Ordering::Relaxed) + 1;
        host.hypervisor.come_back();
        host.bmc.set_machine(PowerState::On);
        TenureFile::in_directory(&host.runtime_directory).clear();
        self.hooks.say(|| format!("{} is switched on", node_name(number)));
        self.at(BOOT, Event::StartAgent { host: number, boot });
        self.heed_ceph(number);
    }

    /// What Ceph hears of a host is as the host's state has it: its OSD, and the watches of its guests.
    fn heed_ceph(&mut self, number: usize) {
        let host = &self.hosts[number];
        if host.host_frozen || host.suspended {
            host.hypervisor.freeze();
        } else {
            host.hypervisor.thaw();
        }
        let heard =
            host.powered && !host.host_frozen && !host.suspended && !host.cut.contains(&Link::Storage);
        let osd = u32::try_from(number).unwrap_or(u32::MAX);
        if heard {
            self.ceph.wake_osd(osd);
        } else {
            self.ceph.silence_osd(osd);
        }
        for guest in 0..self.plan.guests {
            for client in host.hypervisor.clients(vm_id(guest)) {
                if heard {
                    self.ceph.come_back(&volume(guest), &client);
                } else {
                    self.ceph.abandon(&client);
                }
            }
        }
    }

    /// Freezes or thaws the agent's loops as its host is now.
    fn apply_stillness(&mut self, number: usize) {
        let host = &self.hosts[number];
        let Some(group) = host.agent else { return };
        // By its own clock: rounds that no clock has parted are consecutive, and what they show is of that whole time.
        let now = host.clock.now();
        if host.stands_still() {
            self.executor.freeze(group);
            self.hosts[number].still_since.get_or_insert(now);
        } else {
            self.executor.thaw(group);
            if let Some(since) = self.hosts[number].still_since.take()
                && now.since(since) > DEAF
            {
                self.truth.was_deaf(number);
            }
        }
        self.connection_changed(number);
    }

    pub(crate) fn freeze(&mut self, number: usize, frozen: bool) {
        self.hosts[number].frozen = frozen && self.hosts[number].agent.is_some();
        self.apply_stillness(number);
    }

    pub(crate) fn freeze_host(&mut self, number: usize, frozen: bool) {
        if self.hosts[number].powered {
            self.hosts[number].host_frozen = frozen;
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn suspend(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.powered && !host.suspended {
            host.suspended = true;
            host.suspended_at = host.clock.world_now();
            host.clock.stop();
            self.truth
                .excuse(number, self.clock.world_now() + Duration::from_secs(1_000_000));
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn wake(&mut self, number: usize, counted: Duration) {
        let host = &mut self.hosts[number];
        if host.suspended {
            host.suspended = false;
            host.clock.go_on();
            // A clock that shows more than has passed is broken, and nothing is promised about such a host.
            host.clock
                .jump(counted.min(host.clock.world_now().since(host.suspended_at)));
            self.truth
                .excuse(number, self.clock.world_now() + AFTER_A_STOPPED_CLOCK);
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn cut(&mut self, number: usize, link: Link) {
        self.hosts[number].cut.insert(link);
        self.link_changed(number, link);
    }

    pub(crate) fn heal(&mut self, number: usize, link: Link) {
        self.hosts[number].cut.remove(&link);
        self.link_changed(number, link);
    }

    fn link_changed(&mut self, number: usize, link: Link) {
        let host = &self.hosts[number];
        let cut = host.cut.contains(&link);
        match (link, cut) {
            (Link::Store | Link::Lease, _) => self.connection_changed(number),
            (Link::Storage, true) => host.storage.cut(),
            (Link::Storage, false) => host.storage.heal(),
            (Link::Bmc, true) => host.power.cut(),
            (Link::Bmc, false) => host.power.heal(),
            (Link::Upstream, true) => host.upstream.show(UpstreamLook::NoCarrier),
            (Link::Upstream, false) => host.upstream.show(UpstreamLook::Reached),
        }
        match link {
            Link::Storage => self.heed_ceph(number),
            // Guests move over the network that the store is on.
            Link::Store => self.rewire(),
            Link::Lease | Link::Bmc | Link::Upstream => {}
        }
    }

    fn rewire(&self) {
        self.wire.heal();
        for (one, host) in self.hosts.iter().enumerate() {
            if host.cut.contains(&Link::Store) {
                for other in (0..self.hosts.len()).filter(|other| *other != one) {
                    self.wire.cut(&node_name(one), &node_name(other));
                }
            }
        }
    }

    /// Something goes wrong now: how far the migrations are that it meets.
    pub(crate) fn count_migrations_met(&self) {
        for guest in 0..self.plan.guests {
            let Some(phase) = self.wire.phase(vm_id(guest)) else {
                continue;
            };
            self.hooks.lock().coverage.count(match phase {
                MigrationPhase::Prepare => "faults in prepare",
                MigrationPhase::PreCopy => "faults in pre-copy",
                MigrationPhase::SwitchOver => "faults in switch-over",
                MigrationPhase::Finish => "faults in finish",
            });
        }
    }

    /// As `pvc vm migrate`.
    pub(crate) fn migrate(&mut self, guest: usize, target: usize) {
        let domain = keys::domain(vm_id(guest));
        let running = self.read(&domain.state()) == Some(VmState::Start);
        let owner = self.read(&domain.owner()).flatten();
        let (Some(owner), true) = (owner, running) else {
            return;
        };
        if owner.node == node_name(target) || self.read(&domain.incoming()).flatten().is_some() {
            return;
        }
        let version = |path: &str| self.server.peek(path).map(|znode| znode.version);
        let versions = (
            version(domain.owner().path()),
            version(domain.incoming().path()),
            version(domain.node().path()),
            version(domain.state().path()),
        );
        let (Some(owned), Some(incoming), Some(node), Some(state)) = versions else {
            return;
        };
        let txn = Txn::new()
            .check(&domain.owner(), owned)
            .check(&domain.incoming(), incoming)
            .set(&domain.node(), &node_name(target), node)
            .overwrite(&domain.last_node(), &Some(owner.node))
            .set(&domain.state(), &VmState::Migrate, state);
        if self.quorum && matches!(self.admin.commit(txn).now_or_never(), Some(Ok(_))) {
            self.hooks.lock().coverage.count("migrations asked");
        }
    }

    /// The agent's connections to the store are as its host's state has them; sessions end in their time.
    fn connection_changed(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.connection += 1;
        let connection = host.connection;
        if host.agent.is_none() {
            return;
        }
        let store_cut = host.cut.contains(&Link::Store);
        let lease_cut = store_cut || host.cut.contains(&Link::Lease);
        for (store, cut) in [(&host.store, store_cut), (&host.lease_store, lease_cut)] {
            match (cut, store.session()) {
                (true, _) => store.disconnect(),
                (false, SessionState::Disconnected) if !host.stands_still() => store.reconnect(),
                (false, SessionState::Connected | SessionState::Disconnected | SessionState::Expired) => {}
            }
        }
        if lease_cut || host.stands_still() {
            let host = number;
            self.at(SESSION, Event::EndSession { host, connection });
        }
        self.at(NEW_SESSION, Event::Reconnect { host: number });
    }

    pub(crate) fn expire(&mut self, number: usize) {
        let host = &self.hosts[number];
        host.store.expire();
        host.lease_store.expire();
        self.at(NEW_SESSION, Event::Reconnect { host: number });
    }

    pub(crate) fn lose_quorum(&mut self) {
        self.quorum = false;
        self.lost_at = self.clock.world_now();
        self.server.lose_quorum();
    }

    pub(crate) fn restore_quorum(&mut self) {
        if !self.quorum && self.clock.world_now().since(self.lost_at) > DEAF {
            for host in 0..self.hosts.len() {
                self.truth.was_deaf(host);
            }
        }
        self.quorum = true;
        self.server.restore_quorum();
    }

    pub(crate) fn remember(&mut self) {
        self.snapshot = Some(self.server.snapshot());
    }

    pub(crate) fn roll_back(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            self.server.restore(snapshot);
            // Every session has ended, those of administrators too.
            self.admin = self.server.client();
            for host in 0..self.hosts.len() {
                self.at(NEW_SESSION, Event::Reconnect { host });
            }
        }
    }

    pub(crate) fn open(&mut self, guest: usize) {
        // A snapshot job: opens, writes nothing, and is gone after a moment.
        if let Some(client) = self.ceph.open(&volume(guest), IpAddr::from([10, 102, 0, 99])) {
            self.at(Duration::from_secs(1), Event::Close(client));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::DropRole { host, life } => self.drop_role(host, life),
            Event::StartAgent { host, boot } => {
                let there = &self.hosts[host];
                if there.powered && there.boot.load(Ordering::Relaxed) == boot {
                    if there.host_frozen || there.suspended {
                        // The service manager stands still as well.
                        self.at(RESTART, Event::StartAgent { host, boot });
                    } else {
                        self.start_agent(host);
                    }
                }
            }
            Event::Thaw { host, life } => {
                if self.hosts[host].lives == life {
                    self.freeze(host, false);
                }
            }
            Event::EndSession { host, connection } => {
                let there = &self.hosts[host];
                if there.connection == connection && self.quorum {
                    if there.stands_still() || there.cut.contains(&Link::Store) {
                        there.store.expire();
                    }
                    there.lease_store.expire();
                }
            }
            Event::EndOrphans(stores) => stores.iter().for_each(MemoryStore::expire),
            Event::Reconnect { host } => {
                let there = &self.hosts[host];
                if there.agent.is_none() || there.stands_still() {
                    return;
                }
                let store_cut = there.cut.contains(&Link::Store);
                let lease_cut = store_cut || there.cut.contains(&Link::Lease);
                for (store, cut) in [(&there.store, store_cut), (&there.lease_store, lease_cut)] {
                    if !cut && store.session() == SessionState::Expired {
                        store.reconnect();
                    }
                }
            }
            Event::Close(client) => self.ceph.close(&client),
        }
    }

    /// As `pvcnoded --drop-role`, which the service manager runs when the agent has ended.
    fn drop_role(&mut self, number: usize, life: u64) {
        let host = &self.hosts[number];
        if !host.powered || host.agent.is_some() || host.lives != life {
            return;
        }
        if host.host_frozen || host.suspended {
            self.at(STOP_POST, Event::DropRole { host: number, life });
            return;
        }
        for address in role_addresses() {
            drop(host.network.remove(&address));
        }
        let file = TenureFile::in_directory(&host.runtime_directory);
        let Some(note) = file.read() else { return };
        file.clear();
        if host.cut.contains(&Link::Store) || !self.quorum {
            return;
        }
        let key = keys::lease_primary();
        let Ok(Some(lease)) = key.decode(self.server.peek(key.path()).as_ref()) else {
            return;
        };
        let me = node_name(number);
        let ours = matches!(&lease.value, Some(RoleLease::Held { holder, incarnation, .. })
            if *holder == me && *incarnation == note.incarnation);
        if !ours {
            return;
        }
        let store = self.server.client();
        self.truth.client_of(store.number(), number);
        let txn = Txn::new()
            .set(&key, &Some(RoleLease::Released), lease.version)
            .overwrite(&keys::node(&me).coordinator_state(), &CoordinatorState::Secondary);
        let vacated = txn.clone().set(
            &keys::config().primary_node(),
            &PrimaryRecord::None,
            note.record(),
        );
        if let Some(Err(StoreError::BadVersion { index: 2, .. })) = store.commit(vacated).now_or_never() {
            drop(store.commit(txn).now_or_never());
        }
    }

    fn meet(&mut self, demand: Demand) {
        match demand {
            Demand::Freeze { host, duration } => {
                self.hooks
                    .say(|| format!("{} agent is paused for {duration:?}", node_name(host)));
                self.freeze(host, true);
                let life = self.hosts[host].lives;
                self.at(duration, Event::Thaw { host, life });
            }
            Demand::Kill { host } => {
                self.count_migrations_met();
                self.kill_agent(host);
            }
            Demand::PowerLoss { host } => {
                self.count_migrations_met();
                self.power_loss(host);
            }
            Demand::Expire { host } => self.expire(host),
            Demand::Switched { host } => match self.hosts[host].bmc.machine() {
                PowerState::Off => self.power_loss(host),
                PowerState::On => self.power_on(host),
            },
        }
    }

    /// All chance from here on comes from `seed`.
    pub(crate) fn reseed(&mut self, seed: u64) {
        if !self.hooks.is_calm() {
            self.order = Rng::new(seed);
            self.hooks.lock().rng = Rng::new(!seed);
        }
    }

    /// Lets the cluster run.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.clock.world_now() + duration;
        loop {
            loop {
                match self.executor.poll_one(&mut self.order) {
                    Ok(true) => self.after_poll(),
                    Ok(false) => break,
                    Err(stuck) => {
                        self.hooks.breach(match &stuck {
                            Stuck::Spinning => "an agent's loops spin without time passing".to_owned(),
                            Stuck::Panicked(words) => format!("the code panicked: {words}"),
                        });
                        self.stuck = Some(stuck);
                        return;
                    }
                }
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let sleeper = self.clock.next_deadline();
            let next = match (event, sleeper) {
                (Some(event), Some(sleeper)) => event.min(sleeper),
                (Some(next), None) | (None, Some(next)) => next,
                (None, None) => end,
            };
            if next > end {
                self.clock.advance_to(end);
                return;
            }
            self.executor.new_instant();
            self.clock.advance_to(next);
            while let Some(first) = self.events.first_entry()
                && first.key().0 <= self.clock.world_now()
            {
                let event = first.remove();
                self.happen(event);
                self.after_poll();
            }
            if next == end && self.clock.next_deadline().is_none_or(|next| next > end) {
                // Whoever was woken at the very end is polled in the next run.
                return;
            }
        }
    }

    fn after_poll(&mut self) {
        for demand in self.hooks.demands() {
            self.meet(demand);
        }
        self.truth.catch_up();
    }

    /// Between two steps: guests write, and the invariants are looked at.
    pub(crate) fn settle_step(&mut self) {
        for host in &self.hosts {
            if host.powered && !host.host_frozen && !host.suspended && !host.cut.contains(&Link::Storage) {
                host.hypervisor.guests_write();
            }
        }
        for guest in 0..self.plan.guests {
            self.truth.check_writers(vm_id(guest));
        }
    }

    pub(crate) fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> Option<T> {
        let znode = self.server.peek(key.path());
        key.decode(znode.as_ref()).ok().flatten().map(|seen| seen.value)
    }

    /// An administrator's write, on condition of what stands there; nothing without a quorum.
    pub(crate) fn admin_set<T: keys::Value>(&self, key: &keys::Key<T>, value: &T) -> bool {
        let Ok(Some(now)) = key.decode(self.server.peek(key.path()).as_ref()) else {
            return false;
        };
        let txn = Txn::new().set(key, value, now.version);
        self.quorum && matches!(self.admin.commit(txn).now_or_never(), Some(Ok(_)))
    }

    pub(crate) fn ask(&mut self, guest: usize, state: VmState) {
        let key = keys::domain(vm_id(guest)).state();
        let Some(now) = self.read(&key) else { return };
        // What the API refuses.
        let refused = match (now, state) {
            (VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate, _) => true,
            (VmState::Start, VmState::Start) => true,
            (VmState::Start, _) => false,
            (VmState::Provision | VmState::Import | VmState::Restore, _) => true,
            (_, VmState::Restart | VmState::Shutdown) => true,
            (_, _) => false,
        };
        if !refused && self.admin_set(&key, &state) {
            self.asked[guest] = state;
            let autostart = keys::domain(vm_id(guest)).autostart();
            let to_rest = matches!(state, VmState::Stop | VmState::Shutdown | VmState::Disable);
            if to_rest && self.read(&autostart) == Some(true) {
                self.admin_set(&autostart, &false);
            }
        }
    }

    pub(crate) fn place(&mut self, guest: usize, host: usize) {
        let domain = keys::domain(vm_id(guest));
        let stopped = matches!(
            self.read(&domain.state()),
            Some(VmState::Stop | VmState::Disable | VmState::Fail)
        );
        if stopped && self.read(&domain.owner()).flatten().is_none() {
            self.admin_set(&domain.node(), &node_name(host));
        }
    }

    pub(crate) fn make_ready(&mut self, host: usize) {
        let key = keys::node(&node_name(host)).domain_state();
        if matches!(self.read(&key), Some(DomainState::Flush | DomainState::Flushed)) {
            self.admin_set(&key, &DomainState::Unflush);
        }
    }

    pub(crate) fn flush(&mut self, host: usize) {
        let key = keys::node(&node_name(host)).domain_state();
        if self.read(&key) == Some(DomainState::Ready) {
            self.admin_set(&key, &DomainState::Flush);
        }
    }

    pub(crate) fn confirm(&mut self, host: usize, kind: ConfirmationKind) {
        let key = keys::fence(&node_name(host));
        if let Some(mut fence) = self.read(&key).flatten() {
            fence.confirmation = Some(Confirmation {
                kind,
                by: "admin".to_owned(),
                at: 0,
            });
            self.admin_set(&key, &Some(fence));
        }
    }

    /// An administrator orders that what really runs is the truth.
    pub(crate) fn adopt(&mut self) {
        let order = AdoptOrder {
            id: format!("order {}", self.clock.world_now().since(START).as_millis()),
            by: "admin".to_owned(),
            at: 0,
            without: Vec::new(),
        };
        self.admin_set(&keys::config().adopt(), &Some(order));
    }

    /// From its next start on the agent of a host bears the name of another.
    pub(crate) fn name(&mut self, host: usize, other: usize) {
        self.hosts[host].name = node_name(other);
        self.kill_agent(host);
    }

    /// Ends everything that was done; hosts that are off are switched on.
    pub(crate) fn heal_all(&mut self) {
        self.hooks.clear_orders();
        if !self.quorum {
            self.restore_quorum();
        }
        self.admin_set(&keys::config().maintenance(), &Maintenance::Off);
        for number in 0..self.hosts.len() {
            for link in [Link::Store, Link::Lease, Link::Storage, Link::Upstream, Link::Bmc] {
                if self.hosts[number].cut.contains(&link) {
                    self.heal(number, link);
                }
            }
            let host = &mut self.hosts[number];
            host.store.catch_up();
            host.lease_store.catch_up();
            host.gate.set_slow(Duration::ZERO);
            host.hypervisor.come_back();
            host.hypervisor.find_logs();
            host.frozen = false;
            host.host_frozen = false;
            host.bmc.set_mood(BmcMood::Works);
            self.wake(number, Duration::ZERO);
            self.apply_stillness(number);
            self.heed_ceph(number);
            self.power_on(number);
        }
    }

    /// Whether the cluster is as it should be; if not, what is missing.
    pub(crate) fn converged(&self) -> Result<(), String> {
        self.primary_is_well(None)?;
        for guest in 0..self.plan.guests {
            match self.asked[guest] {
                VmState::Stop | VmState::Shutdown | VmState::Disable => self.is_stopped(guest)?,
                // A dead process's lock that another node meets is shown and left to an administrator.
                _ if self.has_foreign_lock(guest) => {}
                _ => self.runs(guest, None)?,
            }
        }
        Ok(())
    }

    fn has_foreign_lock(&self, guest: usize) -> bool {
        self.read(&keys::domain(vm_id(guest)).failed_reason())
            .is_some_and(|reason| reason.contains("which is not of this node's making"))
    }

    fn primary_is_well(&self, wanted: Option<usize>) -> Result<(), String> {
        let coordinators = self.plan.nodes.min(3);
        let primaries: Vec<usize> = (0..coordinators)
            .filter(|host| {
                self.read(&keys::node(&node_name(*host)).coordinator_state())
                    == Some(CoordinatorState::Primary)
            })
            .collect();
        let [primary] = primaries[..] else {
            return Err(format!("{} nodes say that they are primary", primaries.len()));
        };
        if wanted.is_some_and(|wanted| wanted != primary) {
            return Err(format!("hv{} is primary", primary + 1));
        }
        let all = role_addresses();
        let there = self.hosts[primary].network.present(&all).unwrap_or_default();
        if there.len() < all.len() {
            return Err(format!("hv{} is primary and lacks an address", primary + 1));
        }
        let record = self.read(&keys::config().primary_node());
        if !record.is_some_and(|record| record.names(&node_name(primary))) {
            return Err(format!("the record does not name hv{}", primary + 1));
        }
        Ok(())
    }

    pub(crate) fn runs(&self, guest: usize, wanted: Option<usize>) -> Result<(), String> {
        let vm = vm_id(guest);
        let name = guest_name(vm);
        let running: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.truth.can_write(*host, vm))
            .collect();
        let domain = keys::domain(vm);
        let [host] = running[..] else {
            let reason = self.read(&domain.failed_reason()).unwrap_or_default();
            return Err(format!(
                "{name} runs on {} nodes (state {:?}, node {:?}, owner {:?}, reason {reason:?})",
                running.len(),
                self.read(&domain.state()),
                self.read(&domain.node()).map(|node| node.to_string()),
                self.read(&domain.owner())
                    .flatten()
                    .map(|owner| owner.node.to_string()),
            ));
        };
        if wanted.is_some_and(|wanted| wanted != host) {
            return Err(format!("{name} runs on hv{}", host + 1));
        }
        let owner = self.read(&domain.owner()).flatten();
        match owner {
            Some(owner) if owner.node == node_name(host) => {}
            owner => {
                return Err(format!(
                    "{name} runs on hv{} and its owner is {owner:?}",
                    host + 1
                ));
            }
        }
        if self.read(&domain.state()) != Some(VmState::Start) {
            return Err(format!("{name} runs with state {:?}", self.read(&domain.state())));
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self, guest: usize) -> Result<(), String> {
        let vm = vm_id(guest);
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(status) = host.hypervisor.status(vm) {
                return Err(format!("{} is {status:?} on hv{}", guest_name(vm), number + 1));
            }
        }
        match self.read(&keys::domain(vm).owner()).flatten() {
            None => Ok(()),
            Some(owner) => Err(format!(
                "{} is stopped and owned by {}",
                guest_name(vm),
                owner.node
            )),
        }
    }

    fn fence(&self, host: usize) -> Option<FenceRecord> {
        self.read(&keys::fence(&node_name(host))).flatten()
    }

    pub(crate) fn meets(&self, expectation: &Expectation) -> Result<(), String> {
        match expectation {
            Expectation::Primary(wanted) => self.primary_is_well(*wanted),
            Expectation::Runs(guest, wanted) => self.runs(*guest, *wanted),
            Expectation::Stopped(guest) => self.is_stopped(*guest),
            Expectation::Fenced(host) => match self.fence(*host) {
                Some(fence) if matches!(fence.phase, FencePhase::Done { .. }) => Ok(()),
                fence => Err(format!("its fence is {:?}", fence.map(|fence| fence.phase))),
            },
            Expectation::Unfenced(host) => match self.fence(*host) {
                Some(fence) if fence.past_return() => Err(format!("its fence is {:?}", fence.phase)),
                Some(_) | None => Ok(()),
            },
            Expectation::Converged => self.converged(),
        }
    }

    /// What an administrator does about guests that can't come right by themselves: one that failed is started again,
    /// one that QEMU has stopped at an I/O error is stopped and started.
    pub(crate) fn look_after_failures(&mut self) {
        for host in 0..self.hosts.len() {
            self.make_ready(host);
        }
        for guest in 0..self.plan.guests {
            let vm = vm_id(guest);
            let key = keys::domain(vm).state();
            if matches!(
                self.asked[guest],
                VmState::Stop | VmState::Shutdown | VmState::Disable
            ) {
                continue;
            }
            match self.read(&key) {
                Some(VmState::Fail | VmState::Stop) => {
                    self.admin_set(&key, &VmState::Start);
                    self.hooks.lock().coverage.count("started by hand");
                }
                Some(VmState::Start)
                    if self
                        .hosts
                        .iter()
                        .any(|host| matches!(host.hypervisor.status(vm), Some(DomainStatus::Paused(_)))) =>
                {
                    self.admin_set(&key, &VmState::Stop);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn polls(&self) -> u64 {
        self.executor.polls
    }
}
