//! Both sides of a migration, each border from both its sides. Each test says what would go wrong without the rule.

use super::*;
use crate::ids::{BootId, MachineId, ZnodeVersion};
use crate::records::Owner;

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

fn seconds(count: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(count))
}

fn clients() -> CephClients {
    CephClients::Recorded(vec!["10.102.0.2:0/22".parse().unwrap()])
}

/// hv1 owns it; it should move to hv2.
fn record(hand_over: Option<HandOver>) -> VmRecord {
    VmRecord {
        node: node("hv2"),
        node_version: ZnodeVersion(1),
        state: VmState::Migrate,
        state_version: ZnodeVersion(1),
        owner: Some(Owner {
            node: node("hv1"),
            incarnation: life('1', '1', 1),
            epoch: 1,
            ceph_clients: clients(),
        }),
        owner_version: ZnodeVersion(1),
        last_node: Some(node("hv1")),
        last_node_version: ZnodeVersion(1),
        migration_method: MigrationMethod::None,
        incoming: hand_over.map(|hand_over| Incoming {
            target: node("hv2"),
            incarnation: life('2', '2', 1),
            ceph_clients: CephClients::Unrecorded,
            hand_over,
            source_log: None,
        }),
        incoming_version: ZnodeVersion(1),
    }
}

fn target() -> TargetView {
    TargetView {
        node: node("hv2"),
        daemon_state: DaemonState::Run,
        domain_state: DomainState::Ready,
        incarnation: Some(life('2', '2', 1)),
        barred: false,
    }
}

struct Sending {
    record: VmRecord,
    side: SourceSide,
    ending: Ending,
    answer_due: Option<u64>,
    target: TargetView,
    offer: Offer,
    tries: u32,
    not_before: u64,
    progress: Option<(u64, u64)>,
    fit: bool,
    stopping: bool,
    now: u64,
}

fn sending(hand_over: Option<HandOver>, side: SourceSide) -> Sending {
    Sending {
        record: record(hand_over),
        side,
        ending: Ending::Sent,
        answer_due: None,
        target: target(),
        offer: Offer::Fresh(seconds(99)),
        tries: 0,
        not_before: 0,
        progress: None,
        fit: true,
        stopping: false,
        now: 100,
    }
}

fn send(case: &Sending) -> SendStep {
    next_send_step(&SendView {
        now: seconds(case.now),
        me: &node("hv1"),
        record: &case.record,
        side: case.side,
        ending: case.ending,
        answer_due: case.answer_due.map(seconds),
        target: Some(&case.target),
        offer: case.offer,
        tries: case.tries,
        not_before: seconds(case.not_before),
        sending: case.progress.map(|(since, moved_at)| Progress {
            since: seconds(since),
            moved_at: seconds(moved_at),
        }),
        fit: case.fit,
        stopping: case.stopping,
    })
}

const UNDER_WAY: SourceSide = SourceSide::Sending { bytes_sent: 1 };

#[test]
fn a_target_is_offered_accepts_and_is_sent_to() {
    assert_eq!(send(&sending(None, SourceSide::Running)), SendStep::Offer);
    // It may be dead, or about to be fenced: sent to only once it has answered.
    let offered = sending(Some(HandOver::Offered), SourceSide::Running);
    assert_eq!(send(&offered), SendStep::Wait);
    let accepted = sending(Some(HandOver::Accepted), SourceSide::Running);
    assert_eq!(send(&accepted), SendStep::Send);
    assert_eq!(
        send(&sending(Some(HandOver::Accepted), UNDER_WAY)),
        SendStep::Wait
    );
    let gone = sending(Some(HandOver::Accepted), SourceSide::Gone);
    assert_eq!(send(&gone), SendStep::SayGone);
    assert_eq!(
        send(&sending(Some(HandOver::SourceGone), SourceSide::Gone)),
        SendStep::Done
    );
    // A target that never answers must not hold the guest up.
    let silent = Sending { now: 104, ..offered };
    assert_eq!(send(&silent), SendStep::CallOff(CallOff::NotAccepted));
}

#[test]
fn a_guest_that_ended_by_itself_is_not_given_away() {
    // Its last answer lost, libvirt lets it run again at the source, where it writes and ends: the target would resume a
    // memory that is older than the volumes, and the guest's file system would be destroyed without a word.
    let unclear = |hand_over, answer_due| Sending {
        ending: Ending::Unclear,
        answer_due,
        ..sending(Some(hand_over), SourceSide::Gone)
    };
    for hand_over in [HandOver::Offered, HandOver::Accepted] {
        // libvirt is about to say how it ended.
        assert_eq!(send(&unclear(hand_over, Some(101))), SendStep::Wait);
        for answer_due in [None, Some(100)] {
            let mut case = unclear(hand_over, answer_due);
            assert_eq!(send(&case), SendStep::CallOff(CallOff::ProcessEnded));
            // Asked to stop meanwhile, or to shut down: it has.
            case.record.state = VmState::Stop;
            assert_eq!(send(&case), SendStep::Discard);
            case.ending = Ending::Sent;
            assert_eq!(send(&case), SendStep::SayGone);
        }
    }
    // What has been said stands, whatever is known afterwards.
    assert_eq!(send(&unclear(HandOver::SourceGone, None)), SendStep::Done);
}

#[test]
fn the_target_is_judged_again_right_before_sending() {
    // Lesson 44: it was fit when the request came, a while ago.
    let cases = [
        (
            TargetView {
                daemon_state: DaemonState::Dead,
                ..target()
            },
            TargetUnfit::NotRunning(DaemonState::Dead),
        ),
        (
            TargetView {
                domain_state: DomainState::Flush,
                ..target()
            },
            TargetUnfit::NotReady(DomainState::Flush),
        ),
        (
            TargetView {
                barred: true,
                ..target()
            },
            TargetUnfit::Fenced,
        ),
        (
            TargetView {
                incarnation: None,
                ..target()
            },
            TargetUnfit::NoLease,
        ),
        (
            TargetView {
                node: node("hv1"),
                ..target()
            },
            TargetUnfit::Itself,
        ),
    ];
    for (target, unfit) in cases {
        for hand_over in [None, Some(HandOver::Accepted)] {
            let case = Sending {
                target: target.clone(),
                ..sending(hand_over, SourceSide::Running)
            };
            assert_eq!(send(&case), SendStep::CallOff(CallOff::Target(unfit)));
        }
    }
    // A node that is being filled takes its guests back.
    let unflushed = Sending {
        target: TargetView {
            domain_state: DomainState::Unflush,
            ..target()
        },
        ..sending(None, SourceSide::Running)
    };
    assert_eq!(send(&unflushed), SendStep::Offer);
    // Booted anew since it accepted.
    let rebooted = Sending {
        target: TargetView {
            incarnation: Some(life('2', '3', 1)),
            ..target()
        },
        ..sending(Some(HandOver::Accepted), SourceSide::Running)
    };
    assert_eq!(send(&rebooted), SendStep::TakeBack);
}

#[test]
fn a_node_that_may_not_act_offers_and_sends_nothing() {
    for hand_over in [None, Some(HandOver::Accepted)] {
        let case = Sending {
            fit: false,
            ..sending(hand_over, SourceSide::Running)
        };
        assert_eq!(send(&case), SendStep::Wait);
    }
}

#[test]
fn three_tries_half_a_second_apart_then_all_is_put_back() {
    // Lesson 47.
    let failed = Sending {
        offer: Offer::Spent,
        ..sending(Some(HandOver::Accepted), SourceSide::Running)
    };
    assert_eq!(send(&failed), SendStep::TakeBack);
    let waiting = Sending {
        tries: 1,
        not_before: 101,
        ..sending(None, SourceSide::Running)
    };
    assert_eq!(send(&waiting), SendStep::Wait);
    assert_eq!(send(&Sending { now: 101, ..waiting }), SendStep::Offer);
    let third = Sending {
        tries: 2,
        ..sending(None, SourceSide::Running)
    };
    assert_eq!(send(&third), SendStep::Offer);
    let all = Sending {
        tries: 3,
        ..sending(None, SourceSide::Running)
    };
    assert_eq!(send(&all), SendStep::CallOff(CallOff::TriesFailed));
}

#[test]
fn a_request_that_was_taken_back_ends_the_migration_and_changes_nothing_else() {
    for (state, place) in [
        (VmState::Start, "hv1"),
        (VmState::Stop, "hv2"),
        (VmState::Migrate, "hv3"),
        (VmState::Shutdown, "hv2"),
    ] {
        let withdrawn = |hand_over, side| {
            let mut case = sending(hand_over, side);
            case.record.state = state;
            case.record.node = node(place);
            case
        };
        let under_way = withdrawn(Some(HandOver::Accepted), UNDER_WAY);
        assert_eq!(send(&under_way), SendStep::Cancel(CancelReason::Withdrawn));
        for hand_over in [HandOver::Offered, HandOver::Accepted] {
            let case = withdrawn(Some(hand_over), SourceSide::Running);
            assert_eq!(send(&case), SendStep::Withdraw, "{state}");
        }
        // Too late: it has gone.
        let late = withdrawn(Some(HandOver::Accepted), SourceSide::Gone);
        assert_eq!(send(&late), SendStep::SayGone);
    }
    let mut stay = sending(None, SourceSide::Running);
    stay.record.state = VmState::Start;
    assert_eq!(send(&stay), SendStep::Done);
}

#[test]
fn a_migration_that_stalls_or_whose_target_is_lost_is_cancelled() {
    let at = |now, since, moved_at| Sending {
        now,
        progress: Some((since, moved_at)),
        ..sending(Some(HandOver::Accepted), UNDER_WAY)
    };
    assert_eq!(send(&at(109, 90, 100)), SendStep::Wait);
    assert_eq!(send(&at(110, 90, 100)), SendStep::Cancel(CancelReason::Stalled));
    assert_eq!(send(&at(3689, 90, 3689)), SendStep::Wait);
    assert_eq!(
        send(&at(3690, 90, 3689)),
        SendStep::Cancel(CancelReason::TookTooLong)
    );
    let fenced = Sending {
        target: TargetView {
            barred: true,
            ..target()
        },
        ..sending(Some(HandOver::Accepted), UNDER_WAY)
    };
    assert_eq!(send(&fenced), SendStep::Cancel(CancelReason::TargetFenced));
    // A recovery has barred the half's clients and taken the target off the record.
    let off_record = sending(None, UNDER_WAY);
    assert_eq!(send(&off_record), SendStep::Cancel(CancelReason::NotOnRecord));
}

#[test]
fn a_source_that_has_switched_over_is_ended_and_never_resumed() {
    // The target may have run already: a source that goes on then writes the volume as it was at the switch-over.
    for hand_over in [None, Some(HandOver::Accepted), Some(HandOver::SourceGone)] {
        let case = sending(hand_over, SourceSide::SwitchedOver);
        assert_eq!(send(&case), SendStep::EndProcess);
    }
    // It had been called gone, and is here: the target may be owner by now.
    for side in [SourceSide::Running, UNDER_WAY, SourceSide::Unsendable] {
        let case = sending(Some(HandOver::SourceGone), side);
        assert_eq!(send(&case), SendStep::EndProcess);
    }
}

#[test]
fn nothing_is_done_on_what_can_not_be_read() {
    for hand_over in [
        None,
        Some(HandOver::Offered),
        Some(HandOver::Accepted),
        Some(HandOver::SourceGone),
    ] {
        assert_eq!(send(&sending(hand_over, SourceSide::Unknown)), SendStep::Wait);
    }
    let paused = DomainReading::Is(DomainStatus::Paused(PauseReason::Migration));
    for (process, domain, job, expected) in [
        (Presence::Unknown, paused, JobReading::Idle, SourceSide::Unknown),
        (
            Presence::Present,
            DomainReading::Unknown,
            JobReading::Idle,
            SourceSide::Unknown,
        ),
        // Paused for the switch-over by a job that is still at it.
        (
            Presence::Present,
            paused,
            JobReading::Unknown,
            SourceSide::Unknown,
        ),
        (
            Presence::Present,
            paused,
            JobReading::Sending { bytes_sent: 1 },
            UNDER_WAY,
        ),
        (
            Presence::Present,
            paused,
            JobReading::Idle,
            SourceSide::SwitchedOver,
        ),
        // libvirt's word alone is not enough for gone, and is not needed.
        (
            Presence::Present,
            DomainReading::Absent,
            JobReading::Idle,
            SourceSide::Unsendable,
        ),
        (
            Presence::Absent,
            DomainReading::Unknown,
            JobReading::Unknown,
            SourceSide::Gone,
        ),
    ] {
        assert_eq!(source_side(process, domain, job), expected);
    }
}

#[test]
fn a_guest_that_does_not_run_is_not_sent() {
    for hand_over in [None, Some(HandOver::Accepted)] {
        let case = sending(hand_over, SourceSide::Unsendable);
        assert_eq!(send(&case), SendStep::CallOff(CallOff::Unsendable));
    }
}

#[test]
fn a_migration_that_is_called_off_leaves_no_trace_in_the_placement() {
    // Lesson 46: a node field that is wrong afterwards sends the guest somewhere nobody asked for.
    let check = |state, place: &str, last: Option<&str>, before: Option<&str>| {
        let mut record = record(None);
        record.state = state;
        record.node = node(place);
        record.last_node = last.map(node);
        assert_eq!(
            placement_before(&record, &node("hv1")),
            (node("hv1"), before.map(node))
        );
    };
    check(VmState::Migrate, "hv2", Some("hv1"), None);
    // Forced while it was away from home already.
    check(VmState::MigrateLive, "hv2", Some("hv3"), Some("hv3"));
    check(VmState::Unmigrate, "hv2", None, Some("hv2"));
    // A move.
    check(VmState::Migrate, "hv2", None, None);
}

struct Receiving {
    record: VmRecord,
    side: TargetSide,
    fit: bool,
    stopping: bool,
    barred: bool,
    source: SourceFate,
    clients_seen: bool,
    waiting_since: Option<u64>,
}

fn receiving(hand_over: HandOver, side: TargetSide) -> Receiving {
    let mut record = record(Some(hand_over));
    if let Some(incoming) = &mut record.incoming {
        incoming.ceph_clients = clients();
    }
    Receiving {
        record,
        side,
        fit: true,
        stopping: false,
        barred: false,
        source: SourceFate::Alive,
        clients_seen: true,
        waiting_since: None,
    }
}

fn receive(case: &Receiving) -> ReceiveStep {
    next_receive_step(&ReceiveView {
        now: seconds(100),
        me: &node("hv2"),
        incarnation: &life('2', '2', 2),
        record: &case.record,
        side: case.side,
        fit: case.fit,
        stopping: case.stopping,
        barred: case.barred,
        source: case.source,
        clients_seen: case.clients_seen,
        waiting_since: case.waiting_since.map(seconds),
    })
}

#[test]
fn a_target_accepts_only_what_it_can_take() {
    assert_eq!(
        receive(&receiving(HandOver::Offered, TargetSide::Absent)),
        ReceiveStep::Accept
    );
    let unfit = Receiving {
        fit: false,
        ..receiving(HandOver::Offered, TargetSide::Absent)
    };
    assert_eq!(receive(&unfit), ReceiveStep::Wait);
    // What a failed try left behind goes first.
    for side in [TargetSide::Receiving, TargetSide::Complete, TargetSide::Odd] {
        assert_eq!(receive(&receiving(HandOver::Offered, side)), ReceiveStep::EndHalf);
    }
}

#[test]
fn a_target_becomes_owner_only_when_the_source_is_gone_and_its_clients_are_on_record() {
    use HandOver::{Accepted, SourceGone};
    assert_eq!(
        receive(&receiving(Accepted, TargetSide::Receiving)),
        ReceiveStep::Wait
    );
    // libvirt has finished, and lets the source run again if its answer gets lost: only the source knows.
    assert_eq!(
        receive(&receiving(Accepted, TargetSide::Complete)),
        ReceiveStep::Wait
    );
    assert_eq!(
        receive(&receiving(SourceGone, TargetSide::Complete)),
        ReceiveStep::TakeOver
    );
    for (hand_over, side) in [
        (Accepted, TargetSide::Receiving),
        (Accepted, TargetSide::Complete),
        (SourceGone, TargetSide::Complete),
    ] {
        // Those on record may be of an earlier try's process.
        let unseen = Receiving {
            clients_seen: false,
            ..receiving(hand_over, side)
        };
        assert_eq!(receive(&unseen), ReceiveStep::RecordClients);
    }
    let unfit = Receiving {
        fit: false,
        ..receiving(SourceGone, TargetSide::Complete)
    };
    assert_eq!(receive(&unfit), ReceiveStep::Wait);
}

#[test]
fn when_the_source_dies_the_target_takes_over_only_what_the_source_has_given_away() {
    // libvirt lets the guest run on at the source when its last answer gets lost: what is complete here may be older
    // than what the source wrote before it died.
    for (hand_over, complete) in [
        (HandOver::Offered, ReceiveStep::EndHalf),
        (HandOver::Accepted, ReceiveStep::EndHalf),
        (HandOver::SourceGone, ReceiveStep::TakeOver),
    ] {
        let dead = |side| Receiving {
            source: SourceFate::ProvenDead,
            ..receiving(hand_over, side)
        };
        assert_eq!(receive(&dead(TargetSide::Complete)), complete);
        assert_eq!(receive(&dead(TargetSide::Receiving)), ReceiveStep::EndHalf);
        assert_eq!(receive(&dead(TargetSide::Absent)), ReceiveStep::GiveBack);
        assert_eq!(receive(&dead(TargetSide::Unknown)), ReceiveStep::Wait);
    }
}

#[test]
fn an_orderly_stop_of_either_side_leaves_the_guest_at_its_source() {
    // Nobody would be there to let it run after the switch-over.
    let to_a_node_in = |daemon_state| Sending {
        target: TargetView {
            daemon_state,
            ..target()
        },
        ..sending(Some(HandOver::Accepted), UNDER_WAY)
    };
    for state in [DaemonState::Shutdown, DaemonState::Stop] {
        let cancelled = SendStep::Cancel(CancelReason::TargetStops);
        assert_eq!(send(&to_a_node_in(state)), cancelled, "{state}");
    }
    // An agent that was killed is started anew, and goes on with it.
    for state in [DaemonState::Run, DaemonState::Init, DaemonState::Dead] {
        assert_eq!(send(&to_a_node_in(state)), SendStep::Wait, "{state}");
    }
    let stopping = |hand_over, side| Sending {
        stopping: true,
        fit: false,
        ..sending(hand_over, side)
    };
    let accepted = Some(HandOver::Accepted);
    assert_eq!(
        send(&stopping(accepted, UNDER_WAY)),
        SendStep::Cancel(CancelReason::Stopping)
    );
    assert_eq!(send(&stopping(accepted, SourceSide::Running)), SendStep::TakeBack);
    assert_eq!(send(&stopping(None, SourceSide::Running)), SendStep::Done);
    assert_eq!(send(&stopping(accepted, SourceSide::Gone)), SendStep::SayGone);

    let receiving = |hand_over, side| Receiving {
        stopping: true,
        ..receiving(hand_over, side)
    };
    for (hand_over, side, expected) in [
        (HandOver::Offered, TargetSide::Absent, ReceiveStep::GiveBack),
        (HandOver::Accepted, TargetSide::Absent, ReceiveStep::GiveBack),
        (HandOver::Accepted, TargetSide::Receiving, ReceiveStep::EndHalf),
        // The source is about to give it away, or to run on.
        (HandOver::Accepted, TargetSide::Complete, ReceiveStep::Wait),
        // It stands still for as long as nobody takes it on.
        (HandOver::SourceGone, TargetSide::Complete, ReceiveStep::TakeOver),
    ] {
        assert_eq!(
            receive(&receiving(hand_over, side)),
            expected,
            "{hand_over:?} {side:?}"
        );
    }
}

#[test]
fn a_half_that_will_never_be_complete_is_ended_and_given_back() {
    let since = |since| Receiving {
        waiting_since: since,
        ..receiving(HandOver::SourceGone, TargetSide::Receiving)
    };
    assert_eq!(receive(&since(None)), ReceiveStep::Wait);
    assert_eq!(receive(&since(Some(96))), ReceiveStep::Wait);
    assert_eq!(receive(&since(Some(95))), ReceiveStep::EndHalf);
    let gone = receiving(HandOver::SourceGone, TargetSide::Absent);
    assert_eq!(receive(&gone), ReceiveStep::GiveBack);
    // Between accepting and the first byte there is nothing here, rightly.
    assert_eq!(
        receive(&receiving(HandOver::Accepted, TargetSide::Absent)),
        ReceiveStep::Wait
    );
}

#[test]
fn without_a_licence_nothing_is_received() {
    // Fenced, freed by a recovery, taken over already, of another boot: in each the half must go, then the record.
    let mut cases = Vec::new();
    for side in [TargetSide::Receiving, TargetSide::Complete, TargetSide::Absent] {
        let case = || receiving(HandOver::SourceGone, side);
        cases.push(Receiving {
            barred: true,
            ..case()
        });
        let mut freed = case();
        freed.record.owner = None;
        cases.push(freed);
        let mut rebooted = case();
        if let Some(incoming) = &mut rebooted.record.incoming {
            incoming.incarnation = life('2', '9', 1);
        }
        cases.push(rebooted);
    }
    for case in cases {
        let expected = match case.side {
            TargetSide::Absent => ReceiveStep::GiveBack,
            TargetSide::Unknown | TargetSide::Receiving | TargetSide::Complete | TargetSide::Odd => {
                ReceiveStep::EndHalf
            }
        };
        assert_eq!(receive(&case), expected);
    }
    let mut off_record = receiving(HandOver::SourceGone, TargetSide::Complete);
    off_record.record.incoming = None;
    assert_eq!(receive(&off_record), ReceiveStep::Done);
}
