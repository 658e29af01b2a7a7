//! Answers an order to adopt: puts on record what runs here, waits for the others, goes on.

use std::collections::BTreeMap;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::CommaList;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::hold::{
    AdoptOrder, Adoption, FormerOwner, HoldPhase, HoldRecord, PeerHold, adoption, waits_for,
};
use pvc_core::ids::{Incarnation, NodeName, VmId, VolumeId};
use pvc_core::records::NodeLease;
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use tracing::{info, warn};

use super::keeper::HoldKeeper;
use crate::definition::{OpenError, Volumes, open_volumes};
use crate::host::{Hypervisor, HypervisorError};

/// How lately a node's lease must have been seen to move for its word to count.
const ALIVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// How often the adoption of one guest is begun again in a round when somebody else wrote.
const TRIES: u32 = 3;

/// An order that is being carried out.
#[derive(Debug, Clone)]
pub(super) struct Adopting {
    order: AdoptOrder,
    pub(super) adopted: Vec<VmId>,
    /// Why a guest that runs here could not be put on record.
    refused: BTreeMap<VmId, Refusal>,
    waits_for: Vec<NodeName>,
    /// Whether each guest that runs here has been dealt with.
    dealt_with: bool,
}

impl Adopting {
    pub(super) fn phase(&self) -> HoldPhase {
        let order = self.order.id.clone();
        // SAFETY(ownership): others go on once everybody has adopted. A guest that runs here and is not on record as this
        // node's could be started by whoever is on record, so nobody goes on before that is resolved.
        match self.dealt_with && !self.is_disputed() {
            false => HoldPhase::Adopting { order },
            true => HoldPhase::Adopted {
                order,
                waits_for: self.waits_for.clone(),
            },
        }
    }

    fn is_disputed(&self) -> bool {
        self.refused
            .values()
            .any(|refusal| matches!(refusal, Refusal::Disputed(_)))
    }

    pub(super) fn trouble(&self) -> Vec<String> {
        self.refused
            .iter()
            .map(|(vm, reason)| format!("{vm}: {}", reason.text()))
            .collect()
    }

    pub(super) fn status(&self) -> String {
        let names: Vec<&str> = self.waits_for.iter().map(NodeName::as_str).collect();
        format!(
            "on hold: {} guests that run here are on record; waiting for {}",
            self.adopted.len(),
            if names.is_empty() {
                "the store".to_owned()
            } else {
                names.join(", ")
            }
        )
    }
}

/// Why a guest was not put on record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// The store does not know it: nobody will touch it.
    NotInStore,
    /// Whoever went on now would end it, or start it twice.
    Disputed(String),
}

impl Refusal {
    fn text(&self) -> &str {
        match self {
            Refusal::NotInStore => {
                "it runs here and is not in the store: restore its definition, or end its process"
            }
            Refusal::Disputed(reason) => reason,
        }
    }
}

/// Whose leases were seen to move.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerWatch {
    leases: BTreeMap<NodeName, (ZnodeVersion, Option<BootTime>)>,
}

impl PeerWatch {
    fn seen(&mut self, node: &NodeName, version: ZnodeVersion, now: BootTime) -> bool {
        let moved_at = match self.leases.get(node) {
            Some((before, moved_at)) if *before == version => *moved_at,
            Some(_) => Some(now),
            None => None,
        };
        self.leases.insert(node.clone(), (version, moved_at));
        moved_at.is_some_and(|moved_at| now.since(moved_at) <= ALIVE_WITHIN)
    }
}

impl<S: Store, C: Clock, H: Hypervisor> HoldKeeper<S, C, H> {
    pub(super) async fn read_order(&self) -> Result<Option<AdoptOrder>, ReadError> {
        let key = keys::config().adopt();
        Ok(self.parts.store.get(&key).await?.and_then(|order| order.value))
    }

    /// One step of a hold.
    pub(super) async fn held_step(&mut self) -> Result<(), ReadError> {
        let peers = self.read_peers().await?;
        let before = self
            .memory
            .held
            .as_ref()
            .and_then(|held| held.order_before.clone());
        // SAFETY(fencing): a store that is half restored says of some guests what was and of others what is.
        let whole = self
            .read_restore()
            .await?
            .is_none_or(|restore| restore.phase.is_over());
        let order = self
            .read_order()
            .await?
            .filter(|order| whole && Some(&order.id) != before.as_ref());
        let Some(order) = order else {
            let phase = self.phase();
            return self.publish(phase).await;
        };
        let same = self
            .adopting
            .as_ref()
            .is_some_and(|adopting| adopting.order == order);
        if !same {
            info!(order = %order.id, by = %order.by, "ordered to take what really runs here as the truth");
            let adopted = self
                .adopting
                .take()
                .map(|adopting| adopting.adopted)
                .unwrap_or_default();
            self.adopting = Some(Adopting {
                order: order.clone(),
                adopted,
                refused: BTreeMap::new(),
                waits_for: Vec::new(),
                dealt_with: false,
            });
        }
        // In every round, not once: a process may show late, and one that was refused may have become clear.
        let Some(running) = self.processes() else {
            return Ok(());
        };
        self.empty_own_fence().await?;
        self.adopt_all(&order, &running).await?;
        let waits_for = waits_for(&order, &peers);
        let done = match &mut self.adopting {
            Some(adopting) => {
                adopting.waits_for = waits_for;
                adopting.dealt_with && adopting.waits_for.is_empty() && !adopting.is_disputed()
            }
            None => false,
        };
        let phase = self.phase();
        self.publish(phase).await?;
        if !done {
            return Ok(());
        }
        // Said first: if this agent ended in between, its next life begins with the hold and says it again.
        self.publish(HoldPhase::Lifted { order: order.id }).await?;
        warn!("the hold is over: every node has put on record what runs there");
        self.lift().await;
        Ok(())
    }

    /// Every other node's word, and whether it is alive.
    async fn read_peers(&mut self) -> Result<BTreeMap<NodeName, PeerHold>, ReadError> {
        let nodes = self.parts.store.children_as(&keys::nodes()).await?;
        let others: Vec<NodeName> = nodes.into_iter().filter(|node| *node != self.parts.me).collect();
        let leases: Vec<_> = others.iter().map(keys::lease_node).collect();
        let holds: Vec<_> = others.iter().map(|node| keys::node(node).hold()).collect();
        let leases = self.parts.store.get_many(&leases).await?;
        let holds = self.parts.store.get_many(&holds).await?;
        let now = self.parts.clock.now();
        let mut peers = BTreeMap::new();
        for ((node, lease), hold) in others.into_iter().zip(leases).zip(holds) {
            let moving = lease
                .as_ref()
                .is_some_and(|lease| self.peers.seen(&node, lease.version, now));
            let alive: Option<Incarnation> = lease
                .and_then(|lease| lease.value)
                .filter(|_| moving)
                .map(|lease: NodeLease| lease.incarnation);
            let record = hold.and_then(|hold| hold.value);
            peers.insert(node, PeerHold { record, alive });
        }
        Ok(peers)
    }

    /// A record that this boot is being fenced, or was, is part of the past that was restored: this boot lives, and an
    /// administrator has said that what runs here is the truth. It would keep this node from claiming anything.
    async fn empty_own_fence(&self) -> Result<(), ReadError> {
        let key = keys::fence(&self.parts.me);
        let seen = self.parts.store.require(&key).await?;
        if !seen.value.is_some_and(|fence| {
            fence.bars(&self.parts.incarnation) && fence.victim.same_boot(&self.parts.incarnation)
        }) {
            return Ok(());
        }
        match self
            .parts
            .store
            .commit(Txn::new().set(&key, &None, seen.version))
            .await
        {
            Ok(_) => {
                warn!("the store remembered a fence of this boot, which lives: the record was emptied");
                Ok(())
            }
            // Looked at again in the next round.
            Err(StoreError::BadVersion { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn adopt_all(&mut self, order: &AdoptOrder, running: &[VmId]) -> Result<(), ReadError> {
        let mut refused = BTreeMap::new();
        for vm in running {
            match self.adopt(order, *vm).await? {
                None => {
                    if let Some(adopting) = &mut self.adopting
                        && !adopting.adopted.contains(vm)
                    {
                        adopting.adopted.push(*vm);
                    }
                }
                Some(reason) => {
                    refused.insert(*vm, reason);
                }
            }
        }
        if let Some(adopting) = &mut self.adopting {
            if adopting.refused != refused {
                for (vm, reason) in &refused {
                    warn!(%vm, reason = reason.text(), "a guest that runs here was not put on record");
                }
            }
            adopting.refused = refused;
            adopting.dealt_with = true;
        }
        Ok(())
    }

    /// Puts one guest on record as this node's; answers why not.
    async fn adopt(&mut self, order: &AdoptOrder, vm: VmId) -> Result<Option<Refusal>, ReadError> {
        for _ in 0..TRIES {
            match self.try_adopt(order, vm).await {
                Err(ReadError::Store(StoreError::BadVersion { .. } | StoreError::Unknown { .. })) => {}
                outcome => return outcome,
            }
        }
        Ok(Some(Refusal::Disputed("its record kept changing".to_owned())))
    }

    async fn try_adopt(&mut self, order: &AdoptOrder, vm: VmId) -> Result<Option<Refusal>, ReadError> {
        let domain = keys::domain(vm);
        let fence_key = keys::fence(&self.parts.me);
        let first = self.parts.store.get(&domain.owner()).await?;
        let Some(first) = first else {
            return Ok(Some(Refusal::NotInStore));
        };
        // The owner is named first, then it and its own word are read as of one moment.
        let former_node = first.value.map_or(self.parts.me.clone(), |owner| owner.node);
        let former_hold = keys::node(&former_node).hold();
        let paths = [
            domain.node().path().to_owned(),
            domain.state().path().to_owned(),
            domain.owner().path().to_owned(),
            former_hold.path().to_owned(),
            fence_key.path().to_owned(),
            domain.incoming().path().to_owned(),
            domain.volumes().path().to_owned(),
        ];
        let Some(hypervisor) = &self.parts.hypervisor else {
            return Ok(None);
        };
        let open = match open_volumes(hypervisor, vm).await {
            Ok(volumes) => volumes,
            // Nothing will ever tell; it is taken as it is on record.
            Err(OpenError::Hypervisor(HypervisorError::NoDomain { .. }) | OpenError::Definition(_)) => {
                Volumes::new()
            }
            Err(error @ OpenError::Hypervisor(_)) => {
                return Ok(Some(Refusal::Disputed(format!(
                    "which disks it has is not known: {error}"
                ))));
            }
        };
        let znodes = self.parts.store.read_many(&paths).await?;
        let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
        let node = domain.node().decode_required(at(0))?;
        let state = domain.state().decode_required(at(1))?;
        let owner = domain.owner().decode_required(at(2))?;
        let hold = former_hold.decode(at(3))?.and_then(|hold| hold.value);
        let fence = fence_key.decode_required(at(4))?;
        let incoming = domain.incoming().decode_required(at(5))?;
        let listed = domain.volumes().decode(at(6))?;
        if owner
            .value
            .as_ref()
            .is_some_and(|owner| owner.node != former_node)
        {
            return Err(StoreError::BadVersion {
                path: domain.owner().path().to_owned(),
                index: 0,
            }
            .into());
        }
        if fence
            .value
            .is_some_and(|fence| fence.bars(&self.parts.incarnation))
        {
            let reason = "a fence of this node is on record: it may claim nothing".to_owned();
            return Ok(Some(Refusal::Disputed(reason)));
        }
        let me = &self.parts.me;
        let epoch = u64::try_from(owner.version.0).unwrap_or(0) + 1;
        let decision = adoption(
            me,
            &self.parts.incarnation,
            owner.value.as_ref(),
            self.memory.guests.get(&vm),
            former_owner(order, &former_node, hold.as_ref(), vm),
            epoch,
        );
        // The list goes along in the same transaction: whoever reads the owner sees also that it is no old word.
        let phase = self.phase();
        let mut record = self.record(phase);
        let is_listed = record.adopted.contains(&vm);
        if !is_listed {
            record.adopted.push(vm);
        }
        let mut txn = Txn::new().check(&fence_key, fence.version);
        match decision {
            // What was asked of it since it was put on record counts.
            Adoption::AlreadySo if is_listed => return Ok(None),
            // A backup has no owners and tells of the past in all else.
            Adoption::AlreadySo => txn = txn.check(&domain.owner(), owner.version),
            Adoption::Refuse { reason } => return Ok(Some(Refusal::Disputed(reason))),
            Adoption::Take(taken) => txn = txn.set(&domain.owner(), &Some(taken), owner.version),
        }
        if node.value != *me {
            txn = txn.set(&domain.node(), me, node.version);
        }
        if incoming.value.is_some() {
            // A migration of the past.
            txn = txn.set(&domain.incoming(), &None, incoming.version);
        }
        if state.value != VmState::Start {
            // It runs: that is what counts now, whatever the store remembers of it.
            txn = txn.set(&domain.state(), &VmState::Start, state.version);
        }
        // The store may be older than a disk that was attached since: nobody else may be given what is open here.
        if let Some(listed) = listed {
            let mut all = listed.value.0;
            let missing: Vec<VolumeId> = open.into_keys().filter(|volume| !all.contains(volume)).collect();
            if !missing.is_empty() {
                all.extend(missing);
                txn = txn.set(&domain.volumes(), &CommaList(all), listed.version);
            }
        }
        self.published = None;
        let txn = txn.overwrite(&keys::node(me).hold(), &Some(record));
        self.parts.store.commit(txn).await?;
        info!(%vm, was = %former_node, state = %state.value, "put a guest that runs here on record as this node's");
        Ok(None)
    }
}

/// Whether the owner on record can be more than an old word.
fn former_owner(order: &AdoptOrder, node: &NodeName, hold: Option<&HoldRecord>, vm: VmId) -> FormerOwner {
    if order.without.contains(node) {
        return FormerOwner::Bound;
    }
    match hold {
        Some(record) => match &record.phase {
            HoldPhase::Held { .. } => FormerOwner::Bound,
            HoldPhase::Adopting { .. } | HoldPhase::Adopted { .. } if !record.adopted.contains(&vm) => {
                FormerOwner::Bound
            }
            HoldPhase::Adopting { .. }
            | HoldPhase::Adopted { .. }
            | HoldPhase::Free
            | HoldPhase::Lifted { .. } => FormerOwner::Free,
        },
        None => FormerOwner::Free,
    }
}
