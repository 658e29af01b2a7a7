//! The upstream network lost on one node only, on all, and on one after another; a store that goes back in time.

use super::*;
use crate::states::DaemonState;

impl Store {
    fn peer(mut self, name: &str, up: bool) -> Store {
        let peer = Peer {
            daemon_state: Some(DaemonState::Run),
            lease: Some(ZnodeVersion(100)),
            upstream_up: Some(up),
        };
        self.peers.insert(node(name), peer);
        self
    }

    /// A second later: everybody's lease has moved, but for those in `dead`.
    fn renewed(&mut self, dead: &[&str]) {
        for (name, peer) in &mut self.peers {
            if !dead.contains(&name.as_str()) {
                peer.lease = peer.lease.map(|version| ZnodeVersion(version.0 + 1));
            }
        }
    }
}

const DOWN: OwnUpstream = OwnUpstream::Down {
    since: BootTime::from_duration(Duration::from_secs(1001)),
};

/// hv1 is primary and its upstream network is down from second 1 on; it looks each second, and its own renewals are
/// seen to. Answers when it set the record to none, in seconds.
fn leaves_after(store: &mut Store, machine: &mut RoleMachine, dead: &[&str], seconds: u64) -> Option<u64> {
    let mut counter = 1;
    for second in 1..=seconds {
        let now = at(second * 1000);
        machine.set_upstream(DOWN);
        store.renewed(dead);
        store.show(machine, now);
        // Four looks a second, as the agent does: a loop that stands still drops the addresses.
        for quarter in 0..4 {
            let now = now + ms(quarter * 250);
            let step = machine.next(now, Eligibility::Eligible);
            if let Step::Renew { .. } = step {
                counter += 1;
                store.lease_version += 1;
                store.lease = Some(machine.lease_value(counter));
                machine.renewed(ZnodeVersion(store.lease_version), counter, now);
            } else if let Step::Vacate { why, .. } = step {
                assert_eq!(why, VacateReason::UpstreamDown);
                return Some(second);
            } else {
                assert_eq!(waits_for(&step), Some(Because::Holding), "{step:?}");
            }
        }
    }
    None
}

#[test]
fn a_primary_without_upstream_leaves_to_one_that_has_it_after_three_seconds() {
    // Without it clients reach nothing while two good coordinators stand by.
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", true).peer("hv3", false);
    assert_eq!(leaves_after(&mut store, &mut machine, &[], 60), Some(4));
}

#[test]
fn nobody_leaves_when_nobody_has_upstream() {
    // The router reboots: the role must not wander about meanwhile.
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", false).peer("hv3", false);
    assert_eq!(leaves_after(&mut store, &mut machine, &[], 200), None);
}

#[test]
fn a_node_that_is_not_alive_or_not_running_is_nobody_to_leave_to() {
    // Its last word stands in the store for ever; the role would lie vacant for it.
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", true);
    assert_eq!(leaves_after(&mut store, &mut machine, &["hv2"], 30), None);
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", true);
    store.peers.get_mut(&node("hv2")).unwrap().daemon_state = Some(DaemonState::Shutdown);
    assert_eq!(leaves_after(&mut store, &mut machine, &[], 30), None);
    // One that has not looked yet is no better than we are.
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", true);
    store.peers.get_mut(&node("hv2")).unwrap().upstream_up = None;
    assert_eq!(leaves_after(&mut store, &mut machine, &[], 30), None);
}

#[test]
fn a_lease_that_moved_long_ago_does_not_make_its_holder_alive() {
    // The primary does not look at the others while all is well: what has changed since then may be years old.
    let mut store = Store::new("hv1", None).peer("hv1", false).peer("hv2", true);
    let mut peers = Peers::default();
    peers.observed(&store.peers, at(0), TIMING.peer_fresh);
    store.renewed(&[]);
    peers.observed(&store.peers, at(60_000), TIMING.peer_fresh);
    assert!(!peers.one_reaches_upstream(&node("hv1"), at(60_000), TIMING.peer_fresh));
    store.renewed(&[]);
    peers.observed(&store.peers, at(61_000), TIMING.peer_fresh);
    assert!(peers.one_reaches_upstream(&node("hv1"), at(61_000), TIMING.peer_fresh));
    assert!(!peers.one_reaches_upstream(&node("hv2"), at(61_000), TIMING.peer_fresh));
    assert!(!peers.one_reaches_upstream(&node("hv1"), at(65_000), TIMING.peer_fresh));
}

#[test]
fn the_role_moves_for_upstream_at_most_once_a_minute() {
    // A flapping switch would take the floating addresses, and every connection on them, along each time.
    let (mut machine, store) = primary(at(0));
    let mut store = store.peer("hv1", false).peer("hv2", true);
    // Seen 1 s before: the role left hv3, which had no upstream.
    machine.upstream_move_at = Some(at(0));
    assert_eq!(leaves_after(&mut store, &mut machine, &[], 100), Some(60));
}

#[test]
fn every_coordinator_sees_such_a_move_whoever_makes_it() {
    let before = Store::new("hv2", held_by_hv2())
        .peer("hv2", false)
        .peer("hv1", true);
    // To nobody, or on to the next already: a look may miss what stood between.
    for next in ["none", "hv1", "hv3"] {
        let mut machine = standing_by(&before, at(0));
        before.clone().record(next).show(&mut machine, at(1000));
        assert_eq!(machine.upstream_move_at, Some(at(1000)), "{next}");
    }
    // An administrator's move of a healthy primary is none.
    let before = Store::new("hv2", held_by_hv2()).peer("hv2", true);
    let mut machine = standing_by(&before, at(0));
    before.clone().record("hv3").show(&mut machine, at(1000));
    assert_eq!(machine.upstream_move_at, None);
}

#[test]
fn a_contender_without_upstream_lets_the_others_come_first_but_not_for_ever() {
    // Else the one that has just left the role is the first to take it again; and if the others can't, nobody does.
    let store = Store::new("none", Some(RoleLease::Released))
        .peer("hv1", false)
        .peer("hv2", true);
    let contends_after = |upstream: OwnUpstream, dead: &[&str]| {
        let mut store = store.clone();
        let mut machine = standing_by(&store, at(0));
        machine.set_upstream(upstream);
        for quarter in 0..40 {
            if quarter % 4 == 0 {
                store.renewed(dead);
                store.show(&mut machine, at(quarter * 250 + 1));
            }
            let step = machine.next(at(quarter * 250 + 2), Eligibility::Eligible);
            if matches!(step, Step::Claim { .. }) {
                return Some(quarter * 250);
            }
            assert!(waits_for(&step).is_some(), "{step:?}");
        }
        None
    };
    assert_eq!(contends_after(OwnUpstream::Up, &[]), Some(0));
    assert_eq!(contends_after(OwnUpstream::Unknown, &[]), Some(0));
    assert_eq!(contends_after(DOWN, &["hv2"]), Some(0));
    // The first look can't tell whether hv2 is alive; the wait is for those that are seen to be.
    let mut store_seen = store.clone();
    let mut machine = standing_by(&store_seen, at(0));
    machine.set_upstream(DOWN);
    store_seen.renewed(&[]);
    store_seen.show(&mut machine, at(500));
    let early = machine.next(at(501), Eligibility::Eligible);
    assert_eq!(waits_for(&early), Some(Because::UpstreamDown));
    let until = at(0) + TIMING.upstream_yield;
    assert!(matches!(
        machine.next(until, Eligibility::Eligible),
        Step::Claim { .. }
    ));
}

#[test]
fn a_silent_holder_is_claimed_first_by_those_with_upstream() {
    let mut store = Store::new("hv2", held_by_hv2())
        .peer("hv1", false)
        .peer("hv3", true);
    let mut machine = standing_by(&store, at(0));
    machine.set_upstream(DOWN);
    let c = TIMING.lease.claim_after();
    store.renewed(&[]);
    store.show(&mut machine, at(0) + c - ms(900));
    store.renewed(&[]);
    store.show(&mut machine, at(0) + c);
    let step = machine.next(at(0) + c, Eligibility::Eligible);
    assert_eq!(waits_for(&step), Some(Because::UpstreamDown));
    let end = at(0) + c + TIMING.upstream_yield;
    assert!(matches!(
        machine.next(end, Eligibility::Eligible),
        Step::Claim {
            silent_holder: true,
            ..
        }
    ));
}

#[test]
fn after_the_store_went_back_in_time_nothing_is_claimed_until_every_older_right_has_ended() {
    // Yesterday's snapshot says `released`; the primary of today has its addresses up for seconds yet.
    for (record, lease) in [(-1, 0), (0, -1)] {
        let now = Store::new("hv2", held_by_hv2()).says("hv2", CoordinatorState::Primary);
        let mut machine = standing_by(&now, at(0));
        let mut yesterday = Store::new("none", Some(RoleLease::Released));
        yesterday.record_version += record;
        yesterday.lease_version += lease;
        yesterday.show(&mut machine, at(1000));
        let c = TIMING.lease.claim_after();
        let almost = at(1000) + c - ms(1);
        yesterday.show(&mut machine, almost);
        assert_eq!(
            waits_for(&machine.next(almost, Eligibility::Eligible)),
            Some(Because::StoreWentBack)
        );
        assert!(matches!(
            machine.next(at(1000) + c, Eligibility::Eligible),
            Step::Claim { .. }
        ));
    }
}
