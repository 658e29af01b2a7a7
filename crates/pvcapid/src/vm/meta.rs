//! How a guest is placed, moved and recovered.

use pvc_api::vm::VmMeta;
use pvc_common::keys;
use pvc_common::keys::values::{CommaList, OrNone};
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::{NodeName, TagName, VmId};
use pvc_core::states::{MigrationMethod, NodeSelector};

use super::RETRIES;
use super::record::unknown;
use crate::error::ApiError;
use crate::snapshot::{Reading, Snapshot, Wanted, children_of};

/// What is to be changed; nothing stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) limit: Option<Vec<NodeName>>,
    pub(crate) selector: Option<NodeSelector>,
    pub(crate) autostart: Option<bool>,
    pub(crate) profile: Option<String>,
    pub(crate) migration_method: Option<MigrationMethod>,
    pub(crate) migration_max_downtime_ms: Option<u32>,
    pub(crate) recovery_priority: Option<i32>,
    pub(crate) anti_affinity: Option<Vec<TagName>>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.limit.is_none()
            && self.selector.is_none()
            && self.autostart.is_none()
            && self.profile.is_none()
            && self.migration_method.is_none()
            && self.migration_max_downtime_ms.is_none()
            && self.recovery_priority.is_none()
            && self.anti_affinity.is_none()
    }
}

async fn read_keys<S: Store>(store: &S, id: VmId) -> Result<Snapshot, ApiError> {
    let keys = keys::domain(id);
    let mut wanted = Wanted::default();
    wanted
        .key(&keys.name())
        .key(&keys.node())
        .key(&keys.node_limit())
        .key(&keys.node_selector())
        .key(&keys.autostart())
        .key(&keys.profile())
        .key(&keys.migration_method())
        .key(&keys.migration_max_downtime_ms())
        .key(&keys.recovery_priority())
        .key(&keys.anti_affinity());
    Ok(Snapshot::read(store, wanted).await?)
}

/// A guest's settings, as PVC 1.0.3 shows them.
pub(crate) fn show(seen: &View, id: VmId) -> Result<VmMeta, ApiError> {
    let keys = keys::domain(id);
    let name = seen.get(&keys.name())?.ok_or_else(|| unknown(&id.to_string()))?;
    let limit = seen.require(&keys.node_limit())?.value.0;
    Ok(VmMeta {
        name: name.value.to_string(),
        node_limit: (!limit.is_empty()).then(|| limit.iter().map(NodeName::to_string).collect()),
        node_selector: seen.require(&keys.node_selector())?.value.to_string(),
        node_autostart: if seen.require(&keys.autostart())?.value {
            "True"
        } else {
            "False"
        }
        .to_owned(),
        migration_method: seen.require(&keys.migration_method())?.value.to_string(),
        migration_max_downtime: u64::from(seen.require(&keys.migration_max_downtime_ms())?.value),
        recovery_priority: seen.shown(&keys.recovery_priority(), 0),
        anti_affinity: seen
            .shown(&keys.anti_affinity(), CommaList(Vec::new()))
            .0
            .iter()
            .map(TagName::to_string)
            .collect(),
    })
}

/// Changes a guest's settings, in one transaction. Answers in words.
///
/// # Idempotence
/// What is so already is written again, with the same value.
pub(crate) async fn change<S: Store>(store: &S, id: VmId, changes: &Changes) -> Result<String, ApiError> {
    if let Some(limit) = &changes.limit {
        let known = children_of(store, &keys::nodes()).await?;
        if let Some(stray) = limit.iter().find(|name| !known.contains(name)) {
            return Err(ApiError::invalid("limit", format!("there is no node {stray}")));
        }
    }
    let keys = keys::domain(id);
    for _ in 0..RETRIES {
        let seen = read_keys(store, id).await?;
        let name = seen.get(&keys.name())?.ok_or_else(|| unknown(&id.to_string()))?;
        if changes.is_empty() {
            return Ok(format!(
                "VM {} stays as it is: nothing was to be changed",
                name.value
            ));
        }
        let mut txn = Txn::new();
        if let Some(limit) = &changes.limit {
            let version = seen.require(&keys.node_limit())?.version;
            txn = txn.set(&keys.node_limit(), &CommaList(limit.clone()), version);
        }
        if let Some(selector) = &changes.selector {
            let version = seen.require(&keys.node_selector())?.version;
            txn = txn.set(&keys.node_selector(), selector, version);
        }
        if let Some(autostart) = &changes.autostart {
            let version = seen.require(&keys.autostart())?.version;
            txn = txn.set(&keys.autostart(), autostart, version);
        }
        if let Some(profile) = &changes.profile {
            let version = seen.require(&keys.profile())?.version;
            let profile = OrNone(Some(profile.clone()).filter(|profile| !profile.is_empty()));
            txn = txn.set(&keys.profile(), &profile, version);
        }
        if let Some(method) = &changes.migration_method {
            let version = seen.require(&keys.migration_method())?.version;
            txn = txn.set(&keys.migration_method(), method, version);
        }
        if let Some(downtime) = &changes.migration_max_downtime_ms {
            let version = seen.require(&keys.migration_max_downtime_ms())?.version;
            txn = txn.set(&keys.migration_max_downtime_ms(), downtime, version);
        }
        if let Some(priority) = &changes.recovery_priority {
            let version = seen.require(&keys.recovery_priority())?.version;
            txn = txn.set(&keys.recovery_priority(), priority, version);
        }
        if let Some(groups) = &changes.anti_affinity {
            let version = seen.require(&keys.anti_affinity())?.version;
            txn = txn.set(&keys.anti_affinity(), &CommaList(groups.clone()), version);
        }
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(vm = %id, name = %name.value, ?changes, "VM settings changed");
                return Ok(changed_text(
                    name.value.as_str(),
                    &seen.require(&keys.node())?.value,
                    changes,
                ));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

fn changed_text(name: &str, node: &NodeName, changes: &Changes) -> String {
    match &changes.limit {
        Some(limit) if !limit.is_empty() && !limit.contains(node) => format!(
            "VM {name} is changed; its node {node} is not among those it is limited to, and it stays there until it is moved"
        ),
        Some(_) | None => format!("VM {name} is changed"),
    }
}
