//! What goes wrong in the world, and what follows from it by itself.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::store::{SessionState, Store as _, StoreError, Txn};
use pvc_core::records::{PrimaryRecord, RoleLease};
use pvc_core::states::CoordinatorState;
use pvc_core::upstream::UpstreamLook;
use pvcnoded::host::HostNetwork as _;
use pvcnoded::host::fake::wire::MigrationPhase;
use pvcnoded::host::power::PowerState;
use pvcnoded::role::TenureFile;

use super::{
    AFTER_A_STOPPED_CLOCK, BOOT, DEAF, Event, NEW_SESSION, RESTART, SESSION, STOP_POST, World,
    role_addresses, volume,
};
use crate::schedule::Link;
use crate::{node_name, vm_id};

impl World {
    /// The agent ends without a word.
    pub(crate) fn kill_agent(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let Some(group) = host.agent.take() else {
            return;
        };
        self.executor.kill(group);
        host.connection += 1;
        let orphans = vec![host.lease_store.clone(), host.store.clone()];
        let (life, boot, powered) = (host.lives, host.boot.load(Ordering::Relaxed), host.powered);
        // Whoever is frozen is killed all the same.
        host.frozen = false;
        self.hooks
            .say(|| format!("{} agent is killed", node_name(number)));
        self.at(SESSION, Event::EndOrphans(orphans));
        if powered {
            self.at(STOP_POST, Event::DropRole { host: number, life });
            self.at(RESTART, Event::StartAgent { host: number, boot });
        }
    }

    pub(crate) fn power_loss(&mut self, number: usize) {
        if !self.hosts[number].powered {
            return;
        }
        self.hooks.say(|| format!("{} loses power", node_name(number)));
        let host = &mut self.hosts[number];
        host.powered = false;
        host.frozen = false;
        host.host_frozen = false;
        if host.suspended {
            host.suspended = false;
            host.clock.go_on();
        }
        host.network.power_off();
        host.hypervisor.power_off();
        host.bmc.set_machine(PowerState::Off);
        self.kill_agent(number);
        self.heed_ceph(number);
    }

    pub(crate) fn power_on(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.powered {
            return;
        }
        host.powered = true;
        host.lives = 0;
        let boot = host.boot.fetch_add(1, Ordering::Relaxed) + 1;
        host.hypervisor.come_back();
        host.bmc.set_machine(PowerState::On);
        TenureFile::in_directory(&host.runtime_directory).clear();
        self.hooks.say(|| format!("{} is switched on", node_name(number)));
        self.at(BOOT, Event::StartAgent { host: number, boot });
        self.heed_ceph(number);
    }

    /// What Ceph hears of a host is as the host's state has it: its OSD, and the watches of its guests.
    pub(super) fn heed_ceph(&mut self, number: usize) {
        let host = &self.hosts[number];
        if host.host_frozen || host.suspended {
            host.hypervisor.freeze();
        } else {
            host.hypervisor.thaw();
        }
        let heard =
            host.powered && !host.host_frozen && !host.suspended && !host.cut.contains(&Link::Storage);
        let osd = u32::try_from(number).unwrap_or(u32::MAX);
        if heard {
            self.ceph.wake_osd(osd);
        } else {
            self.ceph.silence_osd(osd);
        }
        for guest in 0..self.plan.guests {
            for (volume, client) in host.hypervisor.opened(vm_id(guest)) {
                if heard {
                    self.ceph.come_back(&volume, &client);
                } else {
                    self.ceph.abandon(&client);
                }
            }
        }
    }

    /// Freezes or thaws the agent's loops as its host is now.
    pub(super) fn apply_stillness(&mut self, number: usize) {
        let host = &self.hosts[number];
        let Some(group) = host.agent else { return };
        // By its own clock: rounds that no clock has parted are consecutive, and what they show is of that whole time.
        let now = host.clock.now();
        if host.stands_still() {
            self.executor.freeze(group);
            self.hosts[number].still_since.get_or_insert(now);
        } else {
            self.executor.thaw(group);
            if let Some(since) = self.hosts[number].still_since.take()
                && now.since(since) > DEAF
            {
                self.truth.was_deaf(number);
            }
        }
        self.connection_changed(number);
    }

    pub(crate) fn freeze(&mut self, number: usize, frozen: bool) {
        self.hosts[number].frozen = frozen && self.hosts[number].agent.is_some();
        self.apply_stillness(number);
    }

    pub(crate) fn freeze_host(&mut self, number: usize, frozen: bool) {
        if self.hosts[number].powered {
            self.hosts[number].host_frozen = frozen;
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn suspend(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if host.powered && !host.suspended {
            host.suspended = true;
            host.suspended_at = host.clock.world_now();
            host.clock.stop();
            self.truth
                .excuse(number, self.clock.world_now() + Duration::from_secs(1_000_000));
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn wake(&mut self, number: usize, counted: Duration) {
        let host = &mut self.hosts[number];
        if host.suspended {
            host.suspended = false;
            host.clock.go_on();
            // A clock that shows more than has passed is broken, and nothing is promised about such a host.
            host.clock
                .jump(counted.min(host.clock.world_now().since(host.suspended_at)));
            self.truth
                .excuse(number, self.clock.world_now() + AFTER_A_STOPPED_CLOCK);
            self.apply_stillness(number);
            self.heed_ceph(number);
        }
    }

    pub(crate) fn cut(&mut self, number: usize, link: Link) {
        self.hosts[number].cut.insert(link);
        self.link_changed(number, link);
    }

    pub(crate) fn heal(&mut self, number: usize, link: Link) {
        self.hosts[number].cut.remove(&link);
        self.link_changed(number, link);
    }

    fn link_changed(&mut self, number: usize, link: Link) {
        let host = &self.hosts[number];
        let cut = host.cut.contains(&link);
        match (link, cut) {
            (Link::Store | Link::Lease, _) => self.connection_changed(number),
            (Link::Storage, true) => host.storage.cut(),
            (Link::Storage, false) => host.storage.heal(),
            (Link::Bmc, true) => host.power.cut(),
            (Link::Bmc, false) => host.power.heal(),
            (Link::Upstream, true) => host.upstream.show(UpstreamLook::NoCarrier),
            (Link::Upstream, false) => host.upstream.show(UpstreamLook::Reached),
        }
        match link {
            Link::Storage => self.heed_ceph(number),
            // Guests move over the network that the store is on.
            Link::Store => self.rewire(),
            Link::Lease | Link::Bmc | Link::Upstream => {}
        }
    }

    fn rewire(&self) {
        self.wire.heal();
        for (one, host) in self.hosts.iter().enumerate() {
            if host.cut.contains(&Link::Store) {
                for other in (0..self.hosts.len()).filter(|other| *other != one) {
                    self.wire.cut(&node_name(one), &node_name(other));
                }
            }
        }
    }

    /// Something goes wrong now: how far the migrations are that it meets.
    pub(crate) fn count_migrations_met(&self) {
        for guest in 0..self.plan.guests {
            let Some(phase) = self.wire.phase(vm_id(guest)) else {
                continue;
            };
            self.hooks.lock().coverage.count(match phase {
                MigrationPhase::Prepare => "faults in prepare",
                MigrationPhase::PreCopy => "faults in pre-copy",
                MigrationPhase::SwitchOver => "faults in switch-over",
                MigrationPhase::Finish => "faults in finish",
            });
        }
    }

    /// The agent's connections to the store are as its host's state has them; sessions end in their time.
    pub(super) fn connection_changed(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.connection += 1;
        let connection = host.connection;
        if host.agent.is_none() {
            return;
        }
        let store_cut = host.cut.contains(&Link::Store);
        let lease_cut = store_cut || host.cut.contains(&Link::Lease);
        for (store, cut) in [(&host.store, store_cut), (&host.lease_store, lease_cut)] {
            match (cut, store.session()) {
                (true, _) => store.disconnect(),
                (false, SessionState::Disconnected) if !host.stands_still() => store.reconnect(),
                (false, SessionState::Connected | SessionState::Disconnected | SessionState::Expired) => {}
            }
        }
        if lease_cut || host.stands_still() {
            let host = number;
            self.at(SESSION, Event::EndSession { host, connection });
        }
        self.at(NEW_SESSION, Event::Reconnect { host: number });
    }

    pub(crate) fn expire(&mut self, number: usize) {
        let host = &self.hosts[number];
        host.store.expire();
        host.lease_store.expire();
        self.at(NEW_SESSION, Event::Reconnect { host: number });
    }

    pub(crate) fn lose_quorum(&mut self) {
        self.quorum = false;
        self.lost_at = self.clock.world_now();
        self.server.lose_quorum();
    }

    pub(crate) fn restore_quorum(&mut self) {
        if !self.quorum && self.clock.world_now().since(self.lost_at) > DEAF {
            for host in 0..self.hosts.len() {
                self.truth.was_deaf(host);
            }
        }
        self.quorum = true;
        self.server.restore_quorum();
    }

    pub(crate) fn remember(&mut self) {
        self.snapshot = Some(self.server.snapshot());
    }

    pub(crate) fn roll_back(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            self.server.restore(snapshot);
            // Every session has ended, those of administrators too.
            self.admin = self.server.client();
            for host in 0..self.hosts.len() {
                self.at(NEW_SESSION, Event::Reconnect { host });
            }
        }
    }

    pub(crate) fn open(&mut self, guest: usize) {
        // A snapshot job: opens, writes nothing, and is gone after a moment.
        if let Some(client) = self.ceph.open(&volume(guest), IpAddr::from([10, 102, 0, 99])) {
            self.at(Duration::from_secs(1), Event::Close(client));
        }
    }

    /// As `pvcnoded --drop-role`, which the service manager runs when the agent has ended.
    pub(super) fn drop_role(&mut self, number: usize, life: u64) {
        let host = &self.hosts[number];
        if !host.powered || host.agent.is_some() || host.lives != life {
            return;
        }
        if host.host_frozen || host.suspended {
            self.at(STOP_POST, Event::DropRole { host: number, life });
            return;
        }
        for address in role_addresses() {
            drop(host.network.remove(&address));
        }
        let file = TenureFile::in_directory(&host.runtime_directory);
        let Some(note) = file.read() else { return };
        file.clear();
        if host.cut.contains(&Link::Store) || !self.quorum {
            return;
        }
        let key = keys::lease_primary();
        let Ok(Some(lease)) = key.decode(self.server.peek(key.path()).as_ref()) else {
            return;
        };
        let me = node_name(number);
        let ours = matches!(&lease.value, Some(RoleLease::Held { holder, incarnation, .. })
            if *holder == me && *incarnation == note.incarnation);
        if !ours {
            return;
        }
        let store = self.server.client();
        self.truth.client_of(store.number(), number);
        let txn = Txn::new()
            .set(&key, &Some(RoleLease::Released), lease.version)
            .overwrite(&keys::node(&me).coordinator_state(), &CoordinatorState::Secondary);
        let vacated = txn.clone().set(
            &keys::config().primary_node(),
            &PrimaryRecord::None,
            note.record(),
        );
        if let Some(Err(StoreError::BadVersion { index: 2, .. })) = store.commit(vacated).now_or_never() {
            drop(store.commit(txn).now_or_never());
        }
    }
}
