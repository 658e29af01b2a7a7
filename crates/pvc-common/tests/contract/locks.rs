//! Exclusive locks.

use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys;
use pvc_common::lock::{ExclusiveLock, LockError, exclusive_lock};
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::records::PrimaryRecord;

use super::{Ensemble, FaultyClient, Hidden, eventually};

/// The time in which contention for the primary role is decided.
const CONTENTION: Duration = Duration::from_millis(400);

/// For acquisitions that must succeed.
const LONG: Duration = Duration::from_secs(30);

const RECORD: &str = "/config/primary_node";

async fn prepare<S: Store>(store: &S) {
    let txn = Txn::new()
        .create_path("/config", "")
        .create(&keys::config().primary_node(), &PrimaryRecord::None);
    store.commit(txn).await.unwrap();
}

fn lock<S: Store>(store: &S, holder: &str) -> ExclusiveLock<S, HostClock> {
    exclusive_lock(store, &HostClock, &keys::config().primary_node(), holder)
}

async fn nobody_contends<S: Store>(store: &S) {
    eventually("the lock's queue is empty", async || {
        store.children(RECORD).await.unwrap().unwrap().is_empty()
    })
    .await;
}

// The race for the primary role: without this, two nodes would both go on to take the floating addresses.
pub async fn one_of_two_contenders_wins_and_the_other_steps_back(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    let held = lock(one.store(), "hv1")
        .acquire(CONTENTION.max(LONG))
        .await
        .unwrap();
    let start = HostClock.now();
    let refused = lock(two.store(), "hv2").acquire(CONTENTION).await.unwrap_err();
    let waited = HostClock.now().since(start);
    assert_eq!(
        refused,
        LockError::TimedOut {
            path: RECORD.to_owned()
        }
    );
    assert!(waited >= CONTENTION, "{waited:?}");
    // The loser's contender is gone, so that the next release does not go to a node that looks elsewhere.
    eventually("only the winner is left in the queue", async || {
        one.store().children(RECORD).await.unwrap().unwrap().len() == 1
    })
    .await;
    let txn = Txn::new().guard(&held).overwrite_path(RECORD, "hv1");
    one.store().commit(txn).await.unwrap();
    held.release().await;
    nobody_contends(two.store()).await;
}

pub async fn a_waiting_contender_gets_the_lock_when_it_is_released(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    let held = lock(one.store(), "hv1").acquire(LONG).await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock(two.store(), "hv2");
        async move { lock.acquire(LONG).await }
    });
    eventually("the second contender queues", async || {
        one.store().children(RECORD).await.unwrap().unwrap().len() == 2
    })
    .await;
    assert!(!waiting.is_finished());
    let path = held.path().to_owned();
    held.release().await;
    let held = waiting.await.unwrap().unwrap();
    assert_ne!(held.path(), path);
    held.release().await;
}

// A fencer or a new primary that was paused past its session must not act on what it held before.
pub async fn a_holder_whose_session_expired_cannot_write(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    let stale = lock(one.store(), "hv1").acquire(LONG).await.unwrap();
    one.expire().await;
    let held = lock(two.store(), "hv2").acquire(LONG).await.unwrap();
    let txn = Txn::new().guard(&held).overwrite_path(RECORD, "hv2");
    two.store().commit(txn).await.unwrap();

    let txn = Txn::new().guard(&stale).overwrite_path(RECORD, "hv1");
    let refused = one.store().commit(txn).await;
    assert_eq!(
        refused,
        Err(StoreError::LockLost {
            path: stale.path().to_owned()
        })
    );
    assert_eq!(two.store().read(RECORD).await.unwrap().unwrap().data, b"hv2");
    stale.release().await;
    // Releasing the stale lock did not take the new holder's away.
    two.store().commit(Txn::new().guard(&held)).await.unwrap();
    held.release().await;
}

pub async fn a_lock_on_a_missing_key_fails_at_once(ensemble: &impl Ensemble) {
    let client = ensemble.client().await;
    let start = HostClock.now();
    let refused = lock(client.store(), "hv1")
        .acquire(Duration::from_secs(600))
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        LockError::NoSuchKey {
            path: RECORD.to_owned()
        }
    );
    assert!(HostClock.now().since(start) < Duration::from_secs(60));
}

pub async fn a_dropped_guard_frees_the_lock(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    drop(lock(one.store(), "hv1").acquire(LONG).await.unwrap());
    let held = lock(two.store(), "hv2").acquire(LONG).await.unwrap();
    held.release().await;
}

// A contender that nobody waits for any more would be given the lock and keep everyone else from it.
pub async fn an_abandoned_attempt_leaves_nothing_behind(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    let held = lock(one.store(), "hv1").acquire(LONG).await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock(two.store(), "hv2");
        async move { lock.acquire(LONG).await }
    });
    eventually("the second contender queues", async || {
        one.store().children(RECORD).await.unwrap().unwrap().len() == 2
    })
    .await;
    waiting.abort();
    eventually("the second contender is withdrawn", async || {
        one.store().children(RECORD).await.unwrap().unwrap().len() == 1
    })
    .await;
    held.release().await;
}

// In a cluster that is being upgraded, agents of 1.0.3 and ours contend for the same keys.
pub async fn contenders_of_the_reference_are_waited_for(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    for name in ["6b1f9a0c9b__lock__", "6b1f9a0c9b__rlock__"] {
        let prefix = format!("{RECORD}/{name}");
        let theirs = two
            .store()
            .create_ephemeral_sequential(&prefix, b"kazoo")
            .await
            .unwrap();
        assert!(theirs.starts_with(&prefix), "{theirs}");
        let refused = lock(one.store(), "hv1").acquire(CONTENTION).await.unwrap_err();
        assert!(matches!(refused, LockError::TimedOut { .. }), "{refused:?}");
        two.store()
            .commit(Txn::new().delete_path(theirs, None))
            .await
            .unwrap();
        lock(one.store(), "hv1")
            .acquire(LONG)
            .await
            .unwrap()
            .release()
            .await;
    }
}

pub async fn an_unseen_creation_is_found_or_withdrawn(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    for hidden in [Hidden::Applied, Hidden::Lost] {
        one.hide_next_write(hidden).await;
        let attempt = tokio::spawn({
            let lock = lock(one.store(), "hv1");
            async move { lock.acquire(LONG).await }
        });
        // Whatever the attempt makes of it, once it is over and the client is connected nothing must be left.
        eventually("the attempt has met the fault", async || {
            attempt.is_finished() || one.store().session() != pvc_common::store::SessionState::Connected
        })
        .await;
        one.reconnect().await;
        if let Ok(held) = attempt.await.unwrap() {
            assert_eq!(hidden, Hidden::Applied);
            held.release().await;
        }
        nobody_contends(two.store()).await;
    }
}

pub async fn a_release_without_connection_happens_later(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    prepare(one.store()).await;
    let held = lock(one.store(), "hv1").acquire(LONG).await.unwrap();
    one.disconnect().await;
    held.release().await;
    one.reconnect().await;
    nobody_contends(two.store()).await;
}
