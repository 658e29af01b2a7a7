//! Watches of subtrees, kept over connections and sessions.

use std::time::Duration;

use tokio::sync::watch;
use zookeeper_client as zk;

use super::session::{Current, connected};
use crate::clock::{Clock, HostClock};
use crate::store::Seen;
use crate::store::hints::{self, HintSender, HintWatch};

/// Pause before a watch that could not be set is tried again.
const SET_AGAIN: Duration = Duration::from_millis(200);

/// Watches `path` for as long as somebody looks.
pub(super) fn start(current: watch::Receiver<Current>, path: &str, deadline: Duration) -> HintWatch {
    let (sender, watch) = hints::channel(Seen::default());
    let path = path.to_owned();
    tokio::spawn(async move {
        tokio::select! {
            () = follow(current, &path, deadline, &sender) => {}
            () = sender.closed() => {}
        }
    });
    watch
}

/// Sets the watch in one session after another, and anew after each reconnection: the library (0.11.2) forgets to set
/// persistent watches again, and without them every change would be noticed by a timer only.
async fn follow(current: watch::Receiver<Current>, path: &str, deadline: Duration, hints: &HintSender) {
    // Kept until the next one is set: dropping the last one of a path takes the watch from the server.
    let mut before = None;
    loop {
        let client = connected(current.clone()).await;
        let set = client.watch(path, zk::AddWatchMode::PersistentRecursive);
        match HostClock.timeout(deadline, set).await {
            Some(Ok(mut watcher)) => {
                drop(before.take());
                // What happened before it was set went unseen.
                hints.anything();
                if until_lost(&mut watcher, hints).await == Lost::WithConnection {
                    before = Some(watcher);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(path, %error, "watch could not be set");
                HostClock.sleep(SET_AGAIN).await;
            }
            None => tracing::debug!(path, "watch could not be set in time"),
        }
    }
}

/// How a watch was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Its session has ended.
    WithSession,
    /// The connection was lost, and there is a new one.
    WithConnection,
}

async fn until_lost(watcher: &mut zk::PersistentWatcher, hints: &HintSender) -> Lost {
    loop {
        let event = watcher.changed().await;
        if event.event_type == zk::EventType::Session {
            hints.anything();
        } else {
            hints.path(&event.path);
        }
        // The library panics when a watcher is asked again after the session's last event.
        if is_last(&event) {
            return Lost::WithSession;
        }
        if event.event_type == zk::EventType::Session
            && event.session_state == zk::SessionState::SyncConnected
        {
            return Lost::WithConnection;
        }
    }
}

fn is_last(event: &zk::WatchedEvent) -> bool {
    event.event_type == zk::EventType::Session && event.session_state.is_terminated()
}
