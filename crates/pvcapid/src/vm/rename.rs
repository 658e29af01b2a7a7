//! Giving a guest another name.

use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::guest_xml::edit;
use pvc_core::ids::{VmId, VmName};
use pvc_core::states::VmState;

use super::RETRIES;
use super::define::Others;
use super::record::{self, Record};
use crate::error::ApiError;
use crate::snapshot::{Reading as _, Snapshot, Wanted};

/// Renames a guest that does not run, in one transaction. Its volumes keep their names. Answers in words.
///
/// # Idempotence
/// A guest that has the name already is left as it is.
pub(crate) async fn rename<S: Store>(store: &S, id: VmId, new: &VmName) -> Result<String, ApiError> {
    let keys = keys::domain(id);
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        let old = &record.name;
        if old == new {
            return Ok(format!("VM {new} has that name already"));
        }
        may_rename(&record)?;
        let others = Others::read(store).await?;
        others.check_name(id, new)?;
        let mut wanted = Wanted::default();
        wanted.key(&keys.name()).key(&keys.xml());
        let seen = Snapshot::read(store, wanted).await?;
        let name = record::present(store, id, seen.require(&keys.name())).await?;
        if name.value != *old {
            continue;
        }
        let xml = record::present(store, id, seen.require(&keys.xml())).await?;
        let renamed = edit::rename(&xml.value, old.as_str(), new.as_str())
            .map_err(|error| ApiError::conflict(format!("VM {old}: {error}")))?;
        let txn = Txn::new()
            .check(&keys.state(), record.state.version)
            .check(&keys.owner(), record.owner.version)
            .check(&keys.incoming(), record.incoming.version)
            .set(&keys.name(), new, name.version)
            .set(&keys.xml(), &renamed, xml.version);
        match store.commit(others.touch(txn)).await {
            Ok(_) => {
                tracing::info!(vm = %id, %old, %new, "VM renamed");
                return Ok(format!(
                    "VM {old} is named {new} now; its volumes keep their names"
                ));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

/// Only what nobody works with: a process has the old name until it ends.
fn may_rename(record: &Record) -> Result<(), ApiError> {
    if let Some(owner) = &record.owner.value {
        return Err(ApiError::conflict(format!(
            "VM {} may still run on node {}; shut it down first",
            record.name, owner.node
        )));
    }
    match record.state.value {
        VmState::Stop | VmState::Disable | VmState::Mirror | VmState::Fail => Ok(()),
        state @ (VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Delete) => Err(ApiError::conflict(format!(
            "VM {} is in state {state}; it can be renamed in stop, disable, fail and mirror",
            record.name
        ))),
    }
}
