//! Making the store anew.

use std::time::Duration;

use pvc_common::clock::Clock as _;
use pvc_common::keys;
use pvc_common::schema;
use pvc_common::store::{Store, StoreError, StoreExt, Txn, Znode};
use pvc_core::ids::VmId;

use super::{LEASE_LOOK, living};
use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::{Reading as _, Snapshot, Wanted, children_of};

/// Subtrees that belong to others, or that outlast the cluster they are about.
const SPARED: [&str; 4] = ["zookeeper", "patroni", "audit", "access"];
/// Znodes that are deleted at once.
const AT_ONCE: usize = 500;
/// How long it is tried to put the schema back.
const PUT_BACK: Duration = Duration::from_secs(600);
/// Where the store says which layout it has.
const SCHEMA: &str = "/schema";
/// How often a subtree is read again after somebody wrote into it.
const TRIES: usize = 5;

/// What is done about a store that has a layout already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is left as it is, and the request refused.
    Refuse,
    /// It is erased.
    Erase,
}

/// Makes the layout of this release, in an empty store or in place of what is there. Answers in words.
///
/// # Errors
/// 409 when there is a layout that is not to be erased, or when agents or guests of it may live.
pub(crate) async fn initialize<S: Store>(app: &App<S>, existing: Existing) -> Result<String, ApiError> {
    let _turn = app.turn_to_restore()?;
    let roots: Vec<String> = app
        .store
        .children("/")
        .await?
        .unwrap_or_default()
        .into_iter()
        .filter(|root| !SPARED.contains(&root.as_str()))
        .collect();
    if !roots.is_empty() {
        match existing {
            Existing::Refuse => {
                return Err(ApiError::conflict(
                    "The store holds a cluster already; with overwrite=True it is erased",
                ));
            }
            Existing::Erase => {
                refuse_living(app).await?;
                let schema = take_schema(app).await?;
                if let Err(refusal) = refuse_living(app).await {
                    put_back(app, &schema).await?;
                    return Err(refusal);
                }
                tracing::warn!("the store is being erased");
                erase(app, roots).await?;
            }
        }
    }
    // Accounts and the audit log are there still.
    let missing = schema::missing(&app.store, schema::base_keys()).await?;
    app.store.commit(missing).await?;
    tracing::warn!("the store was initialized");
    Ok("The store is initialized: agents register as they start".to_owned())
}

/// A cluster whose agents run, or whose guests may, is not erased: guests would run on with nobody to know of them, and
/// agents would go on with what they have read.
async fn refuse_living<S: Store>(app: &App<S>) -> Result<(), ApiError> {
    let agents = living(app).await?;
    if !agents.is_empty() {
        let names: Vec<&str> = agents.keys().map(pvc_core::ids::NodeName::as_str).collect();
        return Err(ApiError::conflict(format!(
            "The agents of {} renewed their leases within the last {} s: stop pvcnoded on all nodes first",
            names.join(", "),
            LEASE_LOOK.as_secs_f32()
        )));
    }
    // From the store: the mirror may be behind.
    let vms: Vec<VmId> = children_of(&app.store, &keys::domains()).await?;
    let mut wanted = Wanted::default();
    for vm in &vms {
        wanted.key(&keys::domain(*vm).owner());
    }
    let seen = Snapshot::read(&app.store, wanted).await?;
    let owned: Vec<VmId> = vms
        .into_iter()
        .filter(|vm| match seen.get(&keys::domain(*vm).owner()) {
            Ok(owner) => owner.is_some_and(|owner| owner.value.is_some()),
            // It may run.
            Err(_) => true,
        })
        .collect();
    match owned.first() {
        None => Ok(()),
        Some(first) => Err(ApiError::conflict(format!(
            "{} VMs are owned by a node and may run ({first} is one): stop all VMs, then pvcnoded on all nodes",
            owned.len()
        ))),
    }
}

/// Takes the schema out of the store, so that no daemon starts on it any more: whoever lives after that is seen. A store that
/// was erased in part is refused by every daemon too, until this is ordered again.
async fn take_schema<S: Store>(app: &App<S>) -> Result<Vec<(String, Znode)>, ApiError> {
    let schema = app.store.read_tree(SCHEMA).await?;
    erase_one(app, SCHEMA).await?;
    Ok(schema)
}

/// Puts the schema back, however long the store is silent: without it no daemon that is restarted would start.
async fn put_back<S: Store>(app: &App<S>, schema: &[(String, Znode)]) -> Result<(), ApiError> {
    let end = app.clock.now() + PUT_BACK;
    loop {
        // Parents come before what is below them.
        let txn = schema.iter().fold(Txn::new(), |txn, (path, znode)| {
            txn.create_path(path.clone(), znode.data.clone())
        });
        match app.store.commit(txn).await {
            // It is there already, after an outcome that was unknown.
            Ok(_) | Err(StoreError::NodeExists { .. }) => return Ok(()),
            Err(error) if app.clock.now() >= end => {
                tracing::error!(%error, "the store's schema could not be put back: order the erasure again, or restore a backup");
                return Err(error.into());
            }
            Err(error) => tracing::warn!(%error, "the store's schema is to be put back"),
        }
        app.clock.sleep(Duration::from_secs(1)).await;
    }
}

async fn erase<S: Store>(app: &App<S>, roots: Vec<String>) -> Result<(), ApiError> {
    for root in roots {
        erase_one(app, &format!("/{root}")).await?;
    }
    Ok(())
}

async fn erase_one<S: Store>(app: &App<S>, root: &str) -> Result<(), ApiError> {
    'again: for _ in 0..TRIES {
        let mut paths: Vec<String> = app
            .store
            .read_tree(root)
            .await?
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        // Parents come before what is below them.
        paths.reverse();
        for part in paths.chunks(AT_ONCE) {
            let txn = part
                .iter()
                .fold(Txn::new(), |txn, path| txn.delete_path(path.clone(), None));
            match app.store.commit(txn).await {
                Ok(_) => {}
                Err(StoreError::NoNode { .. } | StoreError::NotEmpty { .. } | StoreError::Unknown { .. }) => {
                    continue 'again;
                }
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(());
    }
    Err(ApiError::busy("The store is half erased: it"))
}
