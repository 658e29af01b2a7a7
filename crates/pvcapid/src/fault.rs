//! Faults: showing, acknowledging and deleting them.

use std::cmp::Ordering;
use std::str::FromStr;

use pvc_api::fault::Fault;
use pvc_common::faults::{self, Acknowledged, FaultError};
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::Store;

use crate::app::App;
use crate::error::ApiError;

/// By what a list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SortKey {
    FirstReported,
    #[default]
    LastReported,
    AcknowledgedAt,
    Status,
    HealthDelta,
    Message,
}

impl FromStr for SortKey {
    type Err = String;

    fn from_str(text: &str) -> Result<SortKey, String> {
        Ok(match text {
            "first_reported" => SortKey::FirstReported,
            "last_reported" => SortKey::LastReported,
            "acknowledged_at" => SortKey::AcknowledgedAt,
            "status" => SortKey::Status,
            "health_delta" => SortKey::HealthDelta,
            "message" => SortKey::Message,
            other => {
                return Err(format!(
                    "{other:?} must be one of first_reported, last_reported, acknowledged_at, status, health_delta, \
                     message"
                ));
            }
        })
    }
}

impl SortKey {
    fn compare(self, a: &Fault, b: &Fault) -> Ordering {
        match self {
            SortKey::FirstReported => a.first_reported.cmp(&b.first_reported),
            SortKey::LastReported => a.last_reported.cmp(&b.last_reported),
            SortKey::AcknowledgedAt => a.acknowledged_at.cmp(&b.acknowledged_at),
            SortKey::Status => a.status.cmp(&b.status),
            SortKey::HealthDelta => a.health_delta.cmp(&b.health_delta),
            SortKey::Message => a.message.cmp(&b.message),
        }
        .then_with(|| a.id.cmp(&b.id))
    }
}

/// All faults.
pub(crate) fn list(view: &View, sort_key: SortKey) -> Vec<Fault> {
    let ids: Vec<String> = view.children(&keys::faults());
    let mut faults: Vec<Fault> = ids.into_iter().filter_map(|id| read(view, id)).collect();
    faults.sort_by(|a, b| sort_key.compare(a, b));
    faults
}

/// That fault, or none.
pub(crate) fn one(view: &View, id: &str) -> Result<Option<Fault>, ApiError> {
    Ok(read(view, checked(id)?.to_owned()))
}

/// An id that can not leave its place in the store.
fn checked(id: &str) -> Result<&str, ApiError> {
    if id.is_empty() || id.contains('/') || id.contains(char::is_control) || id == "." || id == ".." {
        return Err(unknown(id));
    }
    Ok(id)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("There is no fault {id:?}"))
}

fn read(view: &View, id: String) -> Option<Fault> {
    let keys = keys::fault(&id);
    view.znode(keys.path())?;
    Some(Fault {
        last_reported: view.shown(&keys.last_time(), String::new()),
        first_reported: view.shown(&keys.first_time(), String::new()),
        acknowledged_at: view.shown(&keys.ack_time(), String::new()),
        status: view.shown(&keys.status(), String::new()),
        health_delta: view.shown(&keys.delta(), 0),
        message: view.shown(&keys.message(), String::new()),
        id,
    })
}

/// Acknowledges a fault: it lowers the health no more. Answers in words.
///
/// # Idempotence
/// One that is acknowledged already is success.
pub(crate) async fn acknowledge<S: Store>(app: &App<S>, id: &str) -> Result<String, ApiError> {
    match faults::acknowledge(&app.store, &app.clock, checked(id)?).await {
        Ok(Acknowledged::Done) => {
            tracing::info!(fault = id, "fault acknowledged");
            Ok(format!("Fault {id} is acknowledged"))
        }
        Ok(Acknowledged::AlreadySo) => Ok(format!("Fault {id} is acknowledged already")),
        Ok(Acknowledged::Unknown) => Err(unknown(id)),
        Err(error) => Err(failed(error)),
    }
}

/// Deletes a fault. It comes back if it still lasts. Answers in words.
pub(crate) async fn delete<S: Store>(app: &App<S>, id: &str) -> Result<String, ApiError> {
    if one(&app.view()?, id)?.is_none() {
        return Err(unknown(id));
    }
    faults::clear(&app.store, id).await.map_err(failed)?;
    tracing::info!(fault = id, "fault deleted");
    Ok(format!("Fault {id} is deleted; it comes back if it still lasts"))
}

/// Acknowledges all. Answers in words.
pub(crate) async fn acknowledge_all<S: Store>(app: &App<S>) -> Result<String, ApiError> {
    let mut count = 0;
    for fault in list(&app.view()?, SortKey::default()) {
        if fault.is_acknowledged() {
            continue;
        }
        match faults::acknowledge(&app.store, &app.clock, &fault.id).await {
            Ok(Acknowledged::Done | Acknowledged::AlreadySo) => count += 1,
            Ok(Acknowledged::Unknown) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    tracing::info!(count, "all faults acknowledged");
    Ok(match count {
        0 => "There is no fault to acknowledge".to_owned(),
        1 => "1 fault is acknowledged".to_owned(),
        count => format!("{count} faults are acknowledged"),
    })
}

/// Deletes all. Answers in words.
pub(crate) async fn delete_all<S: Store>(app: &App<S>) -> Result<String, ApiError> {
    let faults = list(&app.view()?, SortKey::default());
    for fault in &faults {
        faults::clear(&app.store, &fault.id).await.map_err(failed)?;
    }
    tracing::info!(count = faults.len(), "all faults deleted");
    Ok(match faults.len() {
        0 => "There is no fault to delete".to_owned(),
        1 => "1 fault is deleted; it comes back if it still lasts".to_owned(),
        count => format!("{count} faults are deleted; those that still last come back"),
    })
}

fn failed(error: FaultError) -> ApiError {
    match error {
        FaultError::Read { source, .. } => source.into(),
        FaultError::Write { source, .. } => source.into(),
    }
}
