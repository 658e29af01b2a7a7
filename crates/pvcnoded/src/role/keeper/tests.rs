//! Three coordinators with the real keepers on the in-memory store, in virtual time.
//!
//! After each run the journals of the hosts' kernels are laid side by side: no address may have been on two hosts at
//! one instant, whatever was done to the cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_common::store::{StoreExt as _, Versioned};
use pvc_core::ids::{BootId, MachineId};
use pvc_core::lease::LeaseRight;

use super::*;
use crate::host::RoleNetwork;
use crate::host::fake::network::NetworkEvent;
use crate::host::fake::task::run_all;
use crate::host::fake::{FakeNetwork, FakeTask, MeddledStore, TaskControl, VirtualClock};

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

/// A host and the agent on it.
struct Host {
    network: FakeNetwork,
    store: MemoryStore,
    agent: AgentState,
    services: Services,
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
            "/nodes",
        ] {
            tree = tree.create_path(path, "");
        }
        for node in 0..NODES.len() {
            let keys = keys::node(&name(node));
            tree = tree.create_path(keys.path(), "coordinator");
            tree = tree.create(&keys.coordinator_state(), &CoordinatorState::Secondary);
        }
        tree = tree.create_path(keys::config().upstream_ip().path(), "");
        clock.run(secs(1), admin.commit(tree)).unwrap().unwrap();
        let hosts = (0..NODES.len())
            .map(|node| Host {
                network: FakeNetwork::new(clock.clone()),
                store: server.client(),
                agent: AgentState::new(),
                services: Services(Arc::new(AtomicBool::new(true))),
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
        let work = Box::pin(async move {
            loop {
                keeper.round().await;
            }
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

#[test]
fn a_fresh_cluster_elects_exactly_one_primary() {
    let mut cluster = Cluster::new();
    let (_, took) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(60));
    assert_eq!(
        cluster.tenures()[&addresses()[0]].len(),
        1,
        "elected once, after {took:?}"
    );
    assert_eq!(cluster.holders(&addresses()[1]).len(), 1);
    cluster.check_one_holder();
}

#[test]
fn a_named_node_takes_over_without_a_noticeable_gap() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    for step in 1..=6 {
        let next = (first + step) % NODES.len();
        let from = cluster.clock.now();
        cluster.name_primary(PrimaryRecord::Node(name(next)));
        cluster.run(Duration::from_millis(700));
        assert_eq!(cluster.primary(), Some(next));
        assert_eq!(cluster.holders(&addresses()[0]), [next]);
        assert!(
            cluster.longest_gap(from) <= Duration::from_millis(50),
            "{:?}",
            cluster.longest_gap(from)
        );
        cluster.run(secs(4));
    }
    cluster.check_one_holder();
}

#[test]
fn forced_contention_elects_another_within_three_seconds() {
    let mut cluster = Cluster::new();
    let (mut last, _) = cluster.wait_for_primary(secs(2));
    for _ in 0..20 {
        cluster.run(secs(5));
        let from = cluster.clock.now();
        cluster.name_primary(PrimaryRecord::None);
        cluster.run(Duration::from_millis(1));
        let (next, took) = cluster.wait_for_primary(secs(3));
        if took < Duration::from_millis(20) {
            // Still the old one, which keeps the addresses until the next is ready.
            cluster.run(secs(2));
            let (next, _) = cluster.wait_for_primary(secs(1));
            assert_ne!(next, last, "who gave the role up sits out");
            last = next;
        } else {
            assert_ne!(next, last);
            last = next;
        }
        assert!(cluster.longest_gap(from) <= Duration::from_millis(100));
    }
    cluster.check_one_holder();
}

#[test]
fn a_dead_primary_is_replaced_within_seven_seconds_and_not_before_its_kernel_is_done() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    cluster.power_off(first);
    let (next, took) = cluster.wait_for_primary(secs(8));
    assert_ne!(next, first);
    assert!(took >= secs(5) && took <= secs(7), "{took:?}");
    cluster.check_one_holder();
}

#[test]
fn a_killed_agent_leaves_its_addresses_to_the_kernel_until_nobody_else_can_have_them() {
    // The host lives on and answers for the addresses until their lifetime ends, as late as was ever measured.
    let mut cluster = Cluster::new();
    for host in &cluster.hosts {
        host.network.set_lateness(Duration::from_millis(1100));
    }
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    cluster.kill_agent(first);
    let (next, _) = cluster.wait_for_primary(secs(8));
    assert_ne!(next, first);
    cluster.run(secs(5));
    cluster.check_one_holder();
}

#[test]
fn a_frozen_primary_that_wakes_up_does_not_bring_an_address_back() {
    for frozen_for in [
        Duration::from_millis(900),
        secs(2),
        secs(4),
        secs(5),
        secs(7),
        secs(60),
    ] {
        let mut cluster = Cluster::new();
        for host in &cluster.hosts {
            host.network.set_lateness(Duration::from_millis(1100));
        }
        let (first, _) = cluster.wait_for_primary(secs(2));
        cluster.run(Duration::from_millis(5300));
        cluster.freeze(first);
        cluster.run(frozen_for);
        cluster.thaw(first);
        cluster.run(secs(12));
        cluster.check_one_holder();
        cluster.wait_for_primary(secs(1));
    }
}

#[test]
fn a_call_that_hangs_past_the_right_leaves_no_address() {
    // Paused between the decision to refresh and the refresh.
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(3));
    cluster.hosts[first].network.stall_next(secs(20));
    cluster.run(secs(10));
    cluster.check_one_holder();
    cluster.wait_for_primary(secs(10));
}

#[test]
fn a_primary_cut_off_from_the_store_takes_its_addresses_off_in_time() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    let from = cluster.clock.now();
    cluster.hosts[first].store.disconnect();
    cluster.run(secs(5));
    let (next, took) = cluster.wait_for_primary(secs(3));
    assert_ne!(next, first);
    assert!(took <= secs(2), "{took:?}");
    assert!(
        cluster.longest_gap(from) <= secs(3),
        "the old one kept them as long as it might"
    );
    cluster.hosts[first].store.reconnect();
    cluster.run(secs(20));
    cluster.check_one_holder();
    assert_eq!(cluster.primary(), Some(next));
}

#[test]
fn a_short_loss_of_the_store_moves_nothing() {
    // ZooKeeper elects a new leader within the lease: a healthy primary must not blink.
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    cluster.server.lose_quorum();
    cluster.run(Duration::from_millis(3200));
    cluster.server.restore_quorum();
    cluster.run(secs(30));
    assert_eq!(cluster.primary(), Some(first));
    assert_eq!(cluster.tenures()[&addresses()[0]].len(), 1);
}

#[test]
fn after_a_long_loss_of_the_store_somebody_is_primary_again() {
    let mut cluster = Cluster::new();
    cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    cluster.server.lose_quorum();
    cluster.run(secs(3600));
    assert!(
        cluster.holders(&addresses()[0]).is_empty(),
        "nobody may hold a role that nobody can check"
    );
    cluster.server.restore_quorum();
    cluster.wait_for_primary(secs(10));
    cluster.run(secs(10));
    cluster.check_one_holder();
}

#[test]
fn renewals_whose_outcome_is_unknown_are_found_out() {
    for fate in [Fate::Lost, Fate::Applied, Fate::AppliedOnReconnect] {
        let mut cluster = Cluster::new();
        let (first, _) = cluster.wait_for_primary(secs(2));
        cluster.run(secs(5));
        cluster.hosts[first].store.hide_next_write(fate);
        cluster.run(secs(2));
        cluster.hosts[first].store.disconnect();
        cluster.run(Duration::from_millis(300));
        cluster.hosts[first].store.reconnect();
        cluster.run(secs(10));
        assert_eq!(cluster.primary(), Some(first));
        assert_eq!(cluster.tenures()[&addresses()[0]].len(), 1);
    }
}

#[test]
fn an_address_removed_by_hand_ends_the_tenure_and_comes_back_by_a_new_one() {
    // Refresh never adds: a missing address means that the kernel has dropped it, and perhaps others have it.
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    let lease = cluster.read(&keys::lease_primary());
    cluster.hosts[first].network.remove(&addresses()[0]).unwrap();
    cluster.run(secs(2));
    let counter = |lease: Option<RoleLease>| match lease {
        Some(RoleLease::Held { counter, .. }) => counter,
        Some(RoleLease::Released) | None => 0,
    };
    let again = cluster.read(&keys::lease_primary());
    assert!(
        counter(again.value) < counter(lease.value),
        "a new tenure counts anew"
    );
    assert_eq!(cluster.primary(), Some(first));
    cluster.check_one_holder();
}

#[test]
fn services_that_do_not_answer_delay_a_primary_but_do_not_block_it() {
    // Lesson 7.
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    let next = (first + 1) % NODES.len();
    cluster.hosts[next].services.0.store(false, Ordering::SeqCst);
    cluster.name_primary(PrimaryRecord::Node(name(next)));
    cluster.run(secs(2));
    assert_eq!(cluster.state(next), CoordinatorState::Takeover);
    assert_eq!(cluster.holders(&addresses()[0]), [next]);
    cluster.run(secs(3));
    assert_eq!(cluster.state(next), CoordinatorState::Primary);
}

#[test]
fn a_primary_that_stops_hands_the_role_over() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    let from = cluster.clock.now();
    cluster.hosts[first].agent.enter(AgentPhase::ShuttingDown);
    cluster.run(secs(2));
    assert_ne!(cluster.primary(), Some(first));
    assert!(cluster.primary().is_some());
    assert_eq!(cluster.state(first), CoordinatorState::Secondary);
    assert!(cluster.longest_gap(from) <= Duration::from_millis(100));
    cluster.check_one_holder();
}

#[test]
fn a_restarted_agent_does_not_resume_silently() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(5));
    cluster.kill_agent(first);
    cluster.run(secs(1));
    cluster.start_agent(first);
    assert!(cluster.holders(&addresses()[0]).is_empty());
    cluster.wait_for_primary(secs(2));
    cluster.run(secs(15));
    cluster.check_one_holder();
}

/// hv1's keeper alone, stepped by hand, in a cluster whose agents are all dead.
fn alone(
    record: &PrimaryRecord,
    lease: Option<RoleLease>,
) -> (
    Cluster,
    MeddledStore,
    RoleKeeper<MeddledStore, VirtualClock, FakeNetwork, Services>,
) {
    let mut cluster = Cluster::new();
    for node in 0..NODES.len() {
        cluster.kill_agent(node);
        // The kernel is as late as it was ever measured: what goes in time goes by the agent.
        cluster.hosts[node]
            .network
            .set_lateness(Duration::from_millis(1100));
    }
    cluster.name_primary(record.clone());
    let key = keys::lease_primary();
    let txn = Txn::new().overwrite(&key, &lease);
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(txn))
        .unwrap()
        .unwrap();
    let store = MeddledStore::new(&cluster.server, cluster.clock.clone());
    let keeper = cluster.keeper(0, store.clone());
    (cluster, store, keeper)
}

fn held_by_hv2(counter: u64) -> Option<RoleLease> {
    Some(RoleLease::Held {
        holder: name(1),
        incarnation: Incarnation {
            machine_id: MachineId::new("1".repeat(32)).unwrap(),
            boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-111111111111").unwrap(),
            counter: 1,
        },
        counter,
    })
}

fn writes(txn: &Txn, path: &str) -> bool {
    txn.ops
        .iter()
        .any(|op| matches!(op, pvc_common::store::Op::Set { path: written, .. } if written.as_str() == path))
}

/// Steps the keeper until something has been done in between, and then some.
fn step_past<T>(
    cluster: &Cluster,
    keeper: &mut RoleKeeper<MeddledStore, VirtualClock, FakeNetwork, Services>,
    rounds: u32,
    done: impl Fn() -> Option<T>,
) -> T {
    for _ in 0..rounds {
        cluster.clock.run(secs(20), keeper.round()).unwrap();
        if let Some(done) = done() {
            return done;
        }
    }
    panic!("it never came to that write");
}

/// Lets `first` be written once, right before the keeper's first write of `path`; answers with what the keeper's
/// world looks like right after its own write.
fn meddled(
    cluster: &Cluster,
    store: &MeddledStore,
    keeper: &mut RoleKeeper<MeddledStore, VirtualClock, FakeNetwork, Services>,
    path: &str,
    first: Txn,
) {
    let happened = Arc::new(AtomicBool::new(false));
    let (path, seen) = (path.to_owned(), Arc::clone(&happened));
    store.meddle(move |txn| {
        if seen.load(Ordering::SeqCst) || !writes(txn, &path) {
            return None;
        }
        seen.store(true, Ordering::SeqCst);
        Some(first.clone())
    });
    step_past(cluster, keeper, 60, || {
        happened.load(Ordering::SeqCst).then_some(())
    });
}

#[test]
fn a_claim_over_a_record_that_has_changed_meanwhile_changes_nothing() {
    // Without the check the node that was named a moment ago, by an administrator perhaps, loses the role at once.
    let (cluster, store, mut keeper) = alone(&PrimaryRecord::None, Some(RoleLease::Released));
    let record = keys::config().primary_node();
    let named = Txn::new().overwrite(&record, &PrimaryRecord::Node(name(2)));
    meddled(&cluster, &store, &mut keeper, record.path(), named);
    assert_eq!(cluster.read(&record).value, PrimaryRecord::Node(name(2)));
}

#[test]
fn a_claim_over_a_lease_that_was_renewed_meanwhile_changes_nothing() {
    // The holder was silent for C and is back: it stays primary.
    let (cluster, store, mut keeper) = alone(&PrimaryRecord::Node(name(1)), held_by_hv2(1));
    let record = keys::config().primary_node();
    let renewal = Txn::new().overwrite(&keys::lease_primary(), &held_by_hv2(2));
    meddled(&cluster, &store, &mut keeper, record.path(), renewal);
    assert_eq!(cluster.read(&record).value, PrimaryRecord::Node(name(1)));
}

#[test]
fn contenders_take_turns_and_one_whose_lock_is_gone_claims_nothing() {
    let record = keys::config().primary_node();
    // Somebody else contends: no claim, however long it takes.
    let (cluster, _store, mut keeper) = alone(&PrimaryRecord::None, Some(RoleLease::Released));
    let lock = exclusive_lock(&cluster.admin, &cluster.clock, &record, "another");
    let guard = cluster
        .clock
        .run(secs(1), lock.acquire(secs(1)))
        .unwrap()
        .unwrap();
    for _ in 0..20 {
        cluster.clock.run(secs(5), keeper.round()).unwrap();
    }
    assert_eq!(cluster.read(&record).value, PrimaryRecord::None);
    cluster.clock.run(secs(1), guard.release()).unwrap();
    // It has the lock, and the server ends its session before it writes.
    let (cluster, store, mut keeper) = alone(&PrimaryRecord::None, Some(RoleLease::Released));
    let (admin, path) = (cluster.admin.clone(), record.path().to_owned());
    let happened = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&happened);
    store.meddle(move |txn| {
        if !writes(txn, &path) || seen.swap(true, Ordering::SeqCst) {
            return None;
        }
        let children = admin.children(&path).now_or_never()?.ok()??;
        let lock = children.first()?;
        Some(Txn::new().delete_path(format!("{path}/{lock}"), None))
    });
    step_past(&cluster, &mut keeper, 60, || {
        happened.load(Ordering::SeqCst).then_some(())
    });
    assert_eq!(cluster.read(&record).value, PrimaryRecord::None);
}

#[test]
fn a_start_over_a_record_or_lease_that_has_changed_meanwhile_takes_nothing() {
    // The winner was put aside between its last look and its start; another has been named, or holds the lease.
    let record = keys::config().primary_node();
    let lease = keys::lease_primary();
    for first in [
        Txn::new().overwrite(&record, &PrimaryRecord::Node(name(1))),
        Txn::new().overwrite(&lease, &held_by_hv2(1)),
    ] {
        let (cluster, store, mut keeper) = alone(&PrimaryRecord::Node(name(0)), Some(RoleLease::Released));
        meddled(&cluster, &store, &mut keeper, lease.path(), first);
        assert!(keeper.standing_by());
        assert!(cluster.hosts[0].network.addresses().is_empty());
        let ours = matches!(
            cluster.read(&lease).value,
            Some(RoleLease::Held { holder, .. }) if holder == name(0)
        );
        assert!(!ours);
    }
}

/// hv1's keeper as primary.
fn alone_as_primary() -> (
    Cluster,
    MeddledStore,
    RoleKeeper<MeddledStore, VirtualClock, FakeNetwork, Services>,
) {
    let (cluster, store, mut keeper) = alone(&PrimaryRecord::Node(name(0)), Some(RoleLease::Released));
    step_past(&cluster, &mut keeper, 20, || {
        (cluster.state(0) == CoordinatorState::Primary).then_some(())
    });
    assert_eq!(cluster.hosts[0].network.addresses().len(), addresses().len());
    (cluster, store, keeper)
}

#[test]
fn a_renewal_after_the_record_has_changed_takes_the_addresses_off_and_prolongs_nothing() {
    let (cluster, store, mut keeper) = alone_as_primary();
    let lease = keys::lease_primary();
    let before = Arc::new(Mutex::new(None));
    let (admin, noted) = (cluster.admin.clone(), Arc::clone(&before));
    store.meddle(move |txn| {
        let mut noted = noted.lock().unwrap();
        if noted.is_some() || !writes(txn, keys::lease_primary().path()) {
            return None;
        }
        *noted = admin
            .read(keys::lease_primary().path())
            .now_or_never()
            .and_then(Result::ok)
            .flatten();
        Some(Txn::new().overwrite(&keys::config().primary_node(), &PrimaryRecord::Node(name(1))))
    });
    let noted = step_past(&cluster, &mut keeper, 60, || before.lock().unwrap().clone());
    assert_eq!(cluster.read(&lease).version, noted.version, "not renewed");
    assert!(cluster.hosts[0].network.addresses().is_empty(), "off first");
}

#[test]
fn a_slow_answer_to_a_renewal_shortens_the_right() {
    // Others count from the moment they see it: the holder from the moment it sent it.
    let (cluster, store, mut keeper) = alone_as_primary();
    store.delay_writes(Duration::from_millis(400));
    let sent_after = cluster.clock.now();
    let counter = |lease: Option<RoleLease>| match lease {
        Some(RoleLease::Held { counter, .. }) => counter,
        Some(RoleLease::Released) | None => 0,
    };
    let before = counter(cluster.read(&keys::lease_primary()).value);
    step_past(&cluster, &mut keeper, 60, || {
        (counter(cluster.read(&keys::lease_primary()).value) > before).then_some(())
    });
    let acknowledged = cluster.clock.now();
    let Phase::Holding(tenure) = keeper.machine.phase() else {
        panic!("it holds the role");
    };
    assert!(acknowledged.since(sent_after) >= Duration::from_millis(800));
    assert!(
        tenure.right.ends() <= acknowledged + RoleTiming::DEFAULT.lease.lease - Duration::from_millis(800)
    );
}

#[test]
fn a_call_to_the_store_that_does_not_end_does_not_keep_the_addresses_up() {
    // The clock is looked at while the store is waited for: the kernel would drop the addresses up to a second late.
    let (cluster, store, mut keeper) = alone_as_primary();
    store.delay_writes(secs(30));
    let end = cluster.clock.now() + RoleTiming::DEFAULT.lease.lease;
    let clock = cluster.clock.clone();
    let forever = async {
        loop {
            keeper.round().await;
        }
    };
    let until = clock.sleep_until(end + Duration::from_millis(260));
    cluster
        .clock
        .run(secs(20), select(pin!(forever), pin!(until)))
        .unwrap();
    assert!(cluster.hosts[0].network.addresses().is_empty());
    let taken_off = cluster.hosts[0]
        .network
        .journal()
        .iter()
        .any(|line| matches!(line.2, NetworkEvent::Removed));
    assert!(taken_off, "by the agent, not by the kernel");
}

#[test]
fn an_address_that_the_kernel_will_not_remove_is_outwaited() {
    // Released with an address still up, the next holder would have it too.
    let (cluster, _store, mut keeper) = alone_as_primary();
    cluster.name_primary(PrimaryRecord::Node(name(1)));
    for _ in 0..1000 {
        cluster.hosts[0].network.fail_next(libc::ENOBUFS);
    }
    step_past(&cluster, &mut keeper, 60, || {
        (cluster.read(&keys::lease_primary()).value == Some(RoleLease::Released)).then_some(())
    });
    assert!(cluster.hosts[0].network.addresses().is_empty());
}

#[test]
fn a_write_that_the_store_refuses_again_and_again_is_not_all_that_is_done() {
    // Its own entry was deleted by hand: `secondary` can't be said.
    let (cluster, store, mut keeper) = alone(&PrimaryRecord::Node(name(1)), held_by_hv2(1));
    let entry = keys::node(&name(0)).coordinator_state();
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(Txn::new().delete(&entry, None)))
        .unwrap()
        .unwrap();
    let tries = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&tries);
    store.meddle(move |_| {
        *counted.lock().unwrap() += 1;
        None
    });
    let end = cluster.clock.now() + secs(5);
    while cluster.clock.now() < end {
        cluster.clock.run(secs(5), keeper.round()).unwrap();
    }
    let tries = *tries.lock().unwrap();
    assert!((5..=50).contains(&tries), "{tries} writes in 5 s");
}

/// What may be done to a cluster at random.
#[derive(Debug, Clone)]
enum Fault {
    Run(u64),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    Restart(usize),
    PowerOff(usize),
    Disconnect(usize),
    Reconnect(usize),
    Expire(usize),
    Hide(usize, u8),
    Lag(usize),
    CatchUp(usize),
    Name(usize),
    NameNobody,
    LoseQuorum,
    RestoreQuorum,
    Stall(usize, u64),
    RemoveByHand(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 0..NODES.len();
    prop_oneof![
        6 => (1u64..3000).prop_map(Fault::Run),
        2 => (3000u64..9000).prop_map(Fault::Run),
        2 => node.clone().prop_map(Fault::Freeze),
        2 => node.clone().prop_map(Fault::Thaw),
        1 => node.clone().prop_map(Fault::Kill),
        2 => node.clone().prop_map(Fault::Restart),
        1 => node.clone().prop_map(Fault::PowerOff),
        2 => node.clone().prop_map(Fault::Disconnect),
        2 => node.clone().prop_map(Fault::Reconnect),
        1 => node.clone().prop_map(Fault::Expire),
        2 => (node.clone(), 0u8..3).prop_map(|(node, fate)| Fault::Hide(node, fate)),
        1 => node.clone().prop_map(Fault::Lag),
        1 => node.clone().prop_map(Fault::CatchUp),
        2 => node.clone().prop_map(Fault::Name),
        2 => Just(Fault::NameNobody),
        1 => Just(Fault::LoseQuorum),
        1 => Just(Fault::RestoreQuorum),
        1 => (node.clone(), 100u64..9000).prop_map(|(node, ms)| Fault::Stall(node, ms)),
        1 => node.prop_map(Fault::RemoveByHand),
    ]
}

fn apply(cluster: &mut Cluster, quorum: &mut bool, fault: &Fault) {
    match fault {
        Fault::Run(ms) => cluster.run(Duration::from_millis(*ms)),
        Fault::Freeze(node) => cluster.freeze(*node),
        Fault::Thaw(node) => cluster.thaw(*node),
        Fault::Kill(node) => cluster.kill_agent(*node),
        Fault::Restart(node) => cluster.start_agent(*node),
        Fault::PowerOff(node) => cluster.power_off(*node),
        Fault::Disconnect(node) => cluster.hosts[*node].store.disconnect(),
        Fault::Reconnect(node) => cluster.hosts[*node].store.reconnect(),
        Fault::Expire(node) => cluster.hosts[*node].store.expire(),
        Fault::Hide(node, fate) => cluster.hosts[*node].store.hide_next_write(match fate {
            0 => Fate::Lost,
            1 => Fate::Applied,
            _ => Fate::AppliedOnReconnect,
        }),
        Fault::Lag(node) => cluster.hosts[*node].store.lag(),
        Fault::CatchUp(node) => cluster.hosts[*node].store.catch_up(),
        Fault::Name(node) if *quorum => cluster.name_primary(PrimaryRecord::Node(name(*node))),
        Fault::NameNobody if *quorum => cluster.name_primary(PrimaryRecord::None),
        Fault::Name(_) | Fault::NameNobody => {}
        Fault::LoseQuorum => {
            *quorum = false;
            cluster.server.lose_quorum();
        }
        Fault::RestoreQuorum => {
            *quorum = true;
            cluster.server.restore_quorum();
        }
        Fault::Stall(node, ms) => cluster.hosts[*node]
            .network
            .stall_next(Duration::from_millis(*ms)),
        Fault::RemoveByHand(node) => {
            cluster.hosts[*node].network.remove(&addresses()[0]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No order of faults puts an address on two hosts, and when they have healed somebody is primary.
    #[test]
    fn no_order_of_faults_gives_two_primaries(faults in proptest::collection::vec(fault(), 10..60)) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let mut cluster = Cluster::new();
        for host in &cluster.hosts {
            host.network.set_lateness(Duration::from_millis(1100));
        }
        let mut quorum = true;
        for fault in &faults {
            apply(&mut cluster, &mut quorum, fault);
        }
        cluster.check_one_holder();
        cluster.server.restore_quorum();
        for node in 0..NODES.len() {
            cluster.thaw(node);
            cluster.hosts[node].store.catch_up();
            cluster.start_agent(node);
        }
        cluster.run(secs(8));
        cluster.run(secs(12));
        cluster.wait_for_primary(secs(1));
        cluster.check_one_holder();
    }
}
