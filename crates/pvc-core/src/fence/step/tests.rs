//! The rules of ha-protocol section 5 as tables.

use super::*;
use crate::fence::record::{Confirmation, StorageTrack};
use crate::ids::{BootId, Incarnation, MachineId, NodeName};
use crate::records::PROTOCOL;

/// What is written into a record.
type Change = fn(&mut FenceRecord);

const SUSPECT: Standing = Standing::Suspect {
    silence: Duration::from_secs(6),
};

fn incarnation(boot: u8) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new("1".repeat(32)).unwrap(),
        boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-0000000000{boot:02}")).unwrap(),
        counter: 1,
    }
}

fn lease(machine: u8, boot: u8) -> NodeLease {
    NodeLease {
        incarnation: Incarnation {
            machine_id: MachineId::new(machine.to_string().repeat(32)).unwrap(),
            ..incarnation(boot)
        },
        protocol: PROTOCOL,
        counter: 7,
    }
}

fn policy() -> FencePolicy {
    FencePolicy {
        power: Means::Available,
        storage: Means::Available,
        recovery: RecoveryPolicy::Move,
    }
}

fn record(phase: FencePhase) -> FenceRecord {
    let mut record = FenceRecord::suspected(incarnation(1), NodeName::new("hv1").unwrap());
    record.phase = phase;
    record
}

fn barred() -> StorageTrack {
    StorageTrack::Barred {
        epoch: 9,
        clients: 2,
        not_covered: Vec::new(),
    }
}

struct Case {
    record: Option<FenceRecord>,
    standing: Standing,
    boot: u8,
    renewed_after_off: bool,
    maintenance: bool,
    brake: bool,
    backing_off: bool,
    policy: FencePolicy,
    guests_left: usize,
    alive_for: Duration,
    former_owns: bool,
    off_after_restart: bool,
    machine: u8,
}

impl Case {
    fn of(record: FenceRecord) -> Case {
        Case {
            record: Some(record),
            standing: SUSPECT,
            boot: 1,
            renewed_after_off: false,
            maintenance: false,
            brake: false,
            backing_off: false,
            policy: policy(),
            guests_left: 0,
            alive_for: Duration::ZERO,
            former_owns: false,
            off_after_restart: false,
            machine: 1,
        }
    }

    fn step(&self) -> FenceStep {
        next_fence_step(&FenceView {
            record: self.record.as_ref(),
            standing: &self.standing,
            lease: Some(&lease(self.machine, self.boot)),
            renewed_after_off: self.renewed_after_off,
            maintenance: self.maintenance,
            brake: self.brake.then_some(BrakeOn {
                silent: 9,
                nodes: 30,
                limit: 7,
            }),
            backing_off: self.backing_off,
            policy: &self.policy,
            guests_left: self.guests_left,
            alive_for: self.alive_for,
            former_owns: self.former_owns,
            off_after_restart: self.off_after_restart,
        })
    }
}

const BOTH: FenceStep = FenceStep::Seek {
    power: true,
    storage: true,
};

#[test]
fn only_a_suspect_node_is_fenced_and_never_in_maintenance() {
    for standing in [
        Standing::Alive,
        Standing::Unknown,
        Standing::Stopped,
        Standing::NeverRegistered,
        Standing::Quiet {
            silence: Duration::from_secs(5),
        },
        Standing::ComingUp {
            left: Duration::from_secs(100),
        },
    ] {
        let case = Case {
            record: None,
            standing,
            ..Case::of(record(FencePhase::Suspected))
        };
        assert_eq!(case.step(), FenceStep::Leave, "{:?}", case.standing);
    }
    let mut case = Case {
        record: None,
        ..Case::of(record(FencePhase::Suspected))
    };
    assert!(matches!(case.step(), FenceStep::Suspect { .. }));
    case.maintenance = true;
    assert_eq!(case.step(), FenceStep::Leave);
}

#[test]
fn before_the_first_irreversible_order_a_renewal_or_maintenance_takes_it_back() {
    // The saving throw of PVC 1.0.3, here bound to the same boot.
    for phase in [FencePhase::Suspected, FencePhase::Proving] {
        let mut case = Case::of(record(phase));
        assert_eq!(case.step(), BOTH);
        case.standing = Standing::Alive;
        assert_eq!(case.step(), FenceStep::Abandon(AbandonReason::Renewed));
        case.standing = SUSPECT;
        case.maintenance = true;
        assert_eq!(case.step(), FenceStep::Abandon(AbandonReason::Maintenance));
    }
}

#[test]
fn who_does_not_know_yet_whether_a_node_lives_neither_gives_a_suspicion_up_nor_believes_a_word() {
    // A coordinator whose agent has just started takes the lock while another's suspicion waits.
    for phase in [FencePhase::Suspected, FencePhase::Proving] {
        let mut record = record(phase.clone());
        record.confirmation = Some(Confirmation {
            kind: ConfirmationKind::MachineIsOff,
            by: "admin".to_owned(),
            at: 0,
        });
        let mut case = Case::of(record);
        case.standing = Standing::Unknown;
        let step = case.step();
        assert!(
            !matches!(step, FenceStep::Abandon(_) | FenceStep::Conclude(_)),
            "{phase:?}: {step:?}"
        );
        case.standing = SUSPECT;
        assert_eq!(case.step(), FenceStep::Conclude(ProofKind::Administrator));
    }
}

#[test]
fn past_it_the_fence_only_goes_forward() {
    let ordered: [Change; 3] = [
        |record| {
            record.power = PowerTrack::Ordered;
            record.storage = StorageTrack::Barring;
        },
        |record| record.storage = StorageTrack::Barring,
        |record| {
            record.storage = StorageTrack::Failed {
                reason: String::new(),
            }
        },
    ];
    for order in ordered {
        let mut record = record(FencePhase::Proving);
        order(&mut record);
        let mut case = Case::of(record);
        case.alive_for = Duration::from_secs(3600);
        for standing in [Standing::Alive, Standing::Unknown, SUSPECT, Standing::Stopped] {
            case.standing = standing;
            for maintenance in [false, true] {
                case.maintenance = maintenance;
                assert_eq!(case.step(), BOTH, "{:?} {:?}", case.record, case.standing);
            }
        }
        // Whoever has tried in vain lets others try.
        case.backing_off = true;
        assert_eq!(case.step(), FenceStep::Leave);
    }
}

#[test]
fn an_order_to_switch_off_that_the_node_outlives_is_given_up_and_never_repeated_meanwhile() {
    let ordered: [Change; 2] = [
        |record| record.power = PowerTrack::Ordered,
        |record| {
            record.power = PowerTrack::Failed {
                reason: String::new(),
            }
        },
    ];
    let untouched: [Change; 2] = [
        |_| {},
        |record| {
            record.storage = StorageTrack::Unavailable {
                reason: String::new(),
            }
        },
    ];
    for order in ordered {
        for untouched in untouched {
            let mut record = record(FencePhase::Proving);
            order(&mut record);
            untouched(&mut record);
            let mut case = Case::of(record);
            assert_eq!(case.step(), BOTH);
            for standing in [
                Standing::Unknown,
                Standing::Quiet {
                    silence: Duration::from_secs(4),
                },
            ] {
                case.standing = standing;
                assert_eq!(case.step(), FenceStep::Leave);
            }
            case.standing = Standing::Alive;
            case.alive_for = ORDER_OUTLIVED - Duration::from_millis(1);
            assert_eq!(case.step(), FenceStep::Wait(WaitReason::RenewsAgain));
            case.alive_for = ORDER_OUTLIVED;
            assert_eq!(case.step(), FenceStep::Abandon(AbandonReason::OrderOutlived));
            // Its death is proven, or its guests were barred: then it goes forward.
            case.record.as_mut().unwrap().power = PowerTrack::Off;
            assert_eq!(case.step(), FenceStep::Conclude(ProofKind::Power));
        }
    }
}

#[test]
fn another_machine_that_takes_the_name_ends_no_fence_while_guests_belong_to_the_former_one() {
    for phase in [FencePhase::Suspected, FencePhase::Proving] {
        let mut case = Case::of(record(phase.clone()));
        case.machine = 2;
        case.boot = 2;
        for standing in [Standing::Alive, Standing::Unknown, Standing::Stopped, SUSPECT] {
            case.standing = standing;
            case.guests_left = 1;
            assert_eq!(case.step(), BOTH, "{phase:?} {:?}", case.standing);
            case.guests_left = 0;
            assert_eq!(case.step(), FenceStep::Abandon(AbandonReason::Replaced));
        }
        case.standing = Standing::Alive;
        case.guests_left = 1;
        case.record.as_mut().unwrap().confirmation = Some(Confirmation {
            kind: ConfirmationKind::MachineIsOff,
            by: "admin".to_owned(),
            at: 0,
        });
        assert_eq!(case.step(), FenceStep::Conclude(ProofKind::Administrator));
    }
    // It was replaced before anybody suspected it.
    for earlier in [
        None,
        Some(record(FencePhase::Abandoned {
            reason: String::new(),
        })),
    ] {
        let mut case = Case {
            record: earlier,
            standing: Standing::Alive,
            machine: 2,
            boot: 2,
            ..Case::of(record(FencePhase::Suspected))
        };
        assert_eq!(case.step(), FenceStep::Leave);
        case.former_owns = true;
        assert_eq!(case.step(), FenceStep::SuspectFormer);
        case.maintenance = true;
        assert_eq!(case.step(), FenceStep::Leave);
    }
}

#[test]
fn the_brake_holds_a_suspicion_until_somebody_confirms() {
    let mut case = Case::of(record(FencePhase::Suspected));
    case.brake = true;
    assert!(matches!(case.step(), FenceStep::Wait(WaitReason::Brake(_))));
    case.record.as_mut().unwrap().confirmation = Some(Confirmation {
        kind: ConfirmationKind::Proceed,
        by: "admin".to_owned(),
        at: 0,
    });
    assert_eq!(case.step(), BOTH);
}

#[test]
fn nothing_but_a_proof_leads_to_recovery() {
    // Defect H3: the reference frees the role and D1 forgets the guests after a fence that failed.
    let mut case = Case::of(record(FencePhase::Suspected));
    case.policy.power = Means::Unavailable("no BMC".to_owned());
    case.policy.storage = Means::Unavailable("not allowed".to_owned());
    assert!(matches!(case.step(), FenceStep::Wait(WaitReason::NoMeans { .. })));
    let proofs: [(Change, ProofKind); 3] = [
        (|record| record.power = PowerTrack::Off, ProofKind::Power),
        (|record| record.storage = barred(), ProofKind::Storage),
        (
            |record| {
                record.confirmation = Some(Confirmation {
                    kind: ConfirmationKind::MachineIsOff,
                    by: "admin".to_owned(),
                    at: 0,
                });
            },
            ProofKind::Administrator,
        ),
    ];
    for (prove, kind) in proofs {
        let mut record = record(FencePhase::Proving);
        prove(&mut record);
        let mut case = Case::of(record);
        assert_eq!(case.step(), FenceStep::Conclude(kind));
        case.policy.power = Means::Unavailable(String::new());
        case.policy.storage = Means::Unavailable(String::new());
        assert_eq!(case.step(), FenceStep::Conclude(kind));
    }
    // Its own next boot is a proof about the one before, and about no other machine's.
    let mut case = Case::of(record(FencePhase::Suspected));
    case.boot = 2;
    case.standing = Standing::Alive;
    assert_eq!(case.step(), FenceStep::Conclude(ProofKind::NewBoot));
}

#[test]
fn a_renewal_after_off_voids_the_power_proof_at_every_step() {
    for phase in [
        FencePhase::Proving,
        FencePhase::Proven { by: ProofKind::Power },
        FencePhase::Recovering { by: ProofKind::Power },
    ] {
        let mut record = record(phase);
        record.power = PowerTrack::Off;
        record.lease_version_at_off = Some(4);
        let mut case = Case::of(record);
        case.guests_left = 3;
        case.renewed_after_off = true;
        assert_eq!(case.step(), FenceStep::VoidPowerProof);
    }
}

#[test]
fn the_node_is_switched_on_only_when_no_guest_belongs_to_it() {
    let mut proven = record(FencePhase::Recovering { by: ProofKind::Power });
    proven.power = PowerTrack::Off;
    let mut case = Case::of(proven);
    case.guests_left = 1;
    assert_eq!(case.step(), FenceStep::Recover);
    case.guests_left = 0;
    assert_eq!(case.step(), FenceStep::Finish);
    let record = case.record.as_mut().unwrap();
    record.phase = FencePhase::Done { by: ProofKind::Power };
    record.restart = RestartTrack::Ordered;
    assert_eq!(case.step(), FenceStep::PowerOn);
    case.record.as_mut().unwrap().restart = RestartTrack::Done;
    assert_eq!(case.step(), FenceStep::Leave);
}

#[test]
fn a_node_is_switched_on_if_it_was_ordered_off_by_its_own_bmc_and_nobody_is_at_it() {
    let mut record = record(FencePhase::Recovering { by: ProofKind::Power });
    let kinds = [
        ProofKind::Power,
        ProofKind::Storage,
        ProofKind::NewBoot,
        ProofKind::Administrator,
    ];
    let failed = PowerTrack::Failed {
        reason: "no answer".to_owned(),
    };
    for (power, ordered) in [
        (PowerTrack::Untried, false),
        (PowerTrack::Ordered, true),
        (PowerTrack::Off, true),
        (failed, true),
    ] {
        record.power = power;
        for by in kinds {
            let expected = ordered && by != ProofKind::Administrator;
            assert_eq!(record.is_switched_on_when_done(by), expected, "{by:?}");
        }
    }
    record.power_disproved = true;
    assert!(kinds.iter().all(|by| !record.is_switched_on_when_done(*by)));
    record.power_disproved = false;
    record.restart = RestartTrack::Done;
    assert!(kinds.iter().all(|by| !record.is_switched_on_when_done(*by)));
}

#[test]
fn a_node_that_is_off_again_right_after_it_was_switched_on_is_switched_on_three_times_at_most() {
    let mut done = record(FencePhase::Done { by: ProofKind::Power });
    done.restart = RestartTrack::Done;
    done.restart_orders = 1;
    let mut case = Case::of(done);
    assert_eq!(case.step(), FenceStep::Leave);
    case.off_after_restart = true;
    assert_eq!(case.step(), FenceStep::PowerOn);
    case.maintenance = true;
    assert_eq!(case.step(), FenceStep::Leave);
    case.maintenance = false;
    case.record.as_mut().unwrap().restart_orders = RESTART_ORDERS;
    assert_eq!(case.step(), FenceStep::Leave);
    // Another boot of it has registered: this fence is no longer about it.
    case.record.as_mut().unwrap().restart_orders = 1;
    case.boot = 2;
    case.standing = Standing::Alive;
    assert_eq!(case.step(), FenceStep::Leave);
}

#[test]
fn guests_that_the_storage_proof_does_not_cover_keep_the_fence_open() {
    let mut proven = record(FencePhase::Recovering {
        by: ProofKind::Storage,
    });
    proven.storage = barred();
    proven.left = vec!["6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap()];
    let mut case = Case::of(proven);
    let power_alone = FenceStep::Seek {
        power: true,
        storage: false,
    };
    assert_eq!(case.step(), power_alone);
    case.backing_off = true;
    assert_eq!(case.step(), FenceStep::Wait(WaitReason::GuestsNotCovered(1)));
    case.boot = 2;
    assert_eq!(case.step(), FenceStep::Conclude(ProofKind::NewBoot));
    case.boot = 1;
    case.record.as_mut().unwrap().power = PowerTrack::Off;
    case.guests_left = 1;
    assert_eq!(case.step(), FenceStep::Recover);
}

#[test]
fn a_dead_node_is_not_fenced_again_but_its_next_life_can_be() {
    let mut case = Case::of(record(FencePhase::Done { by: ProofKind::Power }));
    assert_eq!(case.step(), FenceStep::Leave);
    case.boot = 2;
    assert!(matches!(case.step(), FenceStep::Suspect { .. }));
    case.boot = 1;
    case.record.as_mut().unwrap().returned = Some(incarnation(1));
    assert!(matches!(case.step(), FenceStep::Suspect { .. }));
}

#[test]
fn a_proven_death_without_recovery_leaves_the_guests_to_wait() {
    let mut proven = record(FencePhase::Proven { by: ProofKind::Power });
    proven.power = PowerTrack::Off;
    let mut case = Case::of(proven);
    case.policy.recovery = RecoveryPolicy::Leave;
    case.guests_left = 4;
    assert_eq!(case.step(), FenceStep::Finish);
}
