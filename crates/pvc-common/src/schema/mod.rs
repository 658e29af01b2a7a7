//! The layout of the store: made, checked and migrated.
//!
//! Schema 15 is that of PVC 1.0.3; schema 16 adds the keys of the high-availability protocol. An agent calls
//! [`prepare`] before it registers:
//!
//! | what it finds | what it does |
//! |---|---|
//! | nothing at all | makes the layout of schema 16 |
//! | 16 | makes good what is missing |
//! | 15, every node knows 16, no guest can be running | migrates, once, under a lock |
//! | the same, guests may be running and will be adopted ([`RunningGuests`]) | migrates, once, under a lock |
//! | 15 otherwise | changes nothing and says whom or what it waits for |
//! | anything else | refuses |
//!
//! [`node_keys`] and [`domain_keys`] are the one place where the keys of a new node and of a new guest are listed.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_core::hold::AdoptOrder;
use pvc_core::ids::{NodeName, VmId, ZnodeVersion};
use pvc_core::states::VmState;

use crate::clock::Clock;
use crate::keys;
use crate::keys::values::SchemaVersion;
use crate::lock::{LockError, LockGuard, exclusive_lock};
use crate::store::{Op, ReadError, Store, StoreError, StoreExt, Txn};

mod base;
mod domain;
mod node;

pub use base::base_keys;
pub use domain::{NewDomain, NewTag, domain_keys, protocol_keys_of_domain, tag_keys};
pub use node::{NewNode, node_keys, protocol_keys_of_node};

/// The schema of PVC 1.0.3.
pub const REFERENCE: SchemaVersion = SchemaVersion(15);

/// The schema of this release, the highest that it knows.
pub const LATEST: SchemaVersion = SchemaVersion(16);

/// How long a migration waits for its lock: another node that holds it is doing the same work.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// How many znodes are created at once where there may be many.
const BATCH: usize = 500;

/// How often the making of the layout is begun again after someone else wrote or an outcome was unknown.
const ATTEMPTS: usize = 5;

/// Children of the root that belong to others.
const FOREIGN: [&str; 2] = ["zookeeper", "patroni"];

/// What [`prepare`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// The store has this release's schema.
    AlreadySo,
    /// The store was empty and has this release's schema now.
    Initialised,
    /// The store had this schema and has this release's now.
    Migrated {
        /// The schema it had.
        from: SchemaVersion,
    },
    /// The store keeps an earlier schema until the agents of these nodes know this release's.
    WaitingFor {
        /// The nodes, sorted.
        nodes: Vec<NodeName>,
    },
}

/// Why the store cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A later release has migrated it.
    #[error(
        "the store has schema {found} and this release knows no later one than {LATEST}: upgrade this node"
    )]
    TooNew {
        /// The schema it has.
        found: SchemaVersion,
    },
    /// It was made by a release before 1.0.3.
    #[error("the store has schema {found}: bring the cluster to PVC 1.0.3 (schema {REFERENCE}) first")]
    TooOld {
        /// The schema it has.
        found: SchemaVersion,
    },
    /// Nodes of an earlier release still take part.
    #[error(
        "the store has schema {found} and is shared with nodes that do not know schema {LATEST} ({}): \
         stop and upgrade them first",
        names(nodes)
    )]
    OldNodes {
        /// The schema it has.
        found: SchemaVersion,
        /// The nodes, sorted.
        nodes: Vec<NodeName>,
    },
    /// Guests may run that no node is recorded to own.
    #[error(
        "{count} guests of an earlier release are not stopped ({first} is one): they cannot be taken over \
         while they may run"
    )]
    UnownedGuests {
        /// How many.
        count: usize,
        /// One of them.
        first: VmId,
    },
    /// There is something in the store, but no schema.
    #[error("the store has no schema version and is not empty: it holds {}", children.join(", "))]
    NotOurs {
        /// The children of its root.
        children: Vec<String>,
    },
    /// Nothing is in the store yet.
    #[error("the store is empty: no node has registered yet")]
    Empty,
    /// The lock of the migration was not acquired.
    #[error("failed to lock the schema")]
    Lock(#[from] LockError),
    /// The store could not be read.
    #[error("failed to read the store's schema")]
    Read(#[source] ReadError),
    /// The store could not be written.
    #[error("failed to write the store's schema")]
    Write(#[source] StoreError),
    /// Other writers kept getting in the way.
    #[error("the store's layout could not be made in {ATTEMPTS} attempts")]
    Contended,
}

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

impl From<ReadError> for SchemaError {
    fn from(error: ReadError) -> SchemaError {
        SchemaError::Read(error)
    }
}

/// Sees to it that the store has this release's schema; `node` is the node that asks.
///
/// # Errors
/// [`SchemaError`].
///
/// # Idempotence
/// Whoever calls it again, or at the same time on another node, finds the same store.
pub async fn prepare<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    node: &NodeName,
) -> Result<Prepared, SchemaError> {
    prepare_with(store, clock, node, RunningGuests::Refuse).await
}

/// What a migration does about guests of PVC 1.0.3 that may be running, of which nobody is on record as the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningGuests {
    /// It does not take place.
    Refuse,
    /// It takes place: every agent is on hold, and each will put on record what runs on its node before any goes on.
    WillBeAdopted,
}

/// As [`prepare`]; guests of PVC 1.0.3 that may be running are dealt with as `running` says.
///
/// # Errors
/// [`SchemaError`].
pub async fn prepare_with<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    node: &NodeName,
    running: RunningGuests,
) -> Result<Prepared, SchemaError> {
    for _ in 0..ATTEMPTS {
        let tried = match store.get(&keys::schema().version()).await? {
            None => initialise(store).await,
            Some(found) if found.value == LATEST => make_good(store).await,
            Some(found) if found.value > LATEST => Err(SchemaError::TooNew { found: found.value }),
            Some(found) if found.value < REFERENCE => Err(SchemaError::TooOld { found: found.value }),
            Some(_) => migrate(store, clock, node, running).await,
        };
        match tried {
            // Someone else wrote the same, or we did and do not know: look again.
            Err(SchemaError::Write(
                StoreError::NodeExists { .. } | StoreError::BadVersion { .. } | StoreError::Unknown { .. },
            )) => {}
            outcome => return outcome,
        }
    }
    Err(SchemaError::Contended)
}

/// Whether the store has this release's schema, for daemons that only use it.
///
/// # Errors
/// [`SchemaError`]: the store has another schema or none.
pub async fn check<S: Store>(store: &S) -> Result<(), SchemaError> {
    match store.get(&keys::schema().version()).await? {
        Some(found) if found.value == LATEST => Ok(()),
        Some(found) if found.value > LATEST => Err(SchemaError::TooNew { found: found.value }),
        Some(found) if found.value < REFERENCE => Err(SchemaError::TooOld { found: found.value }),
        Some(found) => Err(SchemaError::OldNodes {
            found: found.value,
            nodes: nodes_behind(store).await?.0,
        }),
        None => Err(SchemaError::Empty),
    }
}

/// Makes the layout in an empty store: one transaction, so that of two that try one fails and looks again. (A lock
/// would need a key to be on.)
async fn initialise<S: Store>(store: &S) -> Result<Prepared, SchemaError> {
    let children = store
        .children("/")
        .await
        .map_err(ReadError::Store)?
        .unwrap_or_default();
    let children: Vec<String> = children
        .into_iter()
        .filter(|child| !FOREIGN.contains(&child.as_str()))
        .collect();
    if !children.is_empty() {
        // Read again: another node may have made the layout since the version was looked for.
        return match store.get(&keys::schema().version()).await? {
            Some(_) => Ok(Prepared::AlreadySo),
            None => Err(SchemaError::NotOurs { children }),
        };
    }
    store.commit(base_keys()).await.map_err(SchemaError::Write)?;
    tracing::info!(schema = %LATEST, "store initialised");
    Ok(Prepared::Initialised)
}

/// Creates what should be there and is not.
async fn make_good<S: Store>(store: &S) -> Result<Prepared, SchemaError> {
    let missing = missing(store, base_keys()).await?;
    if !missing.ops.is_empty() {
        tracing::warn!(
            count = missing.ops.len(),
            "keys were missing from the store and are made again"
        );
        store.commit(missing).await.map_err(SchemaError::Write)?;
    }
    Ok(Prepared::AlreadySo)
}

/// The creations of `txn` whose znodes do not exist.
///
/// # Errors
/// [`ReadError`]. Committing the answer can still fail with [`StoreError::NodeExists`]: read again.
pub async fn missing<S: Store>(store: &S, txn: Txn) -> Result<Txn, ReadError> {
    let creations: Vec<(String, Vec<u8>)> = txn
        .ops
        .into_iter()
        .filter_map(|op| match op {
            Op::Create { path, data } => Some((path, data)),
            Op::Check { .. } | Op::Guard { .. } | Op::Set { .. } | Op::Delete { .. } => None,
        })
        .collect();
    let mut missing = Txn::new();
    for part in creations.chunks(BATCH) {
        let paths: Vec<String> = part.iter().map(|(path, _)| path.clone()).collect();
        let znodes = store.read_many(&paths).await?;
        for ((path, data), znode) in part.iter().zip(znodes) {
            if znode.is_none() {
                missing = missing.create_path(path.clone(), data.clone());
            }
        }
    }
    Ok(missing)
}

async fn migrate<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    node: &NodeName,
    running: RunningGuests,
) -> Result<Prepared, SchemaError> {
    let version = keys::schema().version();
    let lock = exclusive_lock(store, clock, &version, node.as_str())
        .acquire(LOCK_TIMEOUT)
        .await?;
    let outcome = migrate_locked(store, &lock, node, running).await;
    lock.release().await;
    outcome
}

async fn migrate_locked<S: Store>(
    store: &S,
    lock: &LockGuard<S>,
    node: &NodeName,
    running: RunningGuests,
) -> Result<Prepared, SchemaError> {
    let write = async |txn: Txn| store.commit(txn).await.map_err(SchemaError::Write);
    let version = store.require(&keys::schema().version()).await?;
    if version.value != REFERENCE {
        return Ok(Prepared::AlreadySo);
    }
    let own = keys::node(node).latest_schema();
    if let Some(known) = store.get(&own).await?
        && known.value != LATEST
    {
        write(Txn::new().guard(lock).set(&own, &LATEST, known.version)).await?;
    }
    let (behind, checks) = nodes_behind(store).await?;
    if !behind.is_empty() {
        return Ok(Prepared::WaitingFor { nodes: behind });
    }
    let guests = store.children_as(&keys::domains()).await?;
    match running {
        RunningGuests::Refuse => refuse_running(store, &guests).await?,
        // SAFETY(fencing): no agent of ours starts anything before all have said what runs where.
        RunningGuests::WillBeAdopted => {}
    }

    let nodes = store.children_as(&keys::nodes()).await?;
    let additions = nodes
        .iter()
        .map(protocol_keys_of_node)
        .chain(guests.iter().map(|guest| protocol_keys_of_domain(*guest)))
        .fold(base_keys(), Txn::and);
    // Creating ahead of the version does no harm: nobody of schema 15 looks there.
    for part in missing(store, additions).await?.ops.chunks(BATCH) {
        let txn = part.iter().cloned().fold(Txn::new().guard(lock), |mut txn, op| {
            txn.ops.push(op);
            txn
        });
        write(txn).await?;
    }
    let done = checks
        .guard(lock)
        .set(&keys::schema().version(), &LATEST, version.version);
    write(done).await?;
    tracing::info!(from = %version.value, to = %LATEST, "store migrated");
    Ok(Prepared::Migrated { from: version.value })
}

/// The nodes whose agents do not know this release's schema, and the checks that nothing of that has changed.
async fn nodes_behind<S: Store>(store: &S) -> Result<(Vec<NodeName>, Txn), SchemaError> {
    let nodes = store.children_as(&keys::nodes()).await?;
    let keys: Vec<_> = nodes
        .iter()
        .map(|node| keys::node(node).latest_schema())
        .collect();
    let known = store.get_many(&keys).await?;
    let mut behind = Vec::new();
    let mut checks = Txn::new();
    for ((node, key), known) in nodes.into_iter().zip(&keys).zip(known) {
        match known {
            Some(known) if known.value >= LATEST => checks = checks.check(key, known.version),
            Some(_) | None => behind.push(node),
        }
    }
    Ok((behind, checks))
}

/// SAFETY(fencing): a guest without an owner may be claimed and started by any node. One that may still run from
/// before the upgrade, of which no owner is recorded, must not get into that state.
async fn refuse_running<S: Store>(store: &S, guests: &[VmId]) -> Result<(), SchemaError> {
    let mut running = Vec::new();
    for part in guests.chunks(BATCH) {
        let states: Vec<_> = part.iter().map(|guest| keys::domain(*guest).state()).collect();
        for (guest, state) in part.iter().zip(store.get_many(&states).await?) {
            if !state.is_some_and(|state| surely_stopped(state.value)) {
                running.push(*guest);
            }
        }
    }
    match running.first() {
        None => Ok(()),
        Some(first) => Err(SchemaError::UnownedGuests {
            count: running.len(),
            first: *first,
        }),
    }
}

fn surely_stopped(state: VmState) -> bool {
    match state {
        VmState::Stop | VmState::Disable | VmState::Mirror => true,
        VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Fail
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Delete => false,
    }
}

/// Writes an order to adopt, also into a store that still has the schema of PVC 1.0.3 (where nobody else looks at it).
///
/// # Errors
/// [`SchemaError::Read`] or [`SchemaError::Write`].
pub async fn order_adoption<S: Store>(store: &S, order: &AdoptOrder) -> Result<(), SchemaError> {
    let key = keys::config().adopt();
    for _ in 0..ATTEMPTS {
        let order = Some(order.clone());
        let txn = match store.get(&key).await? {
            Some(found) => Txn::new().set(&key, &order, found.version),
            None => Txn::new().create(&key, &order),
        };
        match store.commit(txn).await {
            Ok(_) => return Ok(()),
            Err(
                StoreError::NodeExists { .. } | StoreError::BadVersion { .. } | StoreError::Unknown { .. },
            ) => {}
            Err(error) => return Err(SchemaError::Write(error)),
        }
    }
    Err(SchemaError::Contended)
}

/// When each node's agent of PVC 1.0.3 last wrote its keepalive: compared twice, it tells who still runs.
///
/// # Errors
/// [`SchemaError::Read`].
pub async fn keepalive_versions<S: Store>(
    store: &S,
) -> Result<BTreeMap<NodeName, ZnodeVersion>, SchemaError> {
    let nodes = store.children_as(&keys::nodes()).await?;
    let keys: Vec<_> = nodes.iter().map(|node| keys::node(node).keepalive()).collect();
    let found = store.get_many(&keys).await?;
    Ok(nodes
        .into_iter()
        .zip(found)
        .filter_map(|(node, found)| Some((node, found?.version)))
        .collect())
}
