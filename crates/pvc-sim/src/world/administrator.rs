//! What administrators do, and clients of PVC 1.0.3.

use std::time::Duration;

use futures::FutureExt as _;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::store::{Store as _, Txn};
use pvc_core::device_order::{DeviceAction, DeviceOrder, DeviceOrderState};
use pvc_core::fence::{Confirmation, ConfirmationKind};
use pvc_core::guest_xml::edit;
use pvc_core::hold::AdoptOrder;
use pvc_core::states::{DomainState, VmState};
use pvcnoded::host::DomainStatus;
use pvcnoded::host::fake::power::BmcMood;

use super::{World, data_volume};
use crate::schedule::Link;
use crate::{START, node_name, vm_id};

impl World {
    /// As `pvc vm migrate`.
    pub(crate) fn migrate(&mut self, guest: usize, target: usize) {
        let domain = keys::domain(vm_id(guest));
        let running = self.read(&domain.state()) == Some(VmState::Start);
        let owner = self.read(&domain.owner()).flatten();
        let (Some(owner), true) = (owner, running) else {
            return;
        };
        if owner.node == node_name(target) || self.read(&domain.incoming()).flatten().is_some() {
            return;
        }
        let version = |path: &str| self.server.peek(path).map(|znode| znode.version);
        let versions = (
            version(domain.owner().path()),
            version(domain.incoming().path()),
            version(domain.node().path()),
            version(domain.state().path()),
        );
        let (Some(owned), Some(incoming), Some(node), Some(state)) = versions else {
            return;
        };
        let txn = Txn::new()
            .check(&domain.owner(), owned)
            .check(&domain.incoming(), incoming)
            .set(&domain.node(), &node_name(target), node)
            .overwrite(&domain.last_node(), &Some(owner.node))
            .set(&domain.state(), &VmState::Migrate, state);
        if self.quorum && matches!(self.admin.commit(txn).now_or_never(), Some(Ok(_))) {
            self.hooks.lock().coverage.count("migrations asked");
        }
    }

    /// An administrator's write, on condition of what stands there; nothing without a quorum.
    pub(crate) fn admin_set<T: keys::Value>(&self, key: &keys::Key<T>, value: &T) -> bool {
        let Ok(Some(now)) = key.decode(self.server.peek(key.path()).as_ref()) else {
            return false;
        };
        let txn = Txn::new().set(key, value, now.version);
        self.quorum && matches!(self.admin.commit(txn).now_or_never(), Some(Ok(_)))
    }

    pub(crate) fn ask(&mut self, guest: usize, state: VmState) {
        let key = keys::domain(vm_id(guest)).state();
        let Some(now) = self.read(&key) else { return };
        // What the API refuses.
        let refused = match (now, state) {
            (VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate, _) => true,
            (VmState::Start, VmState::Start) => true,
            (VmState::Start, _) => false,
            (VmState::Provision | VmState::Import | VmState::Restore, _) => true,
            (_, VmState::Restart | VmState::Shutdown) => true,
            (_, _) => false,
        };
        if !refused && self.admin_set(&key, &state) {
            self.asked[guest] = state;
            let autostart = keys::domain(vm_id(guest)).autostart();
            let to_rest = matches!(state, VmState::Stop | VmState::Shutdown | VmState::Disable);
            if to_rest && self.read(&autostart) == Some(true) {
                self.admin_set(&autostart, &false);
            }
        }
    }

    /// As `pvc vm volume add --live`: the second volume goes into the definition, and to the guest that runs.
    pub(crate) fn attach(&mut self, guest: usize) {
        let vm = vm_id(guest);
        let domain = keys::domain(vm);
        let order_key = keys::device_order(vm);
        let owner = self.read(&domain.owner()).flatten();
        let under_way = self
            .read(&order_key)
            .flatten()
            .is_some_and(|order| order.state.is_open());
        let (Some(owner), Some(xml), false, true) = (
            owner,
            self.read(&domain.xml()),
            under_way,
            self.read(&domain.state()) == Some(VmState::Start),
        ) else {
            return;
        };
        let disk = edit::NewDisk {
            source: edit::NewSource::Rbd {
                volume: data_volume(guest),
                access: None,
            },
            target: None,
            bus: edit::DiskBus::Scsi,
        };
        // It has it already.
        let Ok(edited) = edit::add_disk(&xml, &disk) else {
            return;
        };
        let order = Some(DeviceOrder {
            id: format!("order {}", self.clock.world_now().since(START).as_millis()),
            by: "admin".to_owned(),
            at: 0,
            node: owner.node,
            action: DeviceAction::Attach,
            xml: edited.device,
            state: DeviceOrderState::Ordered,
        });
        let txn = Txn::new().overwrite(&domain.xml(), &edited.xml);
        let txn = match self.server.peek(order_key.path()) {
            Some(_) => txn.overwrite(&order_key, &order),
            None => txn.create(&order_key, &order),
        };
        if self.quorum && matches!(self.admin.commit(txn).now_or_never(), Some(Ok(_))) {
            self.hooks.lock().coverage.count("attachments asked");
        }
    }

    pub(crate) fn place(&mut self, guest: usize, host: usize) {
        let domain = keys::domain(vm_id(guest));
        let stopped = matches!(
            self.read(&domain.state()),
            Some(VmState::Stop | VmState::Disable | VmState::Fail)
        );
        if stopped && self.read(&domain.owner()).flatten().is_none() {
            self.admin_set(&domain.node(), &node_name(host));
        }
    }

    pub(crate) fn make_ready(&mut self, host: usize) {
        let key = keys::node(&node_name(host)).domain_state();
        if matches!(self.read(&key), Some(DomainState::Flush | DomainState::Flushed)) {
            self.admin_set(&key, &DomainState::Unflush);
        }
    }

    pub(crate) fn flush(&mut self, host: usize) {
        let key = keys::node(&node_name(host)).domain_state();
        if self.read(&key) == Some(DomainState::Ready) {
            self.admin_set(&key, &DomainState::Flush);
        }
    }

    pub(crate) fn confirm(&mut self, host: usize, kind: ConfirmationKind) {
        let key = keys::fence(&node_name(host));
        if let Some(mut fence) = self.read(&key).flatten() {
            fence.confirmation = Some(Confirmation {
                kind,
                by: "admin".to_owned(),
                at: 0,
            });
            self.admin_set(&key, &Some(fence));
        }
    }

    /// An administrator orders that what really runs is the truth.
    pub(crate) fn adopt(&mut self) {
        let order = AdoptOrder {
            id: format!("order {}", self.clock.world_now().since(START).as_millis()),
            by: "admin".to_owned(),
            at: 0,
            without: Vec::new(),
        };
        self.admin_set(&keys::config().adopt(), &Some(order));
    }

    /// From its next start on the agent of a host bears the name of another.
    pub(crate) fn name(&mut self, host: usize, other: usize) {
        self.hosts[host].name = node_name(other);
        self.kill_agent(host);
    }

    /// Ends everything that was done; hosts that are off are switched on.
    pub(crate) fn heal_all(&mut self) {
        self.hooks.clear_orders();
        if !self.quorum {
            self.restore_quorum();
        }
        self.admin_set(&keys::config().maintenance(), &Maintenance::Off);
        for number in 0..self.hosts.len() {
            for link in [Link::Store, Link::Lease, Link::Storage, Link::Upstream, Link::Bmc] {
                if self.hosts[number].cut.contains(&link) {
                    self.heal(number, link);
                }
            }
            let host = &mut self.hosts[number];
            host.store.catch_up();
            host.lease_store.catch_up();
            host.gate.set_slow(Duration::ZERO);
            host.hypervisor.come_back();
            host.hypervisor.find_logs();
            host.frozen = false;
            host.host_frozen = false;
            host.bmc.set_mood(BmcMood::Works);
            self.wake(number, Duration::ZERO);
            self.apply_stillness(number);
            self.heed_ceph(number);
            self.power_on(number);
        }
    }

    /// What an administrator does about guests that can't come right by themselves: one that failed is started again,
    /// one that QEMU has stopped at an I/O error is stopped and started.
    pub(crate) fn look_after_failures(&mut self) {
        for host in 0..self.hosts.len() {
            self.make_ready(host);
        }
        for guest in 0..self.plan.guests {
            let vm = vm_id(guest);
            let key = keys::domain(vm).state();
            if matches!(
                self.asked[guest],
                VmState::Stop | VmState::Shutdown | VmState::Disable
            ) {
                continue;
            }
            match self.read(&key) {
                Some(VmState::Fail | VmState::Stop) => {
                    self.admin_set(&key, &VmState::Start);
                    self.hooks.lock().coverage.count("started by hand");
                }
                Some(VmState::Start)
                    if self
                        .hosts
                        .iter()
                        .any(|host| matches!(host.hypervisor.status(vm), Some(DomainStatus::Paused(_)))) =>
                {
                    self.admin_set(&key, &VmState::Stop);
                }
                _ => {}
            }
        }
    }
}
