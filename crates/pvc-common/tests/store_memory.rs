//! The store's contract on the implementation in memory.

use pvc_common::store::memory::{Fate, MemoryServer, MemoryStore};
use pvc_common::store::{SessionState, Store, StoreError, Txn, Watch, ZnodeVersion};

use contract::{Ensemble, FaultyClient, Hidden, session_is};

mod contract;

async fn start() -> MemoryServer {
    MemoryServer::new()
}

contract!(start);

impl Ensemble for MemoryServer {
    type Client = MemoryStore;

    async fn client(&self) -> MemoryStore {
        MemoryServer::client(self)
    }
}

impl FaultyClient for MemoryStore {
    type Store = MemoryStore;

    fn store(&self) -> &MemoryStore {
        self
    }

    async fn disconnect(&self) {
        MemoryStore::disconnect(self);
        session_is(self, SessionState::Disconnected).await;
    }

    async fn reconnect(&self) {
        MemoryStore::reconnect(self);
        session_is(self, SessionState::Connected).await;
    }

    async fn expire(&self) {
        MemoryStore::expire(self);
        MemoryStore::reconnect(self);
    }

    async fn hide_next_write(&self, hidden: Hidden) {
        MemoryStore::hide_next_write(
            self,
            match hidden {
                Hidden::Lost => Fate::Lost,
                Hidden::Applied => Fate::Applied,
            },
        );
    }
}

// What follows can be done on order in memory only.

#[tokio::test]
async fn a_client_cut_off_learns_of_its_expiry_when_it_connects() {
    let server = MemoryServer::new();
    let (one, two) = (server.client(), server.client());
    let path = one.create_ephemeral_sequential("/e", b"").await.unwrap();
    one.disconnect();
    one.expire();
    assert_eq!(one.session(), SessionState::Disconnected);
    assert_eq!(two.read(&path).await, Ok(None));
    one.reconnect();
    assert_eq!(one.session(), SessionState::Expired);
    assert_eq!(one.read("/").await, Err(StoreError::SessionExpired));
    assert_eq!(
        one.commit(Txn::new().create_path("/a", "")).await,
        Err(StoreError::SessionExpired)
    );
    one.reconnect();
    assert_eq!(one.session(), SessionState::Connected);
    assert_eq!(one.read("/a").await, Ok(None));
}

#[tokio::test]
async fn a_late_write_is_applied_on_reconnection_unless_a_check_or_the_session_stops_it() {
    let server = MemoryServer::new();
    let (one, two) = (server.client(), server.client());
    two.commit(Txn::new().create_path("/a", "0").create_path("/b", "0"))
        .await
        .unwrap();
    for path in ["/a", "/b"] {
        one.hide_next_write(Fate::AppliedOnReconnect);
        let late = one
            .commit(Txn::new().set_path(path, "late", ZnodeVersion(0)))
            .await;
        assert!(matches!(late, Err(StoreError::Unknown { .. })), "{late:?}");
    }
    one.disconnect();
    two.commit(Txn::new().overwrite_path("/b", "meanwhile"))
        .await
        .unwrap();
    assert_eq!(two.read("/a").await.unwrap().unwrap().data, b"0");
    one.reconnect();
    assert_eq!(two.read("/a").await.unwrap().unwrap().data, b"late");
    assert_eq!(two.read("/b").await.unwrap().unwrap().data, b"meanwhile");

    one.hide_next_write(Fate::AppliedOnReconnect);
    assert!(
        one.commit(Txn::new().overwrite_path("/a", "later"))
            .await
            .is_err()
    );
    one.expire();
    one.reconnect();
    assert_eq!(two.read("/a").await.unwrap().unwrap().data, b"late");
}

#[tokio::test]
async fn without_quorum_every_client_is_disconnected_and_keeps_its_session() {
    let server = MemoryServer::new();
    let (one, two) = (server.client(), server.client());
    let path = one.create_ephemeral_sequential("/e", b"").await.unwrap();
    let mut watch = two.watch_tree("/");
    two.disconnect();
    server.lose_quorum();
    assert_eq!(one.session(), SessionState::Disconnected);
    let refused = one.read("/").await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    server.restore_quorum();
    assert_eq!(one.session(), SessionState::Connected);
    assert_eq!(two.session(), SessionState::Disconnected);
    assert!(one.read(&path).await.unwrap().is_some());
    two.reconnect();
    watch.changed().await;
}

#[tokio::test]
async fn a_lagging_follower_shows_the_past_until_the_client_writes() {
    let server = MemoryServer::new();
    let (one, two) = (server.client(), server.client());
    one.commit(Txn::new().create_path("/a", "old")).await.unwrap();
    one.lag();
    two.commit(Txn::new().overwrite_path("/a", "new")).await.unwrap();
    assert_eq!(one.read("/a").await.unwrap().unwrap().data, b"old");
    one.commit(Txn::new().check_path("/", ZnodeVersion(0)))
        .await
        .unwrap();
    assert_eq!(one.read("/a").await.unwrap().unwrap().data, b"new");
}
