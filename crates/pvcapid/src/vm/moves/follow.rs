//! Waiting for a guest to have come to its new node.

use std::time::Duration;

use pvc_common::store::Store;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::states::{MigrationMethod, VmState};

use crate::app::App;
use crate::error::ApiError;
use crate::vm::record::{Record, runs};
use crate::vm::wait::{self, Look};

/// How long a move may stand still at one point before nobody waits any more: its node takes it up within a second, and
/// cancels by itself what has sent nothing for 10 s.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How long a request waits in all: somewhat less than the client of PVC 1.0.3 does, which gives up after ten minutes.
/// Guests with much memory take longer; they go on.
const IN_ALL: Duration = Duration::from_secs(570);

/// Waits until the guest runs on `target`, or is known not to come there. Answers in words.
pub(super) async fn until_there<S: Store>(
    app: &App<S>,
    id: VmId,
    target: &NodeName,
) -> Result<String, ApiError> {
    let by_shutdown = app.settings.waits.shutdown;
    wait::follow(app, id, app.settings.waits.shutdown.max(IN_ALL), |record| {
        look(record, target, by_shutdown)
    })
    .await
}

fn look(record: &Record, target: &NodeName, by_shutdown: Duration) -> Look<String> {
    let name = &record.name;
    let owner = record.owner.value.as_ref();
    match record.state.value {
        VmState::Start if record.node.value == *target => match owner {
            Some(owner) if owner.node == *target && runs(owner) => {
                Look::Over(Ok(format!("VM {name} runs on node {target}")))
            }
            Some(_) | None => Look::Wait(STANDSTILL),
        },
        VmState::Start => Look::Over(Err(fell_back(record, target))),
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate if record.node.value == *target => {
            match (&record.incoming.value, record.migration_method) {
                // What is being sent is watched over by the node that sends it.
                (Some(_), _) => Look::Wait(IN_ALL),
                (None, MigrationMethod::Shutdown) => Look::Wait(by_shutdown),
                (None, MigrationMethod::Live | MigrationMethod::None) => Look::Wait(STANDSTILL),
            }
        }
        VmState::Migrate
        | VmState::MigrateLive
        | VmState::Unmigrate
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => Look::Over(Err(overtaken(record, target))),
    }
}

fn fell_back(record: &Record, target: &NodeName) -> ApiError {
    let why = match record.failed_reason.value.as_str() {
        "" => "it was called off",
        reason => reason,
    };
    ApiError::conflict(format!(
        "VM {} did not come to node {target} and stays on {}: {why}",
        record.name, record.node.value
    ))
}

fn overtaken(record: &Record, target: &NodeName) -> ApiError {
    let why = match record.failed_reason.value.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    ApiError::conflict(format!(
        "VM {} did not come to node {target}: it went to state {} on node {}{why}",
        record.name, record.state.value, record.node.value
    ))
}
