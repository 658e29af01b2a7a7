//! The upstream network lost on some nodes only.

use pvc_core::upstream::UpstreamLook;

use super::*;

impl Cluster {
    fn lose_upstream(&self, node: usize) {
        self.hosts[node].upstream.show(UpstreamLook::GatewaySilent);
    }

    fn restore_upstream(&self, node: usize) {
        self.hosts[node].upstream.show(UpstreamLook::Reached);
    }
}

// ha-protocol.md section 3, "Upstream network lost only". The role used to stay with a primary whom no client reached.
#[test]
fn the_role_goes_to_a_node_that_reaches_the_upstream_network_and_not_back_within_a_minute() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(10));
    cluster.run(secs(5));
    let lost_at = cluster.clock.now();
    cluster.lose_upstream(first);
    while cluster.primary() == Some(first) || cluster.primary().is_none() {
        cluster.run(Duration::from_millis(100));
        assert!(
            cluster.clock.now().since(lost_at) < secs(8),
            "the role did not move"
        );
    }
    let moved_after = cluster.clock.now().since(lost_at);
    assert!(moved_after >= secs(3), "{moved_after:?}");
    let (second, _) = cluster.wait_for_primary(secs(2));
    assert_ne!(second, first);
    // It was handed over, not fallen silent: clients hardly notice.
    assert!(
        cluster.longest_gap(lost_at) < secs(1),
        "{:?}",
        cluster.longest_gap(lost_at)
    );

    // The network is back on the first and gone on the second: a minute must pass between two moves.
    let moved_at = cluster.clock.now();
    cluster.restore_upstream(first);
    cluster.lose_upstream(second);
    cluster.run(secs(50));
    assert_eq!(cluster.primary(), Some(second));
    while cluster.primary() == Some(second) || cluster.primary().is_none() {
        cluster.run(Duration::from_millis(100));
        assert!(
            cluster.clock.now().since(moved_at) < secs(70),
            "the role did not move again"
        );
    }
    cluster.check_one_holder();
}

#[test]
fn the_role_stays_when_nobody_reaches_the_upstream_network() {
    let mut cluster = Cluster::new();
    let (primary, _) = cluster.wait_for_primary(secs(10));
    cluster.run(secs(5));
    for node in 0..NODES.len() {
        cluster.lose_upstream(node);
    }
    let from = cluster.clock.now();
    for _ in 0..20 {
        cluster.run(secs(8));
        assert_eq!(cluster.primary(), Some(primary));
    }
    assert_eq!(cluster.longest_gap(from), Duration::ZERO);
}

// A network that is lost everywhere but on a node that is down must not leave the cluster without a primary.
#[test]
fn a_cluster_without_upstream_elects_a_primary_all_the_same() {
    let mut cluster = Cluster::new();
    let (first, _) = cluster.wait_for_primary(secs(10));
    cluster.run(secs(3));
    for node in 0..NODES.len() {
        if node != (first + 1) % 3 {
            cluster.lose_upstream(node);
        }
    }
    // The only one with upstream hangs right when it is to take over: its lease still looks fresh for a while.
    cluster.freeze((first + 1) % 3);
    cluster.power_off(first);
    let (next, took) = cluster.wait_for_primary(secs(20));
    assert_eq!(next, (first + 2) % 3);
    assert!(took < secs(16), "{took:?}");
    cluster.check_one_holder();
}

#[test]
fn an_agent_on_hold_contends_only_when_every_older_right_has_ended() {
    let mut cluster = Cluster::new();
    let (primary, _) = cluster.wait_for_primary(secs(10));
    let held_at = cluster.clock.now();
    for host in &cluster.hosts {
        host.agent.hold().place(
            pvc_core::hold::HoldReason::StoreBehind { seen: 9, found: 2 },
            held_at,
        );
    }
    cluster.name_primary(PrimaryRecord::None);
    cluster.run(secs(1));
    cluster.run(secs(5));
    assert_eq!(cluster.primary(), None, "{primary}");
    let (_, took) = cluster.wait_for_primary(secs(4));
    assert!(
        cluster.clock.now().since(held_at) >= RoleTiming::DEFAULT.lease.claim_after(),
        "{took:?}"
    );
    cluster.check_one_holder();
}
