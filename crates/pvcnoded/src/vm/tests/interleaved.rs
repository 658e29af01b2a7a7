//! Single steps carried out by hand, with somebody else's write right before their own.

use super::*;
use crate::host::fake::MigrationPhase;

/// hv1's guests, looked at and handled by hand, over a store in which others come in between.
struct ByHand {
    cluster: Cluster,
    store: MeddledStore,
    parts: VmParts<MeddledStore, VirtualClock, FakeHypervisor, FakeStorage>,
    rounds: VmRounds<MeddledStore, VirtualClock, FakeHypervisor, FakeStorage>,
}

impl ByHand {
    fn new() -> ByHand {
        let mut cluster = Cluster::new();
        for node in 0..2 {
            cluster.kill_agent(node);
        }
        ByHand::over(cluster)
    }

    /// A new life of hv1's agent, on whatever the cluster is like.
    fn over(cluster: Cluster) -> ByHand {
        let store = MeddledStore::new(&cluster.server, cluster.clock.clone());
        let agent = AgentState::new();
        agent.enter(AgentPhase::Running);
        agent.node_right().renewed(LeaseRight::acknowledged(
            cluster.clock.now() + secs(3600),
            &LeaseTiming::DEFAULT,
        ));
        let host = &cluster.hosts[0];
        let parts = VmParts {
            store: store.clone(),
            clock: cluster.clock.clone(),
            hypervisor: host.hypervisor.clone(),
            storage: host.storage.clone(),
            me: name(0),
            incarnation: Incarnation {
                machine_id: MachineId::new("0".repeat(32)).unwrap(),
                boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{:012}", host.boot)).unwrap(),
                counter: host.lives + 1,
            },
            storage_addresses: vec!["10.102.0.1".parse().unwrap()],
            floating_addresses: vec!["10.102.0.250".parse().unwrap()],
            shutdown_timeout: secs(180),
            agent,
        };
        let rounds = VmRounds::new(parts.clone());
        ByHand {
            cluster,
            store,
            parts,
            rounds,
        }
    }

    /// The one thing that is to be done.
    fn task(&mut self) -> VmTask {
        let clock = self.cluster.clock.clone();
        let mut tasks = clock.run(secs(5), self.rounds.look()).unwrap().unwrap();
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks.remove(0)
    }

    fn carry_out(&mut self, task: &VmTask) -> TaskOutcome {
        let clock = self.cluster.clock.clone();
        let outcome = clock.run(secs(120), carry_out(&self.parts, task)).unwrap();
        self.rounds.finished(task, &outcome);
        outcome
    }

    fn write(&self, txn: Txn) {
        let cluster = &self.cluster;
        cluster
            .clock
            .run(secs(1), cluster.admin.commit(txn))
            .unwrap()
            .unwrap();
    }

    /// Has `first` written right before the `place`th write from now (counted from 1).
    fn before_write(&self, place: u32, first: Txn) {
        let mut count = 0;
        self.store.meddle(move |_| {
            count += 1;
            (count == place).then(|| first.clone())
        });
    }

    fn events(&self) -> Vec<GuestEvent> {
        let journal = self.cluster.hosts[0].hypervisor.journal();
        journal.into_iter().map(|(_, _, event)| event).collect()
    }

    fn owner(&self) -> Option<Owner> {
        self.cluster.read(&keys::domain(VM).owner()).value
    }

    fn start(&mut self) {
        self.cluster.ask(VmState::Start);
        let task = self.task();
        assert_eq!(task.step, VmStep::Claim);
        assert_eq!(self.carry_out(&task), TaskOutcome::Started);
    }
}

fn owned_by_hv2() -> Option<Owner> {
    Some(Owner {
        node: name(1),
        incarnation: Incarnation {
            machine_id: MachineId::new("1".repeat(32)).unwrap(),
            boot_id: BootId::new("6ba7b810-9dad-11d1-80b4-000000000001").unwrap(),
            counter: 1,
        },
        epoch: 9,
        ceph_clients: CephClients::Unrecorded,
    })
}

fn open_fence() -> Txn {
    let empty = keys::fence(&name(0));
    Txn::new().overwrite_path(empty.path(), "")
}

#[test]
fn a_claim_over_anything_that_has_changed_meanwhile_creates_nothing() {
    // The agent stood still between its decision and the claim.
    let domain = keys::domain(VM);
    for (what, first, left) in [
        (
            "placed elsewhere",
            Txn::new().overwrite(&domain.node(), &name(1)),
            None,
        ),
        (
            "stopped",
            Txn::new().overwrite(&domain.state(), &VmState::Stop),
            None,
        ),
        ("fenced", open_fence(), None),
        (
            "owned",
            Txn::new().overwrite(&domain.owner(), &owned_by_hv2()),
            owned_by_hv2(),
        ),
    ] {
        let mut by_hand = ByHand::new();
        by_hand.cluster.ask(VmState::Start);
        let task = by_hand.task();
        by_hand.before_write(1, first);
        by_hand.carry_out(&task);
        assert_eq!(by_hand.events(), [], "{what}");
        assert_eq!(by_hand.owner(), left, "{what}");
    }
}

#[test]
fn a_start_whose_owner_or_fence_has_changed_before_its_clients_are_on_record_never_runs() {
    let owner = keys::domain(VM).owner();
    for first in [Txn::new().overwrite(&owner, &owned_by_hv2()), open_fence()] {
        let mut by_hand = ByHand::new();
        by_hand.cluster.ask(VmState::Start);
        let task = by_hand.task();
        by_hand.before_write(2, first);
        by_hand.carry_out(&task);
        assert_eq!(by_hand.events(), [GuestEvent::Created, GuestEvent::Ended]);
    }
}

#[test]
fn a_guest_whose_owner_changed_after_its_clients_were_recorded_is_not_let_run() {
    // Put aside between the record and the resume: a recovery has given the guest to another node meanwhile.
    let mut by_hand = ByHand::new();
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    let owner = keys::domain(VM).owner();
    let admin = by_hand.cluster.admin.clone();
    let store = by_hand.store.clone();
    // The look for the owner is the only read of that znode in a start.
    store.before_read(owner.path(), move || {
        let txn = Txn::new().overwrite(&keys::domain(VM).owner(), &owned_by_hv2());
        admin.commit(txn).now_or_never().unwrap().unwrap();
    });
    by_hand.carry_out(&task);
    assert_eq!(by_hand.events(), [GuestEvent::Created, GuestEvent::Ended]);
    assert_eq!(by_hand.owner(), owned_by_hv2());
    // The same for one that an earlier life has left paused.
    let mut by_hand = ByHand::new();
    by_hand.cluster.ask(VmState::Start);
    let clock = by_hand.cluster.clock.clone();
    clock
        .run(secs(5), by_hand.parts.hypervisor.create_paused(VM, &xml()))
        .unwrap()
        .unwrap();
    let ours = Owner {
        node: name(0),
        incarnation: by_hand.parts.incarnation.clone(),
        epoch: 3,
        ceph_clients: CephClients::Recorded(by_hand.cluster.hosts[0].hypervisor.clients(VM)),
    };
    by_hand.write(Txn::new().overwrite(&owner, &Some(ours)));
    let task = by_hand.task();
    assert_eq!(task.step, VmStep::Resume);
    by_hand.write(Txn::new().overwrite(&owner, &owned_by_hv2()));
    by_hand.carry_out(&task);
    assert_eq!(by_hand.events(), [GuestEvent::Created]);
}

#[test]
fn a_guest_whose_clients_do_not_show_is_ended_and_fails() {
    // QEMU reaches Ceph from another address than we think: a fence would miss its client.
    let mut by_hand = ByHand::new();
    by_hand.parts.storage_addresses = vec!["10.102.0.77".parse().unwrap()];
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    by_hand.carry_out(&task);
    assert_eq!(by_hand.events(), [GuestEvent::Created, GuestEvent::Ended]);
    assert_eq!(by_hand.cluster.state(), VmState::Fail);
    let reason = by_hand.cluster.reason();
    assert!(reason.contains("did not open volume vms/guest_disk0"), "{reason}");
    assert_eq!(by_hand.owner(), None);
}

#[test]
fn the_guests_of_a_large_cluster_are_all_looked_at() {
    // Asked for at once they are more than a request may carry, and nobody would look after any of them.
    let mut by_hand = ByHand::new();
    let vms: Vec<VmId> = (100..2600).map(|n| VmId::new(Uuid::from_u128(n))).collect();
    for part in vms.chunks(500) {
        let txn = part.iter().fold(Txn::new(), |txn, vm| {
            let domain = keys::domain(*vm);
            txn.create(&domain.name(), &"guest".parse().unwrap())
                .create(&domain.node(), &name(1))
                .create(&domain.state(), &VmState::Start)
                .create(&domain.owner(), &None)
        });
        by_hand.write(txn);
    }
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    assert_eq!((task.vm, task.step), (VM, VmStep::Claim));
}

#[test]
fn each_claim_of_a_guest_has_a_number_of_its_own() {
    let mut by_hand = ByHand::new();
    by_hand.start();
    let first = by_hand.owner().unwrap().epoch;
    by_hand.cluster.hosts[0].hypervisor.kill_process(VM);
    let gone = by_hand.task();
    by_hand.carry_out(&gone);
    let task = by_hand.task();
    assert_eq!(task.step, VmStep::Claim);
    by_hand.carry_out(&task);
    assert!(by_hand.owner().unwrap().epoch > first);
}

#[test]
fn an_agent_whose_lease_has_ended_creates_nothing_and_gives_the_guest_up() {
    let mut by_hand = ByHand::new();
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    // It stood still right after its claim.
    let right = by_hand.parts.agent.node_right().clone();
    by_hand.store.meddle(move |_| {
        right.renewed(LeaseRight::NONE);
        None
    });
    assert_eq!(by_hand.carry_out(&task), TaskOutcome::TryLater);
    assert_eq!(by_hand.events(), []);
    assert_eq!(by_hand.owner(), None);
    // And does not even claim in the next round.
    let clock = by_hand.cluster.clock.clone();
    clock.run(secs(5), clock.sleep(secs(3))).unwrap();
    let tasks = clock.run(secs(5), by_hand.rounds.look()).unwrap().unwrap();
    assert!(tasks.is_empty(), "{tasks:?}");
}

#[test]
fn a_node_with_a_fence_on_record_claims_nothing() {
    let mut by_hand = ByHand::new();
    let fence = keys::fence(&name(0));
    by_hand.write(Txn::new().overwrite_path(fence.path(), r#"{"v":1}"#));
    by_hand.cluster.ask(VmState::Start);
    let clock = by_hand.cluster.clock.clone();
    let looked = clock.run(secs(5), by_hand.rounds.look()).unwrap();
    // Whether its content can be read or not.
    assert!(looked.is_err() || looked.is_ok_and(|tasks| tasks.is_empty()));
}

#[test]
fn nothing_is_given_up_or_ended_on_an_old_reading() {
    let owner = keys::domain(VM).owner();
    // Its process is gone, and before it is given up another has become its owner.
    let mut by_hand = ByHand::new();
    by_hand.start();
    by_hand.cluster.hosts[0].hypervisor.kill_process(VM);
    let task = by_hand.task();
    assert!(matches!(task.step, VmStep::Release { .. }), "{:?}", task.step);
    by_hand.before_write(1, Txn::new().overwrite(&owner, &owned_by_hv2()));
    by_hand.carry_out(&task);
    assert_eq!(by_hand.owner(), owned_by_hv2());
    // A stop that was taken back before it was carried out ends nothing.
    let mut by_hand = ByHand::new();
    by_hand.start();
    by_hand.cluster.ask(VmState::Stop);
    let task = by_hand.task();
    assert!(matches!(task.step, VmStep::Destroy(_)), "{:?}", task.step);
    by_hand.before_write(
        1,
        Txn::new().overwrite(&keys::domain(VM).state(), &VmState::Start),
    );
    assert_eq!(by_hand.carry_out(&task), TaskOutcome::Done);
    assert!(by_hand.cluster.runs_on(0));
}

#[test]
fn a_guest_whose_process_came_back_is_not_given_up() {
    // Its death was decided on, and meanwhile a late call to libvirt has made a process again.
    let mut by_hand = ByHand::new();
    by_hand.start();
    by_hand.cluster.hosts[0].hypervisor.kill_process(VM);
    let task = by_hand.task();
    let clock = by_hand.cluster.clock.clone();
    clock
        .run(secs(5), by_hand.parts.hypervisor.create_paused(VM, &xml()))
        .unwrap()
        .unwrap();
    assert_eq!(by_hand.carry_out(&task), TaskOutcome::TryLater);
    assert!(by_hand.owner().is_some());
}

#[test]
fn a_claim_meets_a_process_that_should_not_be_there_and_creates_no_second_one() {
    let mut by_hand = ByHand::new();
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    let clock = by_hand.cluster.clock.clone();
    clock
        .run(secs(5), by_hand.parts.hypervisor.create_paused(VM, &xml()))
        .unwrap()
        .unwrap();
    by_hand.carry_out(&task);
    assert_eq!(by_hand.events(), [GuestEvent::Created, GuestEvent::Ended]);
    assert!(
        by_hand.cluster.ceph.blocklisted().is_empty(),
        "a living process's client"
    );
}

#[test]
fn a_process_that_libvirt_does_not_know_is_met_by_no_second_one() {
    // libvirt would create another, and no volume of this guest shows that there is one already.
    let mut by_hand = ByHand::new();
    let mut diskless = xml();
    let (start, end) = (
        diskless.find("<disk").unwrap(),
        diskless.find("</disk>").unwrap() + "</disk>".len(),
    );
    diskless.replace_range(start..end, "");
    by_hand.write(Txn::new().overwrite(&keys::domain(VM).xml(), &diskless));
    by_hand.cluster.ask(VmState::Start);
    let task = by_hand.task();
    let clock = by_hand.cluster.clock.clone();
    clock
        .run(secs(5), by_hand.parts.hypervisor.create_paused(VM, &diskless))
        .unwrap()
        .unwrap();
    by_hand.cluster.hosts[0].hypervisor.forget(VM);
    assert_eq!(by_hand.carry_out(&task), TaskOutcome::TryLater);
    // It is ended by its process id.
    assert_eq!(by_hand.events(), [GuestEvent::Created, GuestEvent::Ended]);
    assert_eq!(by_hand.cluster.state(), VmState::Start);
}

#[test]
fn a_source_that_is_let_run_again_in_the_last_moment_is_not_ended_and_not_given_away() {
    // Ended for standing still, while libvirtd has just let it run again: it writes in its last moments, and the target
    // would resume what it was before.
    let mut cluster = Cluster::started();
    cluster.migrate(VmState::Migrate, 1, Some(0));
    cluster.reach(MigrationPhase::Finish);
    cluster.hosts[0].hypervisor.go_away();
    cluster.run(ms(500));
    cluster.kill_agent(0);
    cluster.hosts[0].hypervisor.come_back();
    let mut by_hand = ByHand::over(cluster);
    let task = by_hand.task();
    assert_eq!(task.step, VmStep::Confirm);
    by_hand.carry_out(&task);
    let task = by_hand.task();
    assert_eq!(task.step, VmStep::Send);
    let hypervisor = by_hand.parts.hypervisor.clone();
    let mut first = true;
    by_hand.store.meddle(move |_| {
        if std::mem::take(&mut first) {
            hypervisor.resume(VM).now_or_never().unwrap().unwrap();
        }
        None
    });
    by_hand.carry_out(&task);
    assert!(by_hand.cluster.runs_on(0));
    assert!(by_hand.cluster.hosts[1].hypervisor.has_old_memory(VM));
    assert_eq!(by_hand.cluster.incoming(), None);
}

#[test]
fn a_confirmation_or_adoption_on_an_old_reading_writes_nothing() {
    let domain = keys::domain(VM);
    // Confirm: a new life finds its guest, and a recovery comes in between.
    let mut first = ByHand::new();
    first.start();
    first.cluster.hosts[0].lives += 1;
    let mut by_hand = ByHand::over(first.cluster);
    let task = by_hand.task();
    assert_eq!(task.step, VmStep::Confirm);
    by_hand.before_write(1, Txn::new().overwrite(&domain.owner(), &owned_by_hv2()));
    by_hand.carry_out(&task);
    assert_eq!(by_hand.owner(), owned_by_hv2());
    // Adopt: it is placed elsewhere, or owned, or this node is fenced, before it is put on record.
    for (left, meddling) in [
        (None, Txn::new().overwrite(&domain.node(), &name(1))),
        (None, open_fence()),
        (
            owned_by_hv2(),
            Txn::new().overwrite(&domain.owner(), &owned_by_hv2()),
        ),
    ] {
        let mut by_hand = ByHand::new();
        by_hand.start();
        by_hand.write(Txn::new().overwrite(&domain.owner(), &None));
        let task = by_hand.task();
        assert_eq!(task.step, VmStep::Adopt);
        by_hand.before_write(1, meddling);
        by_hand.carry_out(&task);
        assert_eq!(by_hand.owner(), left);
    }
}

#[test]
fn remnants_are_barred_before_their_locks_are_removed() {
    // A lock that is removed while its holder can write lets that holder take it again.
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    cluster.run(secs(2));
    cluster.hosts[0].storage.refuse_blocklist();
    cluster.hosts[0].hypervisor.kill_process(VM);
    cluster.run(secs(10));
    assert!(!cluster.runs_on(0));
    assert_eq!(cluster.ceph.locks(&volume()), 1, "left alone");
    cluster.hosts[0].storage.heal();
    cluster.wait_until("running again", secs(10), |cluster| cluster.runs_on(0));
}

#[test]
fn two_guests_that_share_a_volume_by_mistake_do_not_bar_each_other() {
    // Both on one node: the other's client has our address, and is alive.
    let other = VmId::new(Uuid::from_u128(8));
    let mut cluster = Cluster::new();
    cluster.ask(VmState::Start);
    cluster.wait_until("running", secs(5), |cluster| cluster.runs_on(0));
    let txn = schema::domain_keys(&NewDomain {
        id: other,
        name: "other".parse().unwrap(),
        xml: xml().replace(&VM.to_string(), &other.to_string()),
        state: VmState::Start,
        node: name(0),
        profile: None,
        volumes: vec![volume()],
        node_limit: vec![],
        node_selector: NodeSelector::None,
        autostart: false,
        migration_method: MigrationMethod::None,
        migration_max_downtime_ms: 300,
        tags: vec![],
    });
    cluster
        .clock
        .run(secs(1), cluster.admin.commit(txn))
        .unwrap()
        .unwrap();
    let failed = |cluster: &Cluster| cluster.read(&keys::domain(other).state()).value == VmState::Fail;
    cluster.wait_until("refused", secs(15), failed);
    assert!(cluster.ceph.blocklisted().is_empty());
    assert!(cluster.runs_on(0));
}
