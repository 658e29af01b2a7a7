//! Devices attached to a guest that runs, and detached from it: whatever is done to agent, store, libvirt and Ceph
//! meanwhile, no vCPU runs with a Ceph client that is on no record.

use pvc_common::keys::values::CommaList;
use pvc_core::device_order::{DeviceAction, DeviceOrder, DeviceOrderState};
use pvc_core::guest_xml::{Attachment, edit, parse_device};

use super::*;

fn data() -> VolumeId {
    "vms/guest_data".parse().unwrap()
}

/// The guest's definition with the second volume, and that disk by itself.
fn with_data() -> edit::Edited {
    let disk = edit::NewDisk {
        source: edit::NewSource::Rbd {
            volume: data(),
            access: None,
        },
        target: None,
        bus: edit::DiskBus::Scsi,
    };
    edit::add_disk(&xml(), &disk).unwrap()
}

fn card() -> String {
    "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='vmbr100'/></interface>"
        .to_owned()
}

impl Cluster {
    /// A guest that runs on the first node with one volume, and a second volume that is in its definition only.
    fn with_running_guest() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.ceph.add_volume(&data());
        cluster.ask(VmState::Start);
        cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
        cluster.define(&with_data().xml);
        cluster
    }

    fn define(&self, xml: &str) {
        let txn = Txn::new().overwrite(&keys::domain(VM).xml(), &xml.to_owned());
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn order(&self, action: DeviceAction, xml: &str) {
        let key = keys::device_order(VM);
        let order = Some(DeviceOrder {
            id: "1".to_owned(),
            by: "tests".to_owned(),
            at: 1,
            node: name(0),
            action,
            xml: xml.to_owned(),
            state: DeviceOrderState::Ordered,
        });
        let there = self.clock.run(secs(1), self.admin.get(&key)).unwrap().unwrap();
        let txn = match there {
            Some(_) => Txn::new().overwrite(&key, &order),
            None => Txn::new().create(&key, &order),
        };
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    /// As it stands when the agent died at work on the order, and the guest after it.
    fn begin_for_an_earlier_process(&self) {
        let key = keys::device_order(VM);
        let mut order = self.read(&key).value.unwrap();
        order.state = DeviceOrderState::Working {
            epoch: 0,
            before: Vec::new(),
        };
        let txn = Txn::new().overwrite(&key, &Some(order));
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn order_state(&self) -> DeviceOrderState {
        self.read(&keys::device_order(VM)).value.unwrap().state
    }

    fn failure(&self) -> String {
        let state = self.order_state();
        let DeviceOrderState::Failed { reason } = state else {
            panic!("it did not fail: {state:?}");
        };
        reason
    }

    fn has(&self, device: &str) -> bool {
        let xml = self.hosts[0].hypervisor.live(VM).unwrap_or_default();
        parse_device(device).unwrap().in_guest(&xml) == Ok(Attachment::Present)
    }

    /// The rule itself: whoever runs has all its clients on record.
    fn check_recorded(&self) {
        for host in &self.hosts {
            if host.hypervisor.status(VM) != Some(DomainStatus::Running) {
                continue;
            }
            let owner = self.read(&keys::domain(VM).owner()).value;
            let Some(CephClients::Recorded(recorded)) = owner.map(|owner| owner.ceph_clients) else {
                panic!("it runs without a record");
            };
            for client in host.hypervisor.clients(VM) {
                assert!(
                    recorded.contains(&client),
                    "{client} is on no record, and the guest runs"
                );
            }
        }
    }

    /// Runs in small steps and checks the rule at each.
    fn run_checked(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.clock.now() < end {
            self.run(ms(10));
            self.check_recorded();
        }
    }

    fn until_closed(&mut self, limit: Duration) -> DeviceOrderState {
        let end = self.clock.now() + limit;
        while self.order_state().is_open() {
            assert!(self.clock.now() < end, "still {:?}", self.order_state());
            self.run_checked(ms(100));
        }
        self.order_state()
    }

    fn happened(&self) -> Vec<GuestEvent> {
        let journal = self.hosts[0].hypervisor.journal();
        journal.into_iter().map(|(_, _, event)| event).collect()
    }
}

#[test]
fn a_volume_is_attached_with_its_client_on_record_and_detached_again() {
    let mut cluster = Cluster::with_running_guest();
    let disk = with_data().device;
    cluster.order(DeviceAction::Attach, &disk);
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert!(cluster.has(&disk) && cluster.runs_on(0));
    assert_eq!(
        cluster.happened(),
        [
            GuestEvent::Created,
            GuestEvent::Resumed,
            GuestEvent::Suspended,
            GuestEvent::Attached,
            GuestEvent::Resumed
        ]
    );
    cluster.run_checked(secs(2));
    assert!(!cluster.ceph.writes(&data()).is_empty(), "it is in use");
    // Asked twice: nothing stands still for it.
    cluster.order(DeviceAction::Attach, &disk);
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert_eq!(cluster.happened().len(), 5);
    for _ in 0..2 {
        cluster.order(DeviceAction::Detach, &disk);
        assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
        assert!(!cluster.has(&disk));
    }
    assert_eq!(cluster.happened().len(), 6, "{:?}", cluster.happened());
    cluster.check_one_runner();
}

impl Cluster {
    /// As the API does when a disk is taken out of the definition of a guest that runs: the volume stays on its list.
    fn take_out(&self) {
        self.define(&xml());
        let listed = CommaList(vec![volume(), data()]);
        let txn = Txn::new().overwrite(&keys::domain(VM).volumes(), &listed);
        self.clock.run(secs(1), self.admin.commit(txn)).unwrap().unwrap();
    }

    fn with_second_volume_taken_out() -> Cluster {
        let mut cluster = Cluster::with_running_guest();
        cluster.order(DeviceAction::Attach, &with_data().device);
        assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
        cluster.take_out();
        cluster
    }

    fn listed(&self) -> Vec<VolumeId> {
        self.read(&keys::domain(VM).volumes()).value.0
    }
}

// Another guest that was given the volume while this one has it open would destroy it; one that is refused a volume which
// nobody has open any more is an administrator who can't go on.
#[test]
fn a_volume_that_was_taken_out_of_the_definition_is_given_up_when_it_is_closed() {
    let mut cluster = Cluster::with_second_volume_taken_out();
    cluster.run_checked(secs(5));
    assert_eq!(cluster.listed(), [volume(), data()], "it is open");
    cluster.order(DeviceAction::Detach, &with_data().device);
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert_eq!(cluster.listed(), [volume()]);

    let mut cluster = Cluster::with_second_volume_taken_out();
    cluster.ask(VmState::Restart);
    cluster.wait_until("restarted", secs(240), |cluster| {
        cluster.state() == VmState::Start && cluster.runs_on(0) && !cluster.has(&with_data().device)
    });
    assert_eq!(cluster.listed(), [volume()]);

    // What is in the definition is not given up by detaching it.
    let mut cluster = Cluster::with_running_guest();
    let listed = CommaList(vec![volume(), data()]);
    let txn = Txn::new().overwrite(&keys::domain(VM).volumes(), &listed);
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(txn))
        .unwrap()
        .unwrap();
    cluster.order(DeviceAction::Detach, &with_data().device);
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert_eq!(cluster.listed(), [volume(), data()]);
}

#[test]
fn what_a_killed_process_left_on_a_volume_that_was_taken_out_is_cleared() {
    let mut cluster = Cluster::with_second_volume_taken_out();
    let opened = cluster.hosts[0].hypervisor.opened(VM);
    let (_, client) = opened.iter().find(|(volume, _)| *volume == data()).unwrap();
    let _ = cluster.ceph.write(&data(), client);
    assert_eq!(cluster.ceph.locks(&data()), 1);
    cluster.hosts[0].hypervisor.kill_process(VM);
    cluster.wait_until("running again", secs(10), |cluster| cluster.runs_on(0));
    assert!(cluster.ceph.blocklisted().contains(client));
    assert_eq!(cluster.ceph.locks(&data()), 0, "its next user would be refused");
    assert_eq!(cluster.listed(), [volume()]);
}

// An order that was begun for an earlier process finds the disk gone from its place. The process that is there has the volume as
// another disk.
#[test]
fn a_volume_that_the_guest_has_in_another_place_stays_its_own() {
    let mut cluster = Cluster::with_second_volume_taken_out();
    let device = with_data().device;
    let elsewhere = device.replace("dev=\"sda\"", "dev=\"sdx\"");
    assert_ne!(elsewhere, device);
    cluster.order(DeviceAction::Detach, &elsewhere);
    cluster.begin_for_an_earlier_process();
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert_eq!(cluster.listed(), [volume(), data()], "it is open");
}

// It comes along with the guest: a node that does not put its client on record there can't be fenced.
#[test]
fn a_guest_is_moved_with_a_volume_that_was_taken_out_of_its_definition() {
    let mut cluster = Cluster::with_second_volume_taken_out();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.wait_until("moved", secs(60), |cluster| {
        cluster.runs_on(1) && cluster.state() == VmState::Start && cluster.incoming().is_none()
    });
    cluster.run_checked(secs(5));
    assert_eq!(
        cluster.hosts[1].hypervisor.clients(VM).len(),
        2,
        "both are open there"
    );
}

// What comes is what the source had: a half that was waited for in vain, for a disk it never had, would be ended after its source is
// gone, and the guest would be started afresh.
#[test]
fn a_guest_is_moved_live_though_a_disk_is_defined_for_its_next_start() {
    for exists in [true, false] {
        let mut cluster = Cluster::with_running_guest();
        if !exists {
            let missing = with_data().xml.replace("guest_data", "guest_gone");
            cluster.define(&missing);
        }
        cluster.migrate(VmState::Migrate, 1, Some(0));
        cluster.wait_until("moved", secs(60), |cluster| {
            cluster.runs_on(1) && cluster.state() == VmState::Start && cluster.incoming().is_none()
        });
        cluster.run_checked(secs(15));
        let created = |host: usize| {
            let journal = cluster.hosts[host].hypervisor.journal();
            journal
                .into_iter()
                .filter(|(_, _, event)| *event == GuestEvent::Created)
                .count()
        };
        assert_eq!((created(0), created(1)), (1, 0), "it is the same process");
    }
}

// Between the client of its one volume and that of the other, a half shows only one.
#[test]
fn a_half_that_has_not_opened_all_its_volumes_yet_is_not_on_record() {
    let mut cluster = Cluster::with_second_volume_taken_out();
    cluster.ceph.hide_watchers(&data(), true);
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.run_checked(secs(5));
    assert!(!cluster.runs_on(1));
    cluster.ceph.hide_watchers(&data(), false);
    cluster.wait_until("moved", secs(60), |cluster| {
        cluster.runs_on(1) && cluster.state() == VmState::Start && cluster.incoming().is_none()
    });
    cluster.run_checked(secs(5));
}

// Work that was begun for an earlier process says nothing of this one.
#[test]
fn an_order_of_an_earlier_process_is_not_waited_for_when_its_place_is_taken() {
    let mut cluster = Cluster::new();
    cluster.ceph.add_volume(&data());
    let other = "vms/guest_other";
    cluster.ceph.add_volume(&other.parse().unwrap());
    cluster.define(&with_data().xml.replace("vms/guest_data", other));
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.order(DeviceAction::Attach, &with_data().device);
    cluster.begin_for_an_earlier_process();
    let state = cluster.until_closed(secs(10));
    assert!(
        matches!(&state, DeviceOrderState::Failed { reason } if reason.contains("started anew")),
        "{state:?}"
    );
}

#[test]
fn a_card_is_attached_while_the_guest_runs_on() {
    let mut cluster = Cluster::with_running_guest();
    cluster.order(DeviceAction::Attach, &card());
    assert_eq!(cluster.until_closed(secs(10)), DeviceOrderState::Done);
    assert!(cluster.has(&card()));
    assert!(!cluster.happened().contains(&GuestEvent::Suspended));
    cluster.hosts[0].hypervisor.set_clinging(VM, true);
    cluster.order(DeviceAction::Detach, &card());
    cluster.until_closed(secs(60));
    assert!(cluster.failure().contains("let go"), "{}", cluster.failure());
    assert!(cluster.has(&card()) && cluster.runs_on(0));
}

#[test]
fn what_can_not_be_attached_is_refused_and_the_guest_runs_on() {
    let disk = with_data().device;
    // Not in the definition: another guest could be given the volume.
    let mut cluster = Cluster::with_running_guest();
    cluster.define(&xml());
    cluster.order(DeviceAction::Attach, &disk);
    cluster.until_closed(secs(10));
    assert!(cluster.failure().contains("definition"), "{}", cluster.failure());
    // Somebody else has it open.
    let mut cluster = Cluster::with_running_guest();
    cluster.ceph.open(&data(), "10.102.0.9".parse().unwrap()).unwrap();
    cluster.order(DeviceAction::Attach, &disk);
    cluster.until_closed(secs(20));
    assert!(cluster.failure().contains("10.102.0.9"), "{}", cluster.failure());
    assert!(!cluster.happened().contains(&GuestEvent::Suspended));
    // QEMU can't open it.
    let mut cluster = Cluster::with_running_guest();
    let other = disk.replace("guest_data", "missing");
    let definition = with_data().xml.replace("guest_data", "missing");
    cluster.define(&definition);
    cluster.order(DeviceAction::Attach, &other);
    cluster.until_closed(secs(20));
    assert!(cluster.failure().contains("missing"), "{}", cluster.failure());
    assert!(cluster.runs_on(0));
    // A guest that does not run.
    let mut cluster = Cluster::with_running_guest();
    cluster.ask(VmState::Stop);
    cluster.wait_until("stopped", secs(5), |cluster| {
        cluster.hosts[0].hypervisor.status(VM).is_none() && cluster.owned_by().is_none()
    });
    cluster.order(DeviceAction::Attach, &disk);
    cluster.until_closed(secs(10));
    assert!(
        cluster.failure().contains("does not run"),
        "{}",
        cluster.failure()
    );
}

#[test]
fn a_guest_that_somebody_paused_stays_paused() {
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].hypervisor.suspend_by_hand(VM);
    cluster.order(DeviceAction::Attach, &with_data().device);
    cluster.until_closed(secs(10));
    assert!(cluster.failure().contains("paused"), "{}", cluster.failure());
    cluster.run(secs(10));
    assert!(!cluster.runs_on(0));
}

#[test]
fn an_agent_that_dies_at_any_moment_leaves_what_its_next_life_brings_to_an_end() {
    // An upgrade of the agent in the middle of it: no guest is lost, and none runs with a client that no fence knows of.
    let disk = with_data().device;
    let mut suspended = 0;
    for after in (0..40).map(|step| ms(step * 50)) {
        let mut cluster = Cluster::with_running_guest();
        // Stretches every look at the volume, so that the agent dies in each of the gaps.
        cluster.hosts[0].storage.set_latency(ms(400));
        cluster.order(DeviceAction::Attach, &disk);
        cluster.run_checked(after);
        cluster.kill_agent(0);
        cluster.run_checked(secs(1));
        if !cluster.runs_on(0) {
            suspended += 1;
        }
        cluster.start_agent(0);
        assert_eq!(
            cluster.until_closed(secs(20)),
            DeviceOrderState::Done,
            "{after:?}"
        );
        cluster.run_checked(secs(1));
        assert!(cluster.has(&disk) && cluster.runs_on(0), "{after:?}");
        assert_eq!(
            cluster
                .happened()
                .iter()
                .filter(|event| **event == GuestEvent::Created)
                .count(),
            1,
            "the same process: {after:?}"
        );
        cluster.check_one_runner();
    }
    assert!(
        suspended > 3,
        "it died with the guest suspended {suspended} times only"
    );
}

#[test]
fn libvirt_that_loses_its_answer_or_goes_away_is_waited_for() {
    let disk = with_data().device;
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].hypervisor.lose_next_answer();
    cluster.order(DeviceAction::Attach, &disk);
    assert_eq!(cluster.until_closed(secs(20)), DeviceOrderState::Done);
    assert!(cluster.has(&disk) && cluster.runs_on(0));
    // It goes while the guest stands still: nothing is known, so nothing is done.
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].storage.set_latency(ms(400));
    cluster.order(DeviceAction::Attach, &disk);
    let end = cluster.clock.now() + secs(10);
    while cluster.runs_on(0) {
        assert!(cluster.clock.now() < end, "suspended");
        cluster.run_checked(ms(10));
    }
    cluster.hosts[0].hypervisor.go_away();
    cluster.run_checked(secs(120));
    assert!(cluster.order_state().is_open());
    assert!(
        cluster.hosts[0].hypervisor.status(VM).is_some(),
        "nothing ended it"
    );
    cluster.hosts[0].hypervisor.come_back();
    assert_eq!(cluster.until_closed(secs(30)), DeviceOrderState::Done);
    cluster.run_checked(secs(1));
    assert!(cluster.runs_on(0));
}

#[test]
fn ceph_that_does_not_answer_ends_no_guest() {
    let disk = with_data().device;
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].storage.set_latency(ms(400));
    cluster.order(DeviceAction::Attach, &disk);
    let end = cluster.clock.now() + secs(10);
    while !cluster.happened().contains(&GuestEvent::Suspended) {
        assert!(cluster.clock.now() < end, "suspended");
        cluster.run_checked(ms(10));
    }
    // The look before it is attached is under way; the one after it is not answered.
    cluster.hosts[0].storage.cut();
    cluster.run_checked(secs(120));
    assert!(!cluster.runs_on(0), "its client is on no record");
    assert!(
        cluster.hosts[0].hypervisor.status(VM).is_some(),
        "nothing ended it"
    );
    cluster.hosts[0].storage.heal();
    assert_eq!(cluster.until_closed(secs(30)), DeviceOrderState::Done);
    cluster.run_checked(secs(1));
    assert!(cluster.runs_on(0));
}

#[test]
fn a_volume_that_is_not_seen_open_is_taken_off_or_its_guest_is_ended() {
    // The client does not show: a listing that leaves it out, or QEMU that reaches another cluster.
    for clings in [false, true] {
        let mut cluster = Cluster::with_running_guest();
        let disk = with_data().device;
        cluster.hosts[0].storage.set_latency(ms(400));
        cluster.order(DeviceAction::Attach, &disk);
        let end = cluster.clock.now() + secs(10);
        while !cluster.happened().contains(&GuestEvent::Attached) {
            assert!(cluster.clock.now() < end, "attached");
            cluster.run_checked(ms(1));
        }
        let hypervisor = cluster.hosts[0].hypervisor.clone();
        let client = hypervisor.clients(VM).pop().unwrap();
        cluster.ceph.close(&client);
        hypervisor.set_clinging(VM, clings);
        cluster.until_closed(secs(90));
        hypervisor.set_clinging(VM, false);
        let ended = cluster.failure().contains("was ended");
        assert_eq!(ended, clings, "{}", cluster.failure());
        cluster.run(secs(10));
        assert!(cluster.runs_on(0), "taken off, or started anew");
        cluster.check_recorded();
    }
}

#[test]
fn a_fence_in_the_middle_of_it_lets_nothing_run() {
    // The node is fenced while the guest stands still with a client on no record: no vCPU runs here again.
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].storage.set_latency(ms(400));
    cluster.order(DeviceAction::Attach, &with_data().device);
    let end = cluster.clock.now() + secs(10);
    while !cluster.happened().contains(&GuestEvent::Attached) {
        assert!(cluster.clock.now() < end, "attached");
        cluster.run_checked(ms(10));
    }
    let resumed = |cluster: &Cluster| {
        let events = cluster.happened();
        events
            .iter()
            .filter(|event| **event == GuestEvent::Resumed)
            .count()
    };
    let before = resumed(&cluster);
    // What a fence's recovery does: the guest is taken from this node.
    cluster.recover_from(0);
    cluster.place(1);
    cluster.run(secs(20));
    assert_eq!(resumed(&cluster), before);
    assert!(!cluster.runs_on(0));
    cluster.check_one_writer();
    assert!(!cluster.order_state().is_open() || cluster.owned_by() != Some(0));
}

#[test]
fn a_stop_ends_a_guest_whose_device_is_worked_on() {
    let mut cluster = Cluster::with_running_guest();
    cluster.hosts[0].storage.set_latency(ms(400));
    cluster.order(DeviceAction::Attach, &with_data().device);
    let end = cluster.clock.now() + secs(10);
    while !cluster.happened().contains(&GuestEvent::Attached) {
        assert!(cluster.clock.now() < end, "attached");
        cluster.run_checked(ms(10));
    }
    cluster.ask(VmState::Stop);
    cluster.wait_until("ended", secs(40), |cluster| {
        cluster.hosts[0].hypervisor.status(VM).is_none()
    });
    cluster.until_closed(secs(10));
}
