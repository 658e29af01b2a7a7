//! A cluster of three nodes in memory with a real API server over it. Shared with the tests of the command line.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use futures::executor::block_on;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys::values::{
    CommaList, Load, Maintenance, Nothing, OrNone, Release, RunningDomains, SpaceList, StaticData,
};
use pvc_common::keys::{self, Key, Value};
use pvc_common::mirror::{Branch, Mirror, Scope};
use pvc_common::schema;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{SessionState, Store, StoreExt, Txn, Versioned};
use pvc_core::access::Role;
use pvc_core::ids::{Incarnation, NodeName, VmId};
use pvc_core::records::{CephClients, NodeLease, Owner, PrimaryRecord};
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState, NodeSelector, VmState};
use pvcapid::access::{AuthPolicy, KnownToken, TokenDigest};
use pvcapid::app::{App, Settings, Waits};
use pvcapid::server;
use rustls::ServerConfig;

/// May everything.
pub(crate) const TOKEN: &str = "a-token-for-tests";
pub(crate) const OPERATOR_TOKEN: &str = "an-operators-token";
pub(crate) const VIEWER_TOKEN: &str = "a-viewers-token";

/// How old the API's answers may be: as by default, so that a test machine under load does not make them too old.
const MAX_AGE: Duration = Duration::from_secs(5);

/// A cluster and its API, until it is dropped.
pub(crate) struct Cluster {
    pub(crate) server: MemoryServer,
    pub(crate) store: MemoryStore,
    /// The client that the API uses, to cut off.
    pub(crate) api: MemoryStore,
    url: String,
    mirror: Mirror,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        block_on(async { drop(self.handle.stop(false)) });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Cluster {
    /// Nodes hv1 to hv3, all coordinators, running and ready; hv1 is primary; one token is known.
    pub(crate) fn start() -> Cluster {
        Cluster::serve(None, Waits::for_shutdown_timeout(Duration::from_secs(180)))
    }

    pub(crate) fn with_tls(tls: ServerConfig) -> Cluster {
        Cluster::serve(Some(tls), Waits::for_shutdown_timeout(Duration::from_secs(180)))
    }

    /// Requests wait that long only.
    pub(crate) fn impatient(limit: Duration) -> Cluster {
        Cluster::serve(
            None,
            Waits {
                shutdown: limit,
                stop: limit,
            },
        )
    }

    fn serve(tls: Option<ServerConfig>, waits: Waits) -> Cluster {
        let memory = MemoryServer::new();
        let store = memory.client();
        seed(&store);
        let api = memory.client();
        let app_store = api.clone();
        let Api {
            port,
            mirror,
            handle,
            thread,
        } = serve_api(move || app_store, tls, waits);
        Cluster {
            server: memory,
            store,
            api,
            url: format!("http://127.0.0.1:{port}"),
            mirror,
            handle,
            thread: Some(thread),
        }
    }

    /// Where the API answers. What was written until now shows there.
    pub(crate) fn url(&self) -> &str {
        self.settle();
        &self.url
    }

    /// Waits until the API's mirror shows what the store holds, unless the two are cut off from each other.
    fn settle(&self) {
        let deadline = HostClock.now() + Duration::from_secs(20);
        while self.api.session() == SessionState::Connected && !self.is_shown() {
            assert!(
                HostClock.now() < deadline,
                "the API does not show what is written"
            );
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn is_shown(&self) -> bool {
        let Some(view) = self.mirror.latest() else {
            return false;
        };
        Scope::API
            .subtrees
            .iter()
            .all(|subtree| self.is_same(subtree, &view.branch(subtree)))
    }

    fn is_same(&self, path: &str, shown: &Branch) -> bool {
        let mut names = self.server.peek_children(path);
        names.retain(|name| self.mirror.covers(&format!("{path}/{name}")));
        let children: Vec<(&str, Branch)> = shown.children().collect();
        self.server.peek(path).as_ref() == shown.znode()
            && names.iter().eq(children.iter().map(|(name, _)| name))
            && children
                .iter()
                .all(|(name, child)| self.is_same(&format!("{path}/{name}"), child))
    }

    pub(crate) fn get<T: Value>(&self, key: &Key<T>) -> Option<Versioned<T>> {
        block_on(self.store.get(key)).unwrap()
    }

    pub(crate) fn value<T: Value>(&self, key: &Key<T>) -> T {
        self.get(key).unwrap().value
    }

    pub(crate) fn set<T: Value>(&self, key: &Key<T>, value: &T) {
        commit(&self.store, Txn::new().overwrite(key, value));
    }

    /// What a node's agent writes when it claims a guest, or when it has seen it gone.
    pub(crate) fn own(&self, vm: VmId, name: Option<&str>) {
        let owner = name.map(owner_of);
        self.set(&keys::domain(vm).owner(), &owner);
    }
}

fn known(token: &str, description: &str, role: Role) -> KnownToken {
    KnownToken {
        digest: TokenDigest::of(token.as_bytes()),
        description: description.to_owned(),
        role,
    }
}

/// An API server that runs.
pub(crate) struct Api {
    pub(crate) port: u16,
    pub(crate) mirror: Mirror,
    pub(crate) handle: ServerHandle,
    pub(crate) thread: JoinHandle<()>,
}

/// Runs an API server over a store, which is made where it runs.
pub(crate) fn serve_api<S: Store>(
    store: impl FnOnce() -> S + Send + 'static,
    tls: Option<ServerConfig>,
    waits: Waits,
) -> Api {
    let settings = Settings {
        auth: AuthPolicy::Tokens(vec![
            known(TOKEN, "tests", Role::Admin),
            known(OPERATOR_TOKEN, "operator", Role::Operator),
            known(VIEWER_TOKEN, "viewer", Role::Viewer),
        ]),
        waits,
        max_age: MAX_AGE,
        node: node("hv1"),
        tls: tls.is_some(),
        metrics: true,
    };
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let app = Arc::new(App::new(store(), settings));
            let mirror = app.mirror().clone();
            let listener = server::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = server::serve(app, vec![listener], tls).unwrap();
            sender.send((port, mirror, server.handle())).unwrap();
            server.await.unwrap();
        });
    });
    let (port, mirror, handle) = receiver.recv().unwrap();
    Api {
        port,
        mirror,
        handle,
        thread,
    }
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn commit(store: &MemoryStore, txn: Txn) {
    block_on(store.commit(txn)).unwrap();
}

fn seed(store: &MemoryStore) {
    let config = keys::config();
    let mut txn = Txn::new()
        .create(&config.cluster_name(), &"test".to_owned())
        .create(&config.maintenance(), &Maintenance::Off)
        .create(&config.adopt(), &None)
        .create(&config.restore(), &None)
        .create_path("/schema", "")
        .create(&keys::schema().version(), &schema::LATEST)
        .create(&config.primary_node(), &PrimaryRecord::Node(node("hv1")))
        .create(&config.upstream_ip(), &"10.0.0.250/24".to_owned())
        .create(&config.migration_target_selector(), &Some(NodeSelector::Mem))
        .create(&keys::storage().status(), &String::new());
    for container in [
        keys::nodes().path(),
        keys::domains().path(),
        keys::networks().path(),
        keys::faults().path(),
        keys::osds().path(),
        keys::pools().path(),
        "/leases",
        keys::lease_nodes().path(),
        keys::fences().path(),
    ] {
        txn = txn.create_path(container, "");
    }
    commit(store, txn);
    for (name, free) in [("hv1", 8_000), ("hv2", 9_000), ("hv3", 7_000)] {
        add_node(store, name, DaemonMode::Coordinator, free);
    }
    let role = keys::node(&node("hv1")).coordinator_state();
    commit(store, Txn::new().overwrite(&role, &CoordinatorState::Primary));
}

/// A node that runs and is ready.
pub(crate) fn add_node(store: &MemoryStore, name: &str, mode: DaemonMode, free_mib: u64) {
    let keys = keys::node(&node(name));
    let coordinator_state = match mode {
        DaemonMode::Coordinator => CoordinatorState::Secondary,
        DaemonMode::Hypervisor => CoordinatorState::Client,
    };
    let made_of = StaticData {
        cpus: 8,
        kernel: "6.1.0-18-amd64".to_owned(),
        os: "GNU/Linux".to_owned(),
        arch: "x86_64".to_owned(),
    };
    let txn = Txn::new()
        .create(&keys.root(), &mode)
        .create(&keys::fence(&node(name)), &None)
        .create(&keys::lease_node(&node(name)), &None)
        .create(&keys.bmc(), &None)
        .create(&keys.drain(), &None)
        .create(&keys.hold(), &None)
        .create(&keys.upstream(), &None)
        .create(&keys.daemon_mode(), &mode)
        .create(&keys.daemon_state(), &DaemonState::Run)
        .create(&keys.coordinator_state(), &coordinator_state)
        .create(&keys.domain_state(), &DomainState::Ready)
        .create(&keys.pvc_version(), &"2.0.0".parse::<Release>().unwrap())
        .create(&keys.static_data(), &Some(made_of))
        .create(&keys.running_domains(), &RunningDomains(Vec::new()))
        .create(&keys.domains_count(), &0)
        .create(&keys.cpu_load(), &Load(0.5))
        .create(&keys.vcpu_allocated(), &0)
        .create(&keys.memory_total_mib(), &16_000)
        .create(&keys.memory_used_mib(), &(16_000 - free_mib))
        .create(&keys.memory_free_mib(), &free_mib)
        .create(&keys.memory_allocated_mib(), &0)
        .create(&keys.memory_provisioned_mib(), &0)
        .create(&keys.monitoring_health(), &OrNone(Some(100)))
        .create(&keys.monitoring_plugins(), &SpaceList(Vec::new()))
        .create(&keys.monitoring_data(), &Nothing)
        .create(&keys.reserved(), &None);
    commit(store, txn);
}

/// The life that every node's agent has here.
pub(crate) fn incarnation() -> Incarnation {
    Incarnation {
        machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        boot_id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
        counter: 1,
    }
}

/// A node's lease after so many renewals.
pub(crate) fn lease(counter: u64) -> NodeLease {
    NodeLease {
        incarnation: incarnation(),
        protocol: 1,
        counter,
    }
}

/// An owner record as a node's agent writes it.
fn owner_of(name: &str) -> Owner {
    Owner {
        node: node(name),
        incarnation: incarnation(),
        epoch: 1,
        ceph_clients: CephClients::Recorded(Vec::new()),
    }
}

/// The XML of a guest with these devices.
pub(crate) fn guest_xml(name: &str, uuid: VmId, devices: &str) -> String {
    format!(
        "<domain type=\"kvm\">\n<name>{name}</name>\n<uuid>{uuid}</uuid>\n<memory unit=\"MiB\">512</memory>\n\
         <vcpu>2</vcpu>\n<devices>{devices}</devices>\n</domain>"
    )
}

/// A disk on an RBD volume.
pub(crate) fn rbd_disk(volume: &str, mark: &str) -> String {
    format!(
        "<disk type='network'><source protocol='rbd' name='{volume}'/><target dev='sda' bus='scsi'/>{mark}</disk>"
    )
}

pub(crate) fn vm_id(last: u8) -> VmId {
    format!("5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a{last:02x}")
        .parse()
        .unwrap()
}

/// The parameters that the description declares for an operation, in its path, its query or its form, and whether each is required.
pub(crate) fn parameters(operation: &serde_json::Value) -> Vec<(String, bool)> {
    let declared = operation["parameters"].as_array().into_iter().flatten();
    let mut parameters: Vec<(String, bool)> = declared
        .map(|parameter| {
            let name = parameter["name"].as_str().unwrap().to_owned();
            (name, parameter["required"].as_bool().unwrap_or(false))
        })
        .collect();
    let form = &operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
    let required = form["required"].as_array();
    for name in form["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
        parameters.push((name.clone(), is_required));
    }
    parameters
}

/// The volumes that a guest's record names.
pub(crate) fn volumes(cluster: &Cluster, vm: VmId) -> Vec<String> {
    let CommaList(volumes) = cluster.value(&keys::domain(vm).volumes());
    volumes.iter().map(ToString::to_string).collect()
}

/// Does what the nodes' agents do with guests and the primary role, until it is dropped.
pub(crate) struct Agents {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Agents {
    pub(crate) fn start(cluster: &Cluster, vms: Vec<VmId>) -> Agents {
        let store = cluster.store.clone();
        Agents::on(move || store, vms)
    }

    /// On any store, which is made where they work.
    pub(crate) fn on<S: Store>(store: impl FnOnce() -> S + Send + 'static, vms: Vec<VmId>) -> Agents {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let store = store();
                while !stopped.load(Ordering::Relaxed) {
                    for vm in &vms {
                        tend(&store, *vm).await;
                    }
                    lead(&store).await;
                    HostClock.sleep(Duration::from_millis(10)).await;
                }
            });
        });
        Agents {
            stop,
            thread: Some(thread),
        }
    }
}

/// One round over one guest. A write that comes too late is left to the next round.
async fn tend<S: Store>(store: &S, vm: VmId) {
    let keys = keys::domain(vm);
    let (Ok(Some(state)), Ok(Some(owner))) = (store.get(&keys.state()).await, store.get(&keys.owner()).await)
    else {
        return;
    };
    let claim = Some(owner_of("hv1"));
    let txn = match (state.value, owner.value) {
        (VmState::Start, None) => Txn::new().set(&keys.owner(), &claim, owner.version),
        (VmState::Restart, _) => Txn::new().set(&keys.state(), &VmState::Start, state.version),
        (VmState::Shutdown, _) => Txn::new().set(&keys.owner(), &None, owner.version).set(
            &keys.state(),
            &VmState::Stop,
            state.version,
        ),
        (VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate, Some(_)) => {
            let Ok(Some(node)) = store.get(&keys.node()).await else {
                return;
            };
            Txn::new()
                .check(&keys.node(), node.version)
                .set(&keys.owner(), &Some(owner_of(node.value.as_str())), owner.version)
                .set(&keys.state(), &VmState::Start, state.version)
        }
        (VmState::Stop | VmState::Disable, Some(_)) => Txn::new().set(&keys.owner(), &None, owner.version),
        _ => return,
    };
    let _ = store.commit(txn).await;
}

/// One round over the primary role.
async fn lead<S: Store>(store: &S) {
    let Ok(Some(record)) = store.get(&keys::config().primary_node()).await else {
        return;
    };
    for name in ["hv1", "hv2", "hv3"] {
        let key = keys::node(&node(name)).coordinator_state();
        let wanted = if record.value.names(&node(name)) {
            CoordinatorState::Primary
        } else {
            CoordinatorState::Secondary
        };
        if let Ok(Some(now)) = store.get(&key).await
            && now.value != wanted
        {
            let _ = store.commit(Txn::new().set(&key, &wanted, now.version)).await;
        }
    }
}
