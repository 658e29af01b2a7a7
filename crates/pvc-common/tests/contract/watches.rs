//! Watches: hints that may come too often and must not stay away.

use std::time::Duration;

use futures::FutureExt;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::{Store, Txn, Watch};

use super::{Ensemble, FaultyClient, PATIENCE};

/// After so long without a hint none is on its way.
const SILENCE: Duration = Duration::from_millis(200);

async fn fires<W: Watch>(watch: &mut W, what: &str) {
    let fired = HostClock.timeout(PATIENCE, watch.changed()).await;
    assert!(fired.is_some(), "the watch stayed silent: {what}");
}

/// Waits until the watch has been silent while other writes went through: nothing is pending any more.
async fn drain<S: Store, W: Watch>(store: &S, watch: &mut W) {
    loop {
        store
            .commit(Txn::new().overwrite_path("/elsewhere", ""))
            .await
            .unwrap();
        let fired = HostClock.timeout(SILENCE, watch.changed()).await;
        if fired.is_none() {
            return;
        }
    }
}

pub async fn a_watch_sees_changes_below_its_path(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    let txn = Txn::new()
        .create_path("/nodes", "")
        .create_path("/elsewhere", "")
        .create_path("/nodesx", "");
    one.store().commit(txn).await.unwrap();
    let mut watch = one.store().watch_tree("/nodes");
    for (what, txn) in [
        (
            "created",
            Txn::new()
                .create_path("/nodes/hv1", "")
                .create_path("/nodes/hv1/load", "0"),
        ),
        ("set below", Txn::new().overwrite_path("/nodes/hv1/load", "1")),
        ("set itself", Txn::new().overwrite_path("/nodes", "x")),
        ("deleted", Txn::new().delete_path("/nodes/hv1/load", None)),
    ] {
        drain(two.store(), &mut watch).await;
        two.store().commit(txn).await.unwrap();
        fires(&mut watch, what).await;
    }
    drain(two.store(), &mut watch).await;
    // A name that begins alike is another subtree: a watch of that one shows when the hint would be here.
    let mut other = one.store().watch_tree("/nodesx");
    drain(two.store(), &mut other).await;
    two.store()
        .commit(Txn::new().overwrite_path("/nodesx", ""))
        .await
        .unwrap();
    fires(&mut other, "the subtree beside it").await;
    assert_eq!(watch.changed().now_or_never(), None);
}

// A watch that died with its session would leave an agent to its timer, and its users to seconds of delay, for ever.
pub async fn a_watch_outlives_connections_and_sessions(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    let txn = Txn::new().create_path("/nodes", "").create_path("/elsewhere", "");
    one.store().commit(txn).await.unwrap();
    let mut watch = one.store().watch_tree("/nodes");
    drain(two.store(), &mut watch).await;

    one.disconnect().await;
    drain(two.store(), &mut watch).await;
    two.store()
        .commit(Txn::new().overwrite_path("/nodes", "missed"))
        .await
        .unwrap();
    one.reconnect().await;
    fires(&mut watch, "a change while disconnected").await;
    // zookeeper-client 0.11.2 does not set persistent watches again after a reconnection: what came later went unseen.
    drain(two.store(), &mut watch).await;
    two.store()
        .commit(Txn::new().overwrite_path("/nodes", "later"))
        .await
        .unwrap();
    fires(&mut watch, "a change after the reconnection").await;

    one.expire().await;
    fires(&mut watch, "a new session").await;
    drain(two.store(), &mut watch).await;
    two.store()
        .commit(Txn::new().overwrite_path("/nodes", "seen"))
        .await
        .unwrap();
    fires(&mut watch, "a change in the new session").await;
}
