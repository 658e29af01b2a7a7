//! Registration: this life of the agent takes the node's place in the store.
//!
//! One transaction writes the lease under the new incarnation and the state `init`, on condition of the very version
//! of the lease that was looked at. A lease of this name that another machine renews is a second node of the same
//! name: it is watched for longer than a lease lasts, and if it moves, this node refuses to register and changes
//! nothing. The same for a lease of another *boot* of this machine, for a shorter time: an earlier boot is dead and
//! renews nothing, so one that does is a copy of this machine (a cloned disk), whose guests must not be taken for dead.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::keys::values::Release;
use pvc_common::schema::{self, NewNode};
use pvc_common::secret::Secret;
use pvc_common::store::{ReadError, Store, StoreError, StoreExt as _, Txn, ZnodeVersion};
use pvc_core::ids::{Incarnation, NodeName};
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
    let Some(other) = first
        .value
        .map(|lease| lease.incarnation)
        .filter(|other| !other.same_boot(&registrant.incarnation))
    else {
        return Ok(Some(version));
    };
    let copy = other.same_machine(&registrant.incarnation);
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
        let node = registrant.node.clone();
        return Err(if copy {
            RegistrationError::Copied { node, other }
        } else {
            RegistrationError::NameTaken { node, other }
        });
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
