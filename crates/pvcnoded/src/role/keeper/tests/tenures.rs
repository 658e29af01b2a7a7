//! How the role moves, and what killing, freezing and cutting off does to it.

use super::*;

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

// A role whose lease is hardly renewed in time is about to move: its holder says so, and nobody else.
#[test]
fn the_holder_measures_how_much_of_its_lease_is_left() {
    let mut cluster = Cluster::new();
    let (primary, _) = cluster.wait_for_primary(secs(2));
    cluster.run(secs(10));
    for node in 0..NODES.len() {
        let figures = cluster.hosts[node].agent.measures().figures(cluster.clock.now());
        assert!(figures.rounds["role"].count > 0, "{node}: {figures:?}");
        match (figures.role_lease, node == primary) {
            // Renewed once a second, at once: 5.25 s less one.
            (Some(lease), true) => {
                assert!((4_000_000..=4_250_000).contains(&lease.left_us), "{figures:?}");
                assert!(lease.least_us <= lease.left_us && lease.least_us > 0);
                // What it waits between two renewals is no work.
                assert!(figures.rounds["role"].longest_us < Some(900_000), "{figures:?}");
            }
            (None, false) => {}
            (other, _) => panic!("{node}: {other:?}"),
        }
    }
    cluster.run(secs(61));
    cluster.name_primary(PrimaryRecord::Node(name((primary + 1) % NODES.len())));
    cluster.run(secs(90));
    let figures = cluster.hosts[primary]
        .agent
        .measures()
        .figures(cluster.clock.now());
    assert_eq!(figures.role_lease, None, "what it had is old");
}
