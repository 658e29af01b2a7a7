//! Single steps carried out by hand, with somebody else's write right before their own.

use super::*;

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
