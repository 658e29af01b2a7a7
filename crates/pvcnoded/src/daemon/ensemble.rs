//! Whether the coordination store keeps the times that the cluster's promises are made with.
//!
//! With Debian's times (tickTime 2000, syncLimit 5) the loss of ZooKeeper's leader costs a healthy primary its addresses
//! and delays every fence. The configuration of this host's server may be looked at by `--check-config`, but it need not
//! be the one that runs; what the ensemble grants is. It grants no session shorter than two ticks.

use std::time::Duration;

use pvc_common::clock::HostClock;
use pvc_common::config::Config;
use pvc_common::faults::{Fault, clear, fault_id, raise};
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use tracing::{debug, warn};

use super::store_options;

/// What is asked for, and granted by an ensemble with tickTime 500.
const ASKED: Duration = Duration::from_secs(1);
/// How long a session may take to begin.
const WITHIN: Duration = Duration::from_secs(30);
/// An ensemble is seldom set up anew.
const EVERY: Duration = Duration::from_secs(3600);

/// Asks for a short session now and then, and raises a fault while a longer one is granted. Runs until dropped.
pub(super) async fn watch_ensemble(config: Config, store: ZooKeeperStore) {
    use pvc_common::clock::Clock as _;
    let id = fault_id(&["STORE_TIMES", config.node.as_str()]);
    loop {
        let probe = ZooKeeperStore::connect(ZooKeeperOptions {
            session_timeout: ASKED,
            ..store_options(&config)
        });
        probe.wait_connected(WITHIN).await;
        let granted = probe.session_timeout();
        drop(probe);
        let told = match granted.map(fault_text) {
            // Not known: an earlier judgement stands.
            None => Ok(()),
            Some(None) => clear(&store, &id).await,
            Some(Some(message)) => {
                warn!(message, "the coordination store is set up too slowly");
                let fault = Fault {
                    id: id.clone(),
                    delta: 25,
                    message,
                };
                raise(&store, &HostClock, &fault).await.map(|_| ())
            }
        };
        if let Err(error) = told {
            debug!(%error, "a fault about the coordination store's times was not written");
        }
        HostClock.sleep(EVERY).await;
    }
}

/// What is wrong, if an ensemble that was asked for [`ASKED`] grants this.
fn fault_text(granted: Duration) -> Option<String> {
    (granted > ASKED).then(|| {
        format!(
            "ZooKeeper grants no session shorter than {:.1} s, so its tickTime is about {} ms (or minSessionTimeout is set): \
             the times of fail-over can't be kept, and the primary loses its addresses when a leader is lost. Set tickTime=500 \
             and syncLimit=4 on all its servers",
            granted.as_secs_f64(),
            granted.as_millis() / 2
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_with_slow_ticks_is_a_fault_and_ours_is_none() {
        assert_eq!(fault_text(Duration::from_secs(1)), None);
        let debian = fault_text(Duration::from_secs(4)).unwrap();
        assert!(debian.contains("4.0 s") && debian.contains("2000 ms"), "{debian}");
    }
}
