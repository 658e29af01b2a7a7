//! Guests that move while they run, and what may come in between.

use pvc_core::fence::{FencePhase, FenceRecord, PowerTrack, ProofKind};
use pvc_core::records::{HandOver, Incoming};

use super::*;
use crate::host::fake::{MigrationPhase, MigrationTiming};

impl Cluster {
    pub(super) fn incoming(&self) -> Option<Incoming> {
        self.read(&keys::domain(VM).incoming()).value
    }

    fn owner(&self) -> Option<Owner> {
        self.read(&keys::domain(VM).owner()).value
    }

    fn placed(&self) -> (NodeName, Option<NodeName>) {
        let domain = keys::domain(VM);
        (
            self.read(&domain.node()).value,
            self.read(&domain.last_node()).value,
        )
    }

    pub(super) fn started() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.ask(VmState::Start);
        cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
        cluster
    }

    /// Runs until the migration is in `phase`.
    pub(super) fn reach(&mut self, phase: MigrationPhase) {
        let end = self.clock.now() + secs(10);
        while self.wire.phase(VM) != Some(phase) {
            assert!(self.clock.now() < end, "{phase:?} not reached");
            self.run(ms(5));
        }
    }

    fn settled_on(&mut self, node: usize) {
        self.wait_until("settled", secs(60), |cluster| {
            cluster.runs_on(node)
                && cluster.state() == VmState::Start
                && cluster.incoming().is_none()
                && cluster.owner().is_some_and(|owner| owner.node == name(node))
        });
        self.run(secs(3));
        self.check_one_writer();
        self.check_one_runner();
        let owner = self.owner().unwrap();
        assert_eq!(
            owner.ceph_clients,
            CephClients::Recorded(self.hosts[node].hypervisor.clients(VM)),
            "a fence would bar these"
        );
    }

    /// What a fence with a power-off writes once it is proven.
    pub(super) fn prove_dead(&self, node: usize) {
        let host = &self.hosts[node];
        let victim = Incarnation {
            machine_id: MachineId::new(format!("{node}").repeat(32)).unwrap(),
            boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{:012}", host.boot)).unwrap(),
            counter: host.lives,
        };
        let mut record = FenceRecord::suspected(victim, name(1 - node));
        record.power = PowerTrack::Off;
        record.phase = FencePhase::Done { by: ProofKind::Power };
        let txn = Txn::new().overwrite(&keys::fence(&name(node)), &Some(record));
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    /// What a storage fence does: every listed client of this node.
    pub(super) fn bar_all_of(&self, node: usize) {
        let storage = self.ceph.connection();
        let ip: IpAddr = format!("10.102.0.{}", node + 1).parse().unwrap();
        let work = async {
            let mut clients = crate::host::Storage::volume_use(&storage, &volume())
                .await?
                .watchers;
            clients.retain(|client| client.ip() == ip);
            crate::host::Storage::blocklist(&storage, &clients).await
        };
        self.clock.run(secs(1), work).unwrap().unwrap();
    }

    /// What a recovery does about a guest whose target is proven dead.
    pub(super) fn clear_incoming(&self) {
        let key = keys::domain(VM).incoming();
        let txn = Txn::new().set(&key, &None, self.read(&key).version);
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn events(&self, node: usize) -> Vec<GuestEvent> {
        let journal = self.hosts[node].hypervisor.journal();
        journal.into_iter().map(|(_, _, event)| event).collect()
    }
}

#[test]
fn a_guest_moves_back_and_forth_and_is_never_without_a_record() {
    let mut cluster = Cluster::started();
    for round in 0..4 {
        let (from, to) = (round % 2, (round + 1) % 2);
        cluster.migrate(VmState::Migrate, to, Some(from));
        cluster.settled_on(to);
        assert_eq!(cluster.placed(), (name(to), Some(name(from))));
        assert_eq!(cluster.reason(), "");
    }
    assert_eq!(cluster.ceph.blocklisted().len(), 0);
}

#[test]
fn the_guest_stands_still_for_the_switch_over_and_little_more() {
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::MigrateLive, 1, Some(0));
    cluster.settled_on(1);
    let at = |node: usize, wanted| {
        let journal = cluster.hosts[node].hypervisor.journal();
        journal
            .iter()
            .rev()
            .find(|(_, _, event)| *event == wanted)
            .unwrap()
            .0
    };
    let pause = at(1, GuestEvent::Resumed).since(at(0, GuestEvent::SwitchedOver));
    // 100 ms of it are the fake's own.
    assert!(pause <= ms(150), "{pause:?}");
}

#[test]
fn a_guest_whose_method_is_shutdown_is_moved_by_a_shutdown_and_no_other_is() {
    let mut cluster = Cluster::started();
    let method = keys::domain(VM).migration_method();
    let txn = Txn::new().overwrite(&method, &MigrationMethod::Shutdown);
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(txn))
        .unwrap()
        .unwrap();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.run(secs(1));
    assert_eq!(cluster.state(), VmState::Migrate, "its state stays visible");
    cluster.settled_on(1);
    assert!(cluster.events(0).contains(&GuestEvent::ShutdownAsked));
}

#[test]
fn three_failures_put_everything_back_and_shut_nothing_down() {
    // Lesson H: three failures once became a shutdown. Lesson 46: exact roll-back.
    for (state, last, before) in [
        (VmState::Migrate, Some(0), None),
        (VmState::Unmigrate, None, Some(name(1))),
    ] {
        let mut cluster = Cluster::started();
        cluster.wire.cut(&name(0), &name(1));
        cluster.migrate(state, 1, last);
        cluster.wait_until("called off", secs(30), |cluster| {
            cluster.state() == VmState::Start
        });
        cluster.run(secs(3));
        assert_eq!(cluster.placed(), (name(0), before));
        assert_eq!(cluster.incoming(), None);
        let reason = cluster.reason();
        assert!(
            reason.contains("three tries failed (libvirt: unable to connect"),
            "{reason}"
        );
        let events = cluster.events(0);
        assert_eq!(events, [GuestEvent::Created, GuestEvent::Resumed]);
        assert_eq!(cluster.events(1), []);
    }
}

#[test]
fn an_unfit_target_is_refused_right_before_sending() {
    // Lesson 44.
    let mut cluster = Cluster::started();
    let flush = Txn::new().overwrite(
        &keys::node(&name(1)).domain_state(),
        &pvc_core::states::DomainState::Flush,
    );
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(flush))
        .unwrap()
        .unwrap();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.wait_until("called off", secs(5), |cluster| cluster.state() == VmState::Start);
    assert!(
        cluster.reason().contains("takes no guests"),
        "{}",
        cluster.reason()
    );
    assert_eq!(cluster.events(1), []);
    // One whose agent is away looks fit for a while, and does not answer.
    let mut cluster = Cluster::started();
    cluster.kill_agent(1);
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.wait_until("called off", secs(8), |cluster| cluster.state() == VmState::Start);
    assert!(
        cluster.reason().contains("did not answer"),
        "{}",
        cluster.reason()
    );
    cluster.settled_on(0);
}

#[test]
fn a_request_that_is_taken_back_in_time_leaves_the_guest_where_it_is() {
    for phase in [MigrationPhase::Prepare, MigrationPhase::PreCopy] {
        let mut cluster = Cluster::started();
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(phase);
        cluster.migrate(VmState::Start, 0, None);
        cluster.settled_on(0);
        assert_eq!(cluster.placed(), (name(0), None));
        assert!(cluster.hosts[1].hypervisor.status(VM).is_none());
    }
    // A stop while it is being sent stops it.
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::PreCopy);
    cluster.ask(VmState::Stop);
    cluster.wait_until("stopped", secs(10), |cluster| {
        cluster.owner().is_none() && cluster.hosts[1].hypervisor.status(VM).is_none()
    });
    assert_eq!(cluster.incoming(), None);
}

#[test]
fn an_agent_that_is_started_anew_in_any_phase_carries_the_migration_on() {
    for phase in [
        MigrationPhase::Prepare,
        MigrationPhase::PreCopy,
        MigrationPhase::SwitchOver,
        MigrationPhase::Finish,
    ] {
        for node in [0, 1] {
            let mut cluster = Cluster::started();
            cluster.migrate(VmState::Migrate, 1, Some(0));
            cluster.reach(phase);
            cluster.kill_agent(node);
            cluster.run(secs(4));
            cluster.start_agent(node);
            cluster.wait_until("settled", secs(60), |cluster| {
                cluster.state() == VmState::Start && cluster.incoming().is_none()
            });
            cluster.settled_on(1);
            assert_eq!(
                cluster
                    .events(0)
                    .iter()
                    .filter(|event| **event == GuestEvent::Resumed)
                    .count(),
                1
            );
        }
    }
}

#[test]
fn a_target_that_dies_in_any_phase_costs_a_restart_at_most() {
    // ceph-fencing.md section 7, rows 4 and 7.
    for phase in [
        MigrationPhase::Prepare,
        MigrationPhase::PreCopy,
        MigrationPhase::SwitchOver,
        MigrationPhase::Finish,
    ] {
        let mut cluster = Cluster::started();
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(phase);
        cluster.power_off(1);
        cluster.run(secs(2));
        cluster.check_one_writer();
        cluster.prove_dead(1);
        cluster.bar_all_of(1);
        if cluster.incoming().is_some() {
            cluster.clear_incoming();
        }
        cluster.settled_on(0);
        assert_eq!(cluster.placed().0, name(0), "{phase:?}");
    }
}

#[test]
fn a_source_that_dies_in_any_phase_leaves_one_guest() {
    // Rows 5 and 6, and the last: a half must be gone before the guest is started from its volume.
    for phase in [
        MigrationPhase::Prepare,
        MigrationPhase::PreCopy,
        MigrationPhase::SwitchOver,
        MigrationPhase::Finish,
    ] {
        let mut cluster = Cluster::started();
        cluster.run(secs(2));
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(phase);
        cluster.power_off(0);
        cluster.run(secs(10));
        assert!(!cluster.runs_on(1), "without a proof nothing runs ({phase:?})");
        cluster.prove_dead(0);
        // Though in the last phase it is complete: nobody knows whether the source has written since.
        cluster.wait_until("the half given up", secs(10), |cluster| {
            cluster.incoming().is_none()
        });
        assert!(cluster.hosts[1].hypervisor.status(VM).is_none());
        // Ordinary recovery goes on: remnants cleared, owner none.
        cluster.bar_all_of(0);
        cluster.recover_from(0);
        cluster.ask(VmState::Start);
        cluster.wait_until("afresh or failed", secs(60), |cluster| {
            cluster.runs_on(1) || cluster.state() == VmState::Fail
        });
        cluster.check_one_writer();
        cluster.check_one_runner();
        assert!(
            !cluster.runs_on(1) || cluster.events(1).contains(&GuestEvent::Created),
            "{phase:?}"
        );
    }
}

#[test]
fn a_source_that_dies_after_it_has_said_that_it_is_gone_costs_nothing() {
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    cluster.hosts[1].task.freeze();
    cluster.run(secs(2));
    assert_eq!(cluster.incoming().unwrap().hand_over, HandOver::SourceGone);
    cluster.power_off(0);
    cluster.prove_dead(0);
    cluster.hosts[1].task.thaw();
    cluster.settled_on(1);
    assert!(
        !cluster.events(1).contains(&GuestEvent::Created),
        "as it was, not afresh"
    );
}

#[test]
fn a_source_that_ran_on_and_died_is_not_followed_by_an_older_memory() {
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    // Its agent is dead or frozen, libvirt's last answer is lost: it goes on there and writes for a while.
    cluster.hosts[0].task.freeze();
    cluster.wire.cut(&name(0), &name(1));
    cluster.run(secs(2));
    assert!(cluster.runs_on(0));
    cluster.hosts[0].hypervisor.guests_write();
    assert!(cluster.hosts[1].hypervisor.has_old_memory(VM));
    cluster.power_off(0);
    cluster.prove_dead(0);
    cluster.wait_until("the half given up", secs(10), |cluster| {
        cluster.incoming().is_none()
    });
    assert!(cluster.hosts[1].hypervisor.status(VM).is_none());
    assert!(!cluster.events(1).contains(&GuestEvent::Resumed));
}

#[test]
fn a_source_that_ran_on_and_ended_by_itself_is_started_afresh() {
    // Its process is gone, and the target has all of what it was at the switch-over. It has written since.
    for agent_is_down in [true, false] {
        let mut cluster = Cluster::started();
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(MigrationPhase::Finish);
        if agent_is_down {
            cluster.kill_agent(0);
        } else {
            cluster.hosts[0].task.freeze();
        }
        cluster.wire.cut(&name(0), &name(1));
        cluster.run(secs(2));
        assert!(cluster.runs_on(0));
        cluster.hosts[0].hypervisor.guests_write();
        cluster.hosts[0].hypervisor.kill_process(VM);
        assert!(cluster.hosts[1].hypervisor.has_old_memory(VM));
        cluster.wire.heal();
        if agent_is_down {
            cluster.start_agent(0);
        } else {
            cluster.hosts[0].task.thaw();
        }
        cluster.settled_on(0);
        assert!(
            !cluster.events(1).contains(&GuestEvent::Resumed),
            "{agent_is_down}"
        );
        assert_eq!(cluster.placed(), (name(0), None));
    }
}

#[test]
fn without_a_log_libvirts_own_answer_is_enough_and_without_either_the_guest_starts_afresh() {
    for agent_is_down in [true, false] {
        let mut cluster = Cluster::started();
        cluster.hosts[0].hypervisor.lose_logs();
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(MigrationPhase::Finish);
        if agent_is_down {
            cluster.kill_agent(0);
            cluster.run(secs(4));
            assert!(cluster.hosts[0].hypervisor.status(VM).is_none());
            cluster.start_agent(0);
        }
        cluster.settled_on(if agent_is_down { 0 } else { 1 });
        let resumed = cluster.events(1).contains(&GuestEvent::Resumed);
        assert_eq!(resumed, !agent_is_down);
    }
}

#[test]
fn a_restarted_agent_does_not_take_an_older_half_s_client_for_the_one_that_comes() {
    let mut cluster = Cluster::started();
    cluster.wire.set_timing(MigrationTiming {
        pre_copy: secs(60),
        ..MigrationTiming::default()
    });
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::PreCopy);
    cluster.kill_agent(1);
    // What can be seen when the agent is back: the watcher of a half that was killed, and not yet that of this one.
    let real = cluster.hosts[1].hypervisor.clients(VM);
    real.iter().for_each(|client| cluster.ceph.abandon(client));
    cluster.run(secs(31));
    let stale = cluster.ceph.open(&volume(), real[0].ip()).unwrap();
    cluster.start_agent(1);
    cluster.wait_until("something on record", secs(15), |cluster| {
        let recorded = CephClients::Recorded(vec![stale.clone()]);
        cluster
            .incoming()
            .is_some_and(|incoming| incoming.ceph_clients == recorded)
    });
    real.iter()
        .for_each(|client| cluster.ceph.come_back(&volume(), client));
    cluster.wait_until("arrived", secs(90), |cluster| {
        cluster.runs_on(1) && cluster.incoming().is_none()
    });
    let CephClients::Recorded(recorded) = cluster.owner().unwrap().ceph_clients else {
        panic!("no clients on record")
    };
    assert!(
        real.iter().all(|client| recorded.contains(client)),
        "{recorded:?}"
    );
}

#[test]
fn an_agent_that_is_asked_to_stop_leaves_no_guest_between_two_nodes() {
    for stopped in [0, 1] {
        let mut cluster = Cluster::started();
        cluster.run(secs(2));
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(MigrationPhase::PreCopy);
        cluster.hosts[stopped].agent.enter(AgentPhase::ShuttingDown);
        cluster.wait_until("back where it was", secs(5), |cluster| {
            cluster.wire.phase(VM).is_none() && cluster.incoming().is_none()
        });
        assert!(cluster.runs_on(0), "{stopped}");
        assert!(cluster.hosts[1].hypervisor.status(VM).is_none(), "{stopped}");
    }
    // What has been given away to it is taken over, though it stops.
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    cluster.hosts[1].agent.enter(AgentPhase::ShuttingDown);
    cluster.wait_until("taken over", secs(5), |cluster| cluster.runs_on(1));
}

#[test]
fn a_lost_answer_at_the_end_lets_one_side_run_and_not_both() {
    // libvirt's source goes on when it does not hear that the target has all of it. Row 3: both would write.
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    assert_eq!(
        cluster.hosts[1].hypervisor.status(VM),
        Some(DomainStatus::Paused(crate::host::PauseReason::StartingUp))
    );
    // The source's agent stands still, so that only the target's own judgement keeps it from going on.
    cluster.hosts[0].task.freeze();
    cluster.wire.cut(&name(0), &name(1));
    cluster.run(secs(2));
    assert!(cluster.runs_on(0));
    assert!(!cluster.runs_on(1));
    cluster.hosts[0].task.thaw();
    cluster.wire.heal();
    cluster.settled_on(1);
}

#[test]
fn a_source_left_standing_by_its_libvirtd_is_ended_and_the_target_goes_on() {
    for phase in [MigrationPhase::SwitchOver, MigrationPhase::Finish] {
        let mut cluster = Cluster::started();
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.reach(phase);
        cluster.hosts[0].hypervisor.go_away();
        cluster.run(secs(5));
        assert!(!cluster.runs_on(0) && !cluster.runs_on(1));
        cluster.hosts[0].hypervisor.come_back();
        cluster.wait_until("settled", secs(60), |cluster| {
            cluster.state() == VmState::Start && cluster.incoming().is_none()
        });
        // With all of it there, it goes on at the target; else it starts afresh.
        cluster.settled_on(if phase == MigrationPhase::Finish { 1 } else { 0 });
        let events = cluster.events(0);
        let ended = events
            .iter()
            .position(|event| *event == GuestEvent::Ended)
            .unwrap();
        let switched = events
            .iter()
            .position(|event| *event == GuestEvent::SwitchedOver)
            .unwrap();
        assert_eq!(ended, switched + 1, "never resumed: {events:?}");
    }
}

#[test]
fn a_migration_that_does_not_get_on_is_cancelled() {
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::PreCopy);
    cluster.hosts[1].hypervisor.freeze();
    cluster.run(secs(9));
    assert!(cluster.wire.phase(VM).is_some());
    cluster.run(secs(5));
    cluster.hosts[1].hypervisor.thaw();
    cluster.settled_on(1);
}

#[test]
fn the_marks_of_a_migration_are_gone_on_every_path() {
    // Lesson 45 and lesson H: a mark once left behind kept a guest from ever arriving there again.
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::PreCopy);
    cluster.hosts[1].hypervisor.kill_process(VM);
    cluster.settled_on(1);
    cluster.migrate(VmState::Unmigrate, 0, None);
    cluster.settled_on(0);
}

#[test]
fn a_half_without_a_licence_is_ended_before_it_can_run() {
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    cluster.hosts[1].task.freeze();
    cluster.run(secs(2));
    assert_eq!(cluster.incoming().unwrap().hand_over, HandOver::SourceGone);
    // The target's agent is taken for dead; its clients are barred and it is taken off the record.
    cluster.bar_all_of(1);
    cluster.clear_incoming();
    cluster.run(secs(5));
    cluster.hosts[1].task.thaw();
    cluster.settled_on(0);
    assert!(!cluster.events(1).contains(&GuestEvent::Resumed));
}
