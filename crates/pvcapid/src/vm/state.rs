//! Carrying out requests for another state.

use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::ids::VmId;
use pvc_core::states::VmState;

use super::record::{Record, runs};
use super::transition::{Force, Request, Step, next_step};
use super::{RETRIES, wait};
use crate::app::App;
use crate::error::ApiError;

/// Whether the reply waits for the guest's node to have done it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// When it is done.
    WhenDone,
    /// When it is asked for.
    AtOnce,
}

/// Carries out a request for another state. Answers in words.
///
/// # Idempotence
/// What is so already is success, without a write; but who asks for a guest at rest that waits to be started takes that
/// back.
///
/// # Cancellation
/// What was written stays; only the waiting ends.
pub(crate) async fn request<S: Store>(
    app: &App<S>,
    id: VmId,
    request: Request,
    force: Force,
    reply: Reply,
) -> Result<String, ApiError> {
    let _waiter = match (request, reply) {
        (Request::Disable, _) | (Request::Shutdown | Request::Restart, Reply::WhenDone) => {
            Some(app.waiter()?)
        }
        (Request::Start | Request::Stop, _) | (Request::Shutdown | Request::Restart, Reply::AtOnce) => None,
    };
    let (record, step) = app.promptly(write(&app.store, id, request, force)).await?;
    let name = &record.name;
    match step {
        Step::ShutDownThenDisable => {
            stopped_in_order(app, id).await?;
            let (_, _) = app
                .promptly(write(&app.store, id, Request::Disable, Force::No))
                .await?;
            Ok(format!("VM {name} is disabled"))
        }
        Step::AlreadySo | Step::Write(_) => match (request, reply) {
            (Request::Shutdown, Reply::WhenDone) => {
                stopped_in_order(app, id).await?;
                Ok(format!("VM {name} has shut down"))
            }
            (Request::Restart, Reply::WhenDone) => {
                restarted(app, id).await?;
                Ok(format!("VM {name} has been restarted"))
            }
            // As in PVC 1.0.3 the others do not wait.
            (Request::Start | Request::Stop | Request::Disable, Reply::WhenDone) | (_, Reply::AtOnce) => {
                Ok(match step {
                    Step::AlreadySo => format!("VM {name} is in state {} already", record.state.value),
                    Step::Write(state) => said(name.as_str(), state),
                    Step::ShutDownThenDisable => String::new(),
                })
            }
        },
    }
}

fn said(name: &str, state: VmState) -> String {
    match state {
        VmState::Start => format!("Starting VM {name}"),
        VmState::Restart => format!("Restarting VM {name}"),
        VmState::Shutdown => format!("Shutting VM {name} down"),
        VmState::Stop => format!("Stopping VM {name}"),
        VmState::Disable => format!("Disabling VM {name}"),
        VmState::Fail
        | VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => format!("VM {name} is set to {state}"),
    }
}

/// Decides and writes, in one transaction that holds only if nobody changed state or node meanwhile; then it is read
/// and decided again. Two requests at a time can not interleave.
pub(super) async fn write<S: Store>(
    store: &S,
    id: VmId,
    request: Request,
    force: Force,
) -> Result<(Record, Step), ApiError> {
    write_unless(store, id, request, force, |_| false).await
}

/// As [`write`], and leaves the guest as it is in states of which `so` says that they will do.
pub(super) async fn write_unless<S: Store>(
    store: &S,
    id: VmId,
    request: Request,
    force: Force,
    so: fn(VmState) -> bool,
) -> Result<(Record, Step), ApiError> {
    for _ in 0..RETRIES {
        let record = Record::require(store, id).await?;
        if so(record.state.value) {
            return Ok((record, Step::AlreadySo));
        }
        let step = next_step(request, record.state.value, force).map_err(|denied| {
            ApiError::conflict(format!(
                "VM {} is in state {}: {denied}",
                record.name, record.state.value
            ))
        })?;
        // Whoever wants it at rest does not want it started when a node is made ready or takes it after a fence.
        let takes_autostart_back = record.autostart.value && request.is_for_rest();
        let state = match step {
            Step::AlreadySo if takes_autostart_back => record.state.value,
            Step::AlreadySo => return Ok((record, step)),
            Step::Write(state) => state,
            Step::ShutDownThenDisable if record.state.value == VmState::Shutdown && !takes_autostart_back => {
                return Ok((record, step));
            }
            Step::ShutDownThenDisable => VmState::Shutdown,
        };
        let keys = keys::domain(id);
        let mut txn = Txn::new().check(&keys.node(), record.node.version).set(
            &keys.state(),
            &state,
            record.state.version,
        );
        if !record.failed_reason.value.is_empty() {
            // A failure is told until somebody does something about it.
            txn = txn.set(
                &keys.failed_reason(),
                &String::new(),
                record.failed_reason.version,
            );
        }
        if takes_autostart_back {
            txn = txn.set(&keys.autostart(), &false, record.autostart.version);
        }
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(vm = %id, name = %record.name, from = %record.state.value, to = %state, "VM state asked for");
                return Ok((record, step));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The VM"))
}

/// Waits until the guest has shut down: its state says so and no process of it may exist any more.
async fn stopped_in_order<S: Store>(app: &App<S>, id: VmId) -> Result<(), ApiError> {
    wait::until(app, id, app.settings.waits.shutdown, |record| {
        match record.state.value {
            VmState::Stop | VmState::Disable if record.owner.value.is_none() => Some(Ok(())),
            VmState::Stop | VmState::Disable | VmState::Shutdown => None,
            VmState::Start
            | VmState::Restart
            | VmState::Fail
            | VmState::Migrate
            | VmState::MigrateLive
            | VmState::Unmigrate
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => Some(Err(overtaken(record, "shutdown"))),
        }
    })
    .await
}

/// Waits until the guest's restart is over: its node gives it up and takes it again.
async fn restarted<S: Store>(app: &App<S>, id: VmId) -> Result<(), ApiError> {
    wait::until(app, id, app.settings.waits.shutdown, |record| {
        match record.state.value {
            VmState::Start if record.owner.value.as_ref().is_some_and(runs) => Some(Ok(())),
            VmState::Restart | VmState::Start => None,
            VmState::Shutdown
            | VmState::Stop
            | VmState::Disable
            | VmState::Fail
            | VmState::Migrate
            | VmState::MigrateLive
            | VmState::Unmigrate
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => Some(Err(overtaken(record, "restart"))),
        }
    })
    .await
}

fn overtaken(record: &Record, what: &str) -> ApiError {
    let why = if record.failed_reason.value.is_empty() {
        String::new()
    } else {
        format!(" ({})", record.failed_reason.value)
    };
    ApiError::conflict(format!(
        "The {what} of VM {} did not come to its end: it went to state {}{why}",
        record.name, record.state.value
    ))
}
