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

/// Records of one kind by their path.
#[derive(Debug)]
pub(super) struct Recent<T>(Mutex<HashMap<String, Known<T>>>);

/// A record as it was read.
#[derive(Debug)]
struct Known<T> {
    /// The record; `None` where there was none.
    record: Option<T>,
    /// When it was read.
    read_at: BootTime,
    /// When the store was last asked for it, whether it answered or not: while it is silent, one request a second waits
    /// for it and no more.
    asked_at: BootTime,
}

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
        if let Some(record) = &known
            && !self.is_due(key, now)
        {
            return Ok(record.clone());
        }
        match (store.get(key).await, known) {
            (Ok(found), _) => {
                let record = found.map(|found| found.value);
                self.keep(key, record.clone(), now);
                Ok(record)
            }
            (Err(ReadError::Store(error)), Some(record)) => {
                tracing::debug!(%error, "an account counts as it was");
                Ok(record)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// What is known of the record at `key` without a look at the store, if it is known.
    pub(super) fn known(&self, key: &Key<T>, now: BootTime) -> Option<Option<T>> {
        let records = self.lock();
        let known = records.get(key.path())?;
        (now.since(known.read_at) < KEPT).then(|| known.record.clone())
    }

    /// Whether it is time to ask for that record again; if so, the next one need not for a while.
    fn is_due(&self, key: &Key<T>, now: BootTime) -> bool {
        match self.lock().get_mut(key.path()) {
            Some(known) if now.since(known.asked_at) < FRESH => false,
            Some(known) => {
                known.asked_at = now;
                true
            }
            None => true,
        }
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
        let known = Known {
            record,
            read_at: now,
            asked_at: now,
        };
        records.insert(key.path().to_owned(), known);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known<T>>> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::keys;
    use pvc_common::store::Txn;
    use pvc_common::store::memory::MemoryServer;

    use super::*;

    // Who is logged in must not be thrown out when ZooKeeper elects a leader.
    #[tokio::test]
    async fn a_record_counts_on_while_the_store_is_silent() {
        let store = MemoryServer::new().client();
        let key = keys::config().cluster_name();
        store
            .commit(Txn::new().create(&key, &"one".to_owned()))
            .await
            .unwrap();
        let recent = Recent::default();
        assert_eq!(recent.read(&store, &key).await.unwrap(), Some("one".to_owned()));
        let other = keys::config().upstream_ip();
        store.disconnect();
        let later = |recent: &Recent<String>, seconds| {
            for known in recent.lock().values_mut() {
                known.asked_at = known.asked_at - Duration::from_secs(seconds);
                known.read_at = known.read_at - Duration::from_secs(seconds);
            }
        };
        later(&recent, 5);
        assert_eq!(recent.read(&store, &key).await.unwrap(), Some("one".to_owned()));
        assert!(
            !recent.is_due(&key, HostClock.now()),
            "the store was asked just now"
        );
        assert!(
            recent.read(&store, &other).await.is_err(),
            "nothing is known of it"
        );
        later(&recent, 60);
        assert!(recent.read(&store, &key).await.is_err(), "that is too old");
        recent.forget(&key);
        assert_eq!(recent.known(&key, HostClock.now()), None);
    }
}
