//! What each node has to carry, read from the store, and reserving memory on one.
//!
//! Two who place guests at a time (the API, a drain, a fencer) must not give the same memory away. So each node has a
//! key, `reserved`, that whoever places a guest there writes in the same transaction as the guest's `node`, on condition
//! of the version that he read *before* he summed up what the node has to carry. Whoever comes second fails, looks
//! again, and counts the first one's guest.
//!
//! ```text
//! let mut places = read_candidates(store, &silent).await?;
//! let choice = places.choose(&wish)?;                     // pure; nothing is written
//! let txn = places.reserve(Txn::new().set(node ...), &choice);
//! match store.commit(txn).await {
//!     Ok(_) => places.placed(choice, state),              // the next choice counts it, without reading again
//!     Err(BadVersion { .. }) => read again, decide again
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pvc_core::guest_xml;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::placement::{GuestFigures, NoPlace, NodeFigures, Obstacle, Survey, Wish};
use pvc_core::records::Reserved;
use pvc_core::states::VmState;

use crate::keys;
use crate::store::{ReadError, Store, StoreExt as _, Txn, Znode, ZnodeVersion};

/// Guests read in one request: their XML may be large.
const GUESTS_PER_READ: usize = 50;
/// Requests under way at a time.
const READS_AT_ONCE: usize = 4;
/// Keys of a guest that are read.
const KEYS_OF_A_GUEST: usize = 7;

/// All nodes and guests as they were read, with the versions that a placement depends on.
#[derive(Debug, Clone)]
pub struct Places {
    /// What was read.
    pub survey: Survey,
    stakes: BTreeMap<NodeName, Stake>,
}

/// What a placement on a node depends on.
#[derive(Debug, Clone)]
struct Stake {
    /// Placements there so far.
    placements: u64,
    reserved: ZnodeVersion,
    /// Of the node's domain state: a node that is being emptied meanwhile gets no guest.
    domain_state: ZnodeVersion,
}

/// A node chosen for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The guest and what it wants.
    pub wish: Wish,
    /// The node.
    pub node: NodeName,
}

/// Why no node could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// None takes the guest.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// Guests can't be placed on that node at all.
    #[error(
        "node {node} can't be given guests: it is gone, its record can't be read, or its agent is of an earlier release"
    )]
    NotOpen {
        /// The node.
        node: NodeName,
    },
    /// The node that was named does not take the guest.
    #[error("node {node} does not take it: {}", in_words(obstacles))]
    Refused {
        /// The node.
        node: NodeName,
        /// All that stands against it.
        obstacles: Vec<Obstacle>,
    },
}

fn in_words(obstacles: &[Obstacle]) -> String {
    let words: Vec<String> = obstacles.iter().map(Obstacle::to_string).collect();
    words.join(", and ")
}

/// Reads what is needed to place guests. Nodes of `silent` are not chosen, nor are those with an open fence.
///
/// A guest or a node that is deleted meanwhile, or whose record can't be read, is left out with a line in the log: it must
/// not keep all others from being placed.
///
/// # Errors
/// [`ReadError`] when the store does not answer.
pub async fn read_candidates<S: Store>(store: &S, silent: &BTreeSet<NodeName>) -> Result<Places, ReadError> {
    // The order matters: first the versions that a reservation names, then all that is summed up under them.
    let names: Vec<NodeName> = store.children_as(&keys::nodes()).await?;
    let mut nodes = Vec::with_capacity(names.len());
    let mut stakes = BTreeMap::new();
    for (name, znodes) in names.iter().zip(read_nodes(store, &names).await?) {
        match decode_node(name, &znodes, silent) {
            Ok((figures, stake)) => {
                nodes.push(figures);
                stakes.insert(name.clone(), stake);
            }
            // Gone, or of an agent that knows no reservations: it joins in once that has been upgraded.
            Err(ReadError::Missing { path }) => {
                tracing::debug!(node = %name, path, "no guest can be placed on a node");
            }
            Err(error) => {
                tracing::warn!(node = %name, %error, "no guest can be placed on a node");
            }
        }
    }
    let default_selector = store
        .get(&keys::config().migration_target_selector())
        .await?
        .and_then(|found| found.value);
    let vms: Vec<VmId> = store.children_as(&keys::domains()).await?;
    let parts: Vec<Vec<VmId>> = vms.chunks(GUESTS_PER_READ).map(<[VmId]>::to_vec).collect();
    let guests = stream::iter(parts)
        .map(|part| read_guests(store, part))
        .buffered(READS_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?
        .concat();
    Ok(Places {
        survey: Survey {
            nodes,
            guests,
            default_selector,
        },
        stakes,
    })
}

impl Places {
    /// What that guest wants, for leaving the nodes of `exclude`; `None` if it is not known.
    pub fn wish(&self, vm: VmId, exclude: Vec<NodeName>) -> Option<Wish> {
        self.survey.wish(vm, exclude)
    }

    /// Whether guests can be placed on that node at all: it exists, and its record can be read.
    pub fn knows(&self, node: &NodeName) -> bool {
        self.stakes.contains_key(node)
    }

    /// The best node for a guest.
    ///
    /// # Errors
    /// [`NoPlace`] with all that stands against each node.
    pub fn choose(&self, wish: &Wish) -> Result<Choice, NoPlace> {
        let node = self.survey.place(wish)?;
        Ok(Choice {
            wish: wish.clone(),
            node,
        })
    }

    /// That node for a guest, which was named and not chosen. `overridden` says of each obstacle whether it is passed
    /// over.
    ///
    /// # Errors
    /// [`Unplaced::NotOpen`] or [`Unplaced::Refused`].
    pub fn named(
        &self,
        wish: &Wish,
        node: &NodeName,
        overridden: impl Fn(&Obstacle) -> bool,
    ) -> Result<Choice, Unplaced> {
        let mut obstacles = self
            .survey
            .obstacles(wish, node)
            .ok_or_else(|| Unplaced::NotOpen { node: node.clone() })?;
        obstacles.retain(|obstacle| !overridden(obstacle));
        if obstacles.is_empty() {
            return Ok(Choice {
                wish: wish.clone(),
                node: node.clone(),
            });
        }
        Err(Unplaced::Refused {
            node: node.clone(),
            obstacles,
        })
    }

    /// `txn` with the reservation for a choice from these readings: it holds only if nobody has placed a guest on the
    /// node since they were read, and the node still takes guests as it did.
    #[must_use]
    pub fn reserve(&self, txn: Txn, choice: &Choice) -> Txn {
        // A node without a reservation key is no candidate, and a choice is made by `choose` and `named` alone.
        let Some(stake) = self.stakes.get(&choice.node) else {
            return txn;
        };
        let keys = keys::node(&choice.node);
        let reserved = Reserved {
            placements: stake.placements + 1,
            vm: choice.wish.vm,
            memory_mib: choice.wish.memory_mib,
        };
        txn.set(&keys.reserved(), &Some(reserved), stake.reserved)
            .check(&keys.domain_state(), stake.domain_state)
    }

    /// Takes note that the transaction with a choice's reservation was applied, and left the guest in `state`: the next
    /// choice counts it. (ZooKeeper raises a version by one with each write.)
    pub fn placed(&mut self, choice: &Choice, state: VmState) {
        self.survey.placed(&choice.wish, &choice.node, state);
        if let Some(stake) = self.stakes.get_mut(&choice.node) {
            stake.placements += 1;
            stake.reserved = ZnodeVersion(stake.reserved.0.wrapping_add(1));
        }
    }
}

/// The keys of a node that are read.
fn node_paths(name: &NodeName) -> [String; 9] {
    let keys = keys::node(name);
    [
        keys.reserved().path(),
        keys.domain_state().path(),
        keys.daemon_state().path(),
        keys.static_data().path(),
        keys.memory_total_mib().path(),
        keys.memory_free_mib().path(),
        keys.cpu_load().path(),
        keys.running_domains().path(),
        keys::fence(name).path(),
    ]
    .map(str::to_owned)
}

/// In the order of [`node_paths`], for each node.
async fn read_nodes<S: Store>(store: &S, names: &[NodeName]) -> Result<Vec<Vec<Option<Znode>>>, ReadError> {
    let paths: Vec<String> = names.iter().flat_map(node_paths).collect();
    let mut znodes = store.read_many(&paths).await?.into_iter();
    Ok(names.iter().map(|_| znodes.by_ref().take(9).collect()).collect())
}

fn decode_node(
    name: &NodeName,
    znodes: &[Option<Znode>],
    silent: &BTreeSet<NodeName>,
) -> Result<(NodeFigures, Stake), ReadError> {
    let keys = keys::node(name);
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let reserved = keys.reserved().decode_required(at(0))?;
    let domain_state = keys.domain_state().decode_required(at(1))?;
    let fence = keys::fence(name).decode(at(8))?.and_then(|fence| fence.value);
    let stake = Stake {
        placements: reserved.value.map_or(0, |reserved| reserved.placements),
        reserved: reserved.version,
        domain_state: domain_state.version,
    };
    let running = keys.running_domains().decode_required(at(7))?.value;
    let figures = NodeFigures {
        name: name.clone(),
        daemon_state: keys.daemon_state().decode_required(at(2))?.value,
        domain_state: domain_state.value,
        silent: silent.contains(name) || fence.is_some_and(|fence| fence.is_open()),
        memory_total_mib: keys.memory_total_mib().decode_required(at(4))?.value,
        memory_free_mib: keys.memory_free_mib().decode_required(at(5))?.value,
        load: keys.cpu_load().decode_required(at(6))?.value.0,
        cpus: keys
            .static_data()
            .decode_required(at(3))?
            .value
            .map_or(0, |data| data.cpus),
        running: running.0.into_iter().collect(),
    };
    Ok((figures, stake))
}

async fn read_guests<S: Store>(store: &S, vms: Vec<VmId>) -> Result<Vec<GuestFigures>, ReadError> {
    let paths: Vec<String> = vms
        .iter()
        .map(|vm| keys::domain(*vm))
        .flat_map(|domain| {
            [
                domain.node().path(),
                domain.state().path(),
                domain.owner().path(),
                domain.xml().path(),
                domain.node_limit().path(),
                domain.node_selector().path(),
                domain.anti_affinity().path(),
            ]
            .map(str::to_owned)
        })
        .collect();
    let znodes = store.read_many(&paths).await?;
    let decode = |(vm, znodes): (&VmId, &[Option<Znode>])| match decode_guest(*vm, znodes) {
        Ok(figures) => Some(figures),
        Err(ReadError::Missing { .. }) => None,
        Err(error) => {
            tracing::warn!(%vm, %error, "a guest can't be counted where guests are placed");
            None
        }
    };
    Ok(vms
        .iter()
        .zip(znodes.chunks_exact(KEYS_OF_A_GUEST))
        .filter_map(decode)
        .collect())
}

fn decode_guest(vm: VmId, znodes: &[Option<Znode>]) -> Result<GuestFigures, ReadError> {
    let keys = keys::domain(vm);
    let at = |index: usize| znodes.get(index).and_then(Option::as_ref);
    let xml = keys.xml().decode_required(at(3))?.value;
    let size = guest_xml::parse_size(&xml).unwrap_or_else(|error| {
        tracing::warn!(%vm, %error, "a guest's size can't be read; it counts as nothing where guests are placed");
        guest_xml::Size {
            memory_mib: 0,
            vcpus: 0,
        }
    });
    Ok(GuestFigures {
        vm,
        node: keys.node().decode_required(at(0))?.value,
        owner: keys
            .owner()
            .decode(at(2))?
            .and_then(|owner| owner.value)
            .map(|owner| owner.node),
        state: keys.state().decode_required(at(1))?.value,
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        limit: keys
            .node_limit()
            .decode(at(4))?
            .map(|limit| limit.value.0)
            .unwrap_or_default(),
        selector: keys
            .node_selector()
            .decode(at(5))?
            .map_or(pvc_core::states::NodeSelector::None, |selector| selector.value),
        groups: keys
            .anti_affinity()
            .decode(at(6))?
            .map(|groups| groups.value.0.into_iter().collect())
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
