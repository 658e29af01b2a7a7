//! Nodes and guests in a store in memory, for the tests of what places guests.

use pvc_common::keys::values::{CommaList, StaticData};
use pvc_common::keys::{self, Key, Value};
use pvc_common::schema::{NewDomain, NewNode, base_keys, domain_keys, node_keys};
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{Store as _, StoreExt as _, Txn};
use pvc_core::ids::{BootId, Incarnation, MachineId, NodeName, TagName, VmId, VmName};
use pvc_core::records::{CephClients, Owner};
use pvc_core::states::{DaemonMode, DaemonState, DomainState, MigrationMethod, NodeSelector, VmState};

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn vm(number: u32) -> VmId {
    format!("5d0e8c58-1d2b-4a30-9d6c-{number:012}").parse().unwrap()
}

pub(crate) fn incarnation(node: u32) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new(format!("{node:032}")).unwrap(),
        boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap(),
        counter: 1,
    }
}

pub(crate) fn owner(node: &str) -> Owner {
    Owner {
        node: name(node),
        incarnation: incarnation(name(node).number()),
        epoch: 1,
        ceph_clients: CephClients::Recorded(Vec::new()),
    }
}

/// The store of a cluster whose nodes have 1000 MiB and take guests.
#[derive(Clone)]
pub(crate) struct TestStore {
    pub(crate) store: MemoryStore,
}

impl TestStore {
    pub(crate) async fn with_nodes(nodes: &[&str]) -> TestStore {
        let server = MemoryServer::new();
        let store = server.client();
        store.commit(base_keys()).await.unwrap();
        for node in nodes {
            store
                .commit(node_keys(&NewNode {
                    name: name(node),
                    mode: DaemonMode::Hypervisor,
                    domain_state: DomainState::Ready,
                    keepalive: 0,
                }))
                .await
                .unwrap();
            let keys = keys::node(&name(node));
            let data = StaticData {
                cpus: 8,
                kernel: "k".into(),
                os: "o".into(),
                arch: "a".into(),
            };
            let txn = Txn::new()
                .overwrite(&keys.daemon_state(), &DaemonState::Run)
                .overwrite(&keys.static_data(), &Some(data))
                .overwrite(&keys.memory_total_mib(), &1000)
                .overwrite(&keys.memory_free_mib(), &1000);
            store.commit(txn).await.unwrap();
        }
        TestStore { store }
    }

    /// A guest of 100 MiB. One that runs is owned by its node.
    pub(crate) async fn guest(&self, number: u32, node: &str, state: VmState) -> VmId {
        let id = vm(number);
        let txn = domain_keys(&NewDomain {
            id,
            name: VmName::new(format!("vm{number}")).unwrap(),
            xml: "<domain><memory unit='MiB'>100</memory><vcpu>1</vcpu></domain>".to_owned(),
            state,
            node: name(node),
            profile: None,
            volumes: Vec::new(),
            node_limit: Vec::new(),
            node_selector: NodeSelector::None,
            autostart: false,
            migration_method: MigrationMethod::None,
            migration_max_downtime_ms: 300,
            tags: Vec::new(),
        });
        self.store.commit(txn).await.unwrap();
        if pvc_core::placement::runs(state) {
            self.set(&keys::domain(id).owner(), &Some(owner(node))).await;
        }
        id
    }

    pub(crate) async fn sized(&self, vm: VmId, memory_mib: u64) {
        let xml = format!("<domain><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu></domain>");
        self.set(&keys::domain(vm).xml(), &xml).await;
    }

    pub(crate) async fn limited(&self, vm: VmId, nodes: &[&str]) {
        let nodes = CommaList(nodes.iter().map(|node| name(node)).collect());
        self.set(&keys::domain(vm).node_limit(), &nodes).await;
    }

    pub(crate) async fn grouped(&self, vm: VmId, group: &str) {
        let groups = CommaList(vec![TagName::new(group).unwrap()]);
        self.set(&keys::domain(vm).anti_affinity(), &groups).await;
    }

    /// Writes whatever is there.
    pub(crate) async fn set<T: Value + Sync>(&self, key: &Key<T>, value: &T) {
        self.store.commit(Txn::new().overwrite(key, value)).await.unwrap();
    }

    pub(crate) async fn get<T: Value>(&self, key: &Key<T>) -> T {
        self.store.require(key).await.unwrap().value
    }
}
