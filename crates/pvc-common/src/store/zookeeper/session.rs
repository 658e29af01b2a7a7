//! The session: made, watched and replaced in the background.

use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::watch;
use zookeeper_client as zk;

use super::ZooKeeperOptions;
use crate::clock::{Clock, HostClock};
use crate::store::SessionState;

/// Pause before a session is tried for again: doubled with each failure, up to a second.
const BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// The client of the moment.
#[derive(Clone, Default)]
pub(super) struct Current {
    pub(super) client: Option<zk::Client>,
    /// There was a session, and it has ended.
    ended: bool,
}

impl Current {
    pub(super) fn state(&self) -> SessionState {
        match &self.client {
            Some(client) => match client.state() {
                zk::SessionState::SyncConnected => SessionState::Connected,
                // We never ask for read-only sessions; a client in one could not write.
                zk::SessionState::Disconnected | zk::SessionState::ConnectedReadOnly => {
                    SessionState::Disconnected
                }
                zk::SessionState::AuthFailed | zk::SessionState::Expired | zk::SessionState::Closed => {
                    SessionState::Expired
                }
            },
            None if self.ended => SessionState::Expired,
            None => SessionState::Disconnected,
        }
    }
}

/// Keeps a client in `current` until nobody looks at it any more.
pub(super) async fn supervise(options: ZooKeeperOptions, current: watch::Sender<Current>) {
    let mut back_off = BACK_OFF;
    loop {
        let connecting = zk::Client::connector()
            .with_session_timeout(options.session_timeout)
            .with_connection_timeout(options.connection_timeout)
            .connect(&options.servers);
        let connected = tokio::select! {
            connected = connecting => connected,
            () = current.closed() => return,
        };
        match connected {
            Ok(client) => {
                back_off = BACK_OFF;
                tracing::info!(
                    session = %client.session_id(),
                    timeout = ?client.session_timeout(),
                    "session with the coordination store begun"
                );
                let states = client.state_watcher();
                current.send_replace(Current {
                    client: Some(client),
                    ended: false,
                });
                let ended = tokio::select! {
                    ended = end_of(states) => ended,
                    () = current.closed() => return,
                };
                tracing::warn!(state = %ended, "session with the coordination store ended");
                current.send_replace(Current {
                    client: None,
                    ended: true,
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no session with the coordination store");
                tokio::select! {
                    () = HostClock.sleep(back_off) => {}
                    () = current.closed() => return,
                }
                back_off = (back_off * 2).min(LONGEST_BACK_OFF);
            }
        }
    }
}

/// Waits for the state in which the session ends.
async fn end_of(mut states: zk::StateWatcher) -> zk::SessionState {
    let mut state = states.peek_state();
    while !state.is_terminated() {
        tracing::debug!(%state, "connection to the coordination store");
        state = states.changed().await;
    }
    state
}

/// The client, as soon as it is connected; waits for ever if it never is.
pub(super) async fn connected(mut current: watch::Receiver<Current>) -> zk::Client {
    loop {
        let client = current.borrow_and_update().client.clone();
        let replaced = async {
            if current.changed().await.is_err() {
                // The runtime is shutting down, and with it every deadline.
                std::future::pending::<()>().await;
            }
        };
        let Some(client) = client else {
            replaced.await;
            continue;
        };
        let mut states = client.state_watcher();
        if states.peek_state() == zk::SessionState::SyncConnected {
            return client;
        }
        let changed = std::pin::pin!(states.changed());
        let replaced = std::pin::pin!(replaced);
        match select(changed, replaced).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}
