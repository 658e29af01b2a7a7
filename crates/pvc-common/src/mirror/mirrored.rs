//! A store that shows its writer what he wrote.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Mirror, View};
use crate::clock::Clock;
use crate::store::{Applied, Op, Scanned, SessionState, Store, StoreError, Txn, Znode, ZnodeVersion};

/// How long a commit waits for the mirror. What is written shows within some milliseconds; if it does not, the mirror is
/// reading everything again, and the caller is told of his success rather than kept.
const SHOWN_WITHIN: Duration = Duration::from_millis(500);

/// A store whose commits return when a mirror shows them, or after half a second. Reads go to the store.
#[derive(Clone)]
pub struct Mirrored<S, C> {
    store: S,
    mirror: Mirror,
    clock: C,
}

impl<S: Store, C: Clock> Mirrored<S, C> {
    /// The store with that mirror of it.
    pub fn new(store: S, mirror: Mirror, clock: C) -> Mirrored<S, C> {
        Mirrored { store, mirror, clock }
    }
}

impl<S, C> fmt::Debug for Mirrored<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirrored")
            .field("mirror", &self.mirror)
            .finish_non_exhaustive()
    }
}

impl<S: Store, C: Clock> Store for Mirrored<S, C> {
    type Watch = S::Watch;

    fn session(&self) -> SessionState {
        self.store.session()
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        self.store.read(path).await
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        self.store.read_many(paths).await
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        self.store.children(path).await
    }

    async fn scan(&self, paths: &[String]) -> Result<Vec<Option<Scanned>>, StoreError> {
        self.store.scan(paths).await
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        let written: Vec<String> = txn.ops.iter().map(|op| path(op).to_owned()).collect();
        let applied = self.store.commit(txn).await?;
        let left = left_behind(&self.mirror, written, &applied);
        if !left.is_empty() {
            let shown = self
                .mirror
                .wait_for(|view| left.iter().all(|(path, left)| left.is_in(path, view)));
            if self.clock.timeout(SHOWN_WITHIN, shown).await.is_none() {
                tracing::debug!("the mirror does not show a write yet");
            }
        }
        Ok(applied)
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        self.store.create_ephemeral_sequential(prefix, data).await
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        self.store.withdraw_ephemeral(prefix);
    }

    fn watch_tree(&self, path: &str) -> S::Watch {
        self.store.watch_tree(path)
    }
}

/// What a transaction left at a path; of several operations on it the last counts.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// A znode that was created by it, with this version now.
    New(ZnodeVersion),
    /// A znode that was there before, with this version now.
    Written(ZnodeVersion),
    /// Nothing.
    Gone,
}

impl Left {
    /// Whether `view` shows this or something later at `path`.
    fn is_in(self, path: &str, view: &View) -> bool {
        match (self, view.znode(path)) {
            (Left::New(version) | Left::Written(version), Some(znode)) => znode.version >= version,
            (Left::New(_), None) => false,
            // It was deleted since.
            (Left::Written(_), None) | (Left::Gone, None) => true,
            // Created again by somebody, or still there: it can not be told which, and the wait has a limit.
            (Left::Gone, Some(_)) => false,
        }
    }
}

/// What is at the mirrored paths after a transaction.
fn left_behind(mirror: &Mirror, written: Vec<String>, applied: &[Applied]) -> BTreeMap<String, Left> {
    let mut left = BTreeMap::new();
    for (path, applied) in written.into_iter().zip(applied) {
        if !mirror.covers(&path) {
            continue;
        }
        let now = match (applied, left.get(&path)) {
            (Applied::Checked, _) => continue,
            (Applied::Created, _) => Left::New(ZnodeVersion(0)),
            (Applied::Set(version), Some(Left::New(_))) => Left::New(*version),
            (Applied::Set(version), Some(Left::Written(_) | Left::Gone) | None) => Left::Written(*version),
            (Applied::Deleted, _) => Left::Gone,
        };
        left.insert(path, now);
    }
    left
}

fn path(op: &Op) -> &str {
    match op {
        Op::Check { path, .. }
        | Op::Guard { path }
        | Op::Create { path, .. }
        | Op::Set { path, .. }
        | Op::Delete { path, .. } => path,
    }
}
