//! Backups of the store: making one, putting one back, and making the store anew.
//!
//! What is in a backup and what putting it back changes is decided by [`pvc_core::backup`].
//!
//! * `restore` - puts one back.
//! * `initialize` - makes the store anew.

mod initialize;
mod restore;

pub(crate) use initialize::{Existing, initialize};
pub(crate) use restore::restore;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_api::message::ErrorCode;
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::mirror::{Branch, View};
use pvc_common::store::{Store, StoreExt};
use pvc_core::backup::{Part, ROOTS, Stored, holds_definition, part};
use pvc_core::guest_xml;
use pvc_core::ids::{Incarnation, NodeName};

use crate::app::App;
use crate::error::ApiError;

/// Whether a backup has passwords in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Included,
    LeftOut,
}

/// The backup of what is in `view`: a JSON object of paths and values.
///
/// # Errors
/// 500 when a value is no text.
pub(crate) fn make(view: &View, secrets: Secrets) -> Result<String, ApiError> {
    let mut values = BTreeMap::new();
    for (path, stored) in stored(view) {
        let wanted = match part(&path) {
            Part::Kept | Part::Reported => true,
            Part::Secret => secrets == Secrets::Included,
            Part::LeftOut => false,
        };
        if wanted {
            let text = String::from_utf8(stored.value).map_err(|_| {
                ApiError::new(
                    ErrorCode::StoreCorrupt,
                    format!("{path} holds something that is no text"),
                )
            })?;
            let text = match secrets {
                Secrets::LeftOut if holds_definition(&path) => guest_xml::secrets::mask(&text).into_owned(),
                Secrets::LeftOut | Secrets::Included => text,
            };
            values.insert(path, text);
        }
    }
    serde_json::to_string(&values).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
}

/// Everything below the roots of backups, what is never in one included.
fn stored(view: &View) -> BTreeMap<String, Stored> {
    let mut all = BTreeMap::new();
    for root in ROOTS {
        collect(root, &view.branch(root), &mut all);
    }
    all
}

fn collect(path: &str, branch: &Branch, all: &mut BTreeMap<String, Stored>) {
    let Some(znode) = branch.znode() else { return };
    all.insert(
        path.to_owned(),
        Stored {
            value: znode.data.clone(),
            version: znode.version,
        },
    );
    for (name, child) in branch.children() {
        collect(&format!("{path}/{name}"), &child, all);
    }
}

/// How long leases are looked at to tell which agents live: each renews its own every second.
const LEASE_LOOK: Duration = Duration::from_millis(2500);
/// Between two looks.
const LEASE_PERIOD: Duration = Duration::from_millis(250);

/// The lives of agents that renew their leases, as seen over [`LEASE_LOOK`].
async fn living<S: Store>(app: &App<S>) -> Result<BTreeMap<NodeName, Incarnation>, ApiError> {
    let nodes: Vec<NodeName> = app.store.children_as(&keys::lease_nodes()).await?;
    let leases: Vec<_> = nodes.iter().map(keys::lease_node).collect();
    let first = app.store.get_many(&leases).await?;
    let before: Vec<_> = first
        .iter()
        .map(|lease| lease.as_ref().map(|lease| lease.version))
        .collect();
    let mut moved = BTreeSet::new();
    let mut living = BTreeMap::new();
    let end = app.clock.now() + LEASE_LOOK;
    while app.clock.now() < end && moved.len() < nodes.len() {
        app.clock.sleep(LEASE_PERIOD).await;
        let now = app.store.get_many(&leases).await?;
        for ((node, lease), before) in nodes.iter().zip(now).zip(&before) {
            if let Some(lease) = lease
                && Some(lease.version) != *before
                && let Some(held) = lease.value
            {
                moved.insert(node.clone());
                living.insert(node.clone(), held.incarnation);
            }
        }
    }
    Ok(living)
}
