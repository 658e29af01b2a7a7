//! Three coordinators with fencers and guests on the in-memory store, in virtual time: who is fenced, by what proof, and
//! that no volume is ever written by two.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures::future::{join4, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::schema::{self, NewDomain};
use pvc_common::secret::Secret;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn};
use pvc_core::bmc::{FailingBmc, IdentityPolicy};
use pvc_core::fence::{
    Confirmation, ConfirmationKind, FencePhase, FenceRecord, PowerTrack, ProofKind, RecoveryPolicy,
    StorageTrack, SuspicionSettings,
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
                self.ceph.wake_osd(u32::try_from(node).unwrap());
                self.start_agent(node);
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

#[test]
fn a_node_that_loses_its_power_is_proven_dead_by_its_bmc_and_its_guests_run_elsewhere_within_15_s() {
    // D1: in the reference a power cycle that works recovers nothing.
    let mut cluster = Cluster::new();
    cluster.power_off(2);
    let took = cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    assert!(took <= secs(15), "{took:?}");
    cluster.wait_until("done", secs(20), |cluster| cluster.is_done(2, ProofKind::Power));
    // It is switched on only then, and comes back empty.
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.read(&keys::node(&name(2)).daemon_state()) == DaemonState::Run
    });
    assert_eq!(
        cluster.read(&keys::node(&name(2)).domain_state()),
        DomainState::Flushed
    );
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    for number in 1..=GUESTS {
        assert_eq!(cluster.read(&keys::domain(vm(number)).last_node()), Some(name(2)));
    }
    cluster.run(secs(60));
}

#[test]
fn a_node_is_not_switched_off_when_that_would_take_the_quorum_of_the_coordinators() {
    // One coordinator is away for an upgrade; of another the agent alone is silent, and its server and monitor live.
    let mut cluster = Cluster::new();
    cluster.kill(0);
    cluster.write(Txn::new().overwrite(&keys::node(&name(0)).daemon_state(), &DaemonState::Stop));
    cluster.freeze(2);
    cluster.wait_until("proven", secs(60), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.storage, StorageTrack::Barred { .. }))
    });
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(1))
    });
    cluster.run(secs(60));
    assert_eq!(cluster.hosts[2].bmc.machine(), PowerState::On);
    let record = cluster.fence(2).unwrap();
    assert!(
        matches!(&record.power, PowerTrack::Unavailable { reason } if reason.contains("quorum of the coordinators")),
        "{record:?}"
    );
}

#[test]
fn guests_of_a_machine_that_another_has_replaced_are_recovered_and_the_other_is_left_alone() {
    let mut cluster = Cluster::new();
    cluster.replace(2);
    let theirs = cluster.hosts[2].boot;
    cluster.wait_until("recovered", secs(120), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    cluster.wait_until("done", secs(60), |cluster| cluster.is_done(2, ProofKind::Storage));
    assert_eq!(cluster.hosts[2].boot, theirs, "the new machine was switched off");
    let node = keys::node(&name(2));
    assert_eq!(cluster.read(&node.daemon_state()), DaemonState::Run);
    assert_eq!(cluster.read(&node.domain_state()), DomainState::Ready);
}

#[test]
fn somebody_can_say_that_a_machine_which_another_has_replaced_is_off() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.replace(2);
    let theirs = cluster.hosts[2].boot;
    cluster.wait_until("on record", secs(90), |cluster| {
        cluster.fence(2).is_some_and(|record| {
            record.is_open() && record.waits_for.contains("another machine has its name")
        })
    });
    cluster.run(secs(60));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)).is_none()));
    assert!(cluster.fence(2).unwrap().is_open());
    cluster.confirm(2, ConfirmationKind::MachineIsOff);
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    assert_eq!(cluster.hosts[2].boot, theirs, "the new machine was switched off");
}

#[test]
fn a_node_that_outlives_an_order_to_switch_it_off_takes_part_again_and_is_not_shot_later() {
    // Away for a few seconds, with a dead BMC and without the storage proof.
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("ordered off", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.power, PowerTrack::Failed { .. }))
    });
    cluster.thaw(2);
    cluster.run(secs(5));
    // The BMC comes back: nobody orders a node off that lives.
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.wait_until("given up", secs(60), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.phase, FencePhase::Abandoned { .. }))
    });
    cluster.run(secs(60));
    assert_eq!(cluster.hosts[2].boot, 1, "it was switched off");
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
}

#[test]
fn coordinators_that_are_all_barred_end_one_anothers_fences() {
    for touched in [false, true] {
        let mut cluster = Cluster::new();
        for node in 0..2 {
            let mut record = FenceRecord::suspected(cluster.hosts[node].incarnation(), name(2));
            record.phase = FencePhase::Proving;
            record.power = PowerTrack::Failed {
                reason: "no answer".to_owned(),
            };
            if touched {
                record.storage = StorageTrack::Barring;
            }
            cluster.write(Txn::new().overwrite(&keys::fence(&name(node)), &Some(record)));
        }
        cluster.kill(2);
        cluster.write(Txn::new().overwrite(&keys::node(&name(2)).daemon_state(), &DaemonState::Stop));
        cluster.wait_until("both take part", secs(120), |cluster| {
            (0..2).all(|node| {
                cluster.fence(node).is_some_and(|record| {
                    matches!(record.phase, FencePhase::Abandoned { .. }) || record.returned.is_some()
                })
            })
        });
        assert_eq!((cluster.hosts[0].boot, cluster.hosts[1].boot), (1, 1));
    }
}

#[test]
fn with_its_bmc_dead_the_storage_proof_suffices() {
    let mut cluster = Cluster::new();
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    let took = cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    assert!(took <= secs(25), "{took:?}");
    cluster.wait_until("done", secs(20), |cluster| cluster.is_done(2, ProofKind::Storage));
    let record = cluster.fence(2).unwrap();
    assert!(matches!(record.power, PowerTrack::Failed { .. }), "{record:?}");
    assert!(
        matches!(record.storage, StorageTrack::Barred { .. }),
        "{record:?}"
    );
}

#[test]
fn a_frozen_node_whose_bmc_is_dead_can_not_write_when_it_thaws_and_comes_back_empty() {
    let mut cluster = Cluster::new();
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    // The agent stands still; its guests go on writing until they are barred.
    cluster.freeze(2);
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    cluster.run(secs(60));
    cluster.thaw(2);
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    cluster.run(secs(30));
}

#[test]
fn without_any_proof_nothing_is_recovered_until_somebody_says_that_the_machine_is_off() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    cluster.run(secs(120));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)).is_none()));
    assert_eq!(cluster.read(&keys::domain(vm(1)).node()), name(2));
    let mut record = cluster.fence(2).unwrap();
    assert_eq!(record.phase, FencePhase::Proving);
    record.confirmation = Some(Confirmation {
        kind: ConfirmationKind::MachineIsOff,
        by: "admin".to_owned(),
        at: 0,
    });
    cluster.write(Txn::new().overwrite(&keys::fence(&name(2)), &Some(record)));
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
}

#[test]
fn a_node_that_was_silent_for_less_than_the_time_is_left_alone() {
    let mut cluster = Cluster::new();
    for _ in 0..4 {
        cluster.freeze(2);
        cluster.run(secs(5));
        cluster.thaw(2);
        cluster.run(secs(3));
    }
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
    assert_eq!(cluster.fence(2), None);
}

#[test]
fn in_maintenance_nobody_is_fenced_and_afterwards_silence_is_counted_anew() {
    let mut cluster = Cluster::new();
    let key = keys::config().maintenance();
    cluster.write(Txn::new().overwrite(&key, &Maintenance::On));
    cluster.freeze(2);
    cluster.run(secs(60));
    assert_eq!(cluster.fence(2), None);
    cluster.write(Txn::new().overwrite(&key, &Maintenance::Off));
    cluster.run(secs(5));
    assert_eq!(cluster.fence(2), None);
    cluster.wait_until("suspected", secs(10), |cluster| cluster.fence(2).is_some());
}

#[test]
fn a_fencer_that_dies_at_any_moment_is_followed_by_another() {
    // Both coordinators may be the one that acts: whichever dies, the other carries on from the record.
    for dying in [0_usize, 1] {
        for tenths in (u32::from(dying == 1)..60).step_by(4) {
            let mut cluster = Cluster::new();
            cluster.power_off(2);
            cluster.run(secs(5) + ms(100) * tenths);
            cluster.hosts[dying].task.kill();
            cluster.hosts[dying].store.expire();
            cluster.running.retain(|(node, _)| *node != dying);
            cluster.wait_until("recovered", secs(60), |cluster| {
                (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some_and(|node| node != 2))
            });
            cluster.run(secs(5));
        }
    }
}

#[test]
fn a_fencer_that_freezes_at_any_moment_and_thaws_a_minute_later_does_no_harm() {
    for tenths in (0..60).step_by(4) {
        let mut cluster = Cluster::new();
        cluster.power_off(2);
        cluster.run(secs(5) + ms(100) * tenths);
        // Cut off from the store as well: a frozen host does not answer its session either.
        cluster.freeze(0);
        cluster.hosts[0].store.expire();
        cluster.run(secs(60));
        cluster.hosts[0].store.reconnect();
        cluster.thaw(0);
        cluster.run(secs(60));
        assert!(
            (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some()),
            "at {tenths}: {:?}",
            (1..=GUESTS)
                .map(|number| cluster.home(vm(number)))
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_bmc_that_lies_gives_no_proof_that_outlives_a_renewal() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Lies);
    cluster.freeze(2);
    cluster.wait_until("lied to", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| record.power == PowerTrack::Off)
    });
    cluster.thaw(2);
    cluster.run(secs(60));
    // Guests that were given away before the lie showed have left the node; the others never ran twice.
    assert!((1..=GUESTS).all(|number| {
        (0..NODES)
            .filter(|node| cluster.hosts[*node].hypervisor.status(vm(number)) == Some(DomainStatus::Running))
            .count()
            <= 1
    }));
}

#[test]
fn a_guest_with_a_local_disk_stays_until_its_node_boots_anew() {
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &xml(vm(1), true)));
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.run(secs(30));
    assert_eq!(cluster.home(vm(1)), None);
    assert_eq!(cluster.fence(2).unwrap().left, [vm(1)]);
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.hosts[2].bmc.set_machine(PowerState::On);
    cluster.settle_power();
    // Nowhere else is there such a disk.
    cluster.wait_until("recovered", secs(120), |cluster| cluster.home(vm(1)).is_some());
    assert_eq!(cluster.home(vm(1)), Some(2));
}

#[test]
fn a_guest_that_the_proof_does_not_cover_is_left_alone_when_its_node_heals() {
    // Its disk is where it always was, and nobody else has it or may have it.
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &xml(vm(1), true)));
    let pid = |cluster: &Cluster| {
        let processes = cluster.hosts[2].hypervisor.processes().unwrap();
        processes
            .iter()
            .find(|process| process.vm == vm(1))
            .map(|process| process.pid)
    };
    let before = pid(&cluster);
    assert!(before.is_some());
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.thaw(2);
    cluster.run(secs(60));
    assert_eq!(pid(&cluster), before);
    let owner = cluster.read(&keys::domain(vm(1)).owner()).unwrap();
    assert_eq!(owner.node, name(2));
}

#[test]
fn the_dead_nodes_own_list_is_not_asked() {
    // Lesson H: a guest that had moved away would lose its locks, one started since would be forgotten.
    let mut cluster = Cluster::new();
    let list = keys::node(&name(2)).running_domains();
    cluster.write(Txn::new().overwrite(&list, &keys::values::RunningDomains(Vec::new())));
    cluster.power_off(2);
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
}

#[test]
fn a_node_that_reboots_before_its_recovery_is_complete_does_not_keep_its_guests_down() {
    // After a power proof the recovery checks that the lease stands still; the next boot moves it.
    let mut cluster = Cluster::new();
    // One guest can't be recovered for a while: its volume can't be looked at from anywhere.
    for node in 0..2 {
        cluster.hosts[node].storage.cut();
    }
    cluster.power_off(2);
    cluster.wait_until("proven", secs(30), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.phase, FencePhase::Recovering { .. }))
    });
    // Somebody presses the button.
    cluster.hosts[2].bmc.set_machine(PowerState::On);
    cluster.run(secs(20));
    for node in 0..2 {
        cluster.hosts[node].storage.heal();
    }
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
}

#[test]
fn while_guests_can_not_be_recovered_the_node_is_switched_on_after_a_minute() {
    // What is missing may be its OSDs: nobody else could bring them back.
    let mut cluster = Cluster::new();
    for node in 0..2 {
        cluster.hosts[node].storage.cut();
    }
    cluster.power_off(2);
    cluster.wait_until("switched on", secs(150), |cluster| {
        cluster.hosts[2].bmc.machine() == PowerState::On
    });
    // It takes no part while its guests have not been given away.
    cluster.run(secs(10));
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    for node in 0..2 {
        cluster.hosts[node].storage.heal();
    }
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
}

#[test]
fn an_administrators_word_about_a_node_that_lives_ends_nothing() {
    // He has looked at the wrong machine.
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("suspected", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.power, PowerTrack::Failed { .. }))
    });
    cluster.thaw(2);
    cluster.run(secs(3));
    let mut record = cluster.fence(2).unwrap();
    record.confirmation = Some(Confirmation {
        kind: ConfirmationKind::MachineIsOff,
        by: "admin".to_owned(),
        at: 0,
    });
    cluster.write(Txn::new().overwrite(&keys::fence(&name(2)), &Some(record)));
    cluster.run(secs(60));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
    assert!(!cluster.is_done(2, ProofKind::Administrator));
}

#[test]
fn a_guest_whose_definition_can_not_be_read_keeps_no_other_down() {
    // Lesson 31.
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &"<domain".to_owned()));
    cluster.power_off(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
    assert_eq!(cluster.read(&keys::domain(vm(1)).state()), VmState::Fail);
    assert!(
        cluster
            .read(&keys::domain(vm(1)).failed_reason())
            .contains("definition")
    );
}

#[test]
fn guests_that_find_no_node_are_listed_and_start_as_soon_as_one_can_take_them() {
    // D1 (second part) and lesson 32: in the reference that write fails, and the guest stays "start" on a dead node.
    let mut cluster = Cluster::new();
    for node in 0..2 {
        let keys = keys::node(&name(node));
        cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &70));
    }
    cluster.power_off(2);
    cluster.wait_until("done", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| !record.is_open())
    });
    // Each of the two takes one guest, and never one more than fits.
    let parked = cluster.fence(2).unwrap().parked;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(cluster.read(&keys::domain(parked[0]).state()), VmState::Stop);
    assert!(cluster.read(&keys::domain(parked[0]).autostart()));
    let keys = keys::node(&name(0));
    cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &4096));
    cluster.wait_until("started", secs(120), |cluster| cluster.home(parked[0]) == Some(0));
    cluster.wait_until("off the list", secs(5), |cluster| {
        cluster.fence(2).is_some_and(|record| record.parked.is_empty())
    });
}

#[test]
fn the_most_important_guest_goes_first() {
    let mut cluster = Cluster::new();
    for node in 0..2 {
        let keys = keys::node(&name(node));
        cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &70));
    }
    cluster.write(
        Txn::new()
            .overwrite(&keys::domain(vm(3)).recovery_priority(), &10)
            .overwrite(&keys::domain(vm(2)).recovery_priority(), &5),
    );
    cluster.power_off(2);
    cluster.wait_until("done", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| !record.is_open())
    });
    assert_eq!(cluster.fence(2).unwrap().parked, [vm(1)]);
}
