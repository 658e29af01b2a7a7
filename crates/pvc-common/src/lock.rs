//! Exclusive locks over any store.
//!
//! The recipe is that of kazoo, so that our contenders and those of PVC 1.0.3 queue together: each creates an
//! ephemeral sequential child `<uuid>__lock__<number>` of the key, and whose number is lowest holds the lock. Readers'
//! `__rlock__` children count as contenders too.
//!
//! Holding the lock is no more than a znode: a holder that was paused past its session has lost it without knowing.
//! So whatever is written because of the lock carries [`Txn::guard`], which fails when that znode is gone.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Clock;
use crate::keys::Key;
use crate::store::{Store, StoreError, Txn, Watch};

/// How a contender's name goes on after its UUID, then its number.
const EXCLUSIVE: &str = "__lock__";

/// The same for kazoo's shared locks, which we respect and never take.
const SHARED: &str = "__rlock__";

/// How long a missed watch can delay a contender.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why a lock was not acquired. In each case the contender was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Someone else held it all the time.
    #[error("{path} stayed locked by another contender")]
    TimedOut {
        /// The key's path.
        path: String,
    },
    /// The key does not exist, so nobody can lock it.
    #[error("{path} does not exist and cannot be locked")]
    NoSuchKey {
        /// The key's path.
        path: String,
    },
    /// The store failed.
    #[error("failed to contend for the lock on {path}")]
    Store {
        /// The key's path.
        path: String,
        /// What it said.
        #[source]
        source: StoreError,
    },
}

/// An exclusive lock on a key, not yet acquired.
#[derive(Debug, Clone)]
pub struct ExclusiveLock<S, C> {
    store: S,
    clock: C,
    path: String,
    holder: String,
}

/// The exclusive lock on `key`. `holder` is shown to whoever looks at the store: a node's name, say.
pub fn exclusive_lock<S: Store, C: Clock, T>(
    store: &S,
    clock: &C,
    key: &Key<T>,
    holder: &str,
) -> ExclusiveLock<S, C> {
    ExclusiveLock {
        store: store.clone(),
        clock: clock.clone(),
        path: key.path().to_owned(),
        holder: holder.to_owned(),
    }
}

impl<S: Store, C: Clock> ExclusiveLock<S, C> {
    /// Waits until the lock is held, for at most `timeout`.
    ///
    /// # Errors
    /// [`LockError`]. A key that does not exist fails at once.
    ///
    /// # Cancellation
    /// A dropped call withdraws its contender.
    pub async fn acquire(&self, timeout: Duration) -> Result<LockGuard<S>, LockError> {
        match self.clock.timeout(timeout, self.contend()).await {
            Some(outcome) => outcome,
            None => Err(LockError::TimedOut {
                path: self.path.clone(),
            }),
        }
    }

    async fn contend(&self) -> Result<LockGuard<S>, LockError> {
        // From here on the contender is withdrawn on every path that does not end in a guard.
        let mut contender = Contender {
            store: self.store.clone(),
            prefix: format!("{}/{}{EXCLUSIVE}", self.path, Uuid::new_v4().simple()),
            keep: false,
        };
        let created = self
            .store
            .create_ephemeral_sequential(&contender.prefix, self.holder.as_bytes())
            .await;
        match created {
            Ok(_) | Err(StoreError::Unknown { .. }) => {}
            Err(error) => return Err(self.failed(error)),
        }
        loop {
            let names = match self.store.children(&self.path).await {
                Ok(Some(names)) => names,
                Ok(None) => return Err(self.no_such_key()),
                Err(error) => return Err(self.failed(error)),
            };
            let queue = queue(names);
            let own = queue.iter().position(|name| contender.is(&self.path, name));
            match own {
                None => {
                    // It was never created, or it may yet be, or its session has ended: not ours to tell.
                    return Err(self.failed(created.err().unwrap_or(StoreError::SessionExpired)));
                }
                Some(0) => {
                    contender.keep = true;
                    let name = queue.into_iter().next().unwrap_or_default();
                    return Ok(LockGuard {
                        store: self.store.clone(),
                        path: format!("{}/{name}", self.path),
                        released: false,
                    });
                }
                Some(place) => {
                    let ahead = queue.into_iter().nth(place - 1).unwrap_or_default();
                    self.wait_for(&ahead).await?;
                }
            }
        }
    }

    /// Waits until the contender `ahead` may have gone.
    async fn wait_for(&self, ahead: &str) -> Result<(), LockError> {
        let path = format!("{}/{ahead}", self.path);
        let mut watch = self.store.watch_tree(&path);
        // Between our reading of the queue and the watch it may have gone already.
        let there = self.store.read(&path).await.map_err(|error| self.failed(error))?;
        if there.is_some() {
            self.clock.timeout(LOOK_AGAIN, watch.changed()).await;
        }
        Ok(())
    }

    fn failed(&self, error: StoreError) -> LockError {
        if matches!(error, StoreError::NoNode { .. }) {
            return self.no_such_key();
        }
        LockError::Store {
            path: self.path.clone(),
            source: error,
        }
    }

    fn no_such_key(&self) -> LockError {
        LockError::NoSuchKey {
            path: self.path.clone(),
        }
    }
}

/// The contenders among `names`, first come first.
fn queue(names: Vec<String>) -> Vec<String> {
    let mut queue: Vec<(i64, String)> = names
        .into_iter()
        .filter_map(|name| {
            let (_, number) = name.split_once(EXCLUSIVE).or_else(|| name.split_once(SHARED))?;
            Some((number.parse().ok()?, name))
        })
        .collect();
    queue.sort();
    queue.into_iter().map(|(_, name)| name).collect()
}

/// Our place in the queue, given up unless it is kept.
struct Contender<S: Store> {
    store: S,
    prefix: String,
    keep: bool,
}

impl<S: Store> Contender<S> {
    fn is(&self, above: &str, name: &str) -> bool {
        let own = self
            .prefix
            .strip_prefix(above)
            .and_then(|rest| rest.strip_prefix('/'));
        own.is_some_and(|own| name.starts_with(own))
    }
}

impl<S: Store> Drop for Contender<S> {
    fn drop(&mut self) {
        if !self.keep {
            self.store.withdraw_ephemeral(&self.prefix);
        }
    }
}

/// A lock that was acquired. Release it with [`LockGuard::release`].
#[must_use = "the lock is given up when this is dropped"]
pub struct LockGuard<S: Store> {
    store: S,
    path: String,
    released: bool,
}

impl<S: Store> LockGuard<S> {
    /// The lock's own znode: as long as it exists, the lock is held.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the lock up. If the store does not answer, this goes on beside the caller, and ends with the session at
    /// the latest.
    pub async fn release(mut self) {
        let deleted = self.store.commit(Txn::new().delete_path(&self.path, None)).await;
        self.released = true;
        match deleted {
            Ok(_) | Err(StoreError::NoNode { .. }) => {}
            Err(error) => {
                tracing::debug!(lock = %self.path, %error, "lock release is left to the background");
                self.store.withdraw_ephemeral(&self.path);
            }
        }
    }
}

impl<S: Store> fmt::Debug for LockGuard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl<S: Store> Drop for LockGuard<S> {
    fn drop(&mut self) {
        if !self.released {
            tracing::warn!(lock = %self.path, "lock was dropped without release");
            self.store.withdraw_ephemeral(&self.path);
        }
    }
}

impl Txn {
    /// Only if the lock is still held. A stale holder's write fails with [`StoreError::LockLost`].
    #[must_use]
    pub fn guard<S: Store>(self, lock: &LockGuard<S>) -> Txn {
        self.guard_path(lock.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_of_both_kinds_queue_by_number_alone() {
        let names = [
            "f0__lock__0000000011",
            "sync_lock",
            "aa__rlock__0000000009",
            "b1__lock__0000000010",
        ];
        assert_eq!(
            queue(names.map(str::to_owned).to_vec()),
            [
                "aa__rlock__0000000009",
                "b1__lock__0000000010",
                "f0__lock__0000000011"
            ]
        );
    }
}
