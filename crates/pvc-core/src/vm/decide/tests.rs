//! Every state on every side of every border. Each test says what would go wrong in a datacentre without the rule.

use super::*;
use crate::ids::{BootId, MachineId};

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

fn clients() -> CephClients {
    CephClients::Recorded(vec!["10.102.0.1:0/11".parse().unwrap()])
}

fn owner(name: &str, incarnation: Incarnation, ceph_clients: CephClients) -> Option<Owner> {
    Some(Owner {
        node: node(name),
        incarnation,
        epoch: 1,
        ceph_clients,
    })
}

fn ours() -> Option<Owner> {
    owner("hv1", life('1', '1', 2), clients())
}

struct Case {
    node: &'static str,
    state: VmState,
    owner: Option<Owner>,
    process: Presence,
    domain: DomainReading,
    ending: Ending,
    fitness: NodeFitness,
    shutdown: Option<ShutdownProgress>,
    history: RestartHistory,
    now: u64,
    last_node: Option<&'static str>,
    method: MigrationMethod,
    incoming: Option<Incoming>,
    evidence: FenceEvidence,
    on_storage: bool,
    daemon_state: DaemonState,
}

fn running(state: VmState) -> Case {
    Case {
        node: "hv1",
        state,
        owner: ours(),
        process: Presence::Present,
        domain: DomainReading::Is(DomainStatus::Running),
        ending: Ending::Unclear,
        fitness: NodeFitness::Fit,
        shutdown: None,
        history: RestartHistory::default(),
        now: 1000,
        last_node: None,
        method: MigrationMethod::None,
        incoming: None,
        evidence: FenceEvidence::None,
        on_storage: true,
        daemon_state: DaemonState::Run,
    }
}

fn resting(state: VmState) -> Case {
    Case {
        owner: None,
        process: Presence::Absent,
        domain: DomainReading::Absent,
        ..running(state)
    }
}

fn seconds(count: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(count))
}

fn step(case: &Case) -> VmStep {
    let record = VmRecord {
        node: node(case.node),
        node_version: ZnodeVersion(1),
        state: case.state,
        state_version: ZnodeVersion(1),
        owner: case.owner.clone(),
        owner_version: ZnodeVersion(1),
        last_node: case.last_node.map(node),
        last_node_version: ZnodeVersion(1),
        migration_method: case.method,
        incoming: case.incoming.clone(),
        incoming_version: ZnodeVersion(1),
    };
    next_vm_step(&VmView {
        now: seconds(case.now),
        me: &node("hv1"),
        incarnation: &life('1', '1', 2),
        record: &record,
        process: case.process,
        domain: case.domain,
        ending: case.ending,
        fitness: case.fitness,
        shutdown: case.shutdown,
        shutdown_timeout: Duration::from_secs(180),
        history: case.history,
        evidence: case.evidence,
        on_storage: case.on_storage,
        daemon_state: case.daemon_state,
    })
}

#[test]
fn a_guest_is_claimed_only_when_nobody_owns_it_and_it_belongs_here() {
    // Anything looser starts a second process of one guest.
    assert_eq!(step(&resting(VmState::Start)), VmStep::Claim);
    let elsewhere = Case {
        node: "hv2",
        ..resting(VmState::Start)
    };
    assert_eq!(step(&elsewhere), VmStep::Leave(Calm::NotHere));
    let owned = Case {
        owner: owner("hv2", life('2', '2', 1), clients()),
        ..resting(VmState::Start)
    };
    assert_eq!(step(&owned), VmStep::Leave(Calm::OwnedElsewhere(node("hv2"))));
    // Another machine took over this node's name: its predecessor may still run the guest.
    let former = Case {
        owner: owner("hv1", life('9', '9', 1), clients()),
        ..resting(VmState::Start)
    };
    assert_eq!(step(&former), VmStep::Leave(Calm::OwnedByFormerMachine));
    for fitness in [
        NodeFitness::Fenced,
        NodeFitness::LeaseEnded,
        NodeFitness::NotRunning,
    ] {
        let unfit = Case {
            fitness,
            ..resting(VmState::Start)
        };
        assert_eq!(step(&unfit), VmStep::Leave(Calm::NotFit(fitness)));
    }
}

#[test]
fn nothing_follows_from_not_knowing() {
    for state in VmState::ALL {
        for owner in [None, ours(), owner("hv2", life('2', '2', 1), clients())] {
            let case = Case {
                process: Presence::Unknown,
                owner,
                ..running(*state)
            };
            assert_eq!(step(&case), VmStep::Leave(Calm::ProcessesUnknown));
        }
    }
    // Lesson 14: an unreachable libvirtd is a degraded reading.
    let silent = Case {
        domain: DomainReading::Unknown,
        ..running(VmState::Start)
    };
    assert_eq!(step(&silent), VmStep::Leave(Calm::LibvirtSilent));
    let forgot = Case {
        domain: DomainReading::Absent,
        ..running(VmState::Start)
    };
    assert_eq!(step(&forgot), VmStep::Leave(Calm::LibvirtForgot));
}

#[test]
fn a_process_that_another_node_may_double_is_ended() {
    let elsewhere = Case {
        owner: owner("hv2", life('2', '2', 1), clients()),
        ..running(VmState::Start)
    };
    assert_eq!(
        step(&elsewhere),
        VmStep::Destroy(DestroyReason::OwnedElsewhere(node("hv2")))
    );
    let unowned = Case {
        owner: None,
        node: "hv2",
        ..running(VmState::Start)
    };
    assert_eq!(step(&unowned), VmStep::Destroy(DestroyReason::Unowned));
    let here = Case {
        owner: None,
        ..running(VmState::Start)
    };
    assert_eq!(step(&here), VmStep::Adopt);
    // Left by a start that libvirt finished after it had been given up: what never ran is not taken over, since its
    // clients would never be on record.
    let never_ran = Case {
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp)),
        ..here
    };
    assert_eq!(
        step(&never_ran),
        VmStep::Destroy(DestroyReason::ClientsNotRecorded)
    );
    let unknown = Case {
        domain: DomainReading::Unknown,
        ..never_ran
    };
    assert_eq!(step(&unknown), VmStep::Leave(Calm::LibvirtSilent));
}

#[test]
fn only_a_node_that_takes_part_adopts_a_process() {
    // A fence that is being proven goes by what was on record: what is adopted meanwhile is not covered by it.
    for fitness in [
        NodeFitness::NotRunning,
        NodeFitness::LeaseEnded,
        NodeFitness::Fenced,
        NodeFitness::StorageLost,
    ] {
        let case = |owner| Case {
            owner,
            fitness,
            ..running(VmState::Start)
        };
        for owner in [None, owner("hv1", life('1', '9', 1), clients())] {
            let fit = Case {
                fitness: NodeFitness::Fit,
                ..case(owner.clone())
            };
            assert_eq!(step(&fit), VmStep::Adopt);
            assert_eq!(
                step(&case(owner)),
                VmStep::Leave(Calm::NotFit(fitness)),
                "{fitness:?}"
            );
        }
    }
}

#[test]
fn a_guest_without_recorded_clients_never_runs_on() {
    // A fence could not bar what is not on record.
    for domain in [
        DomainStatus::Running,
        DomainStatus::Paused(PauseReason::StartingUp),
    ] {
        let case = Case {
            owner: owner("hv1", life('1', '1', 1), CephClients::Unrecorded),
            domain: DomainReading::Is(domain),
            ..running(VmState::Start)
        };
        assert_eq!(step(&case), VmStep::Destroy(DestroyReason::ClientsNotRecorded));
    }
}

#[test]
fn a_restarted_agent_confirms_its_guests_and_disturbs_none() {
    let case = Case {
        owner: owner("hv1", life('1', '1', 1), clients()),
        ..running(VmState::Start)
    };
    assert_eq!(step(&case), VmStep::Confirm);
    assert_eq!(step(&running(VmState::Start)), VmStep::Leave(Calm::Runs));
}

#[test]
fn only_a_domain_paused_by_our_own_start_is_resumed() {
    // After an I/O error the guest may have been cut off by a fence and run elsewhere.
    for (reason, expected) in [
        (PauseReason::StartingUp, VmStep::Resume),
        (PauseReason::IoError, VmStep::Leave(Calm::PausedByIoError)),
        // Sent away: seen to, and never resumed.
        (PauseReason::Migration, VmStep::Send),
        (PauseReason::Other, VmStep::Leave(Calm::PausedByHand)),
    ] {
        let case = Case {
            domain: DomainReading::Is(DomainStatus::Paused(reason)),
            ..running(VmState::Start)
        };
        assert_eq!(step(&case), expected);
    }
}

#[test]
fn an_adopted_guest_that_was_paused_is_neither_let_run_nor_ended() {
    // Adopted while it ran, and paused by hand since: libvirt tells that no better from a start than this.
    let case = Case {
        owner: owner("hv1", life('1', '1', 2), CephClients::Unknown),
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp)),
        ..running(VmState::Start)
    };
    assert_eq!(step(&case), VmStep::Leave(Calm::PausedByHand));
}

#[test]
fn a_shutdown_is_asked_for_again_and_forced_at_its_deadline() {
    // Lesson 48: a guest that ignores shutdown must not hold an administrator up for ever.
    assert_eq!(step(&running(VmState::Shutdown)), VmStep::AskToShutDown);
    let progress = |now, asked_at| Case {
        shutdown: Some(ShutdownProgress {
            since: seconds(1000),
            asked_at: seconds(asked_at),
        }),
        now,
        ..running(VmState::Shutdown)
    };
    assert_eq!(step(&progress(1009, 1000)), VmStep::Leave(Calm::ShuttingDown));
    assert_eq!(step(&progress(1010, 1000)), VmStep::AskToShutDown);
    assert_eq!(step(&progress(1179, 1170)), VmStep::Leave(Calm::ShuttingDown));
    assert_eq!(
        step(&progress(1180, 1179)),
        VmStep::Destroy(DestroyReason::ShutdownTimeout)
    );
    // Cancelled: the state is start again, and nothing is forced.
    let cancelled = Case {
        state: VmState::Start,
        ..progress(1200, 1190)
    };
    assert_eq!(step(&cancelled), VmStep::Leave(Calm::Runs));
}

#[test]
fn every_state_of_a_running_guest_has_its_step() {
    for state in VmState::ALL {
        let expected = match state {
            VmState::Start => VmStep::Leave(Calm::Runs),
            // To where it runs already.
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => VmStep::Settle(VmState::Start),
            VmState::Shutdown | VmState::Restart => VmStep::AskToShutDown,
            VmState::Provision | VmState::Import | VmState::Restore => VmStep::Leave(Calm::BeingBuilt),
            VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror | VmState::Delete => {
                VmStep::Destroy(DestroyReason::Requested(*state))
            }
        };
        assert_eq!(step(&running(*state)), expected, "{state}");
    }
}

#[test]
fn every_state_of_a_guest_that_is_gone_gives_it_up() {
    for state in VmState::ALL {
        let gone = Case {
            owner: ours(),
            ..resting(*state)
        };
        let expected = match state {
            VmState::Shutdown => VmStep::Release {
                state: Some(VmState::Stop),
                died: false,
            },
            VmState::Restart => VmStep::Release {
                state: Some(VmState::Start),
                died: false,
            },
            VmState::Start => VmStep::Release {
                state: None,
                died: true,
            },
            VmState::Stop
            | VmState::Disable
            | VmState::Fail
            | VmState::Migrate
            | VmState::MigrateLive
            | VmState::Unmigrate
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => VmStep::Release {
                state: None,
                died: false,
            },
        };
        assert_eq!(step(&gone), expected, "{state}");
    }
    // After a reboot of this machine its process is certainly gone, and that was no death of the guest's own.
    let rebooted = Case {
        owner: owner("hv1", life('1', '7', 1), clients()),
        ..resting(VmState::Start)
    };
    // Nor is a start that was broken off before its clients were on record: five of those are a bad minute of the
    // store, and must not make the guest fail.
    let never_ran = Case {
        owner: owner("hv1", life('1', '1', 2), CephClients::Unrecorded),
        ..resting(VmState::Start)
    };
    for case in [rebooted, never_ran] {
        assert_eq!(
            step(&case),
            VmStep::Release {
                state: None,
                died: false
            }
        );
    }
}

#[test]
fn every_state_of_a_resting_guest_has_its_step() {
    for state in VmState::ALL {
        let expected = match state {
            VmState::Start => VmStep::Claim,
            VmState::Restart | VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => {
                VmStep::Settle(VmState::Start)
            }
            VmState::Shutdown => VmStep::Settle(VmState::Stop),
            VmState::Provision | VmState::Import | VmState::Restore => VmStep::Leave(Calm::BeingBuilt),
            VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror | VmState::Delete => {
                VmStep::Leave(Calm::Rests)
            }
        };
        assert_eq!(step(&resting(*state)), expected, "{state}");
    }
}

#[test]
fn a_guest_that_keeps_dying_is_left_alone_in_the_end() {
    let died = |deaths, not_before| Case {
        history: RestartHistory {
            deaths,
            not_before: Some(seconds(not_before)),
        },
        ..resting(VmState::Start)
    };
    assert_eq!(
        step(&died(1, 1001)),
        VmStep::Leave(Calm::BackingOff(seconds(1001)))
    );
    assert_eq!(step(&died(4, 1000)), VmStep::Claim);
    assert_eq!(step(&died(5, 1000)), VmStep::FailDying);
}

fn incoming(target: &str, incarnation: Incarnation, hand_over: HandOver) -> Option<Incoming> {
    Some(Incoming {
        target: node(target),
        incarnation,
        ceph_clients: CephClients::Unrecorded,
        hand_over,
        source_log: None,
    })
}

fn moving(state: VmState) -> Case {
    Case {
        node: "hv2",
        last_node: Some("hv1"),
        ..running(state)
    }
}

#[test]
fn a_running_guest_is_sent_unless_it_was_set_to_be_shut_down() {
    // Lesson H: a live migration never turns into a shutdown, unless that is the guest's own method.
    for state in [VmState::Migrate, VmState::MigrateLive, VmState::Unmigrate] {
        for method in [MigrationMethod::None, MigrationMethod::Live] {
            let case = Case {
                method,
                ..moving(state)
            };
            assert_eq!(step(&case), VmStep::Send, "{state} {method}");
        }
        let cold = Case {
            method: MigrationMethod::Shutdown,
            ..moving(state)
        };
        assert_eq!(step(&cold), VmStep::AskToShutDown);
        // Its process ended: given up, and its target starts it.
        let down = Case {
            process: Presence::Absent,
            domain: DomainReading::Absent,
            ..cold
        };
        assert_eq!(
            step(&down),
            VmStep::Release {
                state: None,
                died: false
            }
        );
    }
}

#[test]
fn what_is_on_its_way_is_seen_to_whatever_is_asked_meanwhile() {
    // A request that was taken back, or replaced by a stop: the migration must be ended before anything else.
    for state in VmState::ALL {
        let case = Case {
            incoming: incoming("hv2", life('2', '2', 1), HandOver::Accepted),
            ..moving(*state)
        };
        assert_eq!(step(&case), VmStep::Send, "{state}");
        let moves = matches!(
            state,
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate
        );
        let afresh = match moves {
            true => VmStep::CallOff(CallOff::ProcessEnded),
            false => VmStep::GiveBack,
        };
        // It ended while no agent was looking. Unless it had been sent it may have run on after the switch-over, and the
        // target would resume a memory that is older than the volumes.
        let gone = |ending| Case {
            process: Presence::Absent,
            domain: DomainReading::Absent,
            incoming: incoming("hv2", life('2', '2', 1), HandOver::Accepted),
            ending,
            ..moving(*state)
        };
        assert_eq!(step(&gone(Ending::Sent)), VmStep::SayGone, "{state}");
        assert_eq!(step(&gone(Ending::Unclear)), afresh, "{state}");
        // That boot has ended, and with it whoever saw whether the guest ran on after the switch-over.
        let rebooted = Case {
            owner: owner("hv1", life('1', '9', 1), clients()),
            incoming: incoming("hv2", life('2', '2', 1), HandOver::Accepted),
            process: Presence::Absent,
            domain: DomainReading::Absent,
            ..moving(*state)
        };
        assert_eq!(step(&rebooted), afresh, "{state}");
        let said = Case {
            incoming: incoming("hv2", life('2', '2', 1), HandOver::SourceGone),
            ..gone(Ending::Unclear)
        };
        // Started anew here it could run twice: the target may be running it.
        assert_eq!(
            step(&said),
            VmStep::Leave(Calm::HandedOver(node("hv2"))),
            "{state}"
        );
    }
}

#[test]
fn a_guest_that_ended_while_it_was_sent_and_that_nobody_took_on_starts_again_here() {
    let case = Case {
        process: Presence::Absent,
        domain: DomainReading::Absent,
        ..moving(VmState::Migrate)
    };
    assert_eq!(step(&case), VmStep::CallOff(CallOff::ProcessEnded));
}

#[test]
fn only_the_target_on_record_may_have_a_half_of_a_guest() {
    let theirs = || owner("hv2", life('2', '2', 1), clients());
    let half = |incoming| Case {
        owner: theirs(),
        incoming,
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::Migration)),
        ..running(VmState::Migrate)
    };
    assert_eq!(
        step(&half(incoming("hv1", life('1', '1', 1), HandOver::Accepted))),
        VmStep::Receive
    );
    for other in [
        None,
        incoming("hv3", life('3', '3', 1), HandOver::Accepted),
        incoming("hv1", life('9', '9', 1), HandOver::Accepted),
    ] {
        assert_eq!(
            step(&half(other)),
            VmStep::Destroy(DestroyReason::OwnedElsewhere(node("hv2")))
        );
    }
    // Its source was freed by a recovery: whoever owns the guest next starts it afresh.
    let orphan = Case {
        owner: None,
        ..half(incoming("hv1", life('1', '1', 2), HandOver::Accepted))
    };
    assert_eq!(step(&orphan), VmStep::Destroy(DestroyReason::HalfOfMigration));
    let unlicensed = Case {
        owner: None,
        ..half(None)
    };
    assert_eq!(step(&unlicensed), VmStep::Destroy(DestroyReason::HalfOfMigration));
    let ended = Case {
        process: Presence::Absent,
        domain: DomainReading::Absent,
        ..orphan
    };
    // And not before this node is off the record as its target.
    assert_eq!(step(&ended), VmStep::GiveBack);
    // Of an earlier boot nothing is left that could receive.
    let rebooted = Case {
        owner: theirs(),
        incoming: incoming("hv1", life('1', '7', 1), HandOver::Accepted),
        ..resting(VmState::Migrate)
    };
    assert_eq!(step(&rebooted), VmStep::GiveBack);
    let expected_elsewhere = Case {
        incoming: incoming("hv3", life('3', '3', 1), HandOver::Accepted),
        ..resting(VmState::Start)
    };
    assert_eq!(
        step(&expected_elsewhere),
        VmStep::Leave(Calm::ExpectedElsewhere(node("hv3")))
    );
}

#[test]
fn a_fenced_boot_ends_its_guests_and_the_word_dead_ends_none() {
    let fenced = Case {
        evidence: FenceEvidence::OnRecord,
        ..running(VmState::Start)
    };
    assert_eq!(step(&fenced), VmStep::Destroy(DestroyReason::Fenced));
    let half = Case {
        owner: owner("hv2", life('2', '2', 1), clients()),
        incoming: incoming("hv1", life('1', '1', 2), HandOver::Accepted),
        ..fenced
    };
    assert_eq!(step(&half), VmStep::Destroy(DestroyReason::Fenced));
    // Another node took this one for dead, which it was not: a healthy guest must not pay for it.
    let called_dead = Case {
        daemon_state: DaemonState::Dead,
        ..running(VmState::Start)
    };
    assert_eq!(step(&called_dead), VmStep::Leave(Calm::Runs));
}

#[test]
fn on_hold_nothing_is_done_about_any_guest() {
    // The store tells of the past: every step that it asks for may end or double a healthy guest.
    for state in VmState::ALL {
        for owner in [None, ours(), owner("hv2", life('2', '2', 1), clients())] {
            for case in [running(*state), resting(*state)] {
                let case = Case {
                    owner: owner.clone(),
                    fitness: NodeFitness::OnHold,
                    ..case
                };
                let calm = VmStep::Leave(Calm::NotFit(NodeFitness::OnHold));
                assert_eq!(step(&case), calm, "{state}");
            }
        }
    }
}

#[test]
fn a_node_that_gives_its_guests_up_for_lost_storage_ends_those_that_should_run_here_and_starts_none() {
    let lost = |case: Case| Case {
        fitness: NodeFitness::StorageLost,
        ..case
    };
    let ended = VmStep::Destroy(DestroyReason::StorageLost);
    assert_eq!(step(&lost(running(VmState::Start))), ended);
    let paused = Case {
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::IoError)),
        ..running(VmState::Start)
    };
    assert_eq!(step(&lost(paused)), ended);
    // It reaches all that it has.
    let elsewhere = Case {
        on_storage: false,
        ..running(VmState::Start)
    };
    assert_eq!(step(&lost(elsewhere)), VmStep::Leave(Calm::Runs));
    let unfit = VmStep::Leave(Calm::NotFit(NodeFitness::StorageLost));
    assert_eq!(step(&lost(resting(VmState::Start))), unfit);
    // What is moving, or was asked to stop, goes its way.
    for state in [VmState::Migrate, VmState::Shutdown] {
        assert_eq!(step(&lost(running(state))), step(&running(state)));
    }
    let receiving = Case {
        incoming: incoming("hv2", life('2', '2', 1), HandOver::Accepted),
        ..running(VmState::Start)
    };
    assert_eq!(step(&lost(receiving)), VmStep::Send);
}
