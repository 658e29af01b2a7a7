//! A store in which somebody else comes in between: right before a write, after everything that it was decided on had
//! been read. This is where a check of a version that is missing shows.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvc_common::clock::Clock as _;
use pvc_common::store::memory::{MemoryServer, MemoryStore};
use pvc_common::store::{Applied, SessionState, Store, StoreError, Txn, Znode};

use super::{VirtualClock, locked};

type Meddling = Box<dyn FnMut(&Txn) -> Option<Txn> + Send>;

type Happening = Box<dyn FnOnce() + Send>;

/// A client of an in-memory store, with somebody else beside it.
#[derive(Clone)]
pub struct MeddledStore {
    inner: MemoryStore,
    other: MemoryStore,
    clock: VirtualClock,
    meddling: Arc<Mutex<Option<Meddling>>>,
    delay: Arc<Mutex<Duration>>,
    before_read: Arc<Mutex<Option<(String, Happening)>>>,
}

impl MeddledStore {
    /// A new client of `server`; nobody meddles yet.
    pub fn new(server: &MemoryServer, clock: VirtualClock) -> MeddledStore {
        MeddledStore {
            inner: server.client(),
            other: server.client(),
            clock,
            meddling: Arc::default(),
            delay: Arc::default(),
            before_read: Arc::default(),
        }
    }

    /// From now on each write waits for what `meddling` makes of it to be written first.
    pub fn meddle(&self, meddling: impl FnMut(&Txn) -> Option<Txn> + Send + 'static) {
        *locked(&self.meddling) = Some(Box::new(meddling));
    }

    /// Right before the next read of the znode at `path` this happens.
    pub fn before_read(&self, path: &str, happening: impl FnOnce() + Send + 'static) {
        *locked(&self.before_read) = Some((path.to_owned(), Box::new(happening)));
    }

    /// From now on each write takes this long on its way, and its answer as long.
    pub fn delay_writes(&self, delay: Duration) {
        *locked(&self.delay) = delay;
    }
}

impl fmt::Debug for MeddledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeddledStore").finish_non_exhaustive()
    }
}

impl Store for MeddledStore {
    type Watch = <MemoryStore as Store>::Watch;

    fn session(&self) -> SessionState {
        self.inner.session()
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        let happening = locked(&self.before_read).take_if(|(awaited, _)| awaited == path);
        if let Some((_, happening)) = happening {
            happening();
        }
        self.inner.read(path).await
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        let happening = locked(&self.before_read).take_if(|(awaited, _)| paths.contains(awaited));
        if let Some((_, happening)) = happening {
            happening();
        }
        self.inner.read_many(paths).await
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        self.inner.children(path).await
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        let first = locked(&self.meddling)
            .as_mut()
            .and_then(|meddling| meddling(&txn));
        if let Some(first) = first {
            // Nobody else meddles with the meddler: what fails here fails in the test that asked for it.
            self.other.commit(first).await?;
        }
        let delay = *locked(&self.delay);
        if delay.is_zero() {
            return self.inner.commit(txn).await;
        }
        self.clock.sleep(delay).await;
        let outcome = self.inner.commit(txn).await;
        self.clock.sleep(delay).await;
        outcome
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        self.inner.create_ephemeral_sequential(prefix, data).await
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        self.inner.withdraw_ephemeral(prefix);
    }

    fn watch_tree(&self, path: &str) -> Self::Watch {
        self.inner.watch_tree(path)
    }
}
