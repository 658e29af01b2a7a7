//! Tags of a guest.

use pvc_api::vm::VmTags;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::schema::{NewTag, tag_keys};
use pvc_common::store::{Store, StoreError, StoreExt as _, Txn};
use pvc_core::ids::{TagName, VmId};

use super::RETRIES;
use super::list::shown_tags;
use super::record::unknown;
use crate::error::ApiError;

/// More tags than this are not put on one guest: each is three znodes, and a list shows them all.
const LIMIT: usize = 100;

/// Whether a tag can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// It can.
    None,
    /// It can't.
    Protected,
}

/// A guest's tags.
pub(crate) fn show(view: &View, id: VmId) -> Result<VmTags, ApiError> {
    let name = view
        .get(&keys::domain(id).name())?
        .ok_or_else(|| unknown(&id.to_string()))?
        .value;
    Ok(VmTags {
        name: name.to_string(),
        tags: shown_tags(view, id),
    })
}

/// Puts a tag on a guest, or protects one that is there. Answers in words.
///
/// # Idempotence
/// A tag that is there already is left as it is.
pub(crate) async fn add<S: Store>(
    store: &S,
    id: VmId,
    tag: &TagName,
    protection: Protection,
) -> Result<String, ApiError> {
    let keys = keys::tag(id, tag);
    let protected = protection == Protection::Protected;
    for _ in 0..RETRIES {
        let name = name(store, id).await?;
        let txn = match store.get(&keys.protected()).await? {
            Some(found) if found.value == protected => {
                return Ok(format!("VM {name} has the tag {tag} already"));
            }
            Some(found) if protected => Txn::new().set(&keys.protected(), &true, found.version),
            Some(_) => {
                return Err(ApiError::conflict(format!(
                    "VM {name} has the tag {tag}, and it is protected: that is not taken back"
                )));
            }
            None => {
                let tags = store.children(keys::domain_tags(id).path()).await?;
                if tags.is_some_and(|tags| tags.len() >= LIMIT) {
                    return Err(ApiError::conflict(format!(
                        "VM {name} has {LIMIT} tags; more are not possible"
                    )));
                }
                tag_keys(
                    id,
                    &NewTag {
                        name: tag.clone(),
                        protected,
                    },
                )
            }
        };
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(vm = %id, %name, %tag, protected, "VM tagged");
                return Ok(format!("VM {name} has the tag {tag}"));
            }
            Err(
                StoreError::BadVersion { .. } | StoreError::NodeExists { .. } | StoreError::NoNode { .. },
            ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

/// Takes a tag off a guest. Answers in words.
///
/// # Idempotence
/// A tag that is not there is success.
pub(crate) async fn remove<S: Store>(store: &S, id: VmId, tag: &TagName) -> Result<String, ApiError> {
    let keys = keys::tag(id, tag);
    for _ in 0..RETRIES {
        let name = name(store, id).await?;
        let Some(protected) = store.get(&keys.protected()).await? else {
            return Ok(format!("VM {name} has no tag {tag}"));
        };
        let kind = store.get(&keys.kind()).await?;
        if protected.value || kind.is_some_and(|kind| kind.value != "user") {
            return Err(ApiError::conflict(format!(
                "The tag {tag} of VM {name} is protected and can not be removed"
            )));
        }
        // All of it at the versions that were read: whoever protects it meanwhile has his way.
        let tree = store.read_tree(keys.path()).await?;
        let txn = tree.iter().rev().fold(
            Txn::new().check(&keys.protected(), protected.version),
            |txn, (path, znode)| txn.delete_path(path, Some(znode.version)),
        );
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(vm = %id, %name, %tag, "VM untagged");
                return Ok(format!("VM {name} has no tag {tag} any more"));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. } | StoreError::NotEmpty { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

async fn name<S: Store>(store: &S, id: VmId) -> Result<String, ApiError> {
    let name = store.get(&keys::domain(id).name()).await?;
    name.map(|name| name.value.to_string())
        .ok_or_else(|| unknown(&id.to_string()))
}
