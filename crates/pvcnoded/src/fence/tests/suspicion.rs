//! Who is suspected, and how a fence is taken back.

use super::*;

#[test]
fn a_node_that_outlives_an_order_to_switch_it_off_takes_part_again_and_is_not_shot_later() {
    // Away for a few seconds, with a dead BMC and without the storage proof.
    let mut cluster = Cluster::with(|settings| settings.storage_proof = StorageProof::Refused);
    cluster.hosts[2].bmc.set_mood(BmcMood::Dead);
    cluster.freeze(2);
    cluster.wait_until("ordered off", secs(20), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.power, PowerTrack::Failed { .. }))
    });
    cluster.thaw(2);
    cluster.run(secs(5));
    // The BMC comes back: nobody orders a node off that lives.
    cluster.hosts[2].bmc.set_mood(BmcMood::Works);
    cluster.wait_until("given up", secs(60), |cluster| {
        cluster
            .fence(2)
            .is_some_and(|record| matches!(record.phase, FencePhase::Abandoned { .. }))
    });
    cluster.run(secs(60));
    assert_eq!(cluster.hosts[2].boot, 1, "it was switched off");
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
}

#[test]
fn coordinators_that_are_all_barred_end_one_anothers_fences() {
    for touched in [false, true] {
        let mut cluster = Cluster::new();
        for node in 0..2 {
            let mut record = FenceRecord::suspected(cluster.hosts[node].incarnation(), name(2));
            record.phase = FencePhase::Proving;
            record.power = PowerTrack::Failed {
                reason: "no answer".to_owned(),
            };
            if touched {
                record.storage = StorageTrack::Barring;
            }
            cluster.write(Txn::new().overwrite(&keys::fence(&name(node)), &Some(record)));
        }
        cluster.kill(2);
        cluster.write(Txn::new().overwrite(&keys::node(&name(2)).daemon_state(), &DaemonState::Stop));
        cluster.wait_until("both take part", secs(120), |cluster| {
            (0..2).all(|node| {
                cluster.fence(node).is_some_and(|record| {
                    matches!(record.phase, FencePhase::Abandoned { .. }) || record.returned.is_some()
                })
            })
        });
        assert_eq!((cluster.hosts[0].boot, cluster.hosts[1].boot), (1, 1));
    }
}

#[test]
fn a_node_that_was_silent_for_less_than_the_time_is_left_alone() {
    let mut cluster = Cluster::new();
    for _ in 0..4 {
        cluster.freeze(2);
        cluster.run(secs(5));
        cluster.thaw(2);
        cluster.run(secs(3));
    }
    assert!((1..=GUESTS).all(|number| cluster.home(vm(number)) == Some(2)));
    assert_eq!(cluster.fence(2), None);
}

#[test]
fn in_maintenance_nobody_is_fenced_and_afterwards_silence_is_counted_anew() {
    let mut cluster = Cluster::new();
    let key = keys::config().maintenance();
    cluster.write(Txn::new().overwrite(&key, &Maintenance::On));
    cluster.freeze(2);
    cluster.run(secs(60));
    assert_eq!(cluster.fence(2), None);
    cluster.write(Txn::new().overwrite(&key, &Maintenance::Off));
    cluster.run(secs(5));
    assert_eq!(cluster.fence(2), None);
    cluster.wait_until("suspected", secs(10), |cluster| cluster.fence(2).is_some());
}
