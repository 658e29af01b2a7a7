//! Who may register under a name, and what a refused one leaves behind: nothing.

use std::future::Future;

use futures::FutureExt as _;
use futures::future::join;
use pvc_common::store::Versioned;
use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_core::ids::{BootId, MachineId};

use super::*;
use crate::host::fake::{MeddledStore, VirtualClock};

fn life(machine: char, boot: char, counter: u64) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new(machine.to_string().repeat(32)).unwrap(),
        boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{}", boot.to_string().repeat(12))).unwrap(),
        counter,
    }
}

fn addresses() -> NodeAddresses {
    NodeAddresses {
        cluster: [10, 101, 0, 1].into(),
        storage: [10, 102, 0, 1].into(),
        upstream: Some([10, 100, 0, 1].into()),
    }
}

fn registrant(incarnation: Incarnation) -> Registrant {
    Registrant {
        node: NodeName::new("hv1").unwrap(),
        mode: DaemonMode::Coordinator,
        incarnation,
        ready_when_new: true,
        addresses: addresses(),
        bmc: None,
    }
}

struct World {
    clock: VirtualClock,
    server: MemoryServer,
    store: MemoryStore,
}

impl World {
    fn new() -> World {
        let clock = VirtualClock::default();
        let server = MemoryServer::new();
        let store = server.client();
        let world = World { clock, server, store };
        world.run(world.store.commit(schema::base_keys())).unwrap();
        world
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.clock.run(Duration::from_secs(60), work).expect("it hangs")
    }

    fn register(
        &self,
        incarnation: Incarnation,
        right: &NodeRight,
    ) -> Result<ZnodeVersion, RegistrationError> {
        let store = self.server.client();
        self.run(register(&store, &self.clock, &registrant(incarnation), right))
    }

    /// A client whose writes take a moment each way.
    fn slow(&self) -> MeddledStore {
        let store = MeddledStore::new(&self.server, self.clock.clone());
        store.delay_writes(Duration::from_millis(100));
        store
    }

    fn lease(&self) -> Versioned<Option<NodeLease>> {
        let key = keys::lease_node(&NodeName::new("hv1").unwrap());
        self.run(self.store.require(&key)).unwrap()
    }

    /// Renews whatever lease is there once a second, as its holder would.
    async fn keep_renewing(&self, times: u32) {
        let key = keys::lease_node(&NodeName::new("hv1").unwrap());
        for _ in 0..times {
            self.clock.sleep(Duration::from_secs(1)).await;
            let lease = self.store.require(&key).await.unwrap();
            let txn = Txn::new().set(&key, &lease.value, lease.version);
            self.store.commit(txn).await.unwrap();
        }
    }
}

#[test]
fn a_new_node_registers_at_once_and_has_a_right_from_the_sending_of_its_write() {
    let world = World::new();
    let right = NodeRight::default();
    let sent = world.clock.now();
    let version = world.register(life('1', '1', 1), &right).unwrap();
    assert_eq!(world.clock.now(), sent);
    let lease = world.lease();
    assert_eq!(lease.version, version);
    assert_eq!(lease.value.unwrap().incarnation, life('1', '1', 1));
    let ends = sent + LeaseTiming::DEFAULT.lease;
    assert!(right.holds(ends - Duration::from_nanos(1)) && !right.holds(ends));
    // Once the node is dead nobody can ask it which Ceph clients and OSDs are its own.
    let key = keys::node(&NodeName::new("hv1").unwrap()).addresses();
    let stored = world.run(world.store.require(&key)).unwrap();
    assert_eq!(stored.value, Some(addresses()));
}

#[test]
fn a_slow_answer_shortens_the_right() {
    // Others count from the moment the lease was written: whoever counts from the answer acts too long.
    let world = World::new();
    let right = NodeRight::default();
    let store = world.slow();
    let sent = world.clock.now();
    world
        .run(register(
            &store,
            &world.clock,
            &registrant(life('1', '1', 1)),
            &right,
        ))
        .unwrap();
    assert!(world.clock.now() > sent);
    assert!(!right.holds(sent + LeaseTiming::DEFAULT.lease));
}

#[test]
fn a_second_machine_of_the_same_name_is_refused_while_the_first_lives() {
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let right = NodeRight::default();
    let store = world.server.client();
    let second = registrant(life('2', '2', 1));
    let both = join(
        register(&store, &world.clock, &second, &right),
        world.keep_renewing(2),
    );
    let (refused, ()) = world.run(both);
    assert!(
        matches!(refused, Err(RegistrationError::NameTaken { ref other, .. }) if *other == life('1', '1', 1)),
        "{refused:?}"
    );
    assert!(!right.holds(world.clock.now()));
    assert_eq!(world.lease().value.unwrap().incarnation, life('1', '1', 1));
}

#[test]
fn a_machine_that_took_a_dead_ones_place_waited_longer_than_a_lease() {
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let start = world.clock.now();
    world.register(life('2', '2', 1), &NodeRight::default()).unwrap();
    assert!(world.clock.now().since(start) > LeaseTiming::DEFAULT.lease);
    assert_eq!(world.lease().value.unwrap().incarnation, life('2', '2', 1));
}

#[test]
fn a_lease_that_moves_after_the_last_look_is_watched_anew() {
    // The other machine stood still for as long as it was watched, and goes on now.
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let node = NodeName::new("hv1").unwrap();
    let store = MeddledStore::new(&world.server, world.clock.clone());
    let (other, lease) = (world.server.client(), world.lease().value);
    // Read only when the registration is put together, after the lease was looked at.
    store.before_read(keys::node(&node).keepalive().path(), move || {
        let renewal = Txn::new().overwrite(&keys::lease_node(&node), &lease);
        other.commit(renewal).now_or_never().unwrap().unwrap();
    });
    let start = world.clock.now();
    world
        .run(register(
            &store,
            &world.clock,
            &registrant(life('2', '2', 1)),
            &NodeRight::default(),
        ))
        .unwrap();
    assert!(world.clock.now().since(start) > LeaseTiming::DEFAULT.lease * 2);
}

#[test]
fn a_lease_that_moves_right_before_the_registration_is_not_overwritten() {
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let store = MeddledStore::new(&world.server, world.clock.clone());
    let (node, mut renewed) = (NodeName::new("hv1").unwrap(), Some(world.lease().value));
    store.meddle(move |_| {
        let lease = renewed.take()?;
        Some(Txn::new().overwrite(&keys::lease_node(&node), &lease))
    });
    let start = world.clock.now();
    let second = registrant(life('2', '2', 1));
    world
        .run(register(&store, &world.clock, &second, &NodeRight::default()))
        .unwrap();
    assert!(world.clock.now().since(start) > LeaseTiming::DEFAULT.lease * 2);
}

#[test]
fn of_two_machines_that_begin_at_once_one_is_refused() {
    // Both see no lease. The one that comes second must not take the first's version for one it has watched.
    let world = World::new();
    let stores = [world.slow(), world.slow()];
    let lives = [life('1', '1', 1), life('2', '2', 1)];
    let registrants = lives.clone().map(registrant);
    let begin = |index: usize| {
        let (world, store, registrant) = (&world, &stores[index], &registrants[index]);
        async move {
            let right = NodeRight::default();
            let outcome = register(store, &world.clock, registrant, &right).await;
            if outcome.is_ok() {
                world.keep_renewing(10).await;
            }
            outcome
        }
    };
    let (first, second) = world.run(join(begin(0), begin(1)));
    let outcomes = [first, second];
    let holder = world.lease().value.unwrap().incarnation;
    for (outcome, life) in outcomes.iter().zip(&lives) {
        match outcome {
            Ok(_) => assert_eq!(holder, *life),
            Err(error) => {
                assert!(matches!(error, RegistrationError::NameTaken { .. }), "{error}");
                assert_ne!(holder, *life);
            }
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

#[test]
fn a_restarted_agent_registers_at_once_and_a_rebooted_one_after_listening_for_a_copy() {
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let start = world.clock.now();
    world.register(life('1', '1', 2), &NodeRight::default()).unwrap();
    assert_eq!(world.clock.now(), start, "no wait within one boot");
    world.register(life('1', '2', 1), &NodeRight::default()).unwrap();
    assert_eq!(world.lease().value.unwrap().incarnation, life('1', '2', 1));
    assert!(world.clock.now().since(start) < LeaseTiming::DEFAULT.lease);
}

#[test]
fn a_copy_of_a_machine_is_refused_while_the_original_lives() {
    // A cloned disk: same name, same machine id, another boot. It would take the original for an earlier boot of
    // itself, hence for dead, and start its guests a second time.
    let world = World::new();
    world.register(life('1', '1', 1), &NodeRight::default()).unwrap();
    let store = world.server.client();
    let copy = registrant(life('1', '2', 1));
    let right = NodeRight::default();
    let both = join(
        register(&store, &world.clock, &copy, &right),
        world.keep_renewing(3),
    );
    let (refused, ()) = world.run(both);
    assert!(
        matches!(refused, Err(RegistrationError::Copied { .. })),
        "{refused:?}"
    );
    assert_eq!(world.lease().value.unwrap().incarnation, life('1', '1', 1));
}

#[test]
fn an_unknown_outcome_is_found_out() {
    for fate in [Fate::Lost, Fate::Applied] {
        let world = World::new();
        let store = world.server.client();
        store.hide_next_write(fate);
        let right = NodeRight::default();
        let outcome = world.run(register(
            &store,
            &world.clock,
            &registrant(life('1', '1', 1)),
            &right,
        ));
        assert_eq!(outcome.unwrap(), world.lease().version, "{fate:?}");
        assert!(right.holds(world.clock.now()));
    }
}

#[test]
fn a_store_that_does_not_answer_is_said_and_gives_no_right() {
    let world = World::new();
    world.server.lose_quorum();
    let right = NodeRight::default();
    let outcome = world.register(life('1', '1', 1), &right);
    assert!(matches!(outcome, Err(RegistrationError::Read(_))), "{outcome:?}");
    assert!(!right.holds(world.clock.now()));
}

/// Lets hv2 renew a lease of another protocol while hv1 registers; `lives` says whether it does.
fn beside_another_protocol(lives: bool) -> Result<ZnodeVersion, RegistrationError> {
    let world = World::new();
    let key = keys::lease_node(&NodeName::new("hv2").unwrap());
    let lease = |counter| {
        Some(NodeLease {
            incarnation: life('2', '2', 1),
            protocol: PROTOCOL + 1,
            counter,
        })
    };
    world
        .run(world.store.commit(Txn::new().create(&key, &lease(0))))
        .unwrap();
    let renewing = async {
        for counter in 1..20 {
            world.clock.sleep(Duration::from_secs(1)).await;
            if lives {
                let renewed = Txn::new().overwrite(&key, &lease(counter));
                world.store.commit(renewed).await.unwrap();
            }
        }
    };
    let right = NodeRight::default();
    let (store, own) = (world.server.client(), registrant(life('1', '1', 1)));
    let registering = register(&store, &world.clock, &own, &right);
    let (registered, ()) = world.run(join(registering, renewing));
    registered
}

// A node whose lease is shorter than the other's claim would hold an address that the other has claimed.
#[test]
fn a_node_of_another_protocol_is_refused_beside_living_ones_and_not_beside_dead_ones() {
    match beside_another_protocol(true) {
        Err(RegistrationError::OtherProtocol { node, theirs }) => {
            assert_eq!((node.as_str(), theirs), ("hv2", PROTOCOL + 1));
        }
        other => panic!("{other:?}"),
    }
    beside_another_protocol(false).unwrap();
}

// `/run/pvc` was deleted: the numbers of this boot's lives began anew.
#[test]
fn a_number_that_was_used_before_is_not_used_again() {
    let world = World::new();
    let right = NodeRight::default();
    world.register(life('1', '1', 5), &right).unwrap();
    match world.register(life('1', '1', 2), &right) {
        Err(RegistrationError::LifeUsed { used, .. }) => assert_eq!(used, 5),
        other => panic!("{other:?}"),
    }
    world.register(life('1', '1', 6), &right).unwrap();
}

// The lock that tells a second agent on one host goes with the directory too.
#[test]
fn a_second_agent_of_one_boot_is_refused_while_the_first_renews() {
    let world = World::new();
    let right = NodeRight::default();
    world.register(life('1', '1', 5), &right).unwrap();
    let key = keys::lease_node(&NodeName::new("hv1").unwrap());
    let renewing = async {
        for counter in 1..20 {
            world.clock.sleep(Duration::from_secs(1)).await;
            let lease = Some(NodeLease {
                incarnation: life('1', '1', 5),
                protocol: PROTOCOL,
                counter,
            });
            world
                .store
                .commit(Txn::new().overwrite(&key, &lease))
                .await
                .unwrap();
        }
    };
    let (store, second) = (world.server.client(), registrant(life('1', '1', 1)));
    let registering = register(&store, &world.clock, &second, &right);
    let (registered, ()) = world.run(join(registering, renewing));
    assert!(
        matches!(registered, Err(RegistrationError::SecondAgent { .. })),
        "{registered:?}"
    );
}

// Its guests would be taken for those of another machine, and ended.
#[test]
fn a_boot_whose_machine_id_was_changed_does_not_register_under_the_new_one() {
    let world = World::new();
    let right = NodeRight::default();
    world.register(life('1', '1', 1), &right).unwrap();
    let changed = world.register(life('9', '1', 2), &right);
    assert!(
        matches!(changed, Err(RegistrationError::MachineIdChanged { .. })),
        "{changed:?}"
    );
}
