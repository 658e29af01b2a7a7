//! What one round of the fencer sees: all nodes, all records, and machines that have lost their names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::store::{ReadError, Store, StoreExt as _, ZnodeVersion};
use pvc_core::fence::{CoordinatorLife, FencePhase, FenceRecord, SilenceJudge, Standing};
use pvc_core::ids::{Incarnation, MachineId, NodeName};
use pvc_core::protection::{Protection, stands};
use pvc_core::states::{DaemonMode, DaemonState};
use pvc_core::time::BootTime;
use tracing::{debug, info, warn};

use super::rounds::Fencer;
use crate::host::{PowerControl, Storage};
use crate::registration::wall_seconds;

/// How often it is looked whether guests belong to a machine that has lost its name to another.
const FORMER_EVERY: Duration = Duration::from_secs(60);

/// Machines whose names others have taken, and to which guests belong all the same.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Which machine has each name now.
    machines: BTreeMap<NodeName, MachineId>,
    looked: Option<BootTime>,
    pub(super) owners: BTreeMap<NodeName, Incarnation>,
}

/// All nodes and records as one round sees them.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) now: BootTime,
    pub(super) silences: SilenceJudge,
    pub(super) standings: BTreeMap<NodeName, Standing>,
    pub(super) fences: BTreeMap<NodeName, FenceRecord>,
    pub(super) coordinators: BTreeMap<NodeName, CoordinatorLife>,
    pub(super) maintenance: bool,
    pub(super) maintenance_version: ZnodeVersion,
}

impl<S: Store, C: Clock, P: PowerControl, T: Storage> Fencer<S, C, P, T> {
    /// Looks for guests that belong to a machine whose name another has taken: nobody will ever hear that one again, and it
    /// fell silent for too short a time to be suspected.
    pub(super) async fn look_for_former(&mut self, sight: &Sight) {
        let leases: Vec<(&NodeName, &Incarnation)> = sight
            .silences
            .nodes()
            .filter_map(|node| {
                let lease = sight.silences.lease(node)?.lease.as_ref()?;
                Some((node, &lease.incarnation))
            })
            .collect();
        let machines: BTreeMap<NodeName, MachineId> = leases
            .iter()
            .map(|(node, incarnation)| ((*node).clone(), incarnation.machine_id.clone()))
            .collect();
        let due = machines != self.former.machines
            || self
                .former
                .looked
                .is_none_or(|looked| sight.now.since(looked) >= FORMER_EVERY);
        if !due {
            return;
        }
        let Ok(guests) = self.parts.read_guests().await else {
            return;
        };
        let belongs_to = guests.iter().flat_map(|guest| {
            let owner = guest
                .owner
                .as_ref()
                .map(|owner| (&owner.node, &owner.incarnation));
            let incoming = guest
                .incoming
                .as_ref()
                .map(|incoming| (&incoming.target, &incoming.incarnation));
            owner.into_iter().chain(incoming)
        });
        self.former.owners = belongs_to
            .filter(|(node, boot)| {
                machines
                    .get(*node)
                    .is_some_and(|machine| *machine != boot.machine_id)
            })
            // A death that is known and dealt with: what still belongs to it is left there on purpose.
            .filter(|(node, boot)| {
                !sight.fences.get(*node).is_some_and(|record| {
                    matches!(record.phase, FencePhase::Done { .. }) && record.victim.same_boot(boot)
                })
            })
            .map(|(node, boot)| (node.clone(), boot.clone()))
            .collect();
        self.former.machines = machines;
        self.former.looked = Some(sight.now);
    }

    pub(super) async fn look(&mut self) -> Result<Sight, ReadError> {
        let mut silences = self.parts.hearing.so_far();
        let nodes: Vec<NodeName> = silences.nodes().cloned().collect();
        let mut paths: Vec<String> = Vec::with_capacity(nodes.len() * 3 + 1);
        for node in &nodes {
            paths.push(keys::node(node).daemon_state().path().to_owned());
            paths.push(keys::fence(node).path().to_owned());
            paths.push(keys::node(node).daemon_mode().path().to_owned());
        }
        paths.push(keys::config().maintenance().path().to_owned());
        let mut znodes = self.parts.store.read_many(&paths).await?;
        let maintenance = keys::config()
            .maintenance()
            .decode_required(znodes.pop().flatten().as_ref())?;
        let maintenance_version = maintenance.version;
        let maintenance = maintenance.value == Maintenance::On;
        if self.in_maintenance && !maintenance {
            info!("maintenance has ended: every silence is counted anew");
            self.parts.hearing.forget_silences();
            silences = self.parts.hearing.so_far();
        }
        self.in_maintenance = maintenance;
        let now = self.parts.clock.now();
        let (mut standings, mut fences, mut coordinators) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (node, znodes) in nodes.into_iter().zip(znodes.chunks_exact(3)) {
            let state = keys::node(&node)
                .daemon_state()
                .decode(znodes.first().and_then(Option::as_ref));
            let state = match state {
                Ok(state) => state.map_or(DaemonState::Init, |state| state.value),
                Err(error) => {
                    debug!(%node, %error, "a node's state can't be read");
                    DaemonState::Run
                }
            };
            let mut standing = self.judge.standing(now, &node, &silences, state);
            if !stands(Protection::OwnClockOnly) {
                standing = self.standing_by_wall_clock(&node, standing).await;
            }
            let mut life = if node == self.parts.me || standing == Standing::Alive {
                CoordinatorLife::Heard
            } else {
                CoordinatorLife::NotHeard
            };
            if node != self.parts.me {
                standings.insert(node.clone(), standing);
            }
            let mode = keys::node(&node)
                .daemon_mode()
                .decode(znodes.get(2).and_then(Option::as_ref));
            match keys::fence(&node).decode(znodes.get(1).and_then(Option::as_ref)) {
                Ok(Some(record)) => {
                    if let Some(record) = record.value {
                        if node != self.parts.me && record.counts_out() {
                            life = CoordinatorLife::NotHeard;
                        }
                        fences.insert(node.clone(), record);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(%node, %error, "the record of a fence can't be read; the node is not fenced")
                }
            }
            match mode {
                Ok(Some(mode)) if mode.value == DaemonMode::Hypervisor => {}
                // One whose mode can't be read may be a coordinator: it is not counted on, nor switched off lightly.
                Ok(Some(_)) | Err(_) => {
                    coordinators.insert(node, life);
                }
                Ok(None) => {}
            }
        }
        self.judge.update(now, &standings);
        self.memory.retain(|node, _| standings.contains_key(node));
        Ok(Sight {
            now,
            silences,
            standings,
            fences,
            coordinators,
            maintenance,
            maintenance_version,
        })
    }

    /// What PVC 1.0.3 does, and what must not be done: the wall clocks of two hosts are compared. Only the simulator
    /// comes here.
    async fn standing_by_wall_clock(&self, node: &NodeName, standing: Standing) -> Standing {
        let Ok(keepalive) = self.parts.store.require(&keys::node(node).keepalive()).await else {
            return standing;
        };
        let age = wall_seconds(&self.parts.clock).saturating_sub(keepalive.value);
        if age > 30 {
            let silence = Duration::from_secs(age);
            return Standing::Suspect { silence };
        }
        standing
    }
}

impl Sight {
    /// Whether it is not known yet of some node other than `victim` whether it lives: this fencer has just begun, or could
    /// not hear. In a few rounds it will be.
    pub(super) fn is_unsettled(&self, victim: &NodeName) -> bool {
        self.standings
            .iter()
            .any(|(node, standing)| node != victim && *standing == Standing::Unknown)
    }

    /// Whether no coordinator but `me` lives without an open fence.
    pub(super) fn all_coordinators_are_barred(&self, me: &NodeName) -> bool {
        self.coordinators
            .keys()
            .filter(|node| *node != me)
            .all(|node| match self.standings.get(node) {
                Some(Standing::Alive) => self.fences.get(node).is_some_and(FenceRecord::is_open),
                // It may live.
                Some(Standing::Unknown | Standing::Quiet { .. }) => false,
                Some(
                    Standing::NeverRegistered
                    | Standing::Stopped
                    | Standing::ComingUp { .. }
                    | Standing::Suspect { .. },
                )
                | None => true,
            })
    }

    /// Nodes that are not known to be alive: nothing is placed there.
    pub(super) fn silent(&self) -> BTreeSet<NodeName> {
        self.standings
            .iter()
            .filter(|(_, standing)| **standing != Standing::Alive)
            .map(|(node, _)| node.clone())
            .collect()
    }
}
