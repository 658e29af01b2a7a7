//! Registration: this life of the agent takes the node's place in the store.
//!
//! One transaction writes the lease under the new incarnation and the state `init`, on condition of the very version
//! of the lease that was looked at. A lease of this name that another machine renews is a second node of the same
//! name: it is watched for longer than a lease lasts, and if it moves, this node refuses to register and changes
//! nothing. The same for a lease of another *boot* of this machine, for a shorter time: an earlier boot is dead and
//! renews nothing, so one that does is a copy of this machine (a cloned disk), whose guests must not be taken for dead.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::Release;
use pvc_common::schema::{self, NewNode};
use pvc_common::secret::Secret;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::ids::{Incarnation, MachineId, NodeName};
use pvc_core::lease::{LeaseRight, LeaseTiming};
use pvc_core::records::{NodeAddresses, NodeLease, PROTOCOL};
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};
use tracing::{info, warn};

use crate::node_lease::NodeRight;
use crate::stats;

/// How often a lease of another machine is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the registration is begun again after somebody wrote in between or an outcome was unknown.
const ATTEMPTS: u32 = 5;
/// How many renewals of its own name by another boot of this machine a node listens for. Not the length of a lease,
/// since every reboot waits for it.
const RENEWALS_OF_A_COPY: u32 = 3;

/// What a node says of itself when it registers.
#[derive(Debug, Clone)]
pub struct Registrant {
    /// Its name.
    pub node: NodeName,
    /// What it is for, by its configuration.
    pub mode: DaemonMode,
    /// This life of its agent.
    pub incarnation: Incarnation,
    /// Whether it takes guests from the first moment; an administrator makes it ready otherwise.
    pub ready_when_new: bool,
    /// Its fixed addresses, by its configuration: a fence must know them once the node is silent.
    pub addresses: NodeAddresses,
    /// How its BMC is reached: host name, user, password.
    pub bmc: Option<(String, String, Secret)>,
}

/// Why a node could not register.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Another machine is alive under this name.
    #[error(
        "another machine ({other}) is registered as {node} and alive: two nodes have the same name. Nothing was changed; rename this node, or stop the other one"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
        /// The other machine's agent.
        other: Incarnation,
    },
    /// A copy of this machine is alive under this name.
    #[error(
        "another boot of this machine ({other}) is registered as {node} and alive: this host is a copy of another one, with its name and its machine id. Nothing was changed; give this host a name and a machine id of its own, or stop the other one"
    )]
    Copied {
        /// The name.
        node: NodeName,
        /// The other host's agent.
        other: Incarnation,
    },
    /// The number of this life was used before: `/run/pvc`, which counts them, was deleted within this boot.
    #[error(
        "life {used} of this boot of {node} is on record and this one has a smaller number: /run/pvc was deleted. Begin again with a larger one"
    )]
    LifeUsed {
        /// The name.
        node: NodeName,
        /// The number on record.
        used: u64,
    },
    /// Another agent of this very boot renews the lease.
    #[error("another agent of this host ({other}) is alive as {node}: stop it first. Nothing was changed")]
    SecondAgent {
        /// The name.
        node: NodeName,
        /// The other agent.
        other: Incarnation,
    },
    /// This boot is on record under another machine id.
    #[error(
        "this boot of {node} is on record with the machine id {was}, and /etc/machine-id says another now: guests of this host would be taken for those of another machine. Put the old id back, or reboot this host once it is empty"
    )]
    MachineIdChanged {
        /// The name.
        node: NodeName,
        /// The machine id on record.
        was: MachineId,
    },
    /// A living node keeps its lease by other rules.
    #[error(
        "{node} is alive and speaks version {theirs} of the lease protocol, this release version {PROTOCOL}: their periods differ, and two nodes could hold one address. Bring all nodes to one release"
    )]
    OtherProtocol {
        /// The living node.
        node: NodeName,
        /// Its protocol.
        theirs: u32,
    },
    /// The store did not answer.
    #[error("failed to read the registration of this node")]
    Read(#[from] ReadError),
    /// The store did not take the registration.
    #[error("failed to register this node")]
    Write(#[source] StoreError),
    /// Somebody wrote the same records again and again.
    #[error("the records of this node kept changing while it registered")]
    Contended,
}

/// Registers this life of the agent. Answers with the version of its lease.
///
/// # Errors
/// [`RegistrationError`]; nothing was changed then, except after an unknown outcome, which the next try finds out.
pub async fn register<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    registrant: &Registrant,
    right: &NodeRight,
) -> Result<ZnodeVersion, RegistrationError> {
    let timing = LeaseTiming::DEFAULT;
    refuse_other_protocols(store, clock, registrant, &timing).await?;
    for _ in 0..ATTEMPTS {
        // Looked at in each attempt: whoever wrote in between may be another machine.
        let lease = look_at_lease(store, clock, registrant, &timing).await?;
        let (txn, lease_index) = registration(store, clock, registrant, lease).await?;
        let sent = clock.now();
        match store.commit(txn).await {
            Ok(applied) => {
                // Not read afterwards: it might be the version of somebody else's write by then.
                let Some(version) = applied.get(lease_index).and_then(|applied| applied.version()) else {
                    continue;
                };
                right.renewed(LeaseRight::acknowledged(sent, &timing));
                info!(incarnation = %registrant.incarnation, mode = %registrant.mode, "registered");
                return Ok(version);
            }
            Err(
                StoreError::NodeExists { .. }
                | StoreError::BadVersion { .. }
                | StoreError::NoNode { .. }
                | StoreError::Unknown { .. },
            ) => clock.sleep(LOOK_EVERY / 5).await,
            Err(
                error @ (StoreError::NotEmpty { .. }
                | StoreError::LockLost { .. }
                | StoreError::Unavailable { .. }
                | StoreError::SessionExpired
                | StoreError::Refused { .. }),
            ) => return Err(RegistrationError::Write(error)),
        }
    }
    Err(RegistrationError::Contended)
}

/// The periods of the leases are constants of a release, and [`PROTOCOL`] is their number. Two nodes with different ones
/// must not be in one cluster; one that is dead does not count.
async fn refuse_other_protocols<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    registrant: &Registrant,
    timing: &LeaseTiming,
) -> Result<(), RegistrationError> {
    let before = other_protocols(store, registrant).await?;
    if before.is_empty() {
        return Ok(());
    }
    warn!(nodes = ?before.keys(), "nodes of another release are on record; looking whether they are alive");
    clock
        .sleep(timing.period * RENEWALS_OF_A_COPY + timing.margin)
        .await;
    let after = other_protocols(store, registrant).await?;
    let alive = after
        .into_iter()
        .find(|(node, (version, _))| before.get(node).is_none_or(|(then, _)| then != version));
    match alive {
        Some((node, (_, theirs))) => Err(RegistrationError::OtherProtocol { node, theirs }),
        None => Ok(()),
    }
}

/// The other nodes whose leases are of another protocol than ours.
async fn other_protocols<S: Store>(
    store: &S,
    registrant: &Registrant,
) -> Result<BTreeMap<NodeName, (ZnodeVersion, u32)>, RegistrationError> {
    let nodes = store.children_as(&keys::lease_nodes()).await?;
    let leases: Vec<_> = nodes.iter().map(keys::lease_node).collect();
    let found = store.get_many(&leases).await?;
    Ok(nodes
        .into_iter()
        .zip(found)
        .filter(|(node, _)| *node != registrant.node)
        .filter_map(|(node, found)| {
            let found = found?;
            let protocol = found.value?.protocol;
            (protocol != PROTOCOL).then_some((node, (found.version, protocol)))
        })
        .collect())
}

/// Looks at the lease of this name, and watches one that is not of this boot for longer than it can stand still while
/// its holder lives. Answers with the version that may be replaced; `None` if there is no lease.
async fn look_at_lease<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    registrant: &Registrant,
    timing: &LeaseTiming,
) -> Result<Option<ZnodeVersion>, RegistrationError> {
    let key = keys::lease_node(&registrant.node);
    let Some(first) = store.get(&key).await? else {
        return Ok(None);
    };
    let version = first.version;
    let ours = &registrant.incarnation;
    let Some(other) = first
        .value
        .map(|lease| lease.incarnation)
        .filter(|other| !other.same_boot(ours) || other.counter > ours.counter)
    else {
        return Ok(Some(version));
    };
    let node = registrant.node.clone();
    if other.boot_id == ours.boot_id && other.machine_id != ours.machine_id {
        // No two boots have one id.
        let was = other.machine_id;
        return Err(RegistrationError::MachineIdChanged { node, was });
    }
    let copy = other.same_machine(ours);
    let watched_for = if copy {
        timing.period * RENEWALS_OF_A_COPY + timing.margin
    } else {
        warn!(%other, "another machine was registered under this name; looking whether it is alive");
        timing.lease + timing.margin
    };
    let until = clock.now() + watched_for;
    while clock.now() < until {
        clock.sleep(LOOK_EVERY).await;
        let seen = store.get(&key).await?;
        if seen.as_ref().is_some_and(|seen| seen.version == version) {
            continue;
        }
        let other = seen
            .and_then(|seen| seen.value)
            .map_or(other, |lease| lease.incarnation);
        return Err(if other.same_boot(ours) {
            RegistrationError::SecondAgent { node, other }
        } else if copy {
            RegistrationError::Copied { node, other }
        } else {
            RegistrationError::NameTaken { node, other }
        });
    }
    if other.same_boot(ours) {
        let used = other.counter;
        return Err(RegistrationError::LifeUsed { node, used });
    }
    if !copy {
        info!("the other machine is silent; taking its place");
    }
    Ok(Some(version))
}

/// The whole registration, on condition of the lease's version, and at which place in it the lease is written.
async fn registration<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    registrant: &Registrant,
    version: Option<ZnodeVersion>,
) -> Result<(Txn, usize), RegistrationError> {
    let node = &registrant.node;
    let own = keys::node(node);
    let created = schema::node_keys(&NewNode {
        name: node.clone(),
        mode: registrant.mode,
        domain_state: if registrant.ready_when_new {
            DomainState::Ready
        } else {
            DomainState::Flushed
        },
        keepalive: wall_seconds(clock),
    });
    let mut txn = schema::missing(store, created).await?;
    let lease_key = keys::lease_node(node);
    let lease = Some(NodeLease {
        incarnation: registrant.incarnation.clone(),
        protocol: PROTOCOL,
        counter: 0,
    });
    let lease_index = txn.ops.len();
    // A lease that is created by this very transaction has version 0.
    txn = txn
        .set(&lease_key, &lease, version.unwrap_or(ZnodeVersion(0)))
        .overwrite(&own.root(), &registrant.mode)
        .overwrite(&own.daemon_mode(), &registrant.mode)
        .overwrite(&own.daemon_state(), &DaemonState::Init)
        .overwrite(&own.static_data(), &Some(stats::static_data()))
        .overwrite(&own.pvc_version(), &Release::ours())
        .overwrite(&own.addresses(), &Some(registrant.addresses.clone()))
        .overwrite(&own.active_schema(), &schema::LATEST)
        .overwrite(&own.latest_schema(), &schema::LATEST);
    if registrant.mode == DaemonMode::Hypervisor {
        txn = txn.overwrite(&own.coordinator_state(), &CoordinatorState::Client);
    }
    if let Some((host, user, password)) = &registrant.bmc {
        txn = txn
            .overwrite(&own.ipmi_hostname(), host)
            .overwrite(&own.ipmi_username(), user)
            .overwrite(&own.ipmi_password(), password);
    }
    Ok((txn, lease_index))
}

/// Seconds since 1970, for people to read.
pub fn wall_seconds<C: Clock>(clock: &C) -> u64 {
    clock
        .wall()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
