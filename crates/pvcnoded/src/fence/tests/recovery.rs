//! What becomes of the guests of a node that is proven dead.

use super::*;

#[test]
fn a_guest_with_a_local_disk_stays_until_its_node_boots_anew() {
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &xml(vm(1), true)));
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.run(secs(30));
    assert_eq!(cluster.home(vm(1)), None);
    assert_eq!(cluster.fence(2).unwrap().left, [vm(1)]);
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.hosts[2].bmc.set_machine(PowerState::On);
    cluster.settle_power();
    // Nowhere else is there such a disk.
    cluster.wait_until("recovered", secs(120), |cluster| cluster.home(vm(1)).is_some());
    assert_eq!(cluster.home(vm(1)), Some(2));
}

#[test]
fn a_guest_that_the_proof_does_not_cover_is_left_alone_when_its_node_heals() {
    // Its disk is where it always was, and nobody else has it or may have it.
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &xml(vm(1), true)));
    let pid = |cluster: &Cluster| {
        let processes = cluster.hosts[2].hypervisor.processes().unwrap();
        processes
            .iter()
            .find(|process| process.vm == vm(1))
            .map(|process| process.pid)
    };
    let before = pid(&cluster);
    assert!(before.is_some());
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.thaw(2);
    cluster.run(secs(60));
    assert_eq!(pid(&cluster), before);
    let owner = cluster.read(&keys::domain(vm(1)).owner()).unwrap();
    assert_eq!(owner.node, name(2));
}

#[test]
fn the_dead_nodes_own_list_is_not_asked() {
    // Lesson H: a guest that had moved away would lose its locks, one started since would be forgotten.
    let mut cluster = Cluster::new();
    let list = keys::node(&name(2)).running_domains();
    cluster.write(Txn::new().overwrite(&list, &keys::values::RunningDomains(Vec::new())));
    cluster.power_off(2);
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
}

impl Cluster {
    /// The third node is proven dead by its BMC, and no guest can be recovered: no volume can be looked at from anywhere.
    fn proven_dead_and_not_recovered() -> Cluster {
        let mut cluster = Cluster::new();
        for node in 0..2 {
            cluster.hosts[node].storage.cut();
        }
        cluster.power_off(2);
        cluster.wait_until("proven", secs(30), |cluster| {
            cluster
                .fence(2)
                .is_some_and(|record| matches!(record.phase, FencePhase::Recovering { .. }))
        });
        cluster
    }
}

#[test]
fn a_node_that_reboots_before_its_recovery_is_complete_does_not_keep_its_guests_down() {
    // After a power proof the recovery checks that the lease stands still; the next boot moves it.
    let mut cluster = Cluster::proven_dead_and_not_recovered();
    // Somebody presses the button.
    cluster.hosts[2].bmc.set_machine(PowerState::On);
    cluster.run(secs(20));
    for node in 0..2 {
        cluster.hosts[node].storage.heal();
    }
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
}

#[test]
fn while_guests_can_not_be_recovered_the_node_is_switched_on_after_a_minute() {
    // What is missing may be its OSDs: nobody else could bring them back.
    let mut cluster = Cluster::new();
    for node in 0..2 {
        cluster.hosts[node].storage.cut();
    }
    cluster.power_off(2);
    cluster.wait_until("switched on", secs(150), |cluster| {
        cluster.hosts[2].bmc.machine() == PowerState::On
    });
    // It takes no part while its guests have not been given away.
    cluster.run(secs(10));
    assert!(cluster.hosts[2].hypervisor.processes().unwrap().is_empty());
    for node in 0..2 {
        cluster.hosts[node].storage.heal();
    }
    cluster.wait_until("recovered", secs(60), |cluster| {
        (1..=GUESTS).all(|number| cluster.home(vm(number)).is_some())
    });
}

#[test]
fn a_node_that_is_waited_for_is_ordered_on_until_its_bmc_takes_the_order() {
    let mut cluster = Cluster::proven_dead_and_not_recovered();
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.wait_until("ordered on in vain", secs(150), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.restart, RestartTrack::Failed { .. }))
    });
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.wait_until("switched on", secs(150), |cluster| {
        cluster.hosts[2].bmc.machine() == PowerState::On
    });
}

#[test]
fn a_guest_whose_definition_can_not_be_read_keeps_no_other_down() {
    // Lesson 31.
    let mut cluster = Cluster::new();
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).xml(), &"<domain".to_owned()));
    cluster.power_off(2);
    cluster.wait_until("the others recovered", secs(60), |cluster| {
        (2..=GUESTS).all(|number| matches!(cluster.home(vm(number)), Some(0 | 1)))
    });
    cluster.wait_until("back", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| record.returned.is_some())
    });
    assert_eq!(cluster.read(&keys::domain(vm(1)).state()), VmState::Fail);
    assert!(
        cluster
            .read(&keys::domain(vm(1)).failed_reason())
            .contains("definition")
    );
}

#[test]
fn guests_that_find_no_node_are_listed_and_start_as_soon_as_one_can_take_them() {
    // D1 (second part) and lesson 32: in the reference that write fails, and the guest stays "start" on a dead node.
    let mut cluster = Cluster::new();
    for node in 0..2 {
        let keys = keys::node(&name(node));
        cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &70));
    }
    cluster.power_off(2);
    cluster.wait_until("done", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| !record.is_open())
    });
    // Each of the two takes one guest, and never one more than fits.
    let parked = cluster.fence(2).unwrap().parked;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(cluster.read(&keys::domain(parked[0]).state()), VmState::Stop);
    assert!(cluster.read(&keys::domain(parked[0]).autostart()));
    let keys = keys::node(&name(0));
    cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &4096));
    cluster.wait_until("started", secs(120), |cluster| cluster.home(parked[0]) == Some(0));
    cluster.wait_until("off the list", secs(5), |cluster| {
        cluster.fence(2).is_some_and(|record| record.parked.is_empty())
    });
}

#[test]
fn the_most_important_guest_goes_first() {
    let mut cluster = Cluster::new();
    for node in 0..2 {
        let keys = keys::node(&name(node));
        cluster.write(Txn::new().overwrite(&keys.memory_total_mib(), &70));
    }
    cluster.write(
        Txn::new()
            .overwrite(&keys::domain(vm(3)).recovery_priority(), &10)
            .overwrite(&keys::domain(vm(2)).recovery_priority(), &5),
    );
    cluster.power_off(2);
    cluster.wait_until("done", secs(60), |cluster| {
        cluster.fence(2).is_some_and(|record| !record.is_open())
    });
    assert_eq!(cluster.fence(2).unwrap().parked, [vm(1)]);
}

#[test]
fn what_a_dead_node_left_on_a_volume_that_was_taken_out_of_the_definition_is_barred_and_unlocked() {
    // The list is what keeps others from the volume. Once the guest starts without it, it is anybody's.
    let mut cluster = Cluster::new();
    let dropped: VolumeId = "vms/dropped".parse().unwrap();
    cluster.ceph.add_volume(&dropped);
    let list = CommaList(vec![volume(vm(1)), dropped.clone()]);
    cluster.write(Txn::new().overwrite(&keys::domain(vm(1)).volumes(), &list));
    let client = cluster.ceph.open(&dropped, ip(2)).unwrap();
    let _ = cluster.ceph.write(&dropped, &client);
    assert_eq!(cluster.ceph.locks(&dropped), 1);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.power_off(2);
    cluster.ceph.abandon(&client);
    cluster.wait_until("recovered", secs(60), Cluster::all_run_elsewhere);
    assert!(!cluster.ceph.takes_writes_of(&client));
    assert_eq!(cluster.ceph.locks(&dropped), 0, "its next user would be refused");
    assert_eq!(
        cluster.read(&keys::domain(vm(1)).volumes()).0,
        [volume(vm(1))],
        "it was started without it"
    );
}
