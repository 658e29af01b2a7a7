//! `pvcnoded --drop-role`: cleans up after an agent that has ended, however it ended.
//!
//! Run by the service manager (ExecStopPost). The addresses come off first; then, if the agent held the primary role,
//! the store is told: the record is set to none and the role lease released, on condition that both are still those of
//! that very tenure. Others need not wait for the lease to end then.

use std::time::Duration;

use anyhow::Context as _;
use pvc_common::clock::HostClock;
use pvc_common::config::Config;
use pvc_common::keys;
use pvc_common::store::zookeeper::ZooKeeperStore;
use pvc_common::store::{Store as _, StoreExt as _, Txn};
use pvc_core::records::{PrimaryRecord, RoleLease};
use pvc_core::states::CoordinatorState;
use tracing::{info, warn};

use super::{addresses, lease_store_options, runtime_directory};
use crate::host::identity::{IdentityError, IdentityFiles, without_agent};
use crate::host::network::KernelNetwork;
use crate::role::{TenureFile, TenureNote};

/// How long the store may take to answer; then the lease ends by itself.
const STORE_WITHIN: Duration = Duration::from_secs(3);

/// Takes the addresses of the role off this host, then says so in the store. Without a configuration only addresses
/// that carry the agent's mark are known.
///
/// # Errors
/// When an agent runs here, or an address can't be taken off. A store that does not answer is no error.
pub fn drop_role(config: Option<&Config>) -> anyhow::Result<()> {
    // Kept to the end: an agent that started meanwhile might take the role, and have it released under its addresses.
    let _nobody = match without_agent(&IdentityFiles::from_environment()) {
        Ok(nobody) => nobody,
        Err(IdentityError::AlreadyRunning { .. }) => {
            anyhow::bail!("a node agent runs on this host; stop it first (it hands the role over by itself)")
        }
        Err(error) => return Err(error).context("failed to see whether an agent runs"),
    };
    let floating = config.map(addresses::floating).unwrap_or_default();
    let dropped = KernelNetwork::new(HostClock)
        .drop_role_addresses(&floating)
        .context("failed to take the addresses of the primary role off this host")?;
    info!(?dropped, "the addresses of the primary role are off");
    let Some(config) = config else {
        return Ok(());
    };
    let file = TenureFile::in_directory(&runtime_directory(config));
    let Some(note) = file.read() else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(release(config, &note));
    file.clear();
    Ok(())
}

async fn release(config: &Config, note: &TenureNote) {
    let store = ZooKeeperStore::connect(lease_store_options(config));
    if !store.wait_connected(STORE_WITHIN).await {
        warn!("the store does not answer: the role lease ends by itself");
        return;
    }
    let lease_key = keys::lease_primary();
    let lease = match store.require(&lease_key).await {
        Ok(lease) => lease,
        Err(error) => {
            warn!(%error, "failed to read the role lease");
            return;
        }
    };
    let ours = matches!(&lease.value, Some(RoleLease::Held { holder, incarnation, .. })
        if *holder == config.node && *incarnation == note.incarnation);
    if !ours {
        return;
    }
    let txn = Txn::new()
        .set(&lease_key, &Some(RoleLease::Released), lease.version)
        .overwrite(
            &keys::node(&config.node).coordinator_state(),
            &CoordinatorState::Secondary,
        );
    let vacated = txn.clone().set(
        &keys::config().primary_node(),
        &PrimaryRecord::None,
        note.record(),
    );
    let outcome = match store.commit(vacated).await {
        // Another node is named already: the lease alone then.
        Err(pvc_common::store::StoreError::BadVersion { index: 2, .. }) => store.commit(txn).await,
        other => other,
    };
    match outcome {
        Ok(_) => info!("the primary role is released"),
        Err(error) => warn!(%error, "the primary role was not released; its lease ends by itself"),
    }
}
