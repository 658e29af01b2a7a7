//! The world: hosts, networks, Ceph and the store on one virtual clock, and the agents in it.

mod administrator;
mod faults;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use pvc_common::keys;
use pvc_common::schema::{self, NewDomain};
use pvc_common::store::memory::{MemoryServer, MemoryStore, Snapshot};
use pvc_common::store::{SessionState, Store as _};
use pvc_core::ids::{CephClient, NodeName};
use pvc_core::states::{DaemonMode, MigrationMethod, NodeSelector, VmState};
use pvc_core::time::BootTime;
use pvcnoded::agent::AgentState;
use pvcnoded::host::fake::power::{FakeBmc, FakeBmcNetwork, FakePower};
use pvcnoded::host::fake::upstream::FakeUpstream;
use pvcnoded::host::fake::wire::{FakeWire, MigrationTiming};
use pvcnoded::host::fake::{FakeCeph, FakeHypervisor, FakeNetwork, FakeStorage, VirtualClock};
use pvcnoded::host::power::PowerState;
use pvcnoded::host::{RoleAddress, RoleNetwork};
use pvcnoded::role::TenureFile;

use crate::agent::{AgentParts, live};
use crate::executor::{Executor, Group, Stuck};
use crate::hooks::{Demand, Gate, Hooks};
use crate::rng::Rng;
use crate::run::Logging;
use crate::schedule::{ClusterPlan, Link};
use crate::seams::{SimHypervisor, SimNetwork, SimPower, SimStorage, SimStore};
use crate::truth::{HostTruth, Truth, looks_at};
use crate::{START, bmc_name, incarnation, machine_guid, node_name, storage_ip, vm_id};

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

/// A volume that can be attached to the guest while it runs.
fn data_volume(guest: usize) -> pvc_core::ids::VolumeId {
    format!("vms/g{}_data", guest + 1)
        .parse()
        .expect("a valid volume name")
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
            self.ceph.add_volume(&data_volume(guest));
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

    pub(crate) fn polls(&self) -> u64 {
        self.executor.polls
    }
}
