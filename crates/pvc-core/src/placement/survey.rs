//! What each node has to carry, summed up from the guests' own records.

use std::collections::BTreeSet;

use super::{Candidate, NoPlace, Obstacle, Wish, obstacles, place};
use crate::ids::{NodeName, TagName, VmId};
use crate::states::{DaemonState, DomainState, NodeSelector, VmState};

/// A node as its keys describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFigures {
    /// The node.
    pub name: NodeName,
    /// How its agent is.
    pub daemon_state: DaemonState,
    /// Whether it takes guests.
    pub domain_state: DomainState,
    /// Whether it is known to be silent, or is being fenced.
    pub silent: bool,
    /// Memory it has, in MiB; 0 while it has not said.
    pub memory_total_mib: u64,
    /// Memory that was free when it last measured, in MiB.
    pub memory_free_mib: u64,
    /// Its load over one minute when it last measured.
    pub load: f64,
    /// CPUs it has; 0 while it has not said.
    pub cpus: u32,
    /// The guests that ran there when it last measured.
    pub running: BTreeSet<VmId>,
}

/// A guest as its record describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFigures {
    /// The guest.
    pub vm: VmId,
    /// Where it should run.
    pub node: NodeName,
    /// Where its process may be.
    pub owner: Option<NodeName>,
    /// Its state.
    pub state: VmState,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Its vCPUs.
    pub vcpus: u32,
    /// The nodes it may run on; empty for any.
    pub limit: Vec<NodeName>,
    /// By what its nodes are ranked.
    pub selector: NodeSelector,
    /// Its anti-affinity groups.
    pub groups: BTreeSet<TagName>,
}

/// Whether a guest in that state runs or should run.
pub fn runs(state: VmState) -> bool {
    match state {
        VmState::Start
        | VmState::Restart
        // It runs until it has ended.
        | VmState::Shutdown
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate => true,
        VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => false,
    }
}

/// All nodes and guests at about one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// The nodes.
    pub nodes: Vec<NodeFigures>,
    /// The guests.
    pub guests: Vec<GuestFigures>,
    /// The cluster's selector, for guests that have none.
    pub default_selector: Option<NodeSelector>,
}

impl Survey {
    /// The guest, if it is known.
    pub fn guest(&self, vm: VmId) -> Option<&GuestFigures> {
        self.guests.iter().find(|guest| guest.vm == vm)
    }

    /// What that guest wants, for leaving the nodes of `exclude`; `None` if it is not known.
    pub fn wish(&self, vm: VmId, exclude: Vec<NodeName>) -> Option<Wish> {
        let guest = self.guest(vm)?;
        Some(Wish {
            vm,
            memory_mib: guest.memory_mib,
            vcpus: guest.vcpus,
            limit: guest.limit.clone(),
            groups: guest.groups.clone(),
            selector: self.selector(guest.selector),
            exclude,
        })
    }

    /// The selector that counts where a guest asks for `own`.
    pub fn selector(&self, own: NodeSelector) -> NodeSelector {
        match own {
            NodeSelector::None => self.default_selector.unwrap_or(NodeSelector::Mem),
            NodeSelector::Mem
            | NodeSelector::Memprov
            | NodeSelector::Load
            | NodeSelector::Vcpus
            | NodeSelector::Vms => own,
        }
    }

    /// The node for a guest, as [`place`] chooses it.
    ///
    /// # Errors
    /// [`NoPlace`] with all that stands against each node.
    pub fn place(&self, wish: &Wish) -> Result<NodeName, NoPlace> {
        place(wish, &self.candidates(Some(wish.vm)))
    }

    /// All that stands against placing a guest on `node`; `None` if there is no such node.
    pub fn obstacles(&self, wish: &Wish, node: &NodeName) -> Option<Vec<Obstacle>> {
        let figures = self.nodes.iter().find(|figures| figures.name == *node)?;
        Some(obstacles(wish, &self.candidate(figures, Some(wish.vm))))
    }

    /// The nodes with what they have to carry. `except` is left out of every sum: whoever is to be placed must not stand
    /// in its own way.
    pub fn candidates(&self, except: Option<VmId>) -> Vec<Candidate> {
        self.nodes
            .iter()
            .map(|node| self.candidate(node, except))
            .collect()
    }

    fn candidate(&self, node: &NodeFigures, except: Option<VmId>) -> Candidate {
        let mut candidate = Candidate {
            name: node.name.clone(),
            daemon_state: node.daemon_state,
            domain_state: node.domain_state,
            silent: node.silent,
            memory_total_mib: node.memory_total_mib,
            memory_free_mib: node.memory_free_mib,
            committed_mib: 0,
            running_mib: 0,
            load: node.load,
            cpus: node.cpus,
            vcpus_allocated: 0,
            vms: 0,
            groups: BTreeSet::new(),
        };
        for guest in &self.guests {
            if Some(guest.vm) == except {
                continue;
            }
            let placed = guest.node == node.name;
            // A guest that moves is on both nodes: its target has promised the memory, its source has not got it back.
            let here = (placed && runs(guest.state)) || guest.owner.as_ref() == Some(&node.name);
            if placed || here {
                candidate.committed_mib = candidate.committed_mib.saturating_add(guest.memory_mib);
            }
            if !here {
                continue;
            }
            candidate.running_mib = candidate.running_mib.saturating_add(guest.memory_mib);
            candidate.vcpus_allocated = candidate.vcpus_allocated.saturating_add(u64::from(guest.vcpus));
            candidate.vms = candidate.vms.saturating_add(1);
            candidate.groups.extend(guest.groups.iter().cloned());
            if !node.running.contains(&guest.vm) {
                // It is on its way. The figures that the node measures do not show it yet, and without this all guests
                // of a dead node would go to the one that was the emptiest before.
                candidate.memory_free_mib = candidate.memory_free_mib.saturating_sub(guest.memory_mib);
                candidate.load += f64::from(guest.vcpus);
            }
        }
        candidate
    }

    /// Takes note that a guest has been placed, so that the next choice from this survey counts it.
    pub fn placed(&mut self, wish: &Wish, node: &NodeName, state: VmState) {
        match self.guests.iter_mut().find(|guest| guest.vm == wish.vm) {
            Some(guest) => {
                guest.node = node.clone();
                guest.state = state;
            }
            None => self.guests.push(GuestFigures {
                vm: wish.vm,
                node: node.clone(),
                owner: None,
                state,
                memory_mib: wish.memory_mib,
                vcpus: wish.vcpus,
                limit: wish.limit.clone(),
                selector: wish.selector,
                groups: wish.groups.clone(),
            }),
        }
    }
}
