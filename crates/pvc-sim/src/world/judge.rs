//! Whether the cluster is as it should be.

use pvc_common::keys;
use pvc_core::device_order::DeviceOrderState;
use pvc_core::fence::{FencePhase, FenceRecord};
use pvc_core::states::{CoordinatorState, DomainState, VmState};
use pvcnoded::host::HostNetwork as _;

use super::{World, role_addresses};
use crate::schedule::Expectation;
use crate::{guest_name, node_name, vm_id};

impl World {
    /// Whether the cluster is as it should be; if not, what is missing. Nothing may be left half done: what stays behind of
    /// a fence, a migration or a drain keeps a node or a guest from taking part, and nobody would ever see to it.
    pub(crate) fn converged(&self) -> Result<(), String> {
        self.primary_is_well(None)?;
        for host in 0..self.plan.nodes {
            self.fence_is_over(host)?;
            self.is_not_drained(host)?;
        }
        for guest in 0..self.plan.guests {
            let incoming = self.read(&keys::domain(vm_id(guest)).incoming()).flatten();
            if let Some(incoming) = incoming {
                return Err(format!(
                    "{} is on its way to {} ({:?})",
                    guest_name(vm_id(guest)),
                    incoming.target,
                    incoming.hand_over
                ));
            }
            match self.asked[guest] {
                VmState::Stop | VmState::Shutdown | VmState::Disable => self.is_stopped(guest)?,
                // A dead process's lock that another node meets is shown and left to an administrator.
                _ if self.has_foreign_lock(guest) => {}
                _ => self.runs(guest, None)?,
            }
        }
        Ok(())
    }

    /// No fence of this node is under way, and one that was has let it come back, unless it is off.
    fn fence_is_over(&self, host: usize) -> Result<(), String> {
        // A machine that bears another's name by now is not expected back under its own.
        let is_there = self.hosts[host].powered && self.hosts[host].name == node_name(host);
        match self.fence(host) {
            Some(fence) if fence.is_open() => Err(format!(
                "the fence of hv{} is {} ({})",
                host + 1,
                fence.phase.word(),
                fence.waits_for
            )),
            Some(fence) if fence.counts_out() && is_there => {
                Err(format!("hv{} has not come back after its fence", host + 1))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// This node is neither being emptied nor filled.
    fn is_not_drained(&self, host: usize) -> Result<(), String> {
        match self.read(&keys::node(&node_name(host)).domain_state()) {
            Some(DomainState::Ready | DomainState::Flushed) => Ok(()),
            state => Err(format!("hv{} is {state:?}", host + 1)),
        }
    }

    fn has_foreign_lock(&self, guest: usize) -> bool {
        self.read(&keys::domain(vm_id(guest)).failed_reason())
            .is_some_and(|reason| reason.contains("which is not of this node's making"))
    }

    fn primary_is_well(&self, wanted: Option<usize>) -> Result<(), String> {
        let coordinators = self.plan.nodes.min(3);
        let primaries: Vec<usize> = (0..coordinators)
            .filter(|host| {
                self.read(&keys::node(&node_name(*host)).coordinator_state())
                    == Some(CoordinatorState::Primary)
            })
            .collect();
        let [primary] = primaries[..] else {
            return Err(format!("{} nodes say that they are primary", primaries.len()));
        };
        if wanted.is_some_and(|wanted| wanted != primary) {
            return Err(format!("hv{} is primary", primary + 1));
        }
        let all = role_addresses();
        let there = self.hosts[primary].network.present(&all).unwrap_or_default();
        if there.len() < all.len() {
            return Err(format!("hv{} is primary and lacks an address", primary + 1));
        }
        let record = self.read(&keys::config().primary_node());
        if !record.is_some_and(|record| record.names(&node_name(primary))) {
            return Err(format!("the record does not name hv{}", primary + 1));
        }
        Ok(())
    }

    pub(crate) fn runs(&self, guest: usize, wanted: Option<usize>) -> Result<(), String> {
        let vm = vm_id(guest);
        let name = guest_name(vm);
        let running: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.truth.can_write(*host, vm))
            .collect();
        let domain = keys::domain(vm);
        let [host] = running[..] else {
            let reason = self.read(&domain.failed_reason()).unwrap_or_default();
            return Err(format!(
                "{name} runs on {} nodes (state {:?}, node {:?}, owner {:?}, reason {reason:?})",
                running.len(),
                self.read(&domain.state()),
                self.read(&domain.node()).map(|node| node.to_string()),
                self.read(&domain.owner())
                    .flatten()
                    .map(|owner| owner.node.to_string()),
            ));
        };
        if wanted.is_some_and(|wanted| wanted != host) {
            return Err(format!("{name} runs on hv{}", host + 1));
        }
        let owner = self.read(&domain.owner()).flatten();
        match owner {
            Some(owner) if owner.node == node_name(host) => {}
            owner => {
                return Err(format!(
                    "{name} runs on hv{} and its owner is {owner:?}",
                    host + 1
                ));
            }
        }
        if self.read(&domain.state()) != Some(VmState::Start) {
            return Err(format!("{name} runs with state {:?}", self.read(&domain.state())));
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self, guest: usize) -> Result<(), String> {
        let vm = vm_id(guest);
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(status) = host.hypervisor.status(vm) {
                return Err(format!("{} is {status:?} on hv{}", guest_name(vm), number + 1));
            }
        }
        match self.read(&keys::domain(vm).owner()).flatten() {
            None => Ok(()),
            Some(owner) => Err(format!(
                "{} is stopped and owned by {}",
                guest_name(vm),
                owner.node
            )),
        }
    }

    fn fence(&self, host: usize) -> Option<FenceRecord> {
        self.read(&keys::fence(&node_name(host))).flatten()
    }

    pub(crate) fn meets(&self, expectation: &Expectation) -> Result<(), String> {
        match expectation {
            Expectation::Primary(wanted) => self.primary_is_well(*wanted),
            Expectation::Runs(guest, wanted) => self.runs(*guest, *wanted),
            Expectation::Stopped(guest) => self.is_stopped(*guest),
            Expectation::Attached(guest) => match self.read(&keys::device_order(vm_id(*guest))).flatten() {
                Some(order) if order.state == DeviceOrderState::Done => Ok(()),
                order => Err(format!("its order is {:?}", order.map(|order| order.state))),
            },
            Expectation::Fenced(host) => match self.fence(*host) {
                Some(fence) if matches!(fence.phase, FencePhase::Done { .. }) => Ok(()),
                fence => Err(format!("its fence is {:?}", fence.map(|fence| fence.phase))),
            },
            Expectation::Unfenced(host) => match self.fence(*host) {
                Some(fence) if fence.past_return() => Err(format!("its fence is {:?}", fence.phase)),
                Some(_) | None => Ok(()),
            },
            Expectation::Converged => self.converged(),
        }
    }
}
