//! The coordination store.
//!
//! One trait, [`Store`], over what ZooKeeper offers, with two implementations that pass one contract test suite. A
//! caller can always tell apart what it must treat differently:
//!
//! | outcome | what the caller does |
//! |---|---|
//! | [`StoreError::NoNode`], [`StoreError::NodeExists`], [`StoreError::BadVersion`] | someone else moved: re-read, decide again |
//! | [`StoreError::LockLost`] | stop acting as holder; begin from observe |
//! | [`StoreError::Unknown`] | the write may have been applied, or may still be: re-read before anything else |
//! | [`StoreError::Unavailable`] | nothing was written: try again, or answer that the store has no quorum |
//! | [`StoreError::SessionExpired`] | every lock and ephemeral node of ours is gone |

use std::collections::BTreeSet;
use std::future::Future;

mod hints;
mod limits;
pub mod memory;
mod typed;
pub mod zookeeper;

pub use hints::HintWatch;
pub use pvc_core::ids::ZnodeVersion;
pub use typed::{ReadError, StoreExt, Versioned};

/// A point in the store's order of writes (ZooKeeper's zxid).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

/// A znode as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// Its bytes.
    pub data: Vec<u8>,
    /// The version to name when writing what depends on these bytes.
    pub version: ZnodeVersion,
    /// The write that made these bytes.
    pub modified: Zxid,
}

/// A znode with the names of its children, as [`Store::scan`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The znode.
    pub znode: Znode,
    /// Its children's names, sorted. Read a little later than the znode.
    pub children: Vec<String>,
}

/// How the store's session is, as this client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Reads and writes go through.
    Connected,
    /// No server answers; locks and ephemeral nodes may or may not be there still.
    Disconnected,
    /// Locks and ephemeral nodes are gone. A new session is being made.
    Expired,
}

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The znode that was to be changed or checked, or the parent of the one to be created, does not exist. Nothing
    /// was written.
    #[error("{path} does not exist")]
    NoNode {
        /// The path that does not exist.
        path: String,
        /// Its place in the transaction, from 0.
        index: usize,
    },
    /// The znode that was to be created exists. Nothing was written.
    #[error("{path} exists already")]
    NodeExists {
        /// Its path.
        path: String,
        /// Its place in the transaction, from 0.
        index: usize,
    },
    /// The znode has another version than the one named. Nothing was written.
    #[error("{path} has changed since it was read")]
    BadVersion {
        /// Its path.
        path: String,
        /// Its place in the transaction, from 0.
        index: usize,
    },
    /// The znode that was to be deleted has children. Nothing was written.
    #[error("{path} has children")]
    NotEmpty {
        /// Its path.
        path: String,
        /// Its place in the transaction, from 0.
        index: usize,
    },
    /// The lock that guards this write is not held any more. Nothing was written.
    #[error("the lock {path} is no longer held")]
    LockLost {
        /// The lock's own znode.
        path: String,
    },
    /// The connection was lost, or the deadline passed, while a write was under way: it may have been applied and may
    /// still be applied later. Re-read before acting.
    #[error("the outcome of the write is unknown ({reason})")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The store did not answer in time or has no quorum. Nothing was written.
    #[error("the coordination store is not available ({reason})")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The session has ended, and with it every lock and ephemeral node. Nothing was written by this call.
    #[error("the session with the coordination store has expired")]
    SessionExpired,
    /// The store refused the request itself (a malformed path, a value that is too large, no permission).
    #[error("the coordination store refused the request: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The znode exists and has this version.
    Check {
        /// Its path.
        path: String,
        /// The version it must have.
        version: ZnodeVersion,
    },
    /// The znode of a lock that we hold exists. Failure is [`StoreError::LockLost`].
    Guard {
        /// The lock's own znode.
        path: String,
    },
    /// Creates a persistent znode; its parent must exist.
    Create {
        /// Its path.
        path: String,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// Writes a znode that exists.
    Set {
        /// Its path.
        path: String,
        /// Its new bytes.
        data: Vec<u8>,
        /// The version it must have; `None` only from [`Txn::overwrite`].
        version: Option<ZnodeVersion>,
    },
    /// Deletes a znode without children.
    Delete {
        /// Its path.
        path: String,
        /// The version it must have; `None` for any.
        version: Option<ZnodeVersion>,
    },
}

/// Writes and checks that are applied all together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// In the order given; errors name the index here.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction. Committing it does nothing.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Only if the znode at `path` still has `version`.
    #[must_use]
    pub fn check_path(mut self, path: impl Into<String>, version: ZnodeVersion) -> Txn {
        self.ops.push(Op::Check {
            path: path.into(),
            version,
        });
        self
    }

    /// Only if the lock whose own znode is `path` is still held.
    #[must_use]
    pub fn guard_path(mut self, path: impl Into<String>) -> Txn {
        self.ops.push(Op::Guard { path: path.into() });
        self
    }

    /// Creates the znode at `path`.
    #[must_use]
    pub fn create_path(mut self, path: impl Into<String>, data: impl Into<Vec<u8>>) -> Txn {
        self.ops.push(Op::Create {
            path: path.into(),
            data: data.into(),
        });
        self
    }

    /// Writes the znode at `path`, which must have `version`.
    #[must_use]
    pub fn set_path(
        mut self,
        path: impl Into<String>,
        data: impl Into<Vec<u8>>,
        version: ZnodeVersion,
    ) -> Txn {
        self.ops.push(Op::Set {
            path: path.into(),
            data: data.into(),
            version: Some(version),
        });
        self
    }

    /// Writes the znode at `path` whatever its version: for values that only their writer owns and that depend on
    /// nothing read (statistics, readings).
    #[must_use]
    pub fn overwrite_path(mut self, path: impl Into<String>, data: impl Into<Vec<u8>>) -> Txn {
        self.ops.push(Op::Set {
            path: path.into(),
            data: data.into(),
            version: None,
        });
        self
    }

    /// Deletes the znode at `path`, which must have `version` if one is given.
    #[must_use]
    pub fn delete_path(mut self, path: impl Into<String>, version: Option<ZnodeVersion>) -> Txn {
        self.ops.push(Op::Delete {
            path: path.into(),
            version,
        });
        self
    }
}

/// What one operation of a committed transaction left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// A check or guard held.
    Checked,
    /// The znode was created, with version 0.
    Created,
    /// The znode was written and has this version now.
    Set(ZnodeVersion),
    /// The znode is gone.
    Deleted,
}

impl Applied {
    /// The version that the znode has after this operation; `None` after a check or a deletion.
    pub fn version(self) -> Option<ZnodeVersion> {
        match self {
            Applied::Created => Some(ZnodeVersion(0)),
            Applied::Set(version) => Some(version),
            Applied::Checked | Applied::Deleted => None,
        }
    }
}

/// Says that something below a path may have changed.
///
/// It is a hint and carries nothing: a missed one costs time and nothing else, since rounds also run by timer.
pub trait Watch: Send + 'static {
    /// Returns when something below the path has changed since the last return (or since the watch was made), and
    /// after every loss of the connection. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// As [`Watch::changed`], and says where. The first return tells to look everywhere, once the watch is set.
    /// A change that a read would show has been told by then, or comes later: whoever looks at what he is told
    /// misses nothing. Cancel-safe.
    fn changes(&mut self) -> impl Future<Output = Seen> + Send;
}

/// Where something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Znodes were created, written or deleted at these paths.
    Paths(BTreeSet<String>),
    /// Changes may have gone unseen: the watch was only now set, or was gone for a time, or there were too many.
    Anything,
}

impl Seen {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        match self {
            Seen::Paths(paths) => paths.is_empty(),
            Seen::Anything => false,
        }
    }
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::Paths(BTreeSet::new())
    }
}

/// A client of the coordination store. Clones share one session.
///
/// Every call has a deadline of its own (set where the client is made) and never hangs.
pub trait Store: Clone + Send + Sync + 'static {
    /// What [`Store::watch_tree`] returns.
    type Watch: Watch;

    /// How the session is now.
    fn session(&self) -> SessionState;

    /// The znode at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::SessionExpired`].
    fn read(&self, path: &str) -> impl Future<Output = Result<Option<Znode>, StoreError>> + Send;

    /// The znodes at `paths`, in their order, all as of one moment (one multi-read). A request may carry a megabyte:
    /// some 5,000 paths.
    ///
    /// # Errors
    /// As [`Store::read`]; [`StoreError::Refused`] for too many paths at once.
    fn read_many(
        &self,
        paths: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Znode>>, StoreError>> + Send;

    /// The names of the children of `path`, sorted; `None` if there is no such znode.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn children(&self, path: &str) -> impl Future<Output = Result<Option<Vec<String>>, StoreError>> + Send;

    /// The znodes at `paths` with the names of their children, in the paths' order.
    ///
    /// # Errors
    /// As [`Store::read_many`].
    fn scan(
        &self,
        paths: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Scanned>>, StoreError>> + Send {
        async move {
            let mut scanned = Vec::with_capacity(paths.len());
            for (path, znode) in paths.iter().zip(self.read_many(paths).await?) {
                scanned.push(match znode {
                    Some(znode) => Some(Scanned {
                        znode,
                        children: self.children(path).await?.unwrap_or_default(),
                    }),
                    None => None,
                });
            }
            Ok(scanned)
        }
    }

    /// Applies a transaction; answers with what each operation left behind.
    ///
    /// # Errors
    /// Any [`StoreError`]. Only after [`StoreError::Unknown`] may something have been written.
    ///
    /// # Cancellation
    /// A dropped call may still be applied later, as after [`StoreError::Unknown`].
    fn commit(&self, txn: Txn) -> impl Future<Output = Result<Vec<Applied>, StoreError>> + Send;

    /// Creates a znode that ends with the session, at `prefix` followed by a number that grows with each creation
    /// below that parent. Answers with its path.
    ///
    /// # Errors
    /// As [`Store::commit`]. After [`StoreError::Unknown`] look for a child with this prefix.
    fn create_ephemeral_sequential(
        &self,
        prefix: &str,
        data: &[u8],
    ) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Deletes the ephemeral znodes of this client whose path begins with `prefix`, beside the caller and as soon as
    /// the connection allows: the clean-up of a contender whose creation or deletion has no known outcome. Gives up,
    /// with a warning in the log, when it cannot be done before the session would have ended anyway. The prefix must
    /// be unique to the caller.
    fn withdraw_ephemeral(&self, prefix: &str);

    /// Watches `path` and everything below it. The watch survives reconnections and new sessions.
    fn watch_tree(&self, path: &str) -> Self::Watch;
}
