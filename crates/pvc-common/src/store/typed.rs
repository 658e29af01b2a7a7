//! Reading and writing through typed keys.

use std::fmt::Display;
use std::future::Future;
use std::str::FromStr;

use super::{Store, StoreError, Txn, Znode, ZnodeVersion, Zxid};
use crate::keys::values::InvalidValue;
use crate::keys::{Container, Key, Value};

/// A value with what is needed to write depending on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The version to name when writing what depends on it.
    pub version: ZnodeVersion,
    /// The write that made it.
    pub modified: Zxid,
}

/// How many znodes of a tree are read at once, so that a request stays far below its limit of a megabyte.
const READ_AT_ONCE: usize = 1000;

/// Why a value could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The znode must exist and does not.
    #[error("{path} does not exist")]
    Missing {
        /// Its path.
        path: String,
    },
    /// The znode holds something that is not of its key's type.
    #[error("{path} holds {invalid}")]
    Value {
        /// Its path.
        path: String,
        /// What it holds instead.
        invalid: InvalidValue,
    },
    /// A child's name is not of its container's type.
    #[error("{path} has a child named {name:?} ({reason})")]
    Child {
        /// The container's path.
        path: String,
        /// The child's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Typed reading on every [`Store`].
pub trait StoreExt: Store {
    /// The value at `key`; `None` if there is no such znode.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get<T: Value>(
        &self,
        key: &Key<T>,
    ) -> impl Future<Output = Result<Option<Versioned<T>>, ReadError>> + Send {
        let path = key.path().to_owned();
        let key = key.clone();
        async move { key.decode(self.read(&path).await?.as_ref()) }
    }

    /// The value at `key`, which must exist.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Missing`] if there is no such znode.
    fn require<T: Value>(
        &self,
        key: &Key<T>,
    ) -> impl Future<Output = Result<Versioned<T>, ReadError>> + Send {
        let key = key.clone();
        async move { key.decode_required(self.read(key.path()).await?.as_ref()) }
    }

    /// The values at `keys`, in their order, all as of one moment.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get_many<T: Value>(
        &self,
        keys: &[Key<T>],
    ) -> impl Future<Output = Result<Vec<Option<Versioned<T>>>, ReadError>> + Send {
        let keys = keys.to_vec();
        async move {
            let paths: Vec<String> = keys.iter().map(|key| key.path().to_owned()).collect();
            let znodes = self.read_many(&paths).await?;
            keys.iter()
                .zip(&znodes)
                .map(|(key, znode)| key.decode(znode.as_ref()))
                .collect()
        }
    }

    /// The children of `container`, sorted by their stored names. A container that does not exist has none.
    ///
    /// # Errors
    /// [`ReadError::Child`] for a child whose name is not of the container's type.
    fn children_as<C: FromStr<Err: Display> + Send>(
        &self,
        container: &Container<C>,
    ) -> impl Future<Output = Result<Vec<C>, ReadError>> + Send {
        let path = container.path().to_owned();
        async move {
            let names = self.children(&path).await?.unwrap_or_default();
            names
                .into_iter()
                .map(|name| {
                    name.parse().map_err(|error: C::Err| ReadError::Child {
                        path: path.clone(),
                        reason: error.to_string(),
                        name,
                    })
                })
                .collect()
        }
    }

    /// Deletes `path` and everything below it, as one transaction over the tree as it was read: if someone changed,
    /// added or removed a part of it meanwhile, nothing is deleted. A path that does not exist is success.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::BadVersion`], [`StoreError::NoNode`] or [`StoreError::NotEmpty`] the tree
    /// moved: read and decide again.
    fn delete_recursive(&self, path: &str) -> impl Future<Output = Result<(), StoreError>> + Send {
        let root = path.to_owned();
        async move {
            let tree = self.read_tree(&root).await?;
            if tree.is_empty() {
                return Ok(());
            }
            let mut txn = Txn::new();
            for (path, znode) in tree.iter().rev() {
                txn = txn.delete_path(path, Some(znode.version));
            }
            self.commit(txn).await.map(|_| ())
        }
    }

    /// `path` and everything below it, parents before their children; empty if there is no such znode. Each level is
    /// read by itself, so this is not of one moment: a write that depends on it checks the versions.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read_tree(&self, path: &str) -> impl Future<Output = Result<Vec<(String, Znode)>, StoreError>> + Send {
        let root = path.to_owned();
        async move {
            let mut tree = Vec::new();
            let mut level = vec![root];
            while !level.is_empty() {
                let mut znodes = Vec::with_capacity(level.len());
                for part in level.chunks(READ_AT_ONCE) {
                    znodes.extend(self.read_many(part).await?);
                }
                let mut next = Vec::new();
                for (path, znode) in level.into_iter().zip(znodes) {
                    let Some(znode) = znode else { continue };
                    let children = self.children(&path).await?.unwrap_or_default();
                    next.extend(children.into_iter().map(|child| join(&path, &child)));
                    tree.push((path, znode));
                }
                level = next;
            }
            Ok(tree)
        }
    }
}

impl<S: Store> StoreExt for S {}

fn join(parent: &str, child: &str) -> String {
    if parent == "/" {
        format!("/{child}")
    } else {
        format!("{parent}/{child}")
    }
}

impl Txn {
    /// Only if the znode at `key` still has `version`.
    #[must_use]
    pub fn check<T>(self, key: &Key<T>, version: ZnodeVersion) -> Txn {
        self.check_path(key.path(), version)
    }

    /// Creates the znode at `key`.
    #[must_use]
    pub fn create<T: Value>(self, key: &Key<T>, value: &T) -> Txn {
        self.create_path(key.path(), value.encode())
    }

    /// Writes the znode at `key`, which must have `version`.
    #[must_use]
    pub fn set<T: Value>(self, key: &Key<T>, value: &T, version: ZnodeVersion) -> Txn {
        self.set_path(key.path(), value.encode(), version)
    }

    /// Writes the znode at `key` whatever its version: for values that only their writer owns and that depend on
    /// nothing read (statistics, readings).
    #[must_use]
    pub fn overwrite<T: Value>(self, key: &Key<T>, value: &T) -> Txn {
        self.overwrite_path(key.path(), value.encode())
    }

    /// Deletes the znode at `key`, which must have `version` if one is given.
    #[must_use]
    pub fn delete<T>(self, key: &Key<T>, version: Option<ZnodeVersion>) -> Txn {
        self.delete_path(key.path(), version)
    }

    /// All operations of `other` after those of `self`.
    #[must_use]
    pub fn and(mut self, other: Txn) -> Txn {
        self.ops.extend(other.ops);
        self
    }
}
