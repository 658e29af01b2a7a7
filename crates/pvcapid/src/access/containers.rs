//! Writing where the containers may not be there yet: a store that an earlier agent made good has none of ours until
//! an agent of this release starts.

use pvc_common::keys;
use pvc_common::schema;
use pvc_common::store::{ReadError, Store, StoreError, Txn};

/// Makes the containers of accounts and of the audit log that are missing.
pub(super) async fn ensure<S: Store>(store: &S) -> Result<(), StoreError> {
    let wanted = [
        "/access",
        keys::tokens().path(),
        keys::users().path(),
        keys::sessions().path(),
        "/audit",
        keys::audit_notes().path(),
        keys::audit_pages().path(),
    ]
    .into_iter()
    .fold(Txn::new(), |txn, path| txn.create_path(path, ""));
    let missing = match schema::missing(store, wanted).await {
        Ok(missing) => missing,
        Err(ReadError::Store(error)) => return Err(error),
        Err(error @ (ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. })) => {
            return Err(StoreError::Refused {
                reason: error.to_string(),
            });
        }
    };
    match store.commit(missing).await {
        // Somebody else made them at the same time.
        Ok(_) | Err(StoreError::NodeExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Commits `txn`; makes the containers and tries again if one is missing.
pub(super) async fn commit<S: Store>(store: &S, txn: Txn) -> Result<(), StoreError> {
    match store.commit(txn.clone()).await {
        Ok(_) => Ok(()),
        Err(StoreError::NoNode { .. }) => {
            ensure(store).await?;
            store.commit(txn).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}
