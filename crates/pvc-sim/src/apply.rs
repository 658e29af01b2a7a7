//! Does what a schedule says.

use std::time::Duration;

use pvc_common::keys;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::DaemonState;
use pvcnoded::host::HostNetwork as _;

use crate::hooks::Order;
use crate::schedule::{Action, Step};
use crate::world::{World, role_addresses};
use crate::{bmc_name, node_name, vm_id};

/// Between two looks at what is expected.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl World {
    /// Lets a step's time pass, then does what it says.
    pub(crate) fn step(&mut self, step: &Step) {
        self.reseed(self.plan.seed ^ step.salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.run_in_parts(step.after);
        if self.hooks.first_breach().is_some() {
            return;
        }
        if step.action != Action::Nothing {
            self.hooks.say(|| format!("--- {}", step.action));
        }
        self.apply(&step.action);
        self.settle_step();
    }

    /// A long time is cut up, so that guests write and invariants are looked at now and then.
    fn run_in_parts(&mut self, duration: Duration) {
        let mut left = duration;
        let part = Duration::from_secs(1);
        while left > part && self.hooks.first_breach().is_none() {
            self.run(part);
            self.settle_step();
            left -= part;
        }
        self.run(left);
    }

    fn knows(&self, action: &Action) -> bool {
        let (host, guest) = match action {
            Action::Kill(host)
            | Action::Freeze(host)
            | Action::Thaw(host)
            | Action::FreezeHost(host)
            | Action::ThawHost(host)
            | Action::Suspend(host)
            | Action::Wake(host, _)
            | Action::PowerLoss(host)
            | Action::PowerOn(host)
            | Action::Cut(host, _)
            | Action::Heal(host, _)
            | Action::Expire(host)
            | Action::Hide(host, _)
            | Action::HideLease(host, _)
            | Action::Lag(host)
            | Action::CatchUp(host)
            | Action::Slow(host, _)
            | Action::Bmc(host, _)
            | Action::BmcSlow(host, _)
            | Action::BmcSwap(host, _)
            | Action::OsdLag(host, _)
            | Action::LibvirtAway(host)
            | Action::LibvirtBack(host)
            | Action::LoseAnswer(host)
            | Action::LoseLogs(host)
            | Action::FindLogs(host)
            | Action::Stall(host, _)
            | Action::RemoveAddress(host)
            | Action::SayDead(host)
            | Action::Primary(Some(host))
            | Action::Ready(host)
            | Action::Flush(host)
            | Action::Confirm(host, _)
            | Action::Name(host, _)
            | Action::At { host, .. } => (Some(*host), None),
            Action::Forget(host, guest)
            | Action::KillGuest(host, guest)
            | Action::Place(guest, host)
            | Action::Misplace(guest, host)
            | Action::Migrate(guest, host) => (Some(*host), Some(*guest)),
            Action::Opener(guest) | Action::Ask(guest, _) | Action::Attach(guest) => (None, Some(*guest)),
            Action::Nothing
            | Action::LoseQuorum
            | Action::RestoreQuorum
            | Action::Snapshot
            | Action::RollBack
            | Action::Primary(None)
            | Action::Maintenance(_)
            | Action::Adopt
            | Action::HealAll
            | Action::Expect(..) => (None, None),
        };
        host.is_none_or(|host| host < self.plan.nodes) && guest.is_none_or(|guest| guest < self.plan.guests)
    }

    fn apply(&mut self, action: &Action) {
        if !self.knows(action) {
            // A schedule that was shrunk to a smaller cluster.
            return;
        }
        if action.is_fault() {
            self.count_migrations_met();
        }
        match action {
            Action::Nothing => {}
            Action::Kill(host) => self.kill_agent(*host),
            Action::Freeze(host) => self.freeze(*host, true),
            Action::Thaw(host) => self.freeze(*host, false),
            Action::FreezeHost(host) => self.freeze_host(*host, true),
            Action::ThawHost(host) => self.freeze_host(*host, false),
            Action::Suspend(host) => self.suspend(*host),
            Action::Wake(host, counted) => self.wake(*host, *counted),
            Action::PowerLoss(host) => self.power_loss(*host),
            Action::PowerOn(host) => self.power_on(*host),
            Action::Cut(host, link) => self.cut(*host, *link),
            Action::Heal(host, link) => self.heal(*host, *link),
            Action::Expire(host) => self.expire(*host),
            Action::Hide(host, fate) => self.hosts[*host].store.hide_next_write(*fate),
            Action::HideLease(host, fate) => self.hosts[*host].lease_store.hide_next_write(*fate),
            Action::Lag(host) => {
                self.hosts[*host].store.lag();
                self.hosts[*host].lease_store.lag();
            }
            Action::CatchUp(host) => {
                self.hosts[*host].store.catch_up();
                self.hosts[*host].lease_store.catch_up();
            }
            Action::Slow(host, by) => self.hosts[*host].gate.set_slow(*by),
            Action::LoseQuorum => self.lose_quorum(),
            Action::RestoreQuorum => self.restore_quorum(),
            Action::Snapshot => self.remember(),
            Action::RollBack => self.roll_back(),
            Action::LibvirtAway(host) => self.hosts[*host].hypervisor.go_away(),
            Action::LibvirtBack(host) => self.hosts[*host].hypervisor.come_back(),
            Action::LoseAnswer(host) => self.hosts[*host].hypervisor.lose_next_answer(),
            Action::Forget(host, guest) => self.hosts[*host].hypervisor.forget(vm_id(*guest)),
            Action::KillGuest(host, guest) => self.hosts[*host].hypervisor.kill_process(vm_id(*guest)),
            Action::LoseLogs(host) => self.hosts[*host].hypervisor.lose_logs(),
            Action::FindLogs(host) => self.hosts[*host].hypervisor.find_logs(),
            Action::Stall(host, by) => self.hosts[*host].network.stall_next(*by),
            Action::SayDead(host) => {
                self.admin_set(&keys::node(&node_name(*host)).daemon_state(), &DaemonState::Dead);
            }
            Action::RemoveAddress(host) => {
                if let Some(address) = role_addresses().first() {
                    drop(self.hosts[*host].network.remove(address));
                }
            }
            Action::Opener(guest) => self.open(*guest),
            Action::Bmc(host, mood) => self.hosts[*host].bmc.set_mood(*mood),
            Action::BmcSlow(host, by) => self.hosts[*host].bmc.set_latency(*by),
            Action::BmcSwap(one, other) => self.bmcs.swap(&bmc_name(*one), &bmc_name(*other)),
            Action::OsdLag(host, by) => {
                self.ceph
                    .set_osd_lag(u32::try_from(*host).unwrap_or(u32::MAX), *by);
            }
            Action::At {
                host,
                call,
                count,
                what,
            } => self.hooks.order(Order {
                host: *host,
                call: call.clone(),
                count: *count,
                what: *what,
            }),
            Action::Ask(guest, state) => self.ask(*guest, *state),
            Action::Attach(guest) => self.attach(*guest),
            Action::Misplace(guest, host) => {
                self.admin_set(&keys::domain(vm_id(*guest)).node(), &node_name(*host));
            }
            Action::Migrate(guest, host) => self.migrate(*guest, *host),
            Action::Place(guest, host) => self.place(*guest, *host),
            Action::Primary(host) => {
                let record = host.map_or(PrimaryRecord::None, |host| PrimaryRecord::Node(node_name(host)));
                self.admin_set(&keys::config().primary_node(), &record);
            }
            Action::Flush(host) => self.flush(*host),
            Action::Ready(host) => self.make_ready(*host),
            Action::Confirm(host, kind) => self.confirm(*host, *kind),
            Action::Adopt => self.adopt(),
            Action::Name(host, other) => self.name(*host, *other),
            Action::Maintenance(switch) => {
                self.admin_set(&keys::config().maintenance(), switch);
            }
            Action::HealAll => self.heal_all(),
            Action::Expect(expectation, within) => {
                let end = self.clock.world_now() + *within;
                while let Err(missing) = self.meets(expectation) {
                    if self.clock.world_now() >= end || self.hooks.first_breach().is_some() {
                        self.hooks
                            .breach(format!("not {expectation} within {within:?}: {missing}"));
                        break;
                    }
                    self.run(LOOK_EVERY);
                    self.settle_step();
                }
            }
        }
    }
}
