//! Fencers that die or stand still, and machines that take another's name.

use super::*;

#[test]
fn a_fencer_that_dies_at_any_moment_is_followed_by_another() {
    // Both coordinators may be the one that acts: whichever dies, the other carries on from the record.
    for dying in [0_usize, 1] {
        for tenths in (u32::from(dying == 1)..60).step_by(4) {
            let mut cluster = Cluster::new();
            cluster.power_off(2);
            cluster.run(secs(5) + ms(100) * tenths);
            cluster.hosts[dying].task.kill();
            cluster.hosts[dying].store.expire();
            cluster.running.retain(|(node, _)| *node != dying);
            cluster.wait_until("recovered", secs(60), |cluster| {
                (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some_and(|node| node != 2))
            });
            cluster.run(secs(5));
        }
    }
}

#[test]
fn a_fencer_that_freezes_at_any_moment_and_thaws_a_minute_later_does_no_harm() {
    for tenths in (0..60).step_by(4) {
        let mut cluster = Cluster::new();
        cluster.power_off(2);
        cluster.run(secs(5) + ms(100) * tenths);
        // Cut off from the store as well: a frozen host does not answer its session either.
        cluster.freeze(0);
        cluster.hosts[0].store.expire();
        cluster.run(secs(60));
        cluster.hosts[0].store.reconnect();
        cluster.thaw(0);
        cluster.run(secs(60));
        assert!(
            (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some()),
            "at {tenths}: {:?}",
            (1..=GUESTS)
                .map(|number| cluster.home(vm(number)))
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn guests_of_a_machine_that_another_has_replaced_are_recovered_and_the_other_is_left_alone() {
    let mut cluster = Cluster::new();
    cluster.replace(2);
    let theirs = cluster.hosts[2].boot;
    cluster.wait_until("recovered", secs(120), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    cluster.wait_until("done", secs(60), |cluster| cluster.is_done(2, ProofKind::Storage));
    assert_eq!(cluster.hosts[2].boot, theirs, "the new machine was switched off");
    let node = keys::node(&name(2));
    assert_eq!(cluster.read(&node.daemon_state()), DaemonState::Run);
    assert_eq!(cluster.read(&node.domain_state()), DomainState::Ready);
}

#[test]
fn somebody_can_say_that_a_machine_which_another_has_replaced_is_off() {
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.replace(2);
    let theirs = cluster.hosts[2].boot;
    cluster.wait_until("on record", secs(90), |cluster| {
        cluster.fence(2).is_some_and(|record| {
            record.is_open() && record.waits_for.contains("another machine has its name")
        })
    });
    cluster.run(secs(60));
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)).is_none()));
    assert!(cluster.fence(2).unwrap().is_open());
    cluster.confirm(2, ConfirmationKind::MachineIsOff);
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    assert_eq!(cluster.hosts[2].boot, theirs, "the new machine was switched off");
}
