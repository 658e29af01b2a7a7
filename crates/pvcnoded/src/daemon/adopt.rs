//! `pvcnoded --adopt`: the order that what really runs on the nodes is the truth, written without the API.
//!
//! For a cluster of PVC 1.0.3 that is taken over while its guests run (the API does not work on its store), and for a
//! cluster whose API can't be reached. On any other it does the same as `pvc cluster adopt`.

use std::time::Duration;

use anyhow::Context as _;
use pvc_common::clock::{Clock as _, HostClock};
use pvc_common::config::Config;
use pvc_common::schema;
use pvc_common::store::zookeeper::ZooKeeperStore;
use pvc_core::hold::AdoptOrder;
use pvc_core::ids::NodeName;
use tracing::info;
use uuid::Uuid;

use super::store_options;
use crate::registration::wall_seconds;

/// How long the store may take to answer.
const STORE_WITHIN: Duration = Duration::from_secs(15);

/// Writes the order. `without` are nodes that are off, on the administrator's word.
///
/// # Errors
/// When the store does not take it.
pub fn order_adoption(config: &Config, without: Vec<NodeName>) -> anyhow::Result<()> {
    let order = AdoptOrder {
        id: Uuid::new_v4().to_string(),
        by: format!("pvcnoded --adopt on {}", config.node),
        at: wall_seconds(&HostClock),
        without,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(async {
        let store = ZooKeeperStore::connect(store_options(config));
        store.wait_connected(STORE_WITHIN).await;
        HostClock
            .timeout(STORE_WITHIN, schema::order_adoption(&store, &order))
            .await
            .context("the coordination store does not answer")?
            .context("failed to write the order")
    })?;
    info!(order = %order.id, "ordered: each agent that is on hold takes what runs on its node as the truth");
    Ok(())
}
