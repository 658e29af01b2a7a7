//! Three coordinators with fencers and guests on the in-memory store, in virtual time: who is fenced, by what proof, and
//! that no volume is ever written by two.

mod fencers;
mod proofs;
mod recovery;
mod suspicion;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures::future::{join4, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::keys::values::{CommaList, Maintenance};
use pvc_common::schema::{self, NewDomain};
use pvc_common::secret::Secret;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn};
use pvc_core::bmc::{FailingBmc, IdentityPolicy};
use pvc_core::fence::{
    Confirmation, ConfirmationKind, FencePhase, FenceRecord, PowerTrack, ProofKind, RecoveryPolicy,
    RestartTrack, StorageTrack, SuspicionSettings,
};
use pvc_core::ids::{BootId, CephClient, Incarnation, MachineId, NodeName, VmId, VolumeId};
use pvc_core::records::NodeAddresses;
use pvc_core::states::{DaemonMode, DaemonState, DomainState, MigrationMethod, NodeSelector, VmState};
use uuid::Uuid;

use super::*;
use crate::agent::{AgentPhase, AgentState, Pulse};
use crate::host::fake::power::{BmcMood, FakeBmc, FakeBmcNetwork, FakePower};
use crate::host::fake::task::run_all;
use crate::host::fake::{FakeCeph, FakeHypervisor, FakeStorage, FakeTask, TaskControl, VirtualClock};
use crate::host::{DomainStatus, Hypervisor as _, PowerState};
use crate::node_lease::NodeLeaseKeeper;
use crate::registration::{Registrant, register};
use crate::vm::{VmParts, VmRounds, carry_out};

const NODES: usize = 3;
const GUESTS: u128 = 3;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn name(node: usize) -> NodeName {
    NodeName::new(format!("hv{}", node + 1)).unwrap()
}

fn ip(node: usize) -> IpAddr {
    format!("10.102.0.{}", node + 1).parse().unwrap()
}

fn bmc_host(node: usize) -> String {
    format!("hv{}-lom", node + 1)
}

fn vm(number: u128) -> VmId {
    VmId::new(Uuid::from_u128(number))
}

fn volume(vm: VmId) -> VolumeId {
    format!("vms/{vm}_disk0").parse().unwrap()
}

fn xml(vm: VmId, local_disk: bool) -> String {
    let local = if local_disk {
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/srv/x'/><target dev='vdb' bus='virtio'/></disk>"
    } else {
        ""
    };
    format!(
        "<domain type='kvm'><name>g{}</name><uuid>{vm}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>\
         <disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='rbd' name='{}'><host name='10.102.0.1' port='3300'/></source>\
         <target dev='vda' bus='virtio'/></disk>{local}</devices></domain>",
        vm.uuid().as_u128(),
        volume(vm)
    )
}

struct Host {
    hypervisor: FakeHypervisor,
    storage: FakeStorage,
    power: FakePower,
    bmc: FakeBmc,
    store: MemoryStore,
    task: TaskControl,
    /// A digit of its machine id.
    machine: char,
    boot: u64,
    lives: u64,
    starts: Starts,
}

/// What becomes of a machine that is switched on.
#[derive(Debug, Clone, Copy)]
enum Starts {
    /// It boots.
    Well,
    /// It is off again at once, so many times.
    OffAgain(u32),
    /// It is on, and nothing is heard of it.
    Hangs,
}

impl Host {
    fn incarnation(&self) -> Incarnation {
        Incarnation {
            machine_id: MachineId::new(self.machine.to_string().repeat(32)).unwrap(),
            boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{:012}", self.boot)).unwrap(),
            counter: self.lives,
        }
    }
}

struct Cluster {
    clock: VirtualClock,
    server: MemoryServer,
    admin: MemoryStore,
    ceph: FakeCeph,
    hosts: Vec<Host>,
    running: Vec<(usize, FakeTask)>,
    settings: FenceSettings,
}

type Parts = VmParts<MemoryStore, VirtualClock, FakeHypervisor, FakeStorage>;

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
        if let futures::future::Either::Left((Some((task, outcome)), _)) =
            select(pin!(tasks.next()), pause).await
        {
            rounds.finished(&task, &outcome);
        }
        parts.clock.sleep(ms(50)).await;
    }
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut FenceSettings)) -> Cluster {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let ceph = FakeCeph::new(clock.clone());
        let bmcs = FakeBmcNetwork::default();
        let admin = server.client();
        let mut tree = schema::base_keys();
        for number in 1..=GUESTS {
            let vm = vm(number);
            ceph.add_volume(&volume(vm));
            tree = tree.and(schema::domain_keys(&NewDomain {
                id: vm,
                name: format!("g{number}").parse().unwrap(),
                xml: xml(vm, false),
                state: VmState::Start,
                node: name(2),
                profile: None,
                volumes: vec![volume(vm)],
                node_limit: vec![],
                node_selector: NodeSelector::None,
                autostart: false,
                migration_method: MigrationMethod::None,
                migration_max_downtime_ms: 300,
                tags: vec![],
            }));
        }
        clock.run(secs(1), admin.commit(tree)).unwrap().unwrap();
        let hosts = (0..NODES)
            .map(|node| {
                ceph.add_osd(u32::try_from(node).unwrap(), ip(node));
                let hypervisor = FakeHypervisor::new(clock.clone(), ceph.clone(), ip(node));
                let bmc = FakeBmc::new(clock.clone(), &format!("guid-{node}"));
                let task = TaskControl::default();
                bmcs.attach(&bmc_host(node), bmc.clone());
                Host {
                    hypervisor,
                    storage: ceph.connection(),
                    power: bmcs.connection(clock.clone()),
                    bmc,
                    store: server.client(),
                    task,
                    machine: char::from_digit(u32::try_from(node).unwrap(), 10).unwrap(),
                    boot: 1,
                    lives: 0,
                    starts: Starts::Well,
                }
            })
            .collect();
        let mut settings = FenceSettings {
            suspicion: SuspicionSettings::missed(6),
            recovery: RecoveryPolicy::Move,
            storage_proof: StorageProof::Allowed,
            bmc_identity: IdentityPolicy::Lenient,
            failing_bmc: FailingBmc::IsTried,
        };
        change(&mut settings);
        let mut cluster = Cluster {
            clock,
            server,
            admin,
            ceph,
            hosts,
            running: Vec::new(),
            settings,
        };
        for node in 0..NODES {
            cluster.start_agent(node);
        }
        cluster.run(secs(1));
        for node in 0..NODES {
            let keys = keys::node(&name(node));
            cluster.write(
                Txn::new()
                    .overwrite(&keys.memory_total_mib(), &4096)
                    .overwrite(&keys.memory_free_mib(), &4096)
                    .overwrite(&keys.daemon_state(), &DaemonState::Run),
            );
        }
        cluster.wait_until("running", secs(20), |cluster| {
            (1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2))
        });
        // Each has heard the others renew: before that, a silent node is one that has yet to come up.
        cluster.run(secs(3));
        cluster
    }

    fn start_agent(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.lives += 1;
        host.store.expire();
        host.store = self.server.client();
        host.task.kill();
        host.task = TaskControl::default();
        let agent = AgentState::new();
        let incarnation = host.incarnation();
        let floating: Vec<IpAddr> = vec!["10.102.0.250".parse().unwrap()];
        let guests = VmParts {
            store: host.store.clone(),
            clock: self.clock.clone(),
            hypervisor: host.hypervisor.clone(),
            storage: host.storage.clone(),
            me: name(node),
            incarnation: incarnation.clone(),
            storage_addresses: vec![ip(node)],
            floating_addresses: floating.clone(),
            shutdown_timeout: secs(180),
            agent: agent.clone(),
        };
        let hearing = Hearing::new();
        let fencing = FenceParts {
            store: host.store.clone(),
            clock: self.clock.clone(),
            power: host.power.clone(),
            storage: host.storage.clone(),
            me: name(node),
            incarnation: incarnation.clone(),
            agent: agent.clone(),
            hearing: hearing.clone(),
            floating_addresses: floating,
            settings: self.settings,
        };
        let registrant = Registrant {
            node: name(node),
            mode: DaemonMode::Coordinator,
            incarnation: incarnation.clone(),
            ready_when_new: true,
            addresses: NodeAddresses {
                cluster: ip(node),
                storage: ip(node),
                upstream: None,
            },
            bmc: Some((bmc_host(node), "admin".to_owned(), Secret::new("x"))),
        };
        let hypervisor = host.hypervisor.clone();
        let own = OwnFence::new(
            host.store.clone(),
            self.clock.clone(),
            name(node),
            incarnation.clone(),
            agent.clone(),
            move || hypervisor.processes().is_ok_and(|processes| processes.is_empty()),
        );
        let (store, clock) = (host.store.clone(), self.clock.clone());
        let work = async move {
            let version = loop {
                match register(&store, &clock, &registrant, agent.node_right()).await {
                    Ok(version) => break version,
                    Err(_) => clock.sleep(secs(1)).await,
                }
            };
            let right = agent.node_right().clone();
            let mut lease = NodeLeaseKeeper::new(
                store.clone(),
                clock.clone(),
                registrant.node.clone(),
                incarnation,
                version,
                right,
                Pulse::default(),
            )
            .hearing(hearing);
            let renewing = async move { while lease.round().await.is_ok() {} };
            let fencing = async {
                while agent.phase() == AgentPhase::Starting {
                    clock.sleep(ms(100)).await;
                }
                let state = keys::node(&registrant.node).daemon_state();
                let _ = store
                    .commit(Txn::new().overwrite(&state, &DaemonState::Run))
                    .await;
                Fencer::new(fencing).run().await;
            };
            join4(renewing, look_after_guests(guests), fencing, own.run()).await;
        };
        let running = FakeTask::new(host.task.clone(), Box::pin(work));
        self.running.retain(|(other, _)| *other != node);
        self.running.push((node, running));
    }

    /// As a mains failure: agent, guests and OSD are gone. What remains is what others remember.
    fn power_off(&mut self, node: usize) {
        self.hosts[node].bmc.set_machine(PowerState::Off);
        self.ceph.silence_osd(u32::try_from(node).unwrap());
        self.settle_power();
    }

    /// Carries out what BMCs did to machines.
    fn settle_power(&mut self) {
        for node in 0..NODES {
            self.hosts[node].bmc.settle();
            let on = self.hosts[node].bmc.machine() == PowerState::On;
            let up = self.running.iter().any(|(running, _)| *running == node);
            if !on && up {
                self.hosts[node].task.kill();
                self.running.retain(|(other, _)| *other != node);
                self.hosts[node].hypervisor.power_off();
                self.hosts[node].boot += 1;
                self.hosts[node].lives = 0;
            } else if on && !up && self.hosts[node].boot > 1 {
                match &mut self.hosts[node].starts {
                    Starts::OffAgain(times) if *times > 0 => {
                        *times -= 1;
                        self.hosts[node].bmc.set_machine(PowerState::Off);
                    }
                    Starts::Well | Starts::OffAgain(_) => {
                        self.ceph.wake_osd(u32::try_from(node).unwrap());
                        self.start_agent(node);
                    }
                    Starts::Hangs => {}
                }
            }
        }
    }

    /// Another machine is put in its place in a maintenance, in which nobody suspects the old one.
    fn replace(&mut self, node: usize) {
        let maintenance = keys::config().maintenance();
        self.write(Txn::new().overwrite(&maintenance, &Maintenance::On));
        self.power_off(node);
        self.hosts[node].machine = 'f';
        self.hosts[node].bmc.set_machine(PowerState::On);
        self.settle_power();
        self.run(secs(10));
        self.write(Txn::new().overwrite(&maintenance, &Maintenance::Off));
    }

    fn kill(&mut self, node: usize) {
        self.hosts[node].task.kill();
        self.hosts[node].store.expire();
        self.running.retain(|(running, _)| *running != node);
    }

    fn confirm(&self, node: usize, kind: ConfirmationKind) {
        let mut record = self.fence(node).unwrap();
        record.confirmation = Some(Confirmation {
            kind,
            by: "admin".to_owned(),
            at: 0,
        });
        self.write(Txn::new().overwrite(&keys::fence(&name(node)), &Some(record)));
    }

    fn freeze(&self, node: usize) {
        self.hosts[node].task.freeze();
    }

    fn thaw(&self, node: usize) {
        self.hosts[node].task.thaw();
    }

    fn run(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            let until = end.min(self.clock.now() + ms(100));
            let clock = self.clock.clone();
            {
                let agents = pin!(run_all(self.running.iter_mut().map(|(_, running)| running)));
                let until = pin!(clock.sleep_until(until));
                assert!(
                    clock.run(secs(2), select(until, agents)).is_some(),
                    "the cluster hangs"
                );
            }
            self.settle_power();
            for host in &self.hosts {
                host.hypervisor.guests_write();
            }
            self.check_one_writer();
        }
    }

    fn write(&self, txn: Txn) {
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> T {
        self.clock
            .run(secs(1), self.admin.require(key))
            .unwrap()
            .unwrap()
            .value
    }

    fn fence(&self, node: usize) -> Option<FenceRecord> {
        self.read(&keys::fence(&name(node)))
    }

    fn is_done(&self, node: usize, by: ProofKind) -> bool {
        self.fence(node)
            .is_some_and(|record| record.phase == FencePhase::Done { by })
    }

    /// Where a guest runs.
    fn home(&self, vm: VmId) -> Option<usize> {
        (0..NODES).find(|node| self.hosts[*node].hypervisor.status(vm) == Some(DomainStatus::Running))
    }

    fn all_run_elsewhere(&self) -> bool {
        (1..=GUESTS).all(|number| matches!(self.home(vm(number)), Some(0 | 1)))
    }

    fn wait_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Cluster) -> bool) -> Duration {
        let start = self.clock.now();
        while !condition(self) {
            let waited = self.clock.now().since(start);
            assert!(
                waited < limit,
                "not {what} within {limit:?}: fence {:#?}, guests {:?}",
                self.fence(2),
                (1..=GUESTS)
                    .map(|number| {
                        let keys = keys::domain(vm(number));
                        (
                            self.home(vm(number)),
                            self.read(&keys.state()),
                            self.read(&keys.node()),
                            self.read(&keys.failed_reason()),
                            self.read(&keys.owner()),
                        )
                    })
                    .collect::<Vec<_>>()
            );
            self.run(ms(100));
        }
        self.clock.now().since(start)
    }

    /// Each client's writes are one unbroken run: none writes after another has (I2).
    fn check_one_writer(&self) {
        for number in 1..=GUESTS {
            let mut done: BTreeSet<CephClient> = BTreeSet::new();
            let mut last: Option<CephClient> = None;
            for (at, client) in self.ceph.writes(&volume(vm(number))) {
                if last.as_ref() != Some(&client) {
                    assert!(
                        !done.contains(&client),
                        "{client} wrote at {at:?} after another client had"
                    );
                    done.extend(last.replace(client));
                }
            }
        }
    }
}
