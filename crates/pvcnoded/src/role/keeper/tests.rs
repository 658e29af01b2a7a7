//! Three coordinators with the real keepers on the in-memory store, in virtual time.
//!
//! After each run the journals of the hosts' kernels are laid side by side: no address may have been on two hosts at
//! one instant, whatever was done to the cluster.

mod interleaved;
mod random;
mod tenures;
mod upstream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_common::store::{StoreExt as _, Versioned};
use pvc_core::ids::{BootId, MachineId};
use pvc_core::lease::LeaseRight;
use pvc_core::states::DaemonState;

use super::*;
use crate::host::RoleNetwork;
use crate::host::fake::network::NetworkEvent;
use crate::host::fake::task::run_all;
use crate::host::fake::{FakeNetwork, FakeTask, FakeUpstream, MeddledStore, TaskControl, VirtualClock};
use crate::upstream::UpstreamWatcher;

const NODES: [&str; 3] = ["hv1", "hv2", "hv3"];

/// How long the server keeps the session of an agent that is gone.
const SESSION: Duration = Duration::from_secs(6);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(node: usize) -> NodeName {
    NodeName::new(NODES[node]).unwrap()
}

fn addresses() -> Vec<RoleAddress> {
    [
        (RoleNetwork::Upstream, "brupstream", "10.100.0.250"),
        (RoleNetwork::Cluster, "brcluster", "fd00:101::250"),
    ]
    .map(|(network, interface, ip)| RoleAddress {
        network,
        interface: interface.into(),
        ip: ip.parse().unwrap(),
    })
    .into()
}

#[derive(Debug, Clone)]
struct Services(Arc<AtomicBool>);

impl RoleServices for Services {
    async fn answer(&self) -> Result<(), String> {
        match self.0.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err("the API does not answer".into()),
        }
    }
}

/// The node lease, as far as the others see it: it moves.
async fn renew_for_ever(store: MemoryStore, clock: VirtualClock, node: usize) {
    loop {
        let path = keys::lease_node(&name(node)).path().to_owned();
        let renewed = store.commit(Txn::new().overwrite_path(path, "")).await;
        clock.sleep(secs(1)).await;
        drop(renewed);
    }
}

/// A host and the agent on it.
struct Host {
    network: FakeNetwork,
    store: MemoryStore,
    agent: AgentState,
    services: Services,
    upstream: FakeUpstream,
    task: TaskControl,
    lives: u64,
    directory: PathBuf,
}

struct Cluster {
    clock: VirtualClock,
    server: MemoryServer,
    admin: MemoryStore,
    hosts: Vec<Host>,
    running: Vec<(usize, FakeTask)>,
    /// Sessions of agents that are dead; the server ends each in its time.
    orphans: Vec<(BootTime, MemoryStore)>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Cluster {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let directory = tempfile::tempdir().unwrap();
        let admin = server.client();
        let mut tree = Txn::new();
        for path in [
            "/config",
            "/config/primary_node",
            "/leases",
            "/leases/primary",
            "/leases/nodes",
            "/nodes",
        ] {
            tree = tree.create_path(path, "");
        }
        for node in 0..NODES.len() {
            let keys = keys::node(&name(node));
            tree = tree.create_path(keys.path(), "coordinator");
            tree = tree.create(&keys.coordinator_state(), &CoordinatorState::Secondary);
            tree = tree.create(&keys.daemon_state(), &DaemonState::Run);
            tree = tree.create(&keys.upstream(), &None);
            tree = tree.create(&pvc_common::keys::lease_node(&name(node)), &None);
        }
        tree = tree.create_path(keys::config().upstream_ip().path(), "");
        clock.run(secs(1), admin.commit(tree)).unwrap().unwrap();
        let hosts = (0..NODES.len())
            .map(|node| Host {
                network: FakeNetwork::new(clock.clone()),
                store: server.client(),
                agent: AgentState::new(),
                services: Services(Arc::new(AtomicBool::new(true))),
                upstream: FakeUpstream::new(),
                task: TaskControl::default(),
                lives: 0,
                directory: directory.path().join(NODES[node]),
            })
            .collect();
        let mut cluster = Cluster {
            clock,
            server,
            admin,
            hosts,
            running: Vec::new(),
            orphans: Vec::new(),
            _directory: directory,
        };
        for node in 0..NODES.len() {
            std::fs::create_dir(&cluster.hosts[node].directory).unwrap();
            cluster.start_agent(node);
        }
        cluster
    }

    /// A new life of the agent: as the real one, it first takes off what an earlier life left.
    fn start_agent(&mut self, node: usize) {
        let clock = self.clock.clone();
        let host = &mut self.hosts[node];
        host.lives += 1;
        let former = std::mem::replace(&mut host.store, self.server.client());
        self.orphans.push((clock.now() + SESSION, former));
        host.task.kill();
        host.task = TaskControl::default();
        host.agent = AgentState::new();
        host.agent.enter(AgentPhase::Running);
        host.agent.node_right().renewed(LeaseRight::acknowledged(
            clock.now() + secs(86_400),
            &RoleTiming::DEFAULT.lease,
        ));
        for address in addresses() {
            host.network.remove(&address).unwrap();
        }
        let store = host.store.clone();
        let mut keeper = self.keeper(node, store);
        let host = &self.hosts[node];
        let watcher = UpstreamWatcher::new(
            host.store.clone(),
            clock.clone(),
            host.upstream.clone(),
            name(node),
            host.agent.clone(),
        );
        let renewals = renew_for_ever(host.store.clone(), clock.clone(), node);
        let role = async move {
            loop {
                keeper.round().await;
            }
        };
        let work = Box::pin(async move {
            futures::join!(role, watcher.run(), renewals);
        });
        let running = FakeTask::new(host.task.clone(), work);
        self.running.retain(|(other, _)| *other != node);
        self.running.push((node, running));
    }

    /// The keeper of this node's present life, over `store`.
    fn keeper<S: Store>(&self, node: usize, store: S) -> RoleKeeper<S, VirtualClock, FakeNetwork, Services> {
        let host = &self.hosts[node];
        RoleKeeper::new(
            RoleParts {
                store,
                clock: self.clock.clone(),
                network: host.network.clone(),
                services: host.services.clone(),
                me: name(node),
                incarnation: Incarnation {
                    machine_id: MachineId::new(format!("{node}").repeat(32)).unwrap(),
                    boot_id: BootId::new(format!(
                        "6ba7b810-9dad-11d1-80b4-{}",
                        format!("{node}").repeat(12)
                    ))
                    .unwrap(),
                    counter: host.lives,
                },
                coordinators: (0..NODES.len()).map(name).collect(),
                addresses: addresses(),
                upstream_ip: "10.100.0.250/24".into(),
                agent: host.agent.clone(),
                tenure_file: TenureFile::in_directory(&host.directory),
                pulse: Pulse::default(),
            },
            RoleTiming::DEFAULT,
        )
    }

    fn kill_agent(&mut self, node: usize) {
        self.hosts[node].task.kill();
        self.running.retain(|(other, _)| *other != node);
    }

    fn power_off(&mut self, node: usize) {
        self.kill_agent(node);
        self.hosts[node].network.power_off();
        self.hosts[node].store.expire();
    }

    fn freeze(&self, node: usize) {
        self.hosts[node].task.freeze();
    }

    fn thaw(&self, node: usize) {
        self.hosts[node].task.thaw();
    }

    /// Lets the cluster run.
    fn run(&mut self, duration: Duration) {
        let now = self.clock.now();
        for (ends, store) in &self.orphans {
            if *ends <= now {
                store.expire();
            }
        }
        self.orphans.retain(|(ends, _)| *ends > now);
        let end = now + duration;
        let clock = self.clock.clone();
        let agents = pin!(run_all(self.running.iter_mut().map(|(_, running)| running)));
        let until_end = pin!(clock.sleep_until(end));
        // The end first: at its instant nothing more is polled.
        let both = select(until_end, agents);
        assert!(
            self.clock.run(duration + secs(1), both).is_some(),
            "the cluster hangs"
        );
    }

    fn holders(&self, address: &RoleAddress) -> Vec<usize> {
        (0..NODES.len())
            .filter(|node| self.hosts[*node].network.addresses().contains(address))
            .collect()
    }

    fn primary(&self) -> Option<usize> {
        (0..NODES.len()).find(|node| self.state(*node) == CoordinatorState::Primary)
    }

    fn state(&self, node: usize) -> CoordinatorState {
        self.read(&keys::node(&name(node)).coordinator_state()).value
    }

    fn read<T: pvc_common::keys::Value>(&self, key: &pvc_common::keys::Key<T>) -> Versioned<T> {
        self.clock.run(secs(1), self.admin.require(key)).unwrap().unwrap()
    }

    /// As `pvc node primary`.
    fn name_primary(&self, record: PrimaryRecord) {
        let key = keys::config().primary_node();
        let now = self.read(&key);
        self.clock
            .run(
                secs(1),
                self.admin.commit(Txn::new().set(&key, &record, now.version)),
            )
            .unwrap()
            .unwrap();
    }

    /// Waits for a primary, at most so long; answers how long it took.
    fn wait_for_primary(&mut self, limit: Duration) -> (usize, Duration) {
        let start = self.clock.now();
        loop {
            let alive = |node: &usize| self.running.iter().any(|(other, _)| other == node);
            if let Some(primary) = self
                .primary()
                .filter(alive)
                .filter(|node| self.holders(&addresses()[0]) == [*node])
            {
                return (primary, self.clock.now().since(start));
            }
            assert!(
                self.clock.now().since(start) < limit,
                "no primary within {limit:?}: record {:?}, lease {:?}, states {:?}, holders {:?}",
                self.read(&keys::config().primary_node()),
                self.read(&keys::lease_primary()),
                (0..NODES.len()).map(|node| self.state(node)).collect::<Vec<_>>(),
                self.holders(&addresses()[0]),
            );
            self.run(Duration::from_millis(10));
        }
    }

    /// When each address was where: from the journals of the kernels.
    fn tenures(&self) -> BTreeMap<RoleAddress, Vec<(BootTime, BootTime, usize)>> {
        let mut tenures: BTreeMap<RoleAddress, Vec<(BootTime, BootTime, usize)>> = BTreeMap::new();
        for (node, host) in self.hosts.iter().enumerate() {
            let mut up: BTreeMap<RoleAddress, BootTime> = BTreeMap::new();
            let mut journal = host.network.journal();
            journal.sort_by_key(|(at, ..)| *at);
            for (at, address, event) in journal {
                match event {
                    NetworkEvent::Added { .. } => {
                        up.entry(address).or_insert(at);
                    }
                    NetworkEvent::Removed | NetworkEvent::Expired | NetworkEvent::PoweredOff => {
                        if let Some(since) = up.remove(&address) {
                            tenures.entry(address).or_default().push((since, at, node));
                        }
                    }
                    NetworkEvent::Refreshed { .. } | NetworkEvent::Announced => {}
                }
            }
            for (address, since) in up {
                tenures
                    .entry(address)
                    .or_default()
                    .push((since, self.clock.now(), node));
            }
        }
        for list in tenures.values_mut() {
            list.sort();
        }
        tenures
    }

    /// I1: no address on two hosts at one instant.
    fn check_one_holder(&self) {
        for (address, tenures) in self.tenures() {
            for pair in tenures.windows(2) {
                let ((_, end, before), (start, _, after)) = (pair[0], pair[1]);
                assert!(
                    end <= start,
                    "{} was on {} until {:?} and on {} from {:?}",
                    address.ip,
                    NODES[before],
                    end,
                    NODES[after],
                    start
                );
            }
        }
    }

    /// The longest time without anybody holding the first address since `from`.
    fn longest_gap(&self, from: BootTime) -> Duration {
        let tenures = self.tenures().remove(&addresses()[0]).unwrap_or_default();
        tenures
            .windows(2)
            .filter(|pair| pair[0].1 >= from)
            .map(|pair| pair[1].0.since(pair[0].1))
            .max()
            .unwrap_or_default()
    }
}
