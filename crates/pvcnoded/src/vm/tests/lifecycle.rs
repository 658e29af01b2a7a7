//! A guest's life, from outside: start, stop, shutdown, deaths, and what libvirt and Ceph do to it.

use super::*;

#[test]
fn a_guest_starts_with_its_clients_on_record_and_stops_without_an_owner() {
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    let owner = cluster.read(&keys::domain(VM).owner()).value.unwrap();
    assert_eq!(owner.node, name(0));
    assert_eq!(
        owner.ceph_clients,
        CephClients::Recorded(cluster.hosts[0].hypervisor.clients(VM))
    );
    cluster.ask(VmState::Shutdown);
    cluster.wait_until("stopped", secs(5), |cluster| cluster.state() == VmState::Stop);
    assert_eq!(cluster.read(&keys::domain(VM).owner()).value, None);
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.ask(VmState::Restart);
    cluster.wait_until("restarted", secs(10), |cluster| {
        cluster.state() == VmState::Start && cluster.runs_on(0)
    });
    cluster.ask(VmState::Disable);
    cluster.wait_until("gone", secs(5), |cluster| {
        cluster.hosts[0].hypervisor.status(VM).is_none()
    });
    cluster.check_one_writer();
}

#[test]
fn a_guest_that_ignores_shutdown_is_ended_at_the_deadline_and_a_cancelled_one_is_not() {
    // Lesson 48.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.hosts[0].hypervisor.set_stubborn(VM);
    cluster.ask(VmState::Shutdown);
    cluster.run(secs(100));
    cluster.ask(VmState::Start);
    cluster.run(secs(200));
    assert!(cluster.runs_on(0), "cancelled");
    cluster.ask(VmState::Shutdown);
    cluster.run(secs(170));
    assert!(cluster.runs_on(0), "a new request has its whole time");
    cluster.wait_until("ended", secs(20), |cluster| cluster.state() == VmState::Stop);
}

#[test]
fn a_killed_process_is_started_again_over_its_own_remnants() {
    // Lock and watcher of the dead process are this node's own.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    let former = cluster.hosts[0].hypervisor.clients(VM);
    cluster.hosts[0].hypervisor.kill_process(VM);
    cluster.wait_until("running again", secs(5), |cluster| cluster.runs_on(0));
    cluster.run(secs(5));
    assert!(
        former
            .iter()
            .all(|client| cluster.ceph.blocklisted().contains(client))
    );
    cluster.check_one_writer();
}

#[test]
fn after_a_power_cycle_the_guest_starts_again_on_its_node() {
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.run(secs(3));
    cluster.power_off(0);
    cluster.run(secs(10));
    cluster.start_agent(0);
    cluster.wait_until("running again", secs(15), |cluster| cluster.runs_on(0));
    cluster.run(secs(5));
    cluster.check_one_writer();
}

#[test]
fn a_foreign_watcher_or_lock_fails_the_start_and_nothing_is_removed() {
    for writes in [false, true] {
        let mut cluster = Cluster::new();
        let other = cluster
            .ceph
            .open(&volume(), "10.102.0.2".parse().unwrap())
            .unwrap();
        if writes {
            cluster.ceph.write(&volume(), &other);
        }
        cluster.ask(VmState::Start);
        cluster.wait_until("failed", secs(10), |cluster| cluster.state() == VmState::Fail);
        let reason = cluster.reason();
        assert!(
            reason.contains(if writes { "lock" } else { "watcher" }),
            "{reason}"
        );
        assert!(
            reason.contains(&other.to_string()) && reason.contains("vms/guest_disk0"),
            "{reason}"
        );
        assert!(cluster.ceph.blocklisted().is_empty());
        assert_eq!(cluster.read(&keys::domain(VM).owner()).value, None);
        // Once it is gone an administrator starts the guest again, and the reason goes.
        cluster.ceph.close(&other);
        cluster.ask(VmState::Start);
        cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
        assert_eq!(cluster.reason(), "");
    }
}

#[test]
fn a_short_opener_delays_a_start_but_does_not_fail_it() {
    let mut cluster = Cluster::new();
    let other = cluster
        .ceph
        .open(&volume(), "10.102.0.2".parse().unwrap())
        .unwrap();
    cluster.ask(VmState::Start);
    cluster.run(secs(3));
    cluster.ceph.close(&other);
    cluster.wait_until("running", secs(4), |cluster| cluster.runs_on(0));
}

#[test]
fn a_restarted_agent_disturbs_no_guest() {
    // I8.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    let events = cluster.hosts[0].hypervisor.journal().len();
    for _ in 0..3 {
        cluster.kill_agent(0);
        cluster.run(secs(3));
        cluster.start_agent(0);
        cluster.run(secs(5));
    }
    assert_eq!(cluster.hosts[0].hypervisor.journal().len(), events);
    let owner = cluster.read(&keys::domain(VM).owner()).value.unwrap();
    assert_eq!(owner.incarnation.counter, 4, "the present life answers for it");
    assert_eq!(
        owner.ceph_clients,
        CephClients::Recorded(cluster.hosts[0].hypervisor.clients(VM))
    );
}

#[test]
fn an_agent_frozen_before_the_start_does_not_start_what_others_have_taken() {
    // The freeze falls on every moment of the start in turn.
    for step in 0..40 {
        let mut cluster = Cluster::new();
        cluster.hosts[0].storage.set_latency(ms(60));
        cluster.ask(VmState::Start);
        cluster.run(ms(20 * step));
        if cluster.runs_on(0) {
            break;
        }
        cluster.hosts[0].task.freeze();
        cluster.run(secs(10));
        // With a proof of death this is what a recovery does.
        cluster.recover_from(0);
        cluster.place(1);
        cluster.wait_until("running elsewhere", secs(12), |cluster| {
            cluster.runs_on(1) || cluster.state() == VmState::Fail
        });
        cluster.hosts[0].task.thaw();
        cluster.run(secs(20));
        assert!(!cluster.runs_on(0), "step {step}");
        assert!(
            cluster.hosts[0].hypervisor.status(VM).is_none(),
            "what it had created is ended (step {step})"
        );
        cluster.check_one_writer();
        cluster.check_one_runner();
    }
}

#[test]
fn losing_libvirt_is_a_degraded_reading() {
    // Lesson 14.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.hosts[0].hypervisor.go_away();
    cluster.run(secs(60));
    assert_eq!(cluster.state(), VmState::Start);
    assert!(cluster.runs_on(0));
    cluster.hosts[0].hypervisor.come_back();
    cluster.run(secs(5));
    assert!(cluster.runs_on(0));
}

#[test]
fn what_libvirt_forgot_is_not_started_twice() {
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    let process = cluster.hosts[0].hypervisor.processes().unwrap();
    cluster.hosts[0].hypervisor.forget(VM);
    cluster.run(secs(30));
    assert_eq!(cluster.hosts[0].hypervisor.processes().unwrap(), process);
    assert!(cluster.read(&keys::domain(VM).owner()).value.is_some());
}

#[test]
fn a_lost_answer_of_libvirt_leaves_no_process_without_a_record() {
    let mut cluster = Cluster::new();
    cluster.hosts[0].hypervisor.lose_next_answer();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(15), |cluster| cluster.runs_on(0));
    let owner = cluster.read(&keys::domain(VM).owner()).value.unwrap();
    assert_eq!(
        owner.ceph_clients,
        CephClients::Recorded(cluster.hosts[0].hypervisor.clients(VM))
    );
}

#[test]
fn a_refusal_of_libvirt_is_shown_as_the_reason() {
    let mut cluster = Cluster::new();
    cluster.hosts[0]
        .hypervisor
        .refuse_next("unsupported configuration: no such machine type");
    // The order may be used up by a look; ask until the start meets it.
    cluster.ask(VmState::Start);
    cluster.run(secs(8));
    if cluster.state() == VmState::Fail {
        assert!(
            cluster.reason().contains("no such machine type"),
            "{}",
            cluster.reason()
        );
        assert_eq!(cluster.read(&keys::domain(VM).owner()).value, None);
    } else {
        assert!(cluster.runs_on(0));
    }
}

#[test]
fn ceph_that_does_not_answer_is_waited_for_and_said() {
    let mut cluster = Cluster::new();
    cluster.hosts[0].storage.cut();
    cluster.ask(VmState::Start);
    cluster.run(secs(10));
    assert_eq!(cluster.state(), VmState::Start);
    assert!(
        cluster.reason().contains("not started yet"),
        "{}",
        cluster.reason()
    );
    cluster.hosts[0].storage.heal();
    cluster.wait_until("running", secs(6), |cluster| cluster.runs_on(0));
    assert_eq!(cluster.reason(), "");
}

#[test]
fn a_guest_that_dies_again_and_again_fails_in_the_end() {
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    for _ in 0..5 {
        cluster.wait_until("running", secs(30), |cluster| cluster.runs_on(0));
        cluster.hosts[0].hypervisor.kill_process(VM);
    }
    cluster.wait_until("failed", secs(30), |cluster| cluster.state() == VmState::Fail);
    assert!(cluster.reason().contains("five times"), "{}", cluster.reason());
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(10), |cluster| cluster.runs_on(0));
}

#[test]
fn a_killed_guest_that_is_placed_elsewhere_starts_there() {
    // Its lock and its watcher were of another node's making: an administrator had to remove them.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.run(secs(2));
    let former = cluster.hosts[0].hypervisor.clients(VM);
    cluster.place(1);
    cluster.hosts[0].hypervisor.kill_process(VM);
    cluster.wait_until("running there", secs(10), |cluster| cluster.runs_on(1));
    cluster.run(secs(5));
    for client in former {
        assert!(cluster.ceph.blocklisted().contains(&client));
    }
    cluster.check_one_writer();
    cluster.check_one_runner();
}

#[test]
fn a_forgotten_process_is_ended_when_its_stop_is_due() {
    for state in [VmState::Stop, VmState::Shutdown] {
        let mut cluster = Cluster::new();
        cluster.ask(VmState::Start);
        cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
        cluster.hosts[0].hypervisor.forget(VM);
        cluster.ask(state);
        // A shutdown that can't be asked for has its time all the same.
        cluster.wait_until("given up", secs(200), |cluster| {
            cluster.read(&keys::domain(VM).owner()).value.is_none()
        });
        assert!(cluster.hosts[0].hypervisor.processes().unwrap().is_empty());
        assert_eq!(cluster.state(), VmState::Stop);
    }
}
