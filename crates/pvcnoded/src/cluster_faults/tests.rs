//! On the store in memory, with a Ceph that says what it is told to.

use std::sync::{Arc, Mutex};

use pvc_common::keys::values::Maintenance;
use pvc_common::store::memory::MemoryStore;
use pvc_common::store::{Store as _, Txn};
use pvc_core::cluster_faults::{CephCheck, CephSeverity};
use pvc_core::states::DaemonState;

use super::*;
use crate::host::StorageError;
use crate::host::fake::VirtualClock;
use crate::placement::testing::{TestStore, name};

/// What Ceph says; an error while it is `None`.
#[derive(Debug, Clone, Default)]
struct FakeHealth {
    says: Arc<Mutex<Option<CephHealth>>>,
    asked: Arc<Mutex<u32>>,
}

impl StorageHealth for FakeHealth {
    async fn health(&self) -> Result<CephHealth, StorageError> {
        *self.asked.lock().unwrap() += 1;
        let says = self.says.lock().unwrap().clone();
        says.ok_or_else(|| StorageError::Failed {
            action: "ask Ceph how it is".to_owned(),
            reason: "no monitor answers".to_owned(),
        })
    }
}

struct World {
    cluster: TestStore,
    clock: VirtualClock,
    ceph: FakeHealth,
    faults: ClusterFaults<MemoryStore, VirtualClock, FakeHealth>,
    memory: Memory,
}

impl World {
    /// hv1 of three nodes is primary; Ceph is well.
    async fn new() -> World {
        let cluster = TestStore::with_nodes(&["hv1", "hv2", "hv3"]).await;
        let primary = PrimaryRecord::Node(name("hv1"));
        cluster.set(&keys::config().primary_node(), &primary).await;
        let clock = VirtualClock::default();
        let agent = AgentState::new();
        agent.enter(AgentPhase::Running);
        let ceph = FakeHealth::default();
        *ceph.says.lock().unwrap() = Some(CephHealth::default());
        World {
            faults: ClusterFaults {
                store: cluster.store.clone(),
                clock: clock.clone(),
                ceph: Some(ceph.clone()),
                me: name("hv1"),
                agent,
                interval: Duration::from_secs(15),
            },
            cluster,
            clock,
            ceph,
            memory: Memory::default(),
        }
    }

    async fn look(&mut self) -> Vec<String> {
        self.faults.look(&mut self.memory).await.unwrap();
        let mut ids = self.cluster.store.children("/faults").await.unwrap().unwrap();
        ids.sort();
        ids
    }

    /// A look after Ceph is asked again.
    async fn look_later(&mut self) -> Vec<String> {
        self.clock.advance(CEPH_EVERY);
        self.look().await
    }

    fn ceph_says(&self, check: &str, severity: CephSeverity, osds_out: &[u32]) {
        *self.ceph.says.lock().unwrap() = Some(CephHealth {
            checks: vec![CephCheck {
                name: check.to_owned(),
                severity,
                summary: "is wrong".to_owned(),
            }],
            osds_out: osds_out.to_vec(),
        });
    }
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn faults_come_and_go_with_what_they_tell_of() {
    let mut world = World::new().await;
    assert_eq!(world.look().await, NONE);
    let state = keys::node(&name("hv3")).daemon_state();
    world.cluster.set(&state, &DaemonState::Fenced).await;
    let guest = world.cluster.guest(1, "hv2", VmState::Fail).await;
    let reason = "no such volume".to_owned();
    world
        .cluster
        .set(&keys::domain(guest).failed_reason(), &reason)
        .await;
    let allocated = keys::node(&name("hv2")).memory_allocated_mib();
    world.cluster.set(&allocated, &1000).await;
    let ids = ["DEAD_NODE_HV3", "MEMORY_OVERPROVISIONED", "VM_FAILED_VM1"];
    assert_eq!(world.look().await, ids);
    let message = keys::fault("VM_FAILED_VM1").message();
    assert!(world.cluster.get(&message).await.contains("no such volume"));
    let delta = keys::fault("DEAD_NODE_HV3").delta();
    assert_eq!(world.cluster.get(&delta).await, 50);
    world.cluster.set(&state, &DaemonState::Run).await;
    world
        .cluster
        .set(&keys::domain(guest).state(), &VmState::Disable)
        .await;
    assert_eq!(world.look().await, NONE);
}

#[tokio::test]
async fn complaints_of_ceph_are_faults_until_it_says_otherwise() {
    let mut world = World::new().await;
    world.ceph_says("OSD_DOWN", CephSeverity::Warning, &[2]);
    assert_eq!(world.look().await, ["CEPH_OSD_OUT_2", "CEPH_WARN_OSD_DOWN"]);
    world.ceph_says("OSD_DOWN", CephSeverity::Error, &[]);
    // It is not asked in every look.
    assert_eq!(world.look().await, ["CEPH_OSD_OUT_2", "CEPH_WARN_OSD_DOWN"]);
    assert_eq!(*world.ceph.asked.lock().unwrap(), 1);
    assert_eq!(world.look_later().await, ["CEPH_ERR_OSD_DOWN"]);
    // While it says nothing, what it said stands; soon that is a fault of its own.
    *world.ceph.says.lock().unwrap() = None;
    assert_eq!(world.look_later().await, ["CEPH_ERR_OSD_DOWN"]);
    assert_eq!(world.look_later().await, ["CEPH_ERR_OSD_DOWN"]);
    assert_eq!(world.look_later().await, ["CEPH_ERR_OSD_DOWN", "CEPH_SILENT"]);
    let message = keys::fault("CEPH_SILENT").message();
    assert!(world.cluster.get(&message).await.contains("no monitor answers"));
    *world.ceph.says.lock().unwrap() = Some(CephHealth::default());
    assert_eq!(world.look_later().await, NONE);
}

// Two that tell and clear by different knowledge would have a fault come and go for ever.
#[tokio::test]
async fn only_the_primary_tells_and_its_successor_goes_on() {
    let mut world = World::new().await;
    let dead = keys::node(&name("hv3")).daemon_state();
    world.cluster.set(&dead, &DaemonState::Dead).await;
    for primary in [PrimaryRecord::None, PrimaryRecord::Node(name("hv2"))] {
        world.cluster.set(&keys::config().primary_node(), &primary).await;
        assert_eq!(world.look().await, NONE);
    }
    assert_eq!(*world.ceph.asked.lock().unwrap(), 0);
    let me = PrimaryRecord::Node(name("hv1"));
    world.cluster.set(&keys::config().primary_node(), &me).await;
    assert_eq!(world.look().await, ["DEAD_NODE_HV3"]);
    let acknowledged = "ack".to_owned();
    let status = keys::fault("DEAD_NODE_HV3").status();
    world.cluster.set(&status, &acknowledged).await;
    // Another takes over: it finds the fault on record, and that somebody knows of it.
    world.faults.me = name("hv2");
    let other = PrimaryRecord::Node(name("hv2"));
    world.cluster.set(&keys::config().primary_node(), &other).await;
    world.memory = Memory::default();
    assert_eq!(world.look().await, ["DEAD_NODE_HV3"]);
    assert_eq!(world.cluster.get(&status).await, "ack");
    world.cluster.set(&dead, &DaemonState::Run).await;
    assert_eq!(world.look().await, NONE);
}

#[tokio::test]
async fn on_hold_and_under_maintenance_nothing_new_is_told() {
    let mut world = World::new().await;
    let dead = keys::node(&name("hv3")).daemon_state();
    world.cluster.set(&dead, &DaemonState::Dead).await;
    let maintenance = keys::config().maintenance();
    world.cluster.set(&maintenance, &Maintenance::On).await;
    assert_eq!(world.look().await, NONE);
    world.cluster.set(&maintenance, &Maintenance::Off).await;
    world.faults.agent.enter(AgentPhase::Starting);
    assert_eq!(world.look().await, NONE);
    world.faults.agent.enter(AgentPhase::Running);
    assert_eq!(world.look().await, ["DEAD_NODE_HV3"]);
}

// One record that nobody can read must neither hide other faults nor clear its own.
#[tokio::test]
async fn what_can_not_be_read_is_neither_raised_nor_over() {
    let mut world = World::new().await;
    let state = |node: &str| keys::node(&name(node)).daemon_state();
    world.cluster.set(&state("hv3"), &DaemonState::Dead).await;
    let failed = world.cluster.guest(1, "hv2", VmState::Fail).await;
    assert_eq!(world.look().await, ["DEAD_NODE_HV3", "VM_FAILED_VM1"]);
    let spoil = |path: String| {
        let store = world.cluster.store.clone();
        async move {
            store
                .commit(Txn::new().overwrite_path(path, "no state"))
                .await
                .unwrap()
        }
    };
    spoil(state("hv3").path().to_owned()).await;
    spoil(keys::domain(failed).state().path().to_owned()).await;
    world.cluster.set(&state("hv2"), &DaemonState::Dead).await;
    world.cluster.guest(2, "hv2", VmState::Fail).await;
    let all = ["DEAD_NODE_HV2", "DEAD_NODE_HV3", "VM_FAILED_VM1", "VM_FAILED_VM2"];
    assert_eq!(world.look().await, all);
}

// Faults that others raise and clear are theirs, whatever the primary sees.
#[tokio::test]
async fn faults_of_others_are_left_alone() {
    let mut world = World::new().await;
    for words in [["FENCE", "hv3"], ["NODE_PLUGIN_LOAD", "hv2"]] {
        let fault = Fault::new(&words, 10, "is wrong");
        faults::raise(&world.cluster.store, &world.clock, &fault)
            .await
            .unwrap();
    }
    // What the health daemon of PVC 1.0.3 left, which never removed any.
    let old = Fault::new(&["VM_FAILED", "gone"], 10, "is wrong");
    faults::raise(&world.cluster.store, &world.clock, &old)
        .await
        .unwrap();
    assert_eq!(world.look().await, ["FENCE_HV3", "NODE_PLUGIN_LOAD_HV2"]);
}
