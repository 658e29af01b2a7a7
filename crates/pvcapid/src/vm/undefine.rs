//! Removing a guest's definition.

use pvc_common::keys;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::ids::VmId;
use pvc_core::states::VmState;

use super::record::{self, Record, unknown};
use super::transition::{Force, Request};
use super::{RETRIES, locks, state, wait};
use crate::adopt;
use crate::app::App;
use crate::error::ApiError;

/// Stops the guest, waits until no process of it may exist any more, and removes its record in one transaction. Its
/// volumes are kept. Answers in words.
///
/// # Cancellation
/// The guest may be stopped and still be defined; asking again goes on from there.
pub(crate) async fn undefine<S: Store>(app: &App<S>, id: VmId) -> Result<String, ApiError> {
    let _waiter = app.waiter()?;
    let record = app.promptly(halt(&app.store, id)).await?;
    wait::until(app, id, app.settings.waits.stop, |record| {
        if !is_at_rest(record.state.value) {
            return Some(Err(ApiError::conflict(format!(
                "VM {} went to state {} while it was to be removed",
                record.name, record.state.value
            ))));
        }
        record.owner.value.is_none().then_some(Ok(()))
    })
    .await?;
    app.promptly(remove(&app.store, id)).await?;
    tracing::info!(vm = %id, name = %record.name, "VM undefined");
    Ok(format!("VM {} is undefined; its volumes are kept", record.name))
}

/// Asks for the guest to be stopped, unless it rests already.
pub(super) async fn halt<S: Store>(store: &S, id: VmId) -> Result<Record, ApiError> {
    // Before anything is asked of the guest: it could not be removed.
    adopt::refuse_on_hold(store).await?;
    let (record, _) = state::write_unless(store, id, Request::Stop, Force::No, is_at_rest).await?;
    Ok(record)
}

/// Whether nobody works on a guest in that state, so that it stays as it is until somebody asks for something.
fn is_at_rest(state: VmState) -> bool {
    match state {
        VmState::Stop | VmState::Disable | VmState::Fail | VmState::Mirror => true,
        VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Delete => false,
    }
}

pub(super) async fn remove<S: Store>(store: &S, id: VmId) -> Result<(), ApiError> {
    let keys = keys::domain(id);
    for _ in 0..RETRIES {
        adopt::refuse_on_hold(store).await?;
        // Every znode is deleted at the version that was read here: if its state or owner has moved since, as when
        // somebody starts it, nothing is removed.
        let tree = store.read_tree(keys.path()).await?;
        if tree.is_empty() {
            return Err(unknown(&id.to_string()));
        }
        let at = |path: &str| {
            tree.iter()
                .find_map(|(found, znode)| (found == path).then_some(znode))
        };
        let state = keys.state();
        // Level by level it was read: somebody else may have removed it on the way.
        let state = record::present(store, id, state.decode_required(at(state.path()))).await?;
        let owner = keys.owner();
        let owner = record::present(store, id, owner.decode_required(at(owner.path()))).await?;
        let (state, owner) = (state.value, owner.value);
        if let Some(owner) = owner {
            return Err(ApiError::conflict(format!(
                "The VM was started on node {} while it was to be removed",
                owner.node
            )));
        }
        let incoming = keys.incoming();
        let incoming = record::present(store, id, incoming.decode_required(at(incoming.path()))).await?;
        if let Some(incoming) = incoming.value {
            return Err(ApiError::conflict(format!(
                "The VM was on its way to node {} while it was to be removed",
                incoming.target
            )));
        }
        if !is_at_rest(state) {
            return Err(ApiError::conflict(format!(
                "The VM went to state {state} while it was to be removed"
            )));
        }
        let mut txn = tree.iter().rev().fold(Txn::new(), |txn, (path, znode)| {
            txn.delete_path(path, Some(znode.version))
        });
        // It stands beside the guest, and another guest may get this UUID.
        let lock_flush = keys::lock_flush(id);
        txn = match store.read(lock_flush.path()).await? {
            Some(order) => txn.delete(&lock_flush, Some(order.version)),
            // Only if nobody orders it meanwhile: that would outlast the guest.
            None => {
                locks::ensure_place(store).await?;
                txn.create(&lock_flush, &None).delete(&lock_flush, None)
            }
        };
        match store.commit(txn).await {
            Ok(_) => return Ok(()),
            Err(
                StoreError::BadVersion { .. }
                | StoreError::NoNode { .. }
                | StoreError::NodeExists { .. }
                | StoreError::NotEmpty { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}
