//! Waiting for a guest's node to have done what was asked for.
//!
//! A waiting request holds no lock and no thread: it looks when the guest's record changes, and once a second in case
//! a change was missed. It has an end, and its number is bounded.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use pvc_api::message::ErrorCode;
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::store::{Store, Watch};
use pvc_core::ids::VmId;

use super::record::{Record, unknown};
use crate::app::App;
use crate::error::ApiError;

/// How long a missed change can delay a waiting request.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a look at a guest shows.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// It is over.
    Over(Result<T, ApiError>),
    /// It is on its way; if nothing of its record changes for that long, nobody waits any more.
    Wait(Duration),
}

/// Looks at the guest until `look` answers, for at most `limit`.
///
/// # Errors
/// 404 when the guest is removed meanwhile, 504 at the end of the limit, 503 when the store is silent at that time.
pub(crate) async fn until<S: Store, T>(
    app: &App<S>,
    id: VmId,
    limit: Duration,
    mut look: impl FnMut(&Record) -> Option<Result<T, ApiError>>,
) -> Result<T, ApiError> {
    follow(app, id, limit, |record| match look(record) {
        Some(answer) => Look::Over(answer),
        None => Look::Wait(limit),
    })
    .await
}

/// Looks at the guest until `look` says that it is over, for at most `limit`, and only as long as it gets on: each change
/// of the guest's record gives it the time anew that `look` allows.
///
/// Whoever waits has asked for [`App::waiter`] before he ordered anything: otherwise he could be refused for it afterwards.
///
/// # Errors
/// As [`until`].
pub(crate) async fn follow<S: Store, T>(
    app: &App<S>,
    id: VmId,
    limit: Duration,
    mut look: impl FnMut(&Record) -> Look<T>,
) -> Result<T, ApiError> {
    // The watch is there before the first look, so that no change falls between.
    let mut watch = app.store.watch_tree(keys::domain(id).path());
    let begun = app.clock.now();
    let deadline = begun + limit;
    let mut stands_since = (None, begun);
    loop {
        let seen = app
            .promptly(async { Ok(Record::read(&app.store, id).await?) })
            .await;
        let now = app.clock.now();
        let at_end = now >= deadline;
        match seen {
            Ok(Some(record)) => {
                let patience = match look(&record) {
                    Look::Over(answer) => return answer,
                    Look::Wait(patience) => patience,
                };
                let mark = Some(record.versions());
                if stands_since.0 != mark {
                    stands_since = (mark, now);
                }
                if at_end || now.since(stands_since.1) >= patience {
                    return Err(too_late(&record, now.since(begun)));
                }
            }
            Ok(None) => return Err(unknown(&id.to_string())),
            // The store may be between two leaders; what was asked for goes on meanwhile.
            Err(error) if error.code == ErrorCode::StoreUnavailable && !at_end => {}
            Err(error) if error.code == ErrorCode::StoreUnavailable => {
                return Err(unseen(&format!("VM {id}")));
            }
            Err(error) => return Err(error),
        }
        let next = deadline.min(app.clock.now() + LOOK_AGAIN);
        match select(pin!(watch.changed()), pin!(app.clock.sleep_until(next))).await {
            Either::Left(((), _)) | Either::Right(((), _)) => {}
        }
    }
}

/// What was asked for is written, and what has become of it can not be looked at.
pub(crate) fn unseen(what: &str) -> ApiError {
    ApiError::new(
        ErrorCode::WaitTimeout,
        format!(
            "The coordination store does not answer, so what has become of {what} can not be told. What was asked for stands"
        ),
    )
}

fn too_late(record: &Record, waited: Duration) -> ApiError {
    let held = match &record.owner.value {
        Some(owner) => format!("; node {} still holds it", owner.node),
        None => String::new(),
    };
    ApiError::new(
        ErrorCode::WaitTimeout,
        format!(
            "VM {} is in state {} after {} s{held}. What was asked for may still come to its end",
            record.name,
            record.state.value,
            waited.as_secs()
        ),
    )
}
