//! Records of accounts as they were read a moment ago, so that not each request asks the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys::{Key, Value};
use pvc_common::store::{ReadError, Store, StoreExt};
use pvc_core::time::BootTime;

use crate::error::ApiError;

/// For how long a record counts without a look at the store: so long may a token that was taken away elsewhere still
/// let in.
const FRESH: Duration = Duration::from_secs(1);

/// For how long it counts while the store does not answer.
const KEPT: Duration = Duration::from_secs(60);

/// Records that are kept. Beyond it all are dropped, which costs a read each.
const MOST: usize = 1024;

/// Records of one kind by their path; `None` where there was none.
#[derive(Debug)]
pub(super) struct Recent<T>(Mutex<HashMap<String, (Option<T>, BootTime)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(Mutex::default())
    }
}

impl<T: Value + Clone> Recent<T> {
    /// The record at `key`, as it is or was a moment ago.
    pub(super) async fn read<S: Store>(&self, store: &S, key: &Key<T>) -> Result<Option<T>, ApiError> {
        let now = HostClock.now();
        let known = self.known(key, now);
        if let Some((record, age)) = &known
            && *age < FRESH
        {
            return Ok(record.clone());
        }
        match (store.get(key).await, known) {
            (Ok(found), _) => {
                let record = found.map(|found| found.value);
                self.keep(key, record.clone(), now);
                Ok(record)
            }
            (Err(ReadError::Store(error)), Some((record, _))) => {
                tracing::debug!(%error, "an account counts as it was");
                Ok(record)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// What is known of the record at `key` without a look at the store, if it is known, and how old that is.
    pub(super) fn known(&self, key: &Key<T>, now: BootTime) -> Option<(Option<T>, Duration)> {
        let records = self.lock();
        let (record, at) = records.get(key.path())?;
        let age = now.since(*at);
        (age < KEPT).then(|| (record.clone(), age))
    }

    /// Drops what is known: it has just been changed here.
    pub(super) fn forget(&self, key: &Key<T>) {
        self.lock().remove(key.path());
    }

    fn keep(&self, key: &Key<T>, record: Option<T>, now: BootTime) {
        let mut records = self.lock();
        if records.len() >= MOST {
            records.clear();
        }
        records.insert(key.path().to_owned(), (record, now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Option<T>, BootTime)>> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
