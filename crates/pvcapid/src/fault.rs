//! Faults: showing, acknowledging and deleting them.

use std::cmp::Ordering;
use std::str::FromStr;

use pvc_api::fault::Fault;
use pvc_common::faults::{self, Acknowledged, FaultError};
use pvc_common::keys::{self, FaultKeys};
use pvc_common::store::Store;

use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::{Snapshot, Wanted, children_of};

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
pub(crate) async fn list<S: Store>(store: &S, sort_key: SortKey) -> Result<Vec<Fault>, ApiError> {
    let mut faults = read(store, children_of(store, &keys::faults()).await?).await?;
    faults.sort_by(|a, b| sort_key.compare(a, b));
    Ok(faults)
}

/// That fault, or none.
pub(crate) async fn one<S: Store>(store: &S, id: &str) -> Result<Option<Fault>, ApiError> {
    Ok(read(store, vec![checked(id)?.to_owned()]).await?.pop())
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

async fn read<S: Store>(store: &S, ids: Vec<String>) -> Result<Vec<Fault>, ApiError> {
    let mut wanted = Wanted::default();
    for id in &ids {
        want(&mut wanted, &keys::fault(id));
    }
    let seen = Snapshot::read(store, wanted).await?;
    Ok(ids
        .into_iter()
        // One that was cleared since it was listed is none.
        .filter(|id| matches!(seen.get(&keys::fault(id).root()), Ok(Some(_))))
        .map(|id| shown(&seen, id))
        .collect())
}

fn want(wanted: &mut Wanted, keys: &FaultKeys) {
    wanted
        .key(&keys.root())
        .key(&keys.last_time())
        .key(&keys.first_time())
        .key(&keys.ack_time())
        .key(&keys.status())
        .key(&keys.delta())
        .key(&keys.message());
}

fn shown(seen: &Snapshot, id: String) -> Fault {
    let keys = keys::fault(&id);
    Fault {
        last_reported: seen.shown(&keys.last_time(), String::new()),
        first_reported: seen.shown(&keys.first_time(), String::new()),
        acknowledged_at: seen.shown(&keys.ack_time(), String::new()),
        status: seen.shown(&keys.status(), String::new()),
        health_delta: seen.shown(&keys.delta(), 0),
        message: seen.shown(&keys.message(), String::new()),
        id,
    }
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
    if one(&app.store, id).await?.is_none() {
        return Err(unknown(id));
    }
    faults::clear(&app.store, id).await.map_err(failed)?;
    tracing::info!(fault = id, "fault deleted");
    Ok(format!("Fault {id} is deleted; it comes back if it still lasts"))
}

/// Acknowledges all. Answers in words.
pub(crate) async fn acknowledge_all<S: Store>(app: &App<S>) -> Result<String, ApiError> {
    let mut count = 0;
    for fault in list(&app.store, SortKey::default()).await? {
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
    let faults = list(&app.store, SortKey::default()).await?;
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
