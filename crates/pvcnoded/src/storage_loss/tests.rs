use pvc_common::keys;
use pvc_common::schema;
use pvc_common::store::StoreExt as _;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_core::ids::VmId;
use pvc_core::storage_loss::RESTART_AFTER;
use uuid::Uuid;

use super::*;
use crate::host::fake::{FakeCeph, FakeHypervisor, FakeReach, VirtualClock};

const VM: VmId = VmId::new(Uuid::from_u128(7));

struct Node {
    clock: VirtualClock,
    store: MemoryStore,
    reach: FakeReach,
    agent: AgentState,
    hypervisor: FakeHypervisor,
    watcher: StorageWatcher<MemoryStore, VirtualClock, FakeHypervisor, FakeReach>,
}

fn node(policy: StorageLossPolicy) -> Node {
    let clock = VirtualClock::default();
    let server = MemoryServer::new();
    let store = server.client();
    let limit = Duration::from_secs(5);
    let me = NodeName::new("hv1").unwrap();
    clock
        .run(limit, schema::prepare(&store, &clock, &me))
        .unwrap()
        .unwrap();
    let hypervisor = FakeHypervisor::new(
        clock.clone(),
        FakeCeph::new(clock.clone()),
        [10, 102, 0, 1].into(),
    );
    let (reach, agent) = (FakeReach::new(), AgentState::new());
    let watcher = StorageWatcher::new(
        store.clone(),
        clock.clone(),
        hypervisor.clone(),
        reach.clone(),
        me,
        agent.clone(),
        policy,
    );
    Node {
        clock,
        store,
        reach,
        agent,
        hypervisor,
        watcher,
    }
}

impl Node {
    fn start_guest(&self) {
        let xml = format!(
            "<domain type='kvm'><name>guest</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices/></domain>"
        );
        let created = self.hypervisor.create_paused(VM, &xml);
        self.clock.run(Duration::from_secs(5), created).unwrap().unwrap();
    }

    fn run(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.clock
                .run(Duration::from_secs(30), self.watcher.round())
                .unwrap();
        }
    }

    fn fault(&self) -> Option<String> {
        let key = keys::fault("STORAGE_LOST_HV1").message();
        let read = self.clock.run(Duration::from_secs(5), self.store.get(&key));
        read.unwrap().unwrap().map(|found| found.value)
    }

    fn lose_storage(&self) {
        self.reach.show(StorageLook::Silent {
            reason: "10.102.0.2:6789: no answer".into(),
        });
    }
}

// ha-protocol.md section 6, "Storage network lost only": known within 10 s, and over when it is.
#[test]
fn a_lost_storage_network_is_a_fault_within_ten_seconds_and_no_longer_than_it_lasts() {
    let mut node = node(StorageLossPolicy::Wait);
    node.start_guest();
    node.run(Duration::from_secs(6));
    assert_eq!(node.fault(), None);
    node.lose_storage();
    node.run(Duration::from_secs(9));
    let fault = node.fault().unwrap();
    assert!(fault.contains("hv1") && fault.contains("wait"), "{fault}");
    // However long it lasts, guests are left alone.
    node.run(RESTART_AFTER * 10);
    assert!(!node.agent.storage().ends_guests(node.clock.now()));
    node.reach.show(StorageLook::Reached);
    node.run(Duration::from_secs(4));
    assert_eq!(node.fault(), None);
}

#[test]
fn with_restart_guests_are_ended_after_a_minute_and_not_when_it_came_back_before() {
    let mut node = node(StorageLossPolicy::Restart);
    node.start_guest();
    node.run(Duration::from_secs(6));
    node.lose_storage();
    node.run(Duration::from_secs(50));
    assert!(!node.agent.storage().ends_guests(node.clock.now()));
    node.reach.show(StorageLook::Reached);
    node.run(Duration::from_secs(4));
    node.lose_storage();
    node.run(Duration::from_secs(50));
    assert!(!node.agent.storage().ends_guests(node.clock.now()));
    node.run(Duration::from_secs(15));
    assert!(node.agent.storage().ends_guests(node.clock.now()));
    // Its guests are gone then; the fault stays until the network is back.
    node.hypervisor.kill_process(VM);
    node.run(Duration::from_secs(30));
    assert!(node.fault().is_some());
    node.reach.show(StorageLook::Reached);
    node.run(Duration::from_secs(4));
    assert_eq!(node.fault(), None);
    assert!(!node.agent.storage().ends_guests(node.clock.now()));
}

// An agent that was restarted must clear what its former life raised, and an empty node must not cost anything.
#[test]
fn a_node_without_guests_does_not_look_and_clears_what_an_earlier_life_left() {
    let mut node = node(StorageLossPolicy::Wait);
    let left = Fault::new(&["STORAGE_LOST", "hv1"], 50, "from before");
    let raised = faults::raise(&node.store, &node.clock, &left);
    node.clock.run(Duration::from_secs(5), raised).unwrap().unwrap();
    node.lose_storage();
    node.run(Duration::from_secs(30));
    assert_eq!(node.fault(), None);
    assert_eq!(node.agent.storage().sight(), StorageSight::Unknown);
}
