//! Typed reading of many values at once: from the mirror for what is shown, fresh from the store for what is decided.
//!
//! What is shown comes from the mirror's view. What a write depends on is read from the store as it is at that moment, in an
//! order that its author chooses: names and volumes, for example, must be unique over guests that no version covers, and a
//! view may show a part of a change a moment before the rest.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use futures::{StreamExt, TryStreamExt, stream};
use pvc_common::keys::{Container, Key, Value};
use pvc_common::mirror::View;
use pvc_common::store::{ReadError, Store, StoreError, Versioned, Znode};

/// Znodes that are at hand.
pub(crate) trait Reading {
    /// The znode at `path`; `None` if there is none.
    fn znode(&self, path: &str) -> Option<&Znode>;

    /// The value at `key`; `None` if there is no such znode.
    fn get<T: Value>(&self, key: &Key<T>) -> Result<Option<Versioned<T>>, ReadError> {
        key.decode(self.znode(key.path()))
    }

    /// The value at `key`, which must exist.
    fn require<T: Value>(&self, key: &Key<T>) -> Result<Versioned<T>, ReadError> {
        key.decode_required(self.znode(key.path()))
    }

    /// The value at `key`, or `otherwise` where there is none or it can not be read. Only for what is shown and
    /// decides nothing: one bad figure must not hide the rest of a list.
    fn shown<T: Value>(&self, key: &Key<T>, otherwise: T) -> T {
        match self.get(key) {
            Ok(Some(found)) => found.value,
            Ok(None) => otherwise,
            Err(error) => {
                tracing::debug!(%error, "a value can not be shown");
                otherwise
            }
        }
    }
}

impl Reading for View {
    fn znode(&self, path: &str) -> Option<&Znode> {
        View::znode(self, path)
    }
}

impl Reading for Snapshot {
    fn znode(&self, path: &str) -> Option<&Znode> {
        self.znodes.get(path)
    }
}

/// Znodes per multi-read. Larger ones would take the store longer than its other clients should wait.
const BATCH: usize = 400;
/// Reads under way at a time, for one request.
const AT_ONCE: usize = 4;

/// Znodes as they were just read from the store. Each batch is of one moment; a write that depends on what is in here
/// checks versions.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    znodes: HashMap<String, Znode>,
}

/// Which znodes to read.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Vec<String>);

impl Wanted {
    /// Reads that key as well.
    pub(crate) fn key<T>(&mut self, key: &Key<T>) -> &mut Wanted {
        self.0.push(key.path().to_owned());
        self
    }

    /// Reads the znode of that container as well.
    pub(crate) fn container<C>(&mut self, container: &Container<C>) -> &mut Wanted {
        self.0.push(container.path().to_owned());
        self
    }
}

impl Snapshot {
    /// Reads all that is wanted.
    pub(crate) async fn read<S: Store>(store: &S, wanted: Wanted) -> Result<Snapshot, StoreError> {
        let batches: Vec<Vec<String>> = wanted.0.chunks(BATCH).map(<[String]>::to_vec).collect();
        let read = stream::iter(batches)
            .map(|paths| async move {
                let znodes = store.read_many(&paths).await?;
                Ok::<_, StoreError>(paths.into_iter().zip(znodes).collect::<Vec<_>>())
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let znodes = read
            .into_iter()
            .flatten()
            .filter_map(|(path, znode)| Some((path, znode?)))
            .collect();
        Ok(Snapshot { znodes })
    }

    /// The znode of a container.
    pub(crate) fn container<C>(&self, container: &Container<C>) -> Option<&Znode> {
        self.znodes.get(container.path())
    }
}

/// The children of a container, as the store has them now. One whose name is not of the container's type is left out with a
/// warning: a stray znode must not hide everything else.
pub(crate) async fn children_of<S, C>(store: &S, container: &Container<C>) -> Result<Vec<C>, StoreError>
where
    S: Store,
    C: FromStr<Err: Display>,
{
    let names = store.children(container.path()).await?.unwrap_or_default();
    let read = |name: String| match name.parse() {
        Ok(child) => Some(child),
        Err(error) => {
            tracing::warn!(path = container.path(), name, %error, "a stray child is left out");
            None
        }
    };
    Ok(names.into_iter().filter_map(read).collect())
}
