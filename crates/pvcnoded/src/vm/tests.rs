//! Two nodes with the real rounds on the in-memory store, a fake Ceph between them, in virtual time.
//!
//! What counts is what reaches the volume: once another client has written, an earlier one must never write again,
//! whatever was done to agents, hosts, store, libvirt and Ceph meanwhile (I2).

mod devices;
mod interleaved;
mod lifecycle;
mod migrations;
mod random;

use std::collections::BTreeSet;
use std::pin::pin;

use futures::FutureExt as _;
use futures::future::{join, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use proptest::prelude::*;
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::schema::{self, NewDomain};
use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn, Versioned};
use pvc_core::ids::{BootId, CephClient, MachineId, VmId, VolumeId};
use pvc_core::lease::{LeaseRight, LeaseTiming};
use pvc_core::records::{CephClients, Owner};
use pvc_core::states::{DaemonMode, DaemonState, MigrationMethod, NodeSelector, VmState};
use pvc_core::time::BootTime;
use pvc_core::vm::VmStep;
use uuid::Uuid;

use super::*;
use crate::agent::{AgentPhase, Pulse};
use crate::host::fake::hypervisor::GuestEvent;
use crate::host::fake::task::run_all;
use crate::host::fake::{
    FakeCeph, FakeHypervisor, FakeStorage, FakeTask, FakeWire, MeddledStore, TaskControl, VirtualClock,
};
use crate::host::{DomainStatus, Hypervisor as _};
use crate::node_lease::NodeLeaseKeeper;
use crate::registration::{Registrant, register};

const VM: VmId = VmId::new(Uuid::from_u128(7));

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn name(node: usize) -> NodeName {
    NodeName::new(format!("hv{}", node + 1)).unwrap()
}

fn volume() -> VolumeId {
    "vms/guest_disk0".parse().unwrap()
}

fn xml() -> String {
    format!(
        "<domain type='kvm'><name>guest</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>\
         <disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='rbd' name='{}'><host name='10.102.0.1' port='3300'/></source>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>",
        volume()
    )
}

struct Host {
    hypervisor: FakeHypervisor,
    storage: FakeStorage,
    store: MemoryStore,
    task: TaskControl,
    agent: AgentState,
    boot: u64,
    lives: u64,
    powered: bool,
}

struct Cluster {
    clock: VirtualClock,
    server: MemoryServer,
    admin: MemoryStore,
    ceph: FakeCeph,
    wire: FakeWire,
    hosts: Vec<Host>,
    running: Vec<(usize, FakeTask)>,
}

type Parts = VmParts<MemoryStore, VirtualClock, FakeHypervisor, FakeStorage>;

/// As the daemon's loop, without a runtime.
async fn look_after_guests(parts: Parts) {
    let mut rounds = VmRounds::new(parts.clone());
    let mut tasks = FuturesUnordered::new();
    loop {
        for task in rounds.look().await.unwrap_or_default() {
            let parts = parts.clone();
            tasks.push(async move {
                let outcome = carry_out(&parts, &task).await;
                (task, outcome)
            });
        }
        let pause = pin!(parts.clock.sleep(ms(200)));
        if tasks.is_empty() {
            pause.await;
            continue;
        }
        let done = match select(pin!(tasks.next()), pause).await {
            futures::future::Either::Left((done, _)) => done,
            futures::future::Either::Right(_) => None,
        };
        if let Some((task, outcome)) = done {
            rounds.finished(&task, &outcome);
        }
        parts.clock.sleep(ms(50)).await;
    }
}

impl Cluster {
    fn new() -> Cluster {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let ceph = FakeCeph::new(clock.clone());
        ceph.add_volume(&volume());
        let admin = server.client();
        let tree = schema::base_keys().and(schema::domain_keys(&NewDomain {
            id: VM,
            name: "guest".parse().unwrap(),
            xml: xml(),
            state: VmState::Stop,
            node: name(0),
            profile: None,
            volumes: vec![volume()],
            node_limit: vec![],
            node_selector: NodeSelector::None,
            autostart: false,
            migration_method: MigrationMethod::None,
            migration_max_downtime_ms: 300,
            tags: vec![],
        }));
        clock.run(secs(1), admin.commit(tree)).unwrap().unwrap();
        let wire = FakeWire::default();
        let hosts: Vec<Host> = (0..2u8)
            .map(|node| {
                let ip = format!("10.102.0.{}", node + 1).parse().unwrap();
                Host {
                    hypervisor: FakeHypervisor::new(clock.clone(), ceph.clone(), ip),
                    storage: ceph.connection(),
                    store: server.client(),
                    task: TaskControl::default(),
                    agent: AgentState::new(),
                    boot: 1,
                    lives: 0,
                    powered: true,
                }
            })
            .collect();
        for (node, host) in hosts.iter().enumerate() {
            host.hypervisor.connect(&name(node), &wire);
        }
        let mut cluster = Cluster {
            clock,
            server,
            admin,
            ceph,
            wire,
            hosts,
            running: Vec::new(),
        };
        for node in 0..2 {
            cluster.start_agent(node);
        }
        cluster.run(secs(2));
        cluster
    }

    fn start_agent(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if !host.powered {
            host.powered = true;
            host.boot += 1;
            host.lives = 0;
        }
        host.lives += 1;
        host.store.expire();
        host.store = self.server.client();
        host.task.kill();
        host.task = TaskControl::default();
        let ip: IpAddr = format!("10.102.0.{}", node + 1).parse().unwrap();
        let agent = AgentState::new();
        host.agent = agent.clone();
        let incarnation = Incarnation {
            machine_id: MachineId::new(format!("{node}").repeat(32)).unwrap(),
            boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{:012}", host.boot)).unwrap(),
            counter: host.lives,
        };
        let parts = VmParts {
            store: host.store.clone(),
            clock: self.clock.clone(),
            hypervisor: host.hypervisor.clone(),
            storage: host.storage.clone(),
            me: name(node),
            incarnation: incarnation.clone(),
            storage_addresses: vec![ip],
            floating_addresses: vec!["10.102.0.250".parse().unwrap()],
            shutdown_timeout: secs(180),
            agent: agent.clone(),
        };
        let registrant = Registrant {
            node: name(node),
            mode: DaemonMode::Hypervisor,
            incarnation: incarnation.clone(),
            ready_when_new: true,
            addresses: pvc_core::records::NodeAddresses {
                cluster: [10, 101, 0, 1].into(),
                storage: [10, 102, 0, 1].into(),
                upstream: None,
            },
            bmc: None,
        };
        let (store, clock) = (host.store.clone(), self.clock.clone());
        let work = Box::pin(async move {
            let version = loop {
                match register(&store, &clock, &registrant, agent.node_right()).await {
                    Ok(version) => break version,
                    Err(_) => clock.sleep(secs(1)).await,
                }
            };
            let published =
                Txn::new().overwrite(&keys::node(&registrant.node).daemon_state(), &DaemonState::Run);
            while store.commit(published.clone()).await.is_err() {
                clock.sleep(secs(1)).await;
            }
            let right = agent.node_right().clone();
            let mut lease = NodeLeaseKeeper::new(
                store,
                clock,
                registrant.node,
                incarnation,
                version,
                right,
                Pulse::default(),
            );
            agent.enter(AgentPhase::Running);
            let renewing = async move { while lease.round().await.is_ok() {} };
            join(renewing, look_after_guests(parts)).await;
        });
        let running = FakeTask::new(host.task.clone(), work);
        self.running.retain(|(other, _)| *other != node);
        self.running.push((node, running));
    }

    fn kill_agent(&mut self, node: usize) {
        self.hosts[node].task.kill();
        self.running.retain(|(other, _)| *other != node);
    }

    fn power_off(&mut self, node: usize) {
        self.kill_agent(node);
        self.hosts[node].powered = false;
        self.hosts[node].task.thaw();
        self.hosts[node].hypervisor.power_off();
    }

    /// Lets the cluster run; its guests write now and then.
    fn run(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            let until = end.min(self.clock.now() + ms(250));
            let clock = self.clock.clone();
            let agents = pin!(run_all(self.running.iter_mut().map(|(_, running)| running)));
            let until = pin!(clock.sleep_until(until));
            let both = select(until, agents);
            assert!(self.clock.run(secs(2), both).is_some(), "the cluster hangs");
            for host in &self.hosts {
                host.hypervisor.guests_write();
            }
        }
    }

    fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> Versioned<T> {
        self.clock.run(secs(1), self.admin.require(key)).unwrap().unwrap()
    }

    fn state(&self) -> VmState {
        self.read(&keys::domain(VM).state()).value
    }

    fn reason(&self) -> String {
        self.read(&keys::domain(VM).failed_reason()).value
    }

    fn ask(&self, state: VmState) {
        let key = keys::domain(VM).state();
        let now = self.read(&key);
        self.clock
            .run(
                secs(1),
                self.admin.commit(Txn::new().set(&key, &state, now.version)),
            )
            .unwrap()
            .unwrap();
    }

    fn place(&self, node: usize) {
        let key = keys::domain(VM).node();
        let now = self.read(&key);
        let txn = Txn::new().set(&key, &name(node), now.version);
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    /// What a recovery will do once it has a proof that this node's boot is dead.
    fn recover_from(&self, node: usize) {
        let key = keys::domain(VM).owner();
        let owner = self.read(&key);
        if owner.value.is_some_and(|owner| owner.node == name(node)) {
            let txn = Txn::new().set(&key, &None, owner.version);
            self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
        }
    }

    fn owned_by(&self) -> Option<usize> {
        let owner = self.read(&keys::domain(VM).owner()).value?;
        (0..2).find(|node| name(*node) == owner.node)
    }

    /// As the API does: one transaction.
    fn migrate(&self, state: VmState, target: usize, last_node: Option<usize>) {
        let domain = keys::domain(VM);
        let txn = Txn::new()
            .set(&domain.state(), &state, self.read(&domain.state()).version)
            .set(&domain.node(), &name(target), self.read(&domain.node()).version)
            .overwrite(&domain.last_node(), &last_node.map(name));
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn runs_on(&self, node: usize) -> bool {
        self.hosts[node].hypervisor.status(VM) == Some(DomainStatus::Running)
    }

    fn wait_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Cluster) -> bool) -> Duration {
        let start = self.clock.now();
        while !condition(self) {
            let waited = self.clock.now().since(start);
            assert!(
                waited < limit,
                "not {what} within {limit:?}: state {}, reason {:?}, owner {:?}",
                self.state(),
                self.reason(),
                self.read(&keys::domain(VM).owner()).value
            );
            self.run(ms(100));
        }
        self.clock.now().since(start)
    }

    /// Each client's writes are one unbroken run: none writes after another has.
    fn check_one_writer(&self) {
        let mut done: BTreeSet<CephClient> = BTreeSet::new();
        let mut last: Option<CephClient> = None;
        for (at, client) in self.ceph.writes(&volume()) {
            if last.as_ref() != Some(&client) {
                assert!(
                    !done.contains(&client),
                    "{client} wrote at {at:?} after another client had"
                );
                done.extend(last.replace(client));
            }
        }
    }

    /// No vCPU ever ran whose clients were not on record at that moment, nor on two hosts at once.
    fn check_one_runner(&self) {
        let mut runs: Vec<(BootTime, BootTime, usize)> = Vec::new();
        for (node, host) in self.hosts.iter().enumerate() {
            let mut since = None;
            for (at, _, event) in host.hypervisor.journal() {
                match event {
                    GuestEvent::Resumed => since = since.or(Some(at)),
                    GuestEvent::Ended
                    | GuestEvent::Killed
                    | GuestEvent::IoError
                    | GuestEvent::SwitchedOver
                    | GuestEvent::Suspended => {
                        if let Some(since) = since.take() {
                            runs.push((since, at, node));
                        }
                    }
                    GuestEvent::Created
                    | GuestEvent::ShutdownAsked
                    | GuestEvent::Arrived
                    | GuestEvent::Attached
                    | GuestEvent::Detached => {}
                }
            }
            if let Some(since) = since {
                runs.push((since, self.clock.now(), node));
            }
        }
        runs.sort();
        for pair in runs.windows(2) {
            assert!(
                pair[0].1 <= pair[1].0,
                "it ran on {:?} and on {:?} at once",
                pair[0],
                pair[1]
            );
        }
    }
}
