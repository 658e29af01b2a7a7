//! By what a node is known to be dead, and what is none.

use super::*;

#[test]
fn a_node_that_loses_its_power_is_proven_dead_by_its_bmc_and_its_guests_run_elsewhere_within_15_s() {
    // D1: in the reference a power cycle that works recovers nothing.
    let mut cluster = Cluster::new();
    cluster.power_off(2);
    let took = cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    assert!(took <= secs(15), "{took:?}");
    cluster.wait_until("done", secs(20), |cluster| cluster.is_done(2, ProofKind::Power));
    // It is switched on only then, and comes back empty.
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.read(&keys::node(&name(2)).daemon_state()) == DaemonState::Run
    });
    assert_eq!(
        cluster.read(&keys::node(&name(2)).domain_state()),
        DomainState::Flushed
    );
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    for number in 1..=GUESTS {
        assert_eq!(cluster.read(&keys::domain(vm(number)).last_node()), Some(name(2)));
    }
    cluster.run(secs(60));
}

fn orders_on(cluster: &Cluster, node: usize) -> usize {
    let orders = cluster.hosts[node].bmc.orders();
    orders.iter().filter(|(_, to)| *to == PowerState::On).count()
}

#[test]
fn a_fenced_node_that_is_off_again_at_once_is_switched_on_once_more() {
    // A fencer that thaws before its order to switch it off does that; a BMC may drop an order that follows another.
    let mut cluster = Cluster::new();
    cluster.hosts[2].starts = Starts::OffAgain(1);
    cluster.power_off(2);
    cluster.wait_until("switched on twice", secs(120), |cluster| {
        orders_on(cluster, 2) == 2
    });
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.read(&keys::node(&name(2)).daemon_state()) == DaemonState::Run
    });
    assert_eq!(cluster.fence(2).unwrap().restart_orders, 2);

    let mut cluster = Cluster::new();
    cluster.hosts[2].starts = Starts::OffAgain(u32::MAX);
    cluster.power_off(2);
    cluster.wait_until("given up", secs(180), |cluster| orders_on(cluster, 2) == 3);
    cluster.run(secs(180));
    assert_eq!(orders_on(&cluster, 2), 3);
}

#[test]
fn a_node_that_somebody_switches_off_some_minutes_after_its_fence_stays_off() {
    let mut cluster = Cluster::new();
    cluster.hosts[2].starts = Starts::Hangs;
    cluster.power_off(2);
    cluster.wait_until("switched on", secs(60), |cluster| orders_on(cluster, 2) == 1);
    cluster.run(secs(120));
    cluster.power_off(2);
    cluster.run(secs(180));
    assert_eq!(orders_on(&cluster, 2), 1);
    assert_eq!(cluster.hosts[2].bmc.machine(), PowerState::Off);
}

#[test]
fn a_node_is_not_switched_off_when_that_would_take_the_quorum_of_the_coordinators() {
    // One coordinator is away for an upgrade; of another the agent alone is silent, and its server and monitor live.
    let mut cluster = Cluster::new();
    cluster.kill(0);
    cluster.write(Txn::new().overwrite(&keys::node(&name(0)).daemon_state(), &DaemonState::Stop));
    cluster.freeze(2);
    cluster.wait_until("proven", secs(60), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.storage, StorageTrack::Barred { .. }))
    });
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(1))
    });
    cluster.run(secs(60));
    assert_eq!(cluster.hosts[2].bmc.machine(), PowerState::On);
    let record = cluster.fence(2).unwrap();
    assert!(
        matches!(&record.power, PowerTrack::Unavailable { reason } if reason.contains("quorum of the coordinators")),
        "{record:?}"
    );
}

#[test]
fn with_its_bmc_dead_the_storage_proof_suffices() {
    let mut cluster = Cluster::new();
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    let took = cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    assert!(took <= secs(25), "{took:?}");
    cluster.wait_until("done", secs(20), |cluster| cluster.is_done(2, ProofKind::Storage));
    let record = cluster.fence(2).unwrap();
    assert!(matches!(record.power, PowerTrack::Failed { .. }), "{record:?}");
    assert!(
        matches!(record.storage, StorageTrack::Barred { .. }),
        "{record:?}"
    );
}

#[test]
fn a_frozen_node_whose_bmc_is_dead_can_not_write_when_it_thaws_and_comes_back_empty() {
    let mut cluster = Cluster::new();
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    // The agent stands still; its guests go on writing until they are barred.
    cluster.freeze(2);
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    cluster.run(secs(60));
    cluster.thaw(2);
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    cluster.run(secs(30));
}

#[test]
fn without_any_proof_nothing_is_recovered_until_somebody_says_that_the_machine_is_off() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    cluster.run(secs(120));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)).is_none()));
    assert_eq!(cluster.read(&keys::domain(vm(1)).node()), name(2));
    let mut record = cluster.fence(2).unwrap();
    assert_eq!(record.phase, FencePhase::Proving);
    record.confirmation = Some(Confirmation {
        kind: ConfirmationKind::MachineIsOff,
        by: "admin".to_owned(),
        at: 0,
    });
    // Whoever says so may have the machine open: it is not switched on, though its BMC would do that now.
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.write(Txn::new().overwrite(&keys::fence(&name(2)), &Some(record)));
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    cluster.wait_until("done", secs(20), |cluster| {
        cluster.is_done(2, ProofKind::Administrator)
    });
    cluster.run(secs(120));
    assert_eq!(cluster.hosts[2].bmc.machine(), PowerState::Off);
}

#[test]
fn a_bmc_that_lies_gives_no_proof_that_outlives_a_renewal() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Lies);
    cluster.freeze(2);
    cluster.wait_until("lied to", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| record.power == PowerTrack::Off)
    });
    cluster.thaw(2);
    cluster.run(secs(60));
    // Guests that were given away before the lie showed have left the node; the others never ran twice.
    assert!((1..=GUESTS).all(|number| {
        (0..NODES)
            .filter(|node| cluster.hosts[*node].hypervisor.status(vm(number)) == Some(DomainStatus::Running))
            .count()
            <= 1
    }));
}

#[test]
fn an_administrators_word_about_a_node_that_lives_ends_nothing() {
    // He has looked at the wrong machine.
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("suspected", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.power, PowerTrack::Failed { .. }))
    });
    cluster.thaw(2);
    cluster.run(secs(3));
    let mut record = cluster.fence(2).unwrap();
    record.confirmation = Some(Confirmation {
        kind: ConfirmationKind::MachineIsOff,
        by: "admin".to_owned(),
        at: 0,
    });
    cluster.write(Txn::new().overwrite(&keys::fence(&name(2)), &Some(record)));
    cluster.run(secs(60));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
    assert!(!cluster.is_done(2, ProofKind::Administrator));
}
