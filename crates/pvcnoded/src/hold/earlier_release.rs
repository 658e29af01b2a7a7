//! Takes over a cluster of PVC 1.0.3 whose guests run.
//!
//! Its agents must all have stopped, and every node must have ours; each of ours is on hold since it first saw that
//! store. With an administrator's order the store is migrated; then each node puts on record what runs there.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::schema::{self, RunningGuests};
use pvc_common::store::{Store, StoreExt as _};
use pvc_core::ids::NodeName;
use tracing::warn;

/// How many of its keepalives an agent of PVC 1.0.3 must miss to count as stopped.
const KEEPALIVES_MISSED: u32 = 3;

/// Migrates the store if an administrator has ordered it and no agent of PVC 1.0.3 is seen to run.
///
/// # Errors
/// What is waited for, in words.
pub async fn adopt_earlier_release<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    node: &NodeName,
    keepalive_interval: Duration,
) -> Result<(), String> {
    let order = store
        .get(&keys::config().adopt())
        .await
        .map_err(|error| error.to_string())?;
    if order.and_then(|order| order.value).is_none() {
        return Err(
            "on hold: the store is that of PVC 1.0.3 and its guests may be running; stop the agents of that release on \
             every node, then run `pvcnoded --adopt` on one: each node takes over what runs there"
                .to_owned(),
        );
    }
    let before = schema::keepalive_versions(store)
        .await
        .map_err(|error| error.to_string())?;
    clock.sleep(keepalive_interval * KEEPALIVES_MISSED).await;
    let after = schema::keepalive_versions(store)
        .await
        .map_err(|error| error.to_string())?;
    let alive: Vec<&str> = after
        .iter()
        .filter(|(node, version)| before.get(node) != Some(version))
        .map(|(node, _)| node.as_str())
        .collect();
    if !alive.is_empty() {
        return Err(format!(
            "on hold: the agent of PVC 1.0.3 still runs on {}; stop it first",
            alive.join(", ")
        ));
    }
    warn!("taking over a cluster of PVC 1.0.3 while its guests run");
    schema::prepare_with(store, clock, node, RunningGuests::WillBeAdopted)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}
