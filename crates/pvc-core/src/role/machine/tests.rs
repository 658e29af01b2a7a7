//! One test per rule of the role. Each says what would go wrong in a datacentre without it.

mod upstream;

use std::time::Duration;

use super::super::view::Peer;
use super::*;
use crate::ids::{BootId, MachineId};

const TIMING: RoleTiming = RoleTiming::DEFAULT;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn at(milliseconds: u64) -> BootTime {
    // Well after boot, so that "long ago" can be expressed.
    BootTime::from_duration(Duration::from_secs(1000) + ms(milliseconds))
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn life(machine: char, boot: char, counter: u64) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new(machine.to_string().repeat(32)).unwrap(),
        boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{}", boot.to_string().repeat(12))).unwrap(),
        counter,
    }
}

fn held_by(name: &str, incarnation: Incarnation) -> Option<RoleLease> {
    Some(RoleLease::Held {
        holder: node(name),
        incarnation,
        counter: 9,
    })
}

fn held_by_hv2() -> Option<RoleLease> {
    held_by("hv2", life('2', '2', 1))
}

/// The store as hv1 sees it.
#[derive(Clone)]
struct Store {
    record: PrimaryRecord,
    record_version: i32,
    lease: Option<RoleLease>,
    lease_version: i32,
    says: Vec<(&'static str, CoordinatorState)>,
    peers: BTreeMap<NodeName, Peer>,
}

impl Store {
    fn new(record: &str, lease: Option<RoleLease>) -> Store {
        Store {
            record: record.parse().unwrap(),
            record_version: 5,
            lease,
            lease_version: 70,
            says: vec![],
            peers: BTreeMap::new(),
        }
    }

    fn says(mut self, name: &'static str, state: CoordinatorState) -> Store {
        self.says.retain(|(other, _)| *other != name);
        self.says.push((name, state));
        self
    }

    fn record(mut self, record: &str) -> Store {
        self.record = record.parse().unwrap();
        self.record_version += 1;
        self
    }

    fn lease(mut self, lease: Option<RoleLease>) -> Store {
        self.lease = lease;
        self.lease_version += 1;
        self
    }

    fn show(&self, machine: &mut RoleMachine, now: BootTime) {
        machine.observed(
            Observation {
                record: self.record.clone(),
                record_version: ZnodeVersion(self.record_version),
                lease: self.lease.clone(),
                lease_version: ZnodeVersion(self.lease_version),
                coordinators: self
                    .says
                    .iter()
                    .map(|(name, state)| (node(name), *state))
                    .collect(),
                peers: self.peers.clone(),
            },
            now,
        );
    }
}

/// hv1's machine, standing by since long, that has just seen `store`.
fn standing_by(store: &Store, now: BootTime) -> RoleMachine {
    let mut machine = RoleMachine::new(node("hv1"), life('1', '1', 4), 0, TIMING);
    machine.stood_by();
    store.show(&mut machine, now);
    machine
}

/// hv1's machine, primary by a renewal sent at `now`.
fn primary(now: BootTime) -> (RoleMachine, Store) {
    let store = Store::new("hv1", Some(RoleLease::Released)).says("hv1", CoordinatorState::Primary);
    let mut machine = standing_by(&store, now);
    assert!(matches!(
        machine.next(now, Eligibility::Eligible),
        Step::Start { .. }
    ));
    machine.started(ZnodeVersion(5), ZnodeVersion(71), now);
    machine.brought_up();
    machine.renewed(ZnodeVersion(72), 1, now);
    let mut store = store;
    store.lease = Some(machine.lease_value(1));
    store.lease_version = 72;
    (machine, store)
}

fn waits_for(step: &Step) -> Option<Because> {
    match step {
        Step::Wait { because, .. } => Some(*because),
        Step::Acknowledge
        | Step::Claim { .. }
        | Step::Vacate { .. }
        | Step::Start { .. }
        | Step::BringUp { .. }
        | Step::Renew { .. }
        | Step::Drop { .. }
        | Step::Release { .. }
        | Step::StandBy => None,
    }
}

#[test]
fn a_silent_holder_is_replaced_after_c_and_not_a_moment_before() {
    // Too early: both nodes answer for one address. Too late: nobody does.
    let store = Store::new("hv2", held_by_hv2()).says("hv2", CoordinatorState::Primary);
    let mut machine = standing_by(&store, at(0));
    let c = TIMING.lease.claim_after();
    assert_eq!(c, ms(6750));
    let almost = at(0) + c - ms(1);
    store.show(&mut machine, almost);
    assert_eq!(
        waits_for(&machine.next(almost, Eligibility::Eligible)),
        Some(Because::AnotherHolds)
    );
    assert_eq!(
        machine.next(at(0) + c, Eligibility::Eligible),
        Step::Claim {
            record: ZnodeVersion(5),
            lease: ZnodeVersion(70),
            silent_holder: true
        }
    );
    // One renewal seen, and the count begins anew.
    let renewed = store.lease(held_by_hv2());
    renewed.show(&mut machine, at(6749));
    assert_eq!(
        waits_for(&machine.next(at(12_000), Eligibility::Eligible)),
        Some(Because::AnotherHolds)
    );
    assert!(matches!(
        machine.next(at(13_499), Eligibility::Eligible),
        Step::Claim { .. }
    ));
}

#[test]
fn a_named_node_starts_only_on_a_released_or_silent_lease() {
    // Adding addresses while the last holder may still have them gives two primaries.
    let store = Store::new("hv1", held_by_hv2());
    let mut machine = standing_by(&store, at(0));
    assert_eq!(machine.next(at(0), Eligibility::Eligible), Step::Acknowledge);
    machine.acknowledged();
    assert_eq!(
        waits_for(&machine.next(at(1), Eligibility::Eligible)),
        Some(Because::LastHolderMayHold)
    );
    // No deadline grants a right: not the delay, not ten seconds, as long as the holder renews.
    let mut renewing = store.clone();
    for second in 1..20 {
        renewing = renewing.lease(held_by_hv2());
        renewing.show(&mut machine, at(second * 1000));
        assert_eq!(
            waits_for(&machine.next(at(second * 1000), Eligibility::Eligible)),
            Some(Because::LastHolderMayHold)
        );
    }
    let released = renewing.lease(Some(RoleLease::Released));
    released.show(&mut machine, at(20_000));
    assert_eq!(
        machine.next(at(20_000), Eligibility::Eligible),
        Step::Start {
            record: ZnodeVersion(5),
            lease: ZnodeVersion(released.lease_version),
            silent_holder: None
        }
    );
    // A holder that is no coordinator any more has no such word, and must not keep the role from starting.
    let mut machine = standing_by(&store, at(0));
    machine.acknowledged();
    assert!(matches!(
        machine.next(at(0) + TIMING.lease.claim_after(), Eligibility::Eligible),
        Step::Start {
            silent_holder: None,
            ..
        }
    ));
    let store = store.says("hv2", CoordinatorState::Primary);
    let mut machine = standing_by(&store, at(0));
    machine.acknowledged();
    // The one that fell silent does not go on being shown as primary.
    assert_eq!(
        machine.next(at(6750), Eligibility::Eligible),
        Step::Start {
            record: ZnodeVersion(5),
            lease: ZnodeVersion(70),
            silent_holder: Some(node("hv2"))
        }
    );
}

#[test]
fn a_holder_gives_the_addresses_up_when_the_next_is_ready_or_after_the_delay() {
    let (mut machine, store) = primary(at(0));
    let store = store.record("hv2");
    store.show(&mut machine, at(100));
    assert_eq!(
        waits_for(&machine.next(at(100), Eligibility::Eligible)),
        Some(Because::Holding)
    );
    store
        .clone()
        .says("hv2", CoordinatorState::Takeover)
        .show(&mut machine, at(150));
    assert_eq!(
        machine.next(at(150), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::HandOver
        }
    );

    // A named node that is dead must not keep the role from moving on.
    let (mut machine, store) = primary(at(0));
    store.record("hv2").show(&mut machine, at(100));
    assert_eq!(
        waits_for(&machine.next(at(599), Eligibility::Eligible)),
        Some(Because::Holding)
    );
    assert_eq!(
        machine.next(at(600), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::HandOver
        }
    );
}

#[test]
fn a_holder_never_renews_once_the_record_names_another() {
    // A renewal then would prolong a right that the next holder is waiting to see end.
    let (mut machine, store) = primary(at(0));
    store.record("none").show(&mut machine, at(400));
    for milliseconds in [400, 700, 1000, 1399] {
        let step = machine.next(at(milliseconds), Eligibility::Eligible);
        assert_eq!(waits_for(&step), Some(Because::Holding), "{step:?}");
    }
    assert_eq!(
        machine.next(at(1400), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::HandOver
        }
    );
}

#[test]
fn addresses_come_off_before_the_lease_is_released_and_then_others_come_first() {
    let (mut machine, store) = primary(at(0));
    store.record("none").show(&mut machine, at(100));
    assert!(matches!(
        machine.next(at(1100), Eligibility::Eligible),
        Step::Drop { .. }
    ));
    machine.dropped(DropReason::HandOver, at(1101));
    assert_eq!(
        machine.next(at(1101), Eligibility::Eligible),
        Step::Release {
            lease: ZnodeVersion(72)
        }
    );
    machine.released(ZnodeVersion(73), at(1110));
    assert_eq!(machine.next(at(1110), Eligibility::Eligible), Step::StandBy);
    machine.stood_by();
    assert_eq!(
        waits_for(&machine.next(at(1111), Eligibility::Eligible)),
        Some(Because::SittingOut)
    );
    // Nobody else wanted it: better us than nobody.
    assert!(matches!(
        machine.next(at(4200), Eligibility::Eligible),
        Step::Claim { .. }
    ));
}

#[test]
fn the_right_ends_one_lease_after_the_sending_of_the_last_acknowledged_renewal() {
    let (mut machine, _) = primary(at(0));
    machine.renewal_failed(at(1000));
    for milliseconds in (1000..5250).step_by(250) {
        let step = machine.next(at(milliseconds), Eligibility::Eligible);
        assert!(!matches!(step, Step::Drop { .. }), "{milliseconds}: {step:?}");
    }
    assert_eq!(
        machine.next(at(5250), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::RightEnded
        }
    );
}

#[test]
fn a_late_renewal_of_ours_is_adopted_but_prolongs_nothing() {
    // The store applied a renewal whose answer was lost: its version is ours, but when it was sent is not known.
    let (mut machine, mut store) = primary(at(0));
    machine.urgent(at(800));
    machine.renewal_failed(at(1000));
    store = store.lease(Some(machine.lease_value(2)));
    store.show(&mut machine, at(1300));
    let Step::Renew { lease, .. } = machine.next(at(1300), Eligibility::Eligible) else {
        panic!("the holder goes on");
    };
    assert_eq!(lease, ZnodeVersion(store.lease_version));
    for milliseconds in (1300..5250).step_by(250) {
        machine.urgent(at(milliseconds));
    }
    assert_eq!(
        machine.next(at(5250), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::RightEnded
        }
    );
}

#[test]
fn a_lease_that_another_holds_ends_the_tenure_at_once() {
    for lease in [
        held_by_hv2(),
        Some(RoleLease::Released),
        held_by("hv1", life('9', '9', 1)),
    ] {
        let (mut machine, store) = primary(at(0));
        store.lease(lease).show(&mut machine, at(200));
        assert_eq!(
            machine.next(at(200), Eligibility::Eligible),
            Step::Drop {
                reason: DropReason::LeaseTaken
            }
        );
    }
}

#[test]
fn a_loop_that_stood_still_drops_the_addresses() {
    // The host's clock may have stood still with it, and others may hold the addresses by now.
    let (mut machine, _) = primary(at(0));
    assert_eq!(
        waits_for(&machine.next(at(250), Eligibility::Eligible)),
        Some(Because::Holding)
    );
    assert_eq!(
        machine.next(at(1251), Eligibility::Eligible),
        Step::Drop {
            reason: DropReason::LoopGap
        }
    );
}

#[test]
fn a_record_rewritten_with_the_same_name_changes_nothing() {
    // `pvc node primary hv1` on the primary hv1: "already so" is success.
    let (mut machine, store) = primary(at(0));
    store.record("hv1").show(&mut machine, at(300));
    for milliseconds in [300, 550, 800] {
        assert_eq!(
            waits_for(&machine.next(at(milliseconds), Eligibility::Eligible)),
            Some(Because::Holding)
        );
    }
    assert_eq!(
        machine.next(at(1000), Eligibility::Eligible),
        Step::Renew {
            record: ZnodeVersion(6),
            lease: ZnodeVersion(72),
            counter: 2
        }
    );
}

#[test]
fn without_a_primary_contenders_come_one_after_another() {
    let claims_after = |place: u32, lease: Option<RoleLease>| {
        let store = Store::new("none", lease);
        let mut machine = RoleMachine::new(node("hv1"), life('1', '1', 4), place, TIMING);
        machine.stood_by();
        store.show(&mut machine, at(0));
        (0..2000)
            .find(|t| matches!(machine.next(at(*t), Eligibility::Eligible), Step::Claim { .. }))
            .unwrap()
    };
    assert_eq!(claims_after(0, Some(RoleLease::Released)), 0);
    assert_eq!(claims_after(2, Some(RoleLease::Released)), 120);
    assert_eq!(claims_after(0, held_by_hv2()), 500);
    assert_eq!(claims_after(2, held_by_hv2()), 620);
    assert_eq!(claims_after(1, None), 60);
}

#[test]
fn a_named_node_that_does_not_start_is_given_up_and_sits_out() {
    let store = Store::new("hv2", Some(RoleLease::Released));
    let mut machine = standing_by(&store, at(0));
    assert_eq!(
        waits_for(&machine.next(at(9_999), Eligibility::Eligible)),
        Some(Because::AnotherIsNamed)
    );
    assert_eq!(
        machine.next(at(10_000), Eligibility::Eligible),
        Step::Vacate {
            record: ZnodeVersion(5),
            named: node("hv2"),
            why: VacateReason::NotServed,
        }
    );
    // The same, seen by the node that was named.
    let store = Store::new("hv1", held_by_hv2());
    let mut machine = standing_by(&store, at(0));
    machine.acknowledged();
    store
        .lease(Some(RoleLease::Released))
        .record("none")
        .show(&mut machine, at(5250));
    assert_eq!(machine.next(at(5250), Eligibility::Eligible), Step::StandBy);
    machine.stood_by();
    assert_eq!(
        waits_for(&machine.next(at(5001), Eligibility::Eligible)),
        Some(Because::SittingOut)
    );
}

#[test]
fn a_primary_that_steps_back_for_a_moment_is_not_given_up() {
    // Its role restarts within a second (an address was deleted by hand): that is no reason to move it.
    let store = Store::new("hv2", held_by_hv2()).says("hv2", CoordinatorState::Primary);
    let mut machine = standing_by(&store, at(0));
    let store = store
        .says("hv2", CoordinatorState::Relinquish)
        .lease(Some(RoleLease::Released));
    store.show(&mut machine, at(60_000));
    assert_eq!(
        waits_for(&machine.next(at(60_001), Eligibility::Eligible)),
        Some(Because::AnotherIsNamed)
    );
    store.show(&mut machine, at(70_000));
    assert!(matches!(
        machine.next(at(70_000), Eligibility::Eligible),
        Step::Vacate { .. }
    ));
}

#[test]
fn only_an_eligible_node_claims_or_starts() {
    // A hypervisor has no floating networks; a node that is starting or old knows too little.
    for eligibility in [
        Eligibility::Hypervisor,
        Eligibility::Starting,
        Eligibility::ShuttingDown,
        Eligibility::NodeLeaseEnded,
        Eligibility::OnHold,
    ] {
        for store in [
            Store::new("none", Some(RoleLease::Released)),
            Store::new("hv2", held_by_hv2()),
        ] {
            let mut machine = standing_by(&store, at(0));
            let step = machine.next(at(60_000), eligibility);
            assert_eq!(waits_for(&step), Some(Because::NotEligible(eligibility)));
        }
        let store = Store::new("hv1", Some(RoleLease::Released));
        let step = standing_by(&store, at(0)).next(at(1), eligibility);
        match eligibility {
            Eligibility::ShuttingDown => {
                assert_eq!(
                    step,
                    Step::Vacate {
                        record: ZnodeVersion(5),
                        named: node("hv1"),
                        why: VacateReason::ShuttingDown,
                    }
                );
            }
            Eligibility::Hypervisor
            | Eligibility::Starting
            | Eligibility::NodeLeaseEnded
            | Eligibility::OnHold
            | Eligibility::Eligible => {
                assert_eq!(waits_for(&step), Some(Because::NotEligible(eligibility)));
            }
        }
    }
}

#[test]
fn a_primary_that_shuts_down_vacates_the_record_first() {
    let (mut machine, store) = primary(at(0));
    assert_eq!(
        machine.next(at(100), Eligibility::ShuttingDown),
        Step::Vacate {
            record: ZnodeVersion(5),
            named: node("hv1"),
            why: VacateReason::ShuttingDown,
        }
    );
    store.record("none").show(&mut machine, at(110));
    assert_eq!(
        waits_for(&machine.next(at(110), Eligibility::ShuttingDown)),
        Some(Because::Holding)
    );
}

#[test]
fn what_an_earlier_life_of_this_boot_left_in_the_lease_is_released() {
    // The agent was killed and restarted; its addresses were removed at the start. Nobody need wait for C.
    let store = Store::new("none", held_by("hv1", life('1', '1', 3)));
    assert_eq!(
        standing_by(&store, at(0)).next(at(0), Eligibility::Starting),
        Step::Release {
            lease: ZnodeVersion(70)
        }
    );
    // Another boot, or another machine of this name, is not ours to speak for.
    for other in [life('1', '7', 3), life('7', '1', 3)] {
        let store = Store::new("none", held_by("hv1", other));
        let step = standing_by(&store, at(0)).next(at(0), Eligibility::Eligible);
        assert_eq!(waits_for(&step), Some(Because::ContentionDelay), "{step:?}");
    }
}

#[test]
fn an_agent_says_secondary_at_its_start() {
    // The last word of an earlier life must not stand for ever.
    let store = Store::new("hv2", held_by_hv2());
    let mut machine = RoleMachine::new(node("hv1"), life('1', '1', 4), 0, TIMING);
    assert_eq!(
        waits_for(&machine.next(at(0), Eligibility::Starting)),
        Some(Because::NotObserved)
    );
    store.show(&mut machine, at(0));
    assert_eq!(machine.next(at(0), Eligibility::Starting), Step::StandBy);
}

#[test]
fn bring_up_is_looked_at_again_until_it_answers_while_the_lease_is_renewed() {
    let store = Store::new("hv1", Some(RoleLease::Released));
    let mut machine = standing_by(&store, at(0));
    machine.started(ZnodeVersion(5), ZnodeVersion(71), at(0));
    assert_eq!(
        machine.next(at(0), Eligibility::Eligible),
        Step::BringUp { right_ends: at(5250) }
    );
    machine.look_again(at(10));
    assert_eq!(
        waits_for(&machine.next(at(10), Eligibility::Eligible)),
        Some(Because::Holding)
    );
    assert_eq!(
        machine.next(at(260), Eligibility::Eligible),
        Step::BringUp { right_ends: at(5250) }
    );
    machine.look_again(at(900));
    assert!(matches!(
        machine.next(at(1000), Eligibility::Eligible),
        Step::Renew { counter: 1, .. }
    ));
    assert_eq!(machine.renewed(ZnodeVersion(72), 1, at(1000)), Some(at(6250)));
    assert_eq!(
        machine.next(at(1150), Eligibility::Eligible),
        Step::BringUp { right_ends: at(6250) }
    );
}
