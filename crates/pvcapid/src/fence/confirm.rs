//! An administrator's word on a fence.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, StoreExt, Txn, Watch};
use pvc_core::fence::{Confirmation, ConfirmationKind, FenceRecord};
use pvc_core::ids::{Incarnation, NodeName};

use super::view::{confirmable, word};
use crate::access::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::node;

/// How often a transaction is tried again after somebody else was faster: the fencer writes there as well.
const RETRIES: usize = 8;

/// How long a node's lease is looked at before somebody's word that it is off is believed. A living agent renews each
/// second.
const LEASE_LOOK: Duration = Duration::from_millis(2500);

/// Writes down what an administrator confirms about the fence of a node. Answers in words.
///
/// # Idempotence
/// What was confirmed already is success, without a write.
pub(crate) async fn confirm<S: Store>(
    app: &App<S>,
    name: &NodeName,
    kind: ConfirmationKind,
    by: &Caller,
) -> Result<String, ApiError> {
    // SAFETY(fencing): this word is taken for a proof of death, and people mistake one server for another. A node that
    // renews its lease is not off, whoever says so.
    match kind {
        ConfirmationKind::MachineIsOff => {
            let record = app.promptly(check_open(&app.store, name, kind)).await?;
            if renews(app, name, Some(&record.victim)).await? {
                return Err(ApiError::conflict(format!(
                    "Node {name} has just renewed its lease: it is not off. Is it the right machine?"
                )));
            }
        }
        ConfirmationKind::Proceed => {}
    }
    app.promptly(write(app, name, kind, by)).await
}

/// Whether the node's lease is renewed while it is looked at; if a `machine` is given, by that one. That another, which has
/// its name now, does so says nothing about it.
pub(crate) async fn renews<S: Store>(
    app: &App<S>,
    name: &NodeName,
    machine: Option<&Incarnation>,
) -> Result<bool, ApiError> {
    let _permit = app.urgent_waiter()?;
    let key = keys::lease_node(name);
    let mut watch = app.store.watch_tree(key.path());
    let version = async || -> Result<_, ApiError> {
        let lease = app.promptly(async { Ok(app.store.get(&key).await?) }).await?;
        Ok(lease.map(|lease| {
            let theirs = match (machine, lease.value) {
                (Some(machine), Some(lease)) => lease.incarnation.same_machine(machine),
                (Some(_) | None, Some(_) | None) => true,
            };
            (lease.version, theirs)
        }))
    };
    let before = version().await?;
    if before.is_some_and(|(_, theirs)| !theirs) {
        return Ok(false);
    }
    let deadline = app.clock.now() + LEASE_LOOK;
    loop {
        let over = match select(pin!(watch.changed()), pin!(app.clock.sleep_until(deadline))).await {
            Either::Left(((), _)) => false,
            Either::Right(((), _)) => true,
        };
        if version().await? != before {
            return Ok(true);
        }
        if over {
            return Ok(false);
        }
    }
}

async fn check_open<S: Store>(
    store: &S,
    name: &NodeName,
    kind: ConfirmationKind,
) -> Result<FenceRecord, ApiError> {
    let found = store
        .get(&keys::fence(name))
        .await?
        .ok_or_else(|| node::unknown(name.as_str()))?;
    let Some(record) = found.value else {
        return Err(ApiError::conflict(format!(
            "Node {name} is not suspect: there is no fence to confirm"
        )));
    };
    check(name, &record, kind)?;
    Ok(record)
}

/// Whether that can be confirmed now.
fn check(name: &NodeName, record: &FenceRecord, kind: ConfirmationKind) -> Result<(), ApiError> {
    if is_said(record, kind) || confirmable(record).contains(&kind) {
        return Ok(());
    }
    let phase = record.phase.word();
    Err(ApiError::conflict(if record.is_open() {
        format!(
            "The fence of node {name} is {phase} and goes on without this: 'fence show {name}' tells what it waits for"
        )
    } else {
        format!("The last fence of node {name} is {phase}: there is nothing to confirm")
    }))
}

/// Whether this, or something that says more, was confirmed already.
fn is_said(record: &FenceRecord, kind: ConfirmationKind) -> bool {
    let said = record.confirmation.as_ref().map(|confirmation| confirmation.kind);
    record.is_open()
        && match kind {
            ConfirmationKind::Proceed => said.is_some(),
            ConfirmationKind::MachineIsOff => said == Some(ConfirmationKind::MachineIsOff),
        }
}

async fn write<S: Store>(
    app: &App<S>,
    name: &NodeName,
    kind: ConfirmationKind,
    by: &Caller,
) -> Result<String, ApiError> {
    let key = keys::fence(name);
    let text = match kind {
        ConfirmationKind::Proceed => {
            format!("The fence of node {name} goes on: a proof of its death is sought")
        }
        ConfirmationKind::MachineIsOff => {
            format!("Node {name} counts as switched off: its guests are started elsewhere")
        }
    };
    for _ in 0..RETRIES {
        let found = app
            .store
            .get(&key)
            .await?
            .ok_or_else(|| node::unknown(name.as_str()))?;
        let Some(mut record) = found.value else {
            return Err(ApiError::conflict(format!(
                "Node {name} is not suspect: there is no fence to confirm"
            )));
        };
        check(name, &record, kind)?;
        if is_said(&record, kind) {
            return Ok(text);
        }
        let at = app.clock_seconds();
        record.confirmation = Some(Confirmation {
            kind,
            by: by.to_string(),
            at,
        });
        record.note(
            at,
            &app.settings.node,
            format!("{} confirmed by {}", word(kind), by),
        );
        let txn = Txn::new().set(&key, &Some(record), found.version);
        match app.store.commit(txn).await {
            Ok(_) => {
                tracing::warn!(node = %name, kind = word(kind), by = %by, "fence confirmed by an administrator");
                return Ok(text);
            }
            Err(StoreError::BadVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The fence"))
}
