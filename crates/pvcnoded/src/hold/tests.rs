//! Two nodes with the real rounds over a store that is restored from a snapshot, in virtual time.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::select;
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::schema::{self, NewDomain, Prepared};
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn, Versioned};
use pvc_core::hold::{AdoptOrder, HoldPhase, HoldReason, RestorePhase, RestoreRecord};
use pvc_core::ids::{BootId, Incarnation, MachineId, NodeName, VmId, VolumeId};
use pvc_core::records::{CephClients, Owner};
use pvc_core::states::{DaemonMode, MigrationMethod, NodeSelector, VmState};
use uuid::Uuid;

use super::*;
use crate::agent::{AgentPhase, AgentState, Pulse};
use crate::host::DomainStatus;
use crate::host::fake::task::run_all;
use crate::host::fake::{FakeCeph, FakeHypervisor, FakeStorage, FakeTask, TaskControl, VirtualClock};
use crate::node_lease::NodeLeaseKeeper;
use crate::registration::{Registrant, register};
use crate::vm::{VmParts, VmRounds, carry_out};

const VM: VmId = VmId::new(Uuid::from_u128(7));
const KEEPALIVE: Duration = Duration::from_secs(5);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(node: usize) -> NodeName {
    NodeName::new(format!("hv{}", node + 1)).unwrap()
}

fn volume() -> VolumeId {
    "vms/guest_disk0".parse().unwrap()
}

fn guest(node: usize, state: VmState) -> NewDomain {
    let xml = format!(
        "<domain type='kvm'><name>guest</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>\
         <disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='rbd' name='{}'><host name='10.102.0.1' port='3300'/></source>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>",
        volume()
    );
    NewDomain {
        id: VM,
        name: "guest".parse().unwrap(),
        xml,
        state,
        node: name(node),
        profile: None,
        volumes: vec![volume()],
        node_limit: vec![],
        node_selector: NodeSelector::None,
        autostart: false,
        migration_method: MigrationMethod::None,
        migration_max_downtime_ms: 300,
        tags: vec![],
    }
}

/// A host; its agent is started again by the service manager whenever it ends.
struct Host {
    hypervisor: FakeHypervisor,
    storage: FakeStorage,
    store: MemoryStore,
    task: TaskControl,
    enabled: Arc<AtomicBool>,
}

struct Cluster {
    clock: VirtualClock,
    server: MemoryServer,
    admin: MemoryStore,
    hosts: Vec<Host>,
    running: Vec<FakeTask>,
    _directory: tempfile::TempDir,
}

type Parts = VmParts<MemoryStore, VirtualClock, FakeHypervisor, FakeStorage>;

async fn look_after_guests(parts: Parts) {
    let mut rounds = VmRounds::new(parts.clone());
    loop {
        for task in rounds.look().await.unwrap_or_default() {
            let outcome = carry_out(&parts, &task).await;
            rounds.finished(&task, &outcome);
        }
        parts.clock.sleep(Duration::from_millis(200)).await;
    }
}

/// As the daemon: joins, says whether it is on hold, runs; ends when its lease is lost.
async fn live(parts: Parts, file: MemoryFile) {
    let agent = parts.agent.clone();
    let mut hold = HoldKeeper::new(HoldParts {
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        hypervisor: Some(parts.hypervisor.clone()),
        me: parts.me.clone(),
        incarnation: parts.incarnation.clone(),
        agent: agent.clone(),
        file,
    });
    let registrant = Registrant {
        node: parts.me.clone(),
        mode: DaemonMode::Hypervisor,
        incarnation: parts.incarnation.clone(),
        ready_when_new: true,
        addresses: pvc_core::records::NodeAddresses {
            cluster: [10, 101, 0, 1].into(),
            storage: [10, 102, 0, 1].into(),
            upstream: None,
        },
        bmc: None,
    };
    let version = loop {
        match schema::prepare(&parts.store, &parts.clock, &parts.me).await {
            Err(schema::SchemaError::UnownedGuests { .. }) => {
                hold.found_earlier_release(1).await;
                drop(adopt_earlier_release(&parts.store, &parts.clock, &parts.me, KEEPALIVE).await);
            }
            Ok(Prepared::WaitingFor { .. }) => hold.found_earlier_release(0).await,
            Ok(_) if hold.before_registration().await.is_ok() => {
                if let Ok(version) =
                    register(&parts.store, &parts.clock, &registrant, agent.node_right()).await
                {
                    break version;
                }
            }
            Ok(_) | Err(_) => {}
        }
        parts.clock.sleep(secs(1)).await;
    };
    let mut lease = NodeLeaseKeeper::new(
        parts.store.clone(),
        parts.clock.clone(),
        registrant.node,
        parts.incarnation.clone(),
        version,
        agent.node_right().clone(),
        Pulse::default(),
    );
    let renewing = pin!(async { while lease.round().await.is_ok() {} });
    let acting = pin!(async {
        while hold.after_registration().await.is_err() {
            parts.clock.sleep(secs(1)).await;
        }
        agent.enter(AgentPhase::Running);
        futures::future::join(look_after_guests(parts.clone()), hold.run(|_| {})).await;
    });
    select(renewing, acting).await;
}

impl Cluster {
    fn new(tree: Txn) -> Cluster {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let ceph = FakeCeph::new(clock.clone());
        ceph.add_volume(&volume());
        let admin = server.client();
        clock.run(secs(1), admin.commit(tree)).unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster {
            clock: clock.clone(),
            server: server.clone(),
            admin,
            hosts: Vec::new(),
            running: Vec::new(),
            _directory: directory,
        };
        for node in 0..2 {
            let ip: IpAddr = format!("10.102.0.{}", node + 1).parse().unwrap();
            let host = Host {
                hypervisor: FakeHypervisor::new(clock.clone(), ceph.clone(), ip),
                storage: ceph.connection(),
                store: server.client(),
                task: TaskControl::default(),
                enabled: Arc::new(AtomicBool::new(true)),
            };
            let file = MemoryFile::in_directory(&cluster._directory.path().join(name(node).as_str()));
            let (hypervisor, storage) = (host.hypervisor.clone(), host.storage.clone());
            let (store, clock, enabled) = (host.store.clone(), clock.clone(), host.enabled.clone());
            let work = Box::pin(async move {
                let mut counter = 0;
                loop {
                    counter += 1;
                    let parts = VmParts {
                        store: store.clone(),
                        clock: clock.clone(),
                        hypervisor: hypervisor.clone(),
                        storage: storage.clone(),
                        me: name(node),
                        incarnation: Incarnation {
                            machine_id: MachineId::new(format!("{node}").repeat(32)).unwrap(),
                            boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{node:012}")).unwrap(),
                            counter,
                        },
                        storage_addresses: vec![ip],
                        floating_addresses: vec![],
                        shutdown_timeout: secs(180),
                        agent: AgentState::new(),
                    };
                    let stopped = pin!(async {
                        while enabled.load(Ordering::SeqCst) {
                            clock.sleep(Duration::from_millis(100)).await;
                        }
                    });
                    select(pin!(live(parts, file.clone())), stopped).await;
                    clock.sleep(secs(1)).await;
                    while !enabled.load(Ordering::SeqCst) {
                        clock.sleep(Duration::from_millis(100)).await;
                    }
                }
            });
            cluster.running.push(FakeTask::new(host.task.clone(), work));
            cluster.hosts.push(host);
        }
        cluster
    }

    /// The guest has run on hv2 and then on hv1; the snapshot is from between, and says that hv2 owns it.
    fn rolled_back() -> Cluster {
        let mut cluster =
            Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(1, VmState::Start))));
        cluster.wait_until("started on hv2", secs(20), |cluster| cluster.runs_on(1));
        cluster.run(secs(7));
        let snapshot = cluster.server.snapshot();
        cluster.set(&keys::domain(VM).state(), &VmState::Stop);
        cluster.wait_until("stopped", secs(20), |cluster| !cluster.has_process(1));
        cluster.run(secs(2));
        cluster.set(&keys::domain(VM).node(), &name(0));
        cluster.set(&keys::domain(VM).state(), &VmState::Start);
        cluster.wait_until("started on hv1", secs(20), |cluster| cluster.runs_on(0));
        // Long enough for what was seen to be on disk.
        cluster.run(secs(12));
        cluster.restore(&snapshot);
        cluster
    }

    fn restore(&mut self, snapshot: &pvc_common::store::memory::Snapshot) {
        self.server.restore(snapshot);
        self.admin.reconnect();
        for host in &self.hosts {
            host.store.reconnect();
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            let until = end.min(self.clock.now() + Duration::from_millis(250));
            let clock = self.clock.clone();
            {
                let agents = pin!(run_all(self.running.iter_mut()));
                let end = pin!(clock.sleep_until(until));
                let both = select(end, agents);
                assert!(self.clock.run(secs(2), both).is_some(), "the cluster hangs");
            }
            for host in &self.hosts {
                host.hypervisor.guests_write();
            }
            // I2, at every moment.
            assert!(
                !(self.has_process(0) && self.has_process(1)),
                "the guest runs twice"
            );
        }
    }

    fn wait_until(&mut self, what: &str, limit: Duration, condition: impl Fn(&Cluster) -> bool) {
        let start = self.clock.now();
        while !condition(self) {
            let waited = self.clock.now().since(start);
            assert!(
                waited < limit,
                "not {what} within {limit:?}: owner {:?}, holds {:?}, {:?}",
                self.owner(),
                self.hold(0),
                self.hold(1)
            );
            self.run(Duration::from_millis(250));
        }
    }

    fn read<T: keys::Value>(&self, key: &keys::Key<T>) -> Versioned<T> {
        self.clock.run(secs(1), self.admin.require(key)).unwrap().unwrap()
    }

    fn set<T: keys::Value>(&self, key: &keys::Key<T>, value: &T) {
        let txn = Txn::new().set(key, value, self.read(key).version);
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn runs_on(&self, node: usize) -> bool {
        self.hosts[node].hypervisor.status(VM) == Some(DomainStatus::Running)
    }

    fn has_process(&self, node: usize) -> bool {
        self.hosts[node].hypervisor.status(VM).is_some()
    }

    fn owner(&self) -> Option<Owner> {
        self.read(&keys::domain(VM).owner()).value
    }

    fn hold(&self, node: usize) -> Option<HoldPhase> {
        let key = keys::node(&name(node)).hold();
        let found = self.clock.run(secs(1), self.admin.get(&key)).unwrap().unwrap();
        found.and_then(|hold| hold.value).map(|hold| hold.phase)
    }

    fn is_held(&self, node: usize) -> bool {
        matches!(self.hold(node), Some(HoldPhase::Held { .. }))
    }

    fn is_lifted(&self, node: usize) -> bool {
        matches!(self.hold(node), Some(HoldPhase::Lifted { .. }))
    }

    fn enable(&mut self, node: usize, enabled: bool) {
        self.hosts[node].enabled.store(enabled, Ordering::SeqCst);
        self.run(secs(1));
    }

    fn order(&self, id: &str, without: Vec<NodeName>) {
        let order = AdoptOrder {
            id: id.into(),
            by: "admin".into(),
            at: 1,
            without,
        };
        self.clock
            .run(secs(1), schema::order_adoption(&self.admin, &order))
            .unwrap()
            .unwrap();
    }
}

// ha-protocol.md section 6, "Store rolled back". The old store gives the guest to hv2: without the hold hv1 would end a
// healthy guest, and hv2 would start another.
#[test]
fn a_store_from_yesterday_moves_no_guest_and_an_order_makes_the_truth_its_content() {
    let mut cluster = Cluster::rolled_back();
    cluster.wait_until("both on hold", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
    cluster.run(secs(60));
    assert!(cluster.runs_on(0), "a healthy guest was ended");
    assert_eq!(
        cluster.owner().map(|owner| owner.node),
        Some(name(1)),
        "the record is left as it is"
    );
    // It was given the volume after that backup.
    cluster.set(&keys::domain(VM).volumes(), &CommaList(Vec::new()));

    cluster.order("now", vec![]);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    let owner = cluster.owner().unwrap();
    assert_eq!(owner.node, name(0));
    // Known from hv1's own disk: a storage fence covers the guest as before.
    let clients = cluster.hosts[0].hypervisor.clients(VM);
    assert_eq!(owner.ceph_clients, CephClients::Recorded(clients));
    assert_eq!(cluster.read(&keys::domain(VM).node()).value, name(0));
    let listed = cluster.read(&keys::domain(VM).volumes()).value.0;
    assert_eq!(listed.len(), 1, "what is open could be given to another guest");
    cluster.run(secs(30));
    assert!(cluster.runs_on(0));
    // It is an ordinary guest again.
    cluster.set(&keys::domain(VM).state(), &VmState::Stop);
    cluster.wait_until("stopped", secs(20), |cluster| !cluster.has_process(0));
    cluster.set(&keys::domain(VM).node(), &name(1));
    cluster.set(&keys::domain(VM).state(), &VmState::Start);
    cluster.wait_until("started on hv2", secs(30), |cluster| cluster.runs_on(1));
}

// hv2 would start the guest, which the old store gives to it, while hv1's agent can't say that it runs there.
#[test]
fn nobody_goes_on_before_a_node_whose_agent_is_down_has_answered() {
    let mut cluster = Cluster::rolled_back();
    cluster.enable(0, false);
    cluster.wait_until("hv2 on hold", secs(15), |cluster| cluster.is_held(1));
    cluster.order("now", vec![]);
    cluster.run(secs(60));
    match cluster.hold(1) {
        Some(HoldPhase::Adopted { waits_for, .. }) => assert_eq!(waits_for, [name(0)]),
        other => panic!("{other:?}"),
    }
    assert!(cluster.runs_on(0));
    cluster.enable(0, true);
    // It comes on hold by what is on its disk. The order stood there when it came: to it that is part of the past.
    cluster.wait_until("hv1 on hold", secs(30), |cluster| cluster.is_held(0));
    cluster.run(secs(20));
    assert!(!cluster.is_lifted(1));
    cluster.order("again", vec![]);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    assert_eq!(cluster.owner().map(|owner| owner.node), Some(name(0)));
    assert!(cluster.runs_on(0));
}

// The guest that runs on hv1 can't be put on record as its own while another, of which nothing is known, is on record as
// its owner. Were that owner hv2, or hv2 its place, it would start the guest as soon as it went on.
#[test]
fn nobody_goes_on_while_a_guest_that_runs_is_in_dispute() {
    let mut cluster = Cluster::rolled_back();
    cluster.wait_until("both on hold", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
    let stored = cluster.owner().unwrap();
    let stranger = Owner {
        node: NodeName::new("hv9").unwrap(),
        ..stored.clone()
    };
    cluster.set(&keys::domain(VM).owner(), &Some(stranger));
    cluster.order("now", vec![]);
    cluster.run(secs(60));
    assert!(!cluster.is_lifted(0), "{:?}", cluster.hold(0));
    assert!(!cluster.is_lifted(1), "{:?}", cluster.hold(1));
    assert!(cluster.runs_on(0));
    // An administrator sets it right.
    cluster.set(&keys::domain(VM).owner(), &Some(stored));
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    assert_eq!(cluster.owner().map(|owner| owner.node), Some(name(0)));
    assert!(cluster.runs_on(0));
}

#[test]
fn a_fence_that_the_old_store_remembers_of_a_boot_that_lives_is_emptied() {
    let mut cluster = Cluster::rolled_back();
    cluster.wait_until("both on hold", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
    let lease = cluster.read(&keys::lease_node(&name(0))).value.unwrap();
    let mut fence = pvc_core::fence::FenceRecord::suspected(lease.incarnation, name(1));
    fence.phase = pvc_core::fence::FencePhase::Recovering {
        by: pvc_core::fence::ProofKind::Power,
    };
    cluster.set(&keys::fence(&name(0)), &Some(fence));
    cluster.order("now", vec![]);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    assert_eq!(cluster.read(&keys::fence(&name(0))).value, None);
    assert!(cluster.runs_on(0));
}

#[test]
fn a_node_that_is_off_on_the_administrators_word_is_not_waited_for() {
    let mut cluster = Cluster::rolled_back();
    cluster.enable(0, false);
    cluster.hosts[0].hypervisor.power_off();
    cluster.wait_until("hv2 on hold", secs(15), |cluster| cluster.is_held(1));
    cluster.order("now", vec![name(0)]);
    cluster.wait_until("hv2 going on", secs(30), |cluster| cluster.is_lifted(1));
    // hv2 tries to start it, as the old store says. What hv1's client left on the volume is nobody's to remove without
    // a proof: the start fails, and says why.
    cluster.wait_until("given up", secs(60), |cluster| {
        cluster.read(&keys::domain(VM).state()).value == VmState::Fail
    });
    let reason = cluster.read(&keys::domain(VM).failed_reason()).value;
    assert!(reason.contains("10.102.0.1"), "{reason}");
}

#[test]
fn a_hold_outlasts_restarts_and_whatever_is_written_to_the_old_store() {
    let mut cluster = Cluster::rolled_back();
    cluster.wait_until("both on hold", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
    // The order of writes overtakes what was seen before.
    for _ in 0..2000 {
        cluster.set(&keys::config().upstream_ip(), &"10.0.0.250/24".to_owned());
    }
    for node in 0..2 {
        cluster.enable(node, false);
        cluster.enable(node, true);
    }
    cluster.run(secs(20));
    assert!(cluster.is_held(0) && cluster.is_held(1));
    assert!(cluster.runs_on(0));
}

impl Cluster {
    /// What the API writes of a restore at each of its steps.
    fn mark_restore(&self, id: &str, phase: RestorePhase) {
        let restore = RestoreRecord {
            id: id.to_owned(),
            by: "tests".to_owned(),
            at: 1,
            phase,
        };
        self.set(&keys::config().adopt(), &None);
        self.set(&keys::config().restore(), &Some(restore));
    }
}

// Every write of a restore through the API is newer than what any agent has seen. An agent that acted on it would start a
// guest where the backup has it while it runs where it was moved to since.
#[test]
fn a_backup_that_is_put_into_the_store_puts_every_agent_on_hold() {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.order("last month", vec![]);
    cluster.wait_until("started on hv1", secs(20), |cluster| cluster.runs_on(0));
    cluster.run(secs(12));
    cluster.mark_restore("r1", RestorePhase::Preparing);
    cluster.wait_until("both on hold", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
    cluster.mark_restore("r1", RestorePhase::Writing);
    // The backup is of the time when it was to run on hv2. Owners are not in backups.
    cluster.set(&keys::domain(VM).node(), &name(1));
    // While the store is half restored nobody can say what is true, whatever is ordered and whoever is started anew.
    cluster.order("too early", vec![]);
    cluster.enable(1, false);
    cluster.run(secs(3));
    cluster.enable(1, true);
    cluster.run(secs(30));
    assert!(cluster.is_held(0) && cluster.is_held(1), "{:?}", cluster.hold(1));
    cluster.mark_restore("r1", RestorePhase::Done);
    cluster.run(secs(30));
    assert!(cluster.is_held(0) && cluster.is_held(1));
    cluster.order("now", vec![]);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    assert_eq!(cluster.read(&keys::domain(VM).node()).value, name(0));
    // It is dealt with: neither a round nor a restart comes back to it.
    cluster.enable(0, false);
    cluster.run(secs(3));
    cluster.enable(0, true);
    cluster.run(secs(30));
    assert!(!cluster.is_held(0) && !cluster.is_held(1));
    assert!(cluster.runs_on(0), "it has run there all the time");
    assert_eq!(cluster.owner().map(|owner| owner.node), Some(name(0)));
    // A second one is another.
    cluster.mark_restore("r2", RestorePhase::Done);
    cluster.wait_until("both on hold again", secs(15), |cluster| {
        cluster.is_held(0) && cluster.is_held(1)
    });
}

// An order of last month is in the snapshot as well.
#[test]
fn an_order_that_is_part_of_the_past_orders_nothing() {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.order("last month", vec![]);
    cluster.wait_until("started", secs(20), |cluster| cluster.runs_on(0));
    cluster.run(secs(7));
    let snapshot = cluster.server.snapshot();
    cluster.run(secs(12));
    cluster.restore(&snapshot);
    cluster.run(secs(60));
    assert!(cluster.is_held(0) && cluster.is_held(1), "{:?}", cluster.hold(0));
    cluster.order("now", vec![]);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
}

// A follower that lags shows the past as well: no reason to stop a cluster.
#[test]
fn a_server_that_lags_puts_nobody_on_hold() {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.wait_until("started", secs(20), |cluster| cluster.runs_on(0));
    for _ in 0..20 {
        cluster.hosts[0].store.lag();
        cluster.run(secs(3));
        // A new session, at a server that is still behind.
        cluster.hosts[0].store.expire();
        cluster.hosts[0].store.reconnect();
        cluster.hosts[0].store.lag();
        cluster.run(secs(3));
    }
    cluster.hosts[0].store.catch_up();
    assert_eq!(cluster.hold(0), Some(HoldPhase::Free));
    assert!(cluster.runs_on(0));
}

// A restarted agent may find a server that is older than what its former life saw: no reason either.
#[test]
fn an_agent_that_begins_at_a_lagging_server_asks_the_quorum_first() {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.wait_until("started", secs(20), |cluster| cluster.runs_on(0));
    let lagging = cluster.server.client();
    lagging.lag();
    cluster.run(secs(12));
    cluster.enable(0, false);
    let agent = AgentState::new();
    let mut hold = HoldKeeper::new(HoldParts {
        store: lagging,
        clock: cluster.clock.clone(),
        hypervisor: Some(cluster.hosts[0].hypervisor.clone()),
        me: name(0),
        incarnation: Incarnation {
            machine_id: MachineId::new("0".repeat(32)).unwrap(),
            boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-000000000000").unwrap(),
            counter: 9,
        },
        agent: agent.clone(),
        file: MemoryFile::in_directory(&cluster._directory.path().join("hv1")),
    });
    cluster
        .clock
        .run(secs(5), hold.before_registration())
        .unwrap()
        .unwrap();
    assert_eq!(agent.hold().reason(), None);
}

#[test]
fn an_empty_store_holds_a_node_with_guests_and_not_one_without() {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.wait_until("started", secs(20), |cluster| cluster.runs_on(0));
    cluster.run(secs(12));
    // Both were taken out of the cluster by mistake; the store itself is in order.
    for node in 0..2 {
        let lease = keys::lease_node(&name(node));
        let gone = cluster.admin.commit(Txn::new().delete_path(lease.path(), None));
        cluster.clock.run(secs(1), gone).unwrap().unwrap();
    }
    cluster.wait_until("hv1 on hold", secs(20), |cluster| cluster.is_held(0));
    cluster.run(secs(20));
    assert!(matches!(
        cluster.hold(0),
        Some(HoldPhase::Held {
            reason: HoldReason::StoreEmpty { guests: 1 }
        })
    ));
    assert_eq!(cluster.hold(1), Some(HoldPhase::Free));
    assert!(cluster.runs_on(0));
}

/// A store of PVC 1.0.3 with a guest that runs on hv1, as libvirt has it.
fn of_earlier_release() -> Cluster {
    let mut cluster = Cluster::new(schema::base_keys().and(schema::domain_keys(&guest(0, VmState::Start))));
    cluster.wait_until("started", secs(20), |cluster| cluster.runs_on(0));
    cluster.enable(0, false);
    cluster.enable(1, false);
    let clear = async {
        for path in ["/leases", "/fences"] {
            cluster.admin.delete_recursive(path).await.unwrap();
        }
        let mut txn = Txn::new().overwrite(&keys::schema().version(), &schema::REFERENCE);
        for path in ["owner", "incoming"] {
            txn = txn.delete_path(format!("/domains/{VM}/{path}"), None);
        }
        txn = txn.delete_path(keys::config().adopt().path(), None);
        for node in 0..2 {
            txn = txn.overwrite(&keys::node(&name(node)).latest_schema(), &schema::REFERENCE);
            txn = txn.delete_path(keys::node(&name(node)).hold().path(), None);
        }
        cluster.admin.commit(txn).await.unwrap();
    };
    cluster.clock.run(secs(5), clear).unwrap();
    // Nothing of ours was ever on these hosts.
    for node in 0..2 {
        std::fs::remove_dir_all(cluster._directory.path().join(name(node).as_str())).unwrap();
    }
    cluster
}

// D-line of the upgrade: a cluster of 1.0.3 is taken over while its guests run on.
#[test]
fn a_stopped_cluster_of_the_earlier_release_is_adopted_while_its_guests_run() {
    let mut cluster = of_earlier_release();
    let version = |cluster: &Cluster| cluster.read(&keys::schema().version()).value;
    cluster.enable(1, true);
    cluster.run(secs(5));
    cluster.enable(0, true);
    cluster.run(secs(30));
    assert_eq!(version(&cluster), schema::REFERENCE, "nobody has ordered it");
    assert!(cluster.runs_on(0));
    // Ordered, but one of the old agents still writes its keepalive.
    cluster.order("take over", vec![]);
    for _ in 0..20 {
        let key = keys::node(&name(1)).keepalive();
        let now = cluster.read(&key).value;
        cluster.set(&key, &(now + 5));
        cluster.run(secs(5));
    }
    assert_eq!(version(&cluster), schema::REFERENCE, "an agent of 1.0.3 runs");
    cluster.wait_until("migrated", secs(60), |cluster| version(cluster) == schema::LATEST);
    cluster.wait_until("both going on", secs(30), |cluster| {
        cluster.is_lifted(0) && cluster.is_lifted(1)
    });
    let owner = cluster.owner().unwrap();
    assert_eq!((owner.node, owner.ceph_clients), (name(0), CephClients::Unknown));
    assert!(cluster.runs_on(0));
    cluster.set(&keys::domain(VM).state(), &VmState::Stop);
    cluster.wait_until("stopped", secs(20), |cluster| !cluster.has_process(0));
}

// With all guests stopped the store is migrated without an order; nobody must stay on hold for it.
#[test]
fn a_cluster_of_the_earlier_release_without_running_guests_needs_no_order() {
    let mut cluster = of_earlier_release();
    cluster.enable(1, true);
    cluster.run(secs(5));
    cluster.hosts[0].hypervisor.kill_process(VM);
    cluster.set(&keys::domain(VM).state(), &VmState::Stop);
    cluster.enable(0, true);
    cluster.wait_until("both free", secs(60), |cluster| {
        let key = keys::schema().version();
        cluster.read(&key).value == schema::LATEST
            && cluster.hold(0) == Some(HoldPhase::Free)
            && cluster.hold(1) == Some(HoldPhase::Free)
    });
    cluster.set(&keys::domain(VM).state(), &VmState::Start);
    cluster.wait_until("started", secs(60), |cluster| cluster.runs_on(0));
}
