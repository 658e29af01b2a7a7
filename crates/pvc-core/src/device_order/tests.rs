//! Every state of an order against every state of its guest. What would go wrong without a rule stands at its test.

use super::*;
use crate::ids::{BootId, Incarnation, MachineId, ZnodeVersion};
use crate::records::{HandOver, Incoming};
use crate::states::{DaemonState, MigrationMethod, VmState};
use crate::time::BootTime;
use crate::vm::{DestroyReason, Ending, FenceEvidence, Presence, RestartHistory, VmRecord, next_vm_step};

const LONG: Duration = Duration::from_secs(3600);

fn client(nonce: u64) -> CephClient {
    format!("10.102.0.1:0/{nonce}").parse().unwrap()
}

fn order(action: DeviceAction, state: DeviceOrderState) -> DeviceOrder {
    DeviceOrder {
        id: "1".to_owned(),
        by: "tests".to_owned(),
        at: 1,
        node: NodeName::new("hv1").unwrap(),
        action,
        xml: "<disk/>".to_owned(),
        state,
    }
}

fn working() -> DeviceOrderState {
    DeviceOrderState::Working {
        epoch: 1,
        before: Vec::new(),
    }
}

fn recorded_state() -> DeviceOrderState {
    DeviceOrderState::Recorded { epoch: 1 }
}

struct Case {
    state: DeviceOrderState,
    action: DeviceAction,
    opens: Opens,
    domain: DomainReading,
    plugged: Plugged,
    fresh: Fresh,
    epoch: u64,
    tried: Tried,
    waited: Duration,
}

/// A volume is being attached, and the vCPUs stand still.
fn standing() -> Case {
    Case {
        state: working(),
        action: DeviceAction::Attach,
        opens: Opens::WritableVolume,
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::Other)),
        plugged: Plugged::Out,
        fresh: Fresh::Clients(Vec::new()),
        epoch: 1,
        tried: Tried::default(),
        waited: Duration::ZERO,
    }
}

fn step(case: &Case) -> DeviceStep {
    next_device_step(&DeviceView {
        order: &order(case.action, case.state.clone()),
        opens: case.opens,
        domain: case.domain,
        plugged: case.plugged.clone(),
        fresh: &case.fresh,
        epoch: case.epoch,
        tried: &case.tried,
        waited: case.waited,
    })
}

fn attach_tried() -> Tried {
    Tried {
        attach: true,
        ..Tried::default()
    }
}

fn opened() -> Fresh {
    Fresh::Clients(vec![client(77)])
}

const RUNNING: DomainReading = DomainReading::Is(DomainStatus::Running);
const STOPPED_BY_QEMU: DomainReading = DomainReading::Is(DomainStatus::Paused(PauseReason::IoError));

fn every_domain() -> Vec<DomainReading> {
    let mut all = vec![DomainReading::Unknown, DomainReading::Absent];
    for status in [
        DomainStatus::Running,
        DomainStatus::ShuttingDown,
        DomainStatus::Off,
        DomainStatus::Crashed,
        DomainStatus::Paused(PauseReason::StartingUp),
        DomainStatus::Paused(PauseReason::IoError),
        DomainStatus::Paused(PauseReason::Migration),
        DomainStatus::Paused(PauseReason::Other),
    ] {
        all.push(DomainReading::Is(status));
    }
    all
}

/// Another device in the place of the order's.
fn another() -> Plugged {
    Plugged::Taken {
        by: "disk vdb (vms/other)".to_owned(),
    }
}

/// Every view there is of an order at work or recorded.
fn every_view() -> Vec<Case> {
    let mut all = Vec::new();
    for state in [working(), recorded_state()] {
        for opens in [Opens::WritableVolume, Opens::Nothing] {
            for domain in every_domain() {
                for plugged in [Plugged::Unknown, Plugged::In, Plugged::Out, another()] {
                    for fresh in [Fresh::Unknown, Fresh::Clients(Vec::new()), opened()] {
                        for detach in 0..=DETACH_TRIES {
                            for refusal in [None, Some("no".to_owned())] {
                                for waited in [Duration::ZERO, LONG] {
                                    all.push(Case {
                                        state: state.clone(),
                                        opens,
                                        domain,
                                        plugged: plugged.clone(),
                                        fresh: fresh.clone(),
                                        tried: Tried {
                                            attach: detach > 0 || refusal.is_some(),
                                            refusal: refusal.clone(),
                                            detach,
                                        },
                                        waited,
                                        ..standing()
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn no_vcpu_runs_while_a_volume_may_be_open_that_is_on_no_record() {
    // A node that dies then could not be fenced by storage: its guest would write on beside its successor.
    for case in every_view() {
        let lets_run = matches!(step(&case), DeviceStep::Resume | DeviceStep::ResumeAndFail(_));
        let unrecorded = matches!(case.state, DeviceOrderState::Working { .. })
            && case.opens == Opens::WritableVolume
            && (matches!(case.plugged, Plugged::Unknown | Plugged::In)
                || case.fresh != Fresh::Clients(Vec::new()));
        assert!(!(lets_run && unrecorded), "{:?} {:?}", case.plugged, case.fresh);
        let attaches = step(&case) == DeviceStep::Attach && case.opens == Opens::WritableVolume;
        let still = case.domain == DomainReading::Is(DomainStatus::Paused(PauseReason::Other))
            || case.domain == DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp));
        assert!(!attaches || still, "{:?}", case.domain);
    }
}

#[test]
fn what_qemu_or_a_migration_stopped_is_never_let_run() {
    for case in every_view() {
        let theirs = matches!(
            case.domain,
            DomainReading::Is(DomainStatus::Paused(
                PauseReason::IoError | PauseReason::Migration
            ))
        );
        let lets_run = matches!(step(&case), DeviceStep::Resume | DeviceStep::ResumeAndFail(_));
        assert!(!(theirs && lets_run), "{:?}", case.domain);
    }
}

#[test]
fn nothing_unknown_ends_a_guest_and_no_guest_is_ended_at_once() {
    // Ceph or libvirt that does not answer for a minute must not cost anybody a running guest.
    for case in every_view() {
        if matches!(step(&case), DeviceStep::EndGuest(_)) {
            assert_ne!(case.domain, DomainReading::Unknown);
            assert_ne!(case.plugged, Plugged::Unknown);
            assert_ne!(case.fresh, Fresh::Unknown);
            assert_eq!(case.waited, LONG);
        }
    }
}

#[test]
fn every_view_of_an_order_comes_to_an_end_when_things_are_known() {
    // An order that waits for ever keeps its guest standing still.
    for case in every_view() {
        let known = case.domain != DomainReading::Unknown
            && case.plugged != Plugged::Unknown
            && (case.fresh != Fresh::Unknown || case.opens == Opens::Nothing);
        if known && case.waited == LONG {
            assert_ne!(
                step(&case),
                DeviceStep::Wait,
                "{:?} {:?}",
                case.state,
                case.domain
            );
        }
    }
}

#[test]
fn a_volume_is_attached_step_by_step() {
    let ordered = Case {
        state: DeviceOrderState::Ordered,
        domain: RUNNING,
        ..standing()
    };
    assert_eq!(step(&ordered), DeviceStep::Begin);
    let begun = Case {
        domain: RUNNING,
        ..standing()
    };
    assert_eq!(step(&begun), DeviceStep::Suspend);
    assert_eq!(step(&standing()), DeviceStep::Attach);
    let attached = |fresh: Fresh, waited: Duration, detach: u32| Case {
        plugged: Plugged::In,
        fresh,
        waited,
        tried: Tried {
            detach,
            ..attach_tried()
        },
        ..standing()
    };
    assert_eq!(
        step(&attached(opened(), Duration::ZERO, 0)),
        DeviceStep::Record(vec![client(77)])
    );
    let none = || Fresh::Clients(Vec::new());
    for (waited, detach, expected) in [
        (CLIENTS_WITHIN - Duration::from_millis(1), 0, DeviceStep::Wait),
        (CLIENTS_WITHIN, 0, DeviceStep::Detach),
        (CLIENTS_WITHIN, 1, DeviceStep::Wait),
        (DETACHED_WITHIN, DETACH_TRIES - 1, DeviceStep::Detach),
    ] {
        assert_eq!(
            step(&attached(none(), waited, detach)),
            expected,
            "{waited:?} {detach}"
        );
    }
    assert!(matches!(
        step(&attached(none(), DETACHED_WITHIN, DETACH_TRIES)),
        DeviceStep::EndGuest(_)
    ));
    assert_eq!(step(&attached(Fresh::Unknown, LONG, 0)), DeviceStep::Wait);
    let on_record = Case {
        state: recorded_state(),
        plugged: Plugged::In,
        ..standing()
    };
    assert_eq!(step(&on_record), DeviceStep::Resume);
    for domain in [RUNNING, STOPPED_BY_QEMU] {
        let done = Case {
            domain,
            state: recorded_state(),
            plugged: Plugged::In,
            ..standing()
        };
        assert_eq!(step(&done), DeviceStep::Finish);
    }
}

#[test]
fn what_failed_is_as_it_was_before_and_says_why() {
    let refused = Case {
        tried: Tried {
            refusal: Some("no such image".to_owned()),
            ..attach_tried()
        },
        ..standing()
    };
    assert_eq!(
        step(&refused),
        DeviceStep::ResumeAndFail("no such image".to_owned())
    );
    // QEMU had it open for a moment.
    let lingering = Case {
        fresh: opened(),
        ..refused
    };
    assert_eq!(step(&lingering), DeviceStep::Wait);
    let for_good = Case {
        waited: CLOSED_WITHIN,
        ..lingering
    };
    assert!(matches!(step(&for_good), DeviceStep::EndGuest(_)));
    let unanswered = Case {
        fresh: Fresh::Unknown,
        waited: LONG,
        ..standing()
    };
    assert_eq!(step(&unanswered), DeviceStep::Wait);
    let taken_off = Case {
        tried: Tried {
            detach: 1,
            ..attach_tried()
        },
        ..standing()
    };
    assert!(matches!(step(&taken_off), DeviceStep::ResumeAndFail(_)));
    let not_suspended = Case {
        domain: DomainReading::Is(DomainStatus::ShuttingDown),
        tried: Tried {
            refusal: Some("shutting down".to_owned()),
            ..Tried::default()
        },
        ..standing()
    };
    assert_eq!(step(&not_suspended), DeviceStep::Fail("shutting down".to_owned()));
}

#[test]
fn what_opens_nothing_needs_no_pause() {
    let card = Case {
        opens: Opens::Nothing,
        domain: RUNNING,
        ..standing()
    };
    assert_eq!(step(&card), DeviceStep::Attach);
    let done = Case {
        plugged: Plugged::In,
        tried: attach_tried(),
        ..card
    };
    assert_eq!(step(&done), DeviceStep::Finish);
    let nothing_came_of_it = Case {
        plugged: Plugged::Out,
        ..done
    };
    assert!(matches!(step(&nothing_came_of_it), DeviceStep::Fail(_)));
}

#[test]
fn a_device_comes_off_when_the_guest_lets_go_of_it() {
    let on = |detach: u32, waited: Duration| Case {
        action: DeviceAction::Detach,
        domain: RUNNING,
        plugged: Plugged::In,
        tried: Tried {
            detach,
            ..Tried::default()
        },
        waited,
        ..standing()
    };
    assert_eq!(step(&on(0, Duration::ZERO)), DeviceStep::Detach);
    assert_eq!(step(&on(1, Duration::ZERO)), DeviceStep::Wait);
    assert_eq!(step(&on(1, DETACHED_WITHIN)), DeviceStep::Detach);
    assert!(matches!(
        step(&on(DETACH_TRIES, DETACHED_WITHIN)),
        DeviceStep::Fail(_)
    ));
    let off = Case {
        plugged: Plugged::Out,
        ..on(1, Duration::ZERO)
    };
    assert_eq!(step(&off), DeviceStep::Finish);
    for action in [DeviceAction::Attach, DeviceAction::Detach] {
        let already = Case {
            state: DeviceOrderState::Ordered,
            action,
            domain: RUNNING,
            plugged: match action {
                DeviceAction::Attach => Plugged::In,
                DeviceAction::Detach => Plugged::Out,
            },
            ..standing()
        };
        assert_eq!(step(&already), DeviceStep::Finish, "{action:?}: already so");
    }
}

#[test]
fn another_process_of_the_guest_is_none_of_the_orders_business() {
    // It was started from the definition, and what it opened is on record: suspending it would help nobody.
    for state in [working(), recorded_state()] {
        for (plugged, finished) in [(Plugged::In, true), (Plugged::Out, false), (another(), false)] {
            let case = Case {
                state: state.clone(),
                epoch: 2,
                domain: RUNNING,
                plugged,
                ..standing()
            };
            let step = step(&case);
            assert_eq!(step == DeviceStep::Finish, finished, "{step:?}");
            assert_eq!(matches!(step, DeviceStep::Fail(_)), !finished, "{step:?}");
        }
    }
    for domain in [
        DomainReading::Absent,
        DomainReading::Is(DomainStatus::Off),
        DomainReading::Is(DomainStatus::Crashed),
    ] {
        let ended = Case { domain, ..standing() };
        assert!(matches!(step(&ended), DeviceStep::Fail(_)));
    }
}

fn life(counter: u64) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new("1".repeat(32)).unwrap(),
        boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap(),
        counter,
    }
}

fn owner(clients: CephClients) -> Owner {
    Owner {
        node: NodeName::new("hv1").unwrap(),
        incarnation: life(2),
        epoch: 1,
        ceph_clients: clients,
    }
}

struct Look {
    state: VmState,
    owner: Option<Owner>,
    incoming: Option<Incoming>,
    domain: DomainReading,
    process: Presence,
    fitness: NodeFitness,
    evidence: FenceEvidence,
    node: &'static str,
}

fn at_work() -> Look {
    Look {
        state: VmState::Start,
        owner: Some(owner(CephClients::Recorded(vec![client(1)]))),
        incoming: None,
        domain: RUNNING,
        process: Presence::Present,
        fitness: NodeFitness::Fit,
        evidence: FenceEvidence::None,
        node: "hv1",
    }
}

fn turn(look: &Look, state: DeviceOrderState) -> (VmStep, DeviceTurn) {
    let me = NodeName::new("hv1").unwrap();
    let record = VmRecord {
        node: NodeName::new(look.node).unwrap(),
        node_version: ZnodeVersion(1),
        state: look.state,
        state_version: ZnodeVersion(1),
        owner: look.owner.clone(),
        owner_version: ZnodeVersion(1),
        last_node: None,
        last_node_version: ZnodeVersion(1),
        migration_method: MigrationMethod::None,
        incoming: look.incoming.clone(),
        incoming_version: ZnodeVersion(1),
    };
    let view = VmView {
        now: BootTime::from_duration(Duration::from_secs(1000)),
        me: &me,
        incarnation: &life(2),
        record: &record,
        process: look.process,
        domain: look.domain,
        ending: Ending::Unclear,
        fitness: look.fitness,
        shutdown: None,
        shutdown_timeout: Duration::from_secs(180),
        history: RestartHistory::default(),
        evidence: look.evidence,
        on_storage: true,
        daemon_state: DaemonState::Run,
    };
    let ordinary = next_vm_step(&view);
    let turn = device_turn(&view, &ordinary, &order(DeviceAction::Attach, state));
    (ordinary, turn)
}

#[test]
fn an_order_at_work_comes_before_all_that_would_let_its_guest_run() {
    // libvirt says "paused by somebody" of what the order suspended, and, if the mark of a guest that has run could not
    // be set, "a start under way": the guest's own step would let it run with a client on no record.
    for reason in [PauseReason::Other, PauseReason::StartingUp] {
        let look = Look {
            domain: DomainReading::Is(DomainStatus::Paused(reason)),
            ..at_work()
        };
        for state in [working(), recorded_state()] {
            assert_eq!(turn(&look, state).1, DeviceTurn::CarryOut, "{reason:?}");
        }
    }
    let moving = Look {
        state: VmState::Migrate,
        node: "hv2",
        ..at_work()
    };
    let (ordinary, found) = turn(&moving, working());
    assert_eq!((ordinary, found), (VmStep::Send, DeviceTurn::CarryOut));
    let stopping = Look {
        state: VmState::Shutdown,
        ..at_work()
    };
    assert_eq!(turn(&stopping, working()).1, DeviceTurn::CarryOut);
    assert!(matches!(
        turn(&stopping, DeviceOrderState::Ordered).1,
        DeviceTurn::Refuse(_)
    ));
    assert!(matches!(
        turn(&moving, DeviceOrderState::Ordered).1,
        DeviceTurn::Refuse(_)
    ));
}

#[test]
fn what_must_end_ends_whatever_is_plugged() {
    let fenced = Look {
        evidence: FenceEvidence::OnRecord,
        ..at_work()
    };
    let stopped = Look {
        state: VmState::Stop,
        ..at_work()
    };
    for look in [fenced, stopped] {
        let (ordinary, found) = turn(&look, working());
        assert!(
            matches!(
                ordinary,
                VmStep::Destroy(DestroyReason::Fenced | DestroyReason::Requested(_))
            ),
            "{ordinary:?}"
        );
        assert_eq!(found, DeviceTurn::NotNow);
    }
    let held = Look {
        fitness: NodeFitness::OnHold,
        ..at_work()
    };
    assert_eq!(turn(&held, working()).1, DeviceTurn::NotNow);
    let silent = Look {
        domain: DomainReading::Unknown,
        ..at_work()
    };
    assert_eq!(turn(&silent, working()).1, DeviceTurn::NotNow);
}

#[test]
fn an_order_waits_for_its_guest_and_is_refused_when_that_is_not_here() {
    let ordered = || DeviceOrderState::Ordered;
    assert_eq!(turn(&at_work(), ordered()).1, DeviceTurn::CarryOut);
    let paused = Look {
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::Other)),
        ..at_work()
    };
    assert!(matches!(turn(&paused, ordered()).1, DeviceTurn::Refuse(_)));
    // A start under way: its own step first.
    let starting = Look {
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::StartingUp)),
        ..at_work()
    };
    assert_eq!(turn(&starting, ordered()), (VmStep::Resume, DeviceTurn::NotNow));
    // An earlier life of this agent left it at work: this one puts itself on record first.
    let earlier = Look {
        owner: Some(Owner {
            incarnation: life(1),
            ..owner(CephClients::Recorded(vec![client(1)]))
        }),
        domain: DomainReading::Is(DomainStatus::Paused(PauseReason::Other)),
        ..at_work()
    };
    assert_eq!(turn(&earlier, working()), (VmStep::Confirm, DeviceTurn::NotNow));
    let gone = Look {
        owner: None,
        state: VmState::Stop,
        process: Presence::Absent,
        domain: DomainReading::Absent,
        ..at_work()
    };
    for state in [ordered(), working(), recorded_state()] {
        assert!(matches!(turn(&gone, state).1, DeviceTurn::Refuse(_)));
    }
    for state in [
        DeviceOrderState::Done,
        DeviceOrderState::Failed {
            reason: String::new(),
        },
    ] {
        assert_eq!(turn(&at_work(), state).1, DeviceTurn::NotNow);
    }
    let on_its_way = Look {
        incoming: Some(Incoming {
            target: NodeName::new("hv2").unwrap(),
            incarnation: life(1),
            ceph_clients: CephClients::Unrecorded,
            hand_over: HandOver::Offered,
            source_log: None,
        }),
        ..at_work()
    };
    assert_eq!(turn(&on_its_way, working()).1, DeviceTurn::NotNow);
}

#[test]
fn a_volume_is_attached_only_where_its_client_can_be_put_on_record() {
    let recorded = |count: usize| {
        let clients = (0..count).map(|nonce| client(nonce as u64)).collect();
        owner(CephClients::Recorded(clients))
    };
    for (owner, allowed) in [
        (recorded(1), true),
        (recorded(CLIENTS_LIMIT - 1), true),
        (recorded(CLIENTS_LIMIT), false),
        (owner(CephClients::Unknown), false),
        (owner(CephClients::Unrecorded), false),
    ] {
        assert_eq!(may_begin(&owner, Opens::WritableVolume).is_ok(), allowed);
        assert_eq!(may_begin(&owner, Opens::Nothing), Ok(()));
    }
}

#[test]
fn an_order_is_orphaned_when_its_guest_runs_elsewhere() {
    // Else it would stay open for ever, and keep the next order from being given.
    let mine = owner(CephClients::Unknown);
    let theirs = Owner {
        node: NodeName::new("hv2").unwrap(),
        ..mine.clone()
    };
    for (state, open) in [
        (DeviceOrderState::Ordered, true),
        (working(), true),
        (DeviceOrderState::Done, false),
    ] {
        let order = order(DeviceAction::Attach, state);
        assert!(!order.is_orphaned(Some(&mine)));
        assert_eq!(order.is_orphaned(Some(&theirs)), open);
        assert_eq!(order.is_orphaned(None), open);
    }
}

#[test]
fn an_order_is_stored_as_recorded_here() {
    let stored = r#"{"v":1,"id":"1","by":"tests","at":1,"node":"hv1","action":"attach","xml":"<disk/>","state":{"is":"working","epoch":1,"before":["10.102.0.1:0/5"]}}"#;
    let order = order(
        DeviceAction::Attach,
        DeviceOrderState::Working {
            epoch: 1,
            before: vec![client(5)],
        },
    );
    assert_eq!(String::from_utf8(order.encode()).unwrap(), stored);
    assert_eq!(DeviceOrder::decode(stored.as_bytes()).unwrap(), order);
}
