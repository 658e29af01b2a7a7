//! The store's contract on ZooKeeper, against a real server, and what only a real server can do.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvc_common::store::{SessionState, Store, StoreError, Txn, ZnodeVersion};
use tokio::sync::OnceCell;
use zookeeper_client as zk;

use contract::{Ensemble, FaultyClient, Hidden, eventually, session_is};
use ensemble::Server;
use ensemble::proxy::{Mode, Proxy};

mod contract;
mod ensemble;

/// One server for all tests of the contract; each has a tree of its own.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static TREES: AtomicU32 = AtomicU32::new(0);

struct Tree {
    server: &'static Server,
    path: String,
}

struct Client {
    server: &'static Server,
    proxy: Proxy,
    store: ZooKeeperStore,
}

async fn start() -> Tree {
    let server = SERVER.get_or_init(Server::start).await;
    let path = format!("/tree-{}", TREES.fetch_add(1, Ordering::Relaxed));
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    server
        .client("")
        .await
        .create(&path, b"", &options)
        .await
        .unwrap();
    Tree { server, path }
}

contract!(start);

impl Ensemble for Tree {
    type Client = Client;

    async fn client(&self) -> Client {
        let proxy = Proxy::start(self.server.port()).await;
        let store = ZooKeeperStore::connect(ZooKeeperOptions::new(format!(
            "127.0.0.1:{}{}",
            proxy.port(),
            self.path
        )));
        assert!(store.wait_connected(Duration::from_secs(60)).await);
        Client {
            server: self.server,
            proxy,
            store,
        }
    }
}

impl FaultyClient for Client {
    type Store = ZooKeeperStore;

    fn store(&self) -> &ZooKeeperStore {
        &self.store
    }

    async fn disconnect(&self) {
        self.proxy.set(Mode::Cut);
        session_is(&self.store, SessionState::Disconnected).await;
    }

    async fn reconnect(&self) {
        self.proxy.set(Mode::Pass);
        session_is(&self.store, SessionState::Connected).await;
    }

    async fn expire(&self) {
        self.disconnect().await;
        let session = self.store.session_info().unwrap();
        let before = session.id().0;
        self.server.end_session(session, &format!("{before:x}")).await;
        self.proxy.set(Mode::Pass);
        eventually("another session", async || {
            self.store.session() == SessionState::Connected && self.store.session_id() != Some(before)
        })
        .await;
    }

    async fn hide_next_write(&self, hidden: Hidden) {
        self.proxy.set(match hidden {
            Hidden::Lost => Mode::LoseRequests,
            Hidden::Applied => Mode::LoseAnswers,
        });
    }
}

fn options(port: u16) -> ZooKeeperOptions {
    ZooKeeperOptions::new(format!("127.0.0.1:{port}"))
}

// An agent that starts before the ensemble, or an API daemon on a cluster without quorum, must come up and say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_made_without_a_server_and_connects_when_there_is_one() {
    let port = ensemble::free_port();
    let store = ZooKeeperStore::connect(options(port));
    assert_eq!(store.session(), SessionState::Disconnected);
    let start = HostClock.now();
    assert!(!store.wait_connected(Duration::from_millis(20)).await);
    let write = store.commit(Txn::new().create_path("/a", "")).await;
    assert!(matches!(write, Err(StoreError::Unavailable { .. })), "{write:?}");
    let read = store.read("/a").await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    assert!(HostClock.now().since(start) < Duration::from_secs(20));
    assert_eq!((store.session_id(), store.session_timeout()), (None, None));

    let _server = Server::start_on(port);
    assert!(store.wait_connected(Duration::from_secs(60)).await);
    assert_eq!(store.read("/a").await, Ok(None));
    assert_eq!(store.session_timeout(), Some(Duration::from_secs(5)));
}

// A server that hangs must neither hang its clients nor make them believe that a write failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_a_server_that_freezes_is_unknown_and_its_session_is_replaced() {
    let server = Server::start().await;
    let store = ZooKeeperStore::connect(ZooKeeperOptions {
        session_timeout: Duration::from_secs(1),
        ..options(server.port())
    });
    assert!(store.wait_connected(Duration::from_secs(60)).await);
    store.commit(Txn::new().create_path("/a", "0")).await.unwrap();
    let lock = store.create_ephemeral_sequential("/lock-", b"").await.unwrap();
    let session = store.session_id().unwrap();

    server.freeze();
    let write = store
        .commit(Txn::new().set_path("/a", "1", ZnodeVersion(0)))
        .await;
    assert!(matches!(write, Err(StoreError::Unknown { .. })), "{write:?}");
    let write = store
        .commit(Txn::new().set_path("/a", "1", ZnodeVersion(0)))
        .await;
    assert!(
        matches!(
            write,
            Err(StoreError::Unavailable { .. } | StoreError::SessionExpired)
        ),
        "{write:?}"
    );
    session_is(&store, SessionState::Expired).await;
    assert_eq!(store.read("/a").await, Err(StoreError::SessionExpired));
    server.thaw();

    session_is(&store, SessionState::Connected).await;
    assert_ne!(store.session_id(), Some(session));
    eventually("the old session's ephemeral znode is gone", async || {
        store.read(&lock).await == Ok(None)
    })
    .await;
    let version = store.read("/a").await.unwrap().unwrap().version;
    store
        .commit(Txn::new().set_path("/a", "2", version))
        .await
        .unwrap();
}

// A daemon that stops must not keep its locks from the others for a whole session timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_ends_with_the_last_handle() {
    let server = SERVER.get_or_init(Server::start).await;
    let store = ZooKeeperStore::connect(ZooKeeperOptions {
        session_timeout: Duration::from_secs(10),
        ..options(server.port())
    });
    assert!(store.wait_connected(Duration::from_secs(60)).await);
    let path = store.create_ephemeral_sequential("/last-", b"").await.unwrap();
    let witness = server.client("").await;
    let clone = store.clone();
    drop(store);
    clone.read("/").await.unwrap();
    assert!(witness.check_stat(&path).await.unwrap().is_some());
    let start = HostClock.now();
    drop(clone);
    eventually("the ephemeral znode is gone", async || {
        witness.check_stat(&path).await.unwrap().is_none()
    })
    .await;
    assert!(HostClock.now().since(start) < Duration::from_secs(8));
}
