//! The node lease against everything that may be done to its znode.

use std::future::Future;
use std::time::Duration;

use pvc_common::store::Versioned;
use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_core::ids::{BootId, MachineId};

use super::*;
use crate::host::fake::{MeddledStore, VirtualClock};

const LEASE: Duration = LeaseTiming::DEFAULT.lease;

fn life(machine: char, counter: u64) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new(machine.to_string().repeat(32)).unwrap(),
        boot_id: BootId::new(format!(
            "6ba7b810-9dad-11d1-80b4-{}",
            machine.to_string().repeat(12)
        ))
        .unwrap(),
        counter,
    }
}

fn lease_of(incarnation: Incarnation) -> Option<NodeLease> {
    Some(NodeLease {
        incarnation,
        protocol: PROTOCOL,
        counter: 0,
    })
}

struct World {
    clock: VirtualClock,
    server: MemoryServer,
    admin: MemoryStore,
    store: MemoryStore,
    right: NodeRight,
    keeper: NodeLeaseKeeper<MemoryStore, VirtualClock>,
}

impl World {
    /// A lease that was registered now.
    fn new() -> World {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let (admin, store) = (server.client(), server.client());
        let node = NodeName::new("hv1").unwrap();
        let tree = Txn::new()
            .create_path("/leases", "")
            .create_path("/leases/nodes", "")
            .create(&keys::lease_node(&node), &lease_of(life('1', 1)));
        clock
            .run(Duration::from_secs(1), admin.commit(tree))
            .unwrap()
            .unwrap();
        let right = NodeRight::default();
        right.renewed(LeaseRight::acknowledged(clock.now(), &LeaseTiming::DEFAULT));
        let keeper = NodeLeaseKeeper::new(
            store.clone(),
            clock.clone(),
            node,
            life('1', 1),
            ZnodeVersion(0),
            right.clone(),
            Pulse::default(),
        );
        World {
            clock,
            server,
            admin,
            store,
            right,
            keeper,
        }
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.clock.run(Duration::from_secs(60), work).expect("it hangs")
    }

    fn round(&mut self) -> Result<(), LeaseLost> {
        let clock = self.clock.clone();
        clock
            .run(Duration::from_secs(60), self.keeper.round())
            .expect("it hangs")
    }

    fn holds(&self) -> bool {
        self.right.holds(self.clock.now())
    }

    fn lease(&self) -> Versioned<Option<NodeLease>> {
        let key = keys::lease_node(&NodeName::new("hv1").unwrap());
        self.run(self.admin.require(&key)).unwrap()
    }

    fn write(&self, lease: Option<NodeLease>) {
        let key = keys::lease_node(&NodeName::new("hv1").unwrap());
        let now = self.lease();
        self.run(self.admin.commit(Txn::new().set(&key, &lease, now.version)))
            .unwrap();
    }
}

#[test]
fn renewals_come_once_a_period_and_each_counts_from_its_sending() {
    let mut world = World::new();
    for counter in 1..=5 {
        let sent = world.clock.now();
        world.round().unwrap();
        assert_eq!(world.clock.now().since(sent), LeaseTiming::DEFAULT.period);
        assert_eq!(world.lease().value.unwrap().counter, counter);
        assert!(world.right.holds(sent + LEASE - Duration::from_nanos(1)));
        assert!(!world.right.holds(sent + LEASE));
    }
}

#[test]
fn a_slow_answer_shortens_the_right() {
    let world = World::new();
    let store = MeddledStore::new(&world.server, world.clock.clone());
    store.delay_writes(Duration::from_millis(400));
    let mut keeper = NodeLeaseKeeper::new(
        store,
        world.clock.clone(),
        NodeName::new("hv1").unwrap(),
        life('1', 1),
        ZnodeVersion(0),
        world.right.clone(),
        Pulse::default(),
    );
    world.run(world.clock.sleep(Duration::from_secs(1)));
    let sent = world.clock.now();
    world.run(keeper.round()).unwrap();
    assert!(world.right.holds(sent + LEASE - Duration::from_nanos(1)));
    assert!(!world.right.holds(sent + LEASE));
}

// What an administrator sees of a store that grows slow, before a node is fenced for it.
#[test]
fn how_much_of_the_lease_was_left_at_each_renewal_is_measured() {
    let world = World::new();
    let store = MeddledStore::new(&world.server, world.clock.clone());
    let measures = Measures::default();
    let mut keeper = NodeLeaseKeeper::new(
        store.clone(),
        world.clock.clone(),
        NodeName::new("hv1").unwrap(),
        life('1', 1),
        ZnodeVersion(0),
        world.right.clone(),
        Pulse::default(),
    )
    .measured(measures.clone());
    let mut round = |each_way: u64| {
        store.delay_writes(Duration::from_millis(each_way));
        world.run(keeper.round()).unwrap();
        let figures = measures.figures(world.clock.now());
        (figures.node_lease.unwrap(), figures.rounds["lease"])
    };
    // Sent at the same moment as the registration that gave the right.
    let (lease, _) = round(200);
    assert_eq!((lease.left_us, lease.least_us), (4_850_000, 4_850_000));
    let (lease, _) = round(450);
    assert_eq!((lease.left_us, lease.least_us), (3_350_000, 3_350_000));
    let (lease, rounds) = round(0);
    assert_eq!((lease.left_us, lease.least_us), (4_250_000, 3_350_000));
    assert_eq!((rounds.count, rounds.longest_us), (3, Some(900_000)));
}

#[test]
fn a_right_ends_by_itself_while_the_store_is_silent_and_comes_back_with_it() {
    let mut world = World::new();
    world.round().unwrap();
    world.store.disconnect();
    let since = world.clock.now();
    while world.clock.now().since(since) < LEASE {
        world.round().unwrap();
    }
    assert!(!world.holds());
    world.store.reconnect();
    world.round().unwrap();
    assert!(world.holds());
}

#[test]
fn a_renewal_that_arrived_late_is_adopted_but_prolongs_nothing() {
    let mut world = World::new();
    world.round().unwrap();
    let last_sent = world.clock.now();
    // Sent at that moment, applied and never answered.
    world.store.hide_next_write(Fate::Applied);
    world.round().unwrap();
    let applied = world.lease();
    assert_eq!(applied.value.as_ref().unwrap().counter, 2);
    // The next one finds it and goes on from its version, soon, and without a longer right.
    world.round().unwrap();
    assert!(!world.right.holds(last_sent + LEASE));
    assert_eq!(world.lease().version, applied.version);
    world.round().unwrap();
    assert!(world.lease().version > applied.version);
    assert!(world.holds());
    let waited = world.clock.now().since(last_sent);
    assert!(waited < LeaseTiming::DEFAULT.period * 2, "{waited:?}");
}

#[test]
fn a_lease_that_another_agent_renews_is_lost_and_not_written_again() {
    // Another machine of this name, and another life of this agent.
    for other in [life('2', 1), life('1', 2)] {
        let mut world = World::new();
        world.round().unwrap();
        world.write(lease_of(other.clone()));
        let lost = world.round().unwrap_err();
        assert!(
            matches!(&lost, LeaseLost::Taken { other: by, .. } if *by == other),
            "{lost}"
        );
        assert!(!world.holds(), "the right ends with the lease, not with its time");
        assert_eq!(world.lease().value, lease_of(other));
    }
}

#[test]
fn a_lease_that_was_removed_is_lost_and_not_made_anew() {
    let mut world = World::new();
    let key = keys::lease_node(&NodeName::new("hv1").unwrap());
    world
        .run(world.admin.commit(Txn::new().delete(&key, None)))
        .unwrap();
    assert!(matches!(world.round(), Err(LeaseLost::Removed { .. })));
    assert!(!world.holds());
    assert_eq!(world.run(world.admin.get(&key)).unwrap(), None);
    // Emptied counts as removed.
    let mut world = World::new();
    world.write(None);
    assert!(matches!(world.round(), Err(LeaseLost::Removed { .. })));
}

#[test]
fn nothing_is_concluded_from_a_lease_that_can_not_be_read() {
    let mut world = World::new();
    world.write(lease_of(life('2', 1)));
    world.store.disconnect();
    world.round().unwrap();
    world.store.reconnect();
    assert!(matches!(world.round(), Err(LeaseLost::Taken { .. })));
}

/// A world whose keeper also listens to a second node, which renews nothing by itself.
fn listening() -> (World, Hearing, NodeName) {
    let mut world = World::new();
    let other = NodeName::new("hv2").unwrap();
    let lease = Txn::new().create(&keys::lease_node(&other), &lease_of(life('2', 1)));
    world.run(world.admin.commit(lease)).unwrap();
    let hearing = Hearing::new();
    world.keeper = NodeLeaseKeeper::new(
        world.store.clone(),
        world.clock.clone(),
        NodeName::new("hv1").unwrap(),
        life('1', 1),
        ZnodeVersion(0),
        world.right.clone(),
        Pulse::default(),
    )
    .hearing(hearing.clone());
    (world, hearing, other)
}

#[test]
fn silence_grows_only_in_rounds_with_an_acknowledged_renewal_of_the_own() {
    // Ha-protocol section 2: the reading is as new as the own write only because it follows it in one session.
    let (mut world, hearing, other) = listening();
    for _ in 0..5 {
        world.round().unwrap();
    }
    let silence = |world: &World| hearing.so_far().silence(&other, world.clock.now());
    let heard = silence(&world);
    assert!(
        heard >= Duration::from_millis(3900) && heard <= Duration::from_secs(4),
        "{heard:?}"
    );
    // No quorum for a while: whoever could not renew has heard nothing.
    world.store.disconnect();
    for _ in 0..20 {
        world.round().unwrap();
    }
    assert_eq!(silence(&world), Duration::ZERO);
    world.store.reconnect();
    for _ in 0..2 {
        world.round().unwrap();
    }
    assert!(silence(&world) <= Duration::from_secs(1));
}

#[test]
fn listening_never_delays_the_next_renewal() {
    let (mut world, _, _) = listening();
    let begun = world.clock.now();
    for _ in 0..10 {
        world.round().unwrap();
    }
    assert_eq!(world.clock.now().since(begun), LeaseTiming::DEFAULT.period * 10);
}

// The store was restored from a snapshot. An agent that went on under the older renewal would act on what the snapshot
// says of every guest; its next life begins with a comparison, and on hold.
#[test]
fn a_renewal_older_than_an_acknowledged_one_ends_this_life() {
    for before in [life('1', 1), life('1', 0)] {
        let mut world = World::new();
        for _ in 0..3 {
            world.round().unwrap();
        }
        let newer = before.counter == 1;
        world.write(Some(NodeLease {
            incarnation: before,
            protocol: PROTOCOL,
            counter: if newer { 1 } else { 90 },
        }));
        let lost = world.round();
        assert!(matches!(lost, Err(LeaseLost::WentBack { .. })), "{lost:?}");
        assert!(!world.holds());
    }
}
