//! The coordination store on ZooKeeper.
//!
//! A background task keeps a client: it connects, and makes a new client when a session has ended, which the library
//! never does by itself. What the library does and we must not pass on:
//!
//! * a request whose future was dropped is still sent, on reconnection if need be: so a write is given to it only
//!   while it is connected, and a write that timed out has an unknown outcome;
//! * a call without a deadline of its own waits as long as the session lives: each of ours has one.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use pvc_core::time::BootTime;
use tokio::sync::watch;
use zookeeper_client as zk;

use super::hints::HintWatch;
use super::limits::{check_bytes, check_path, check_paths, check_txn, parent};
use super::{Applied, Op, Scanned, SessionState, Store, StoreError, Txn, Znode, ZnodeVersion, Zxid};
use crate::clock::{Clock, HostClock};

mod outcome;
mod session;
mod tree_watch;

use session::{Current, supervise};

/// How long a read waits before it is tried again on a connection that has just failed.
const READ_AGAIN: Duration = Duration::from_millis(20);

/// How often a withdrawal looks for what it is to delete.
const WITHDRAW_AGAIN: Duration = Duration::from_millis(300);

/// How a ZooKeeper ensemble is reached.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// Its servers, `HOST:PORT,HOST:PORT`, with a path at the end if all our keys live below one.
    pub servers: String,
    /// How long the servers keep a session that they do not hear from. They may grant another; see
    /// [`ZooKeeperStore::session_timeout`].
    pub session_timeout: Duration,
    /// How long a server may be silent before another is tried. The client pings at three eighths of it when idle.
    pub connection_timeout: Duration,
    /// How long a call may take.
    pub call_deadline: Duration,
}

impl ZooKeeperOptions {
    /// The defaults for an ensemble as we ship it (tickTime 500, syncLimit 4).
    pub fn new(servers: impl Into<String>) -> ZooKeeperOptions {
        ZooKeeperOptions {
            servers: servers.into(),
            session_timeout: Duration::from_secs(5),
            connection_timeout: Duration::from_millis(600),
            // The API answers within 2 s that there is no quorum.
            call_deadline: Duration::from_millis(1500),
        }
    }
}

/// A client of a ZooKeeper ensemble. Clones share one session, which ends with the last of them.
#[derive(Clone)]
pub struct ZooKeeperStore {
    options: ZooKeeperOptions,
    current: watch::Receiver<Current>,
}

impl ZooKeeperStore {
    /// A store in state [`SessionState::Disconnected`], which connects in the background from now on. Must be called
    /// within a tokio runtime.
    pub fn connect(options: ZooKeeperOptions) -> ZooKeeperStore {
        let (sender, current) = watch::channel(Current::default());
        tokio::spawn(supervise(options.clone(), sender));
        ZooKeeperStore { options, current }
    }

    /// Waits for at most `deadline` until the store is connected; says whether it is.
    pub async fn wait_connected(&self, deadline: Duration) -> bool {
        HostClock
            .timeout(deadline, session::connected(self.current.clone()))
            .await
            .is_some()
    }

    /// The number of the session; `None` while there is none.
    pub fn session_id(&self) -> Option<i64> {
        self.with_client(|client| client.session_id().0)
    }

    /// How long the servers keep a session that they do not hear from, as they granted it; `None` while there is no
    /// session.
    pub fn session_timeout(&self) -> Option<Duration> {
        self.with_client(zk::Client::session_timeout)
    }

    /// What another client needs to take over the session: for tests that end it from outside.
    #[doc(hidden)]
    pub fn session_info(&self) -> Option<zk::SessionInfo> {
        self.with_client(|client| client.session().clone())
    }

    fn with_client<T>(&self, ask: impl FnOnce(&zk::Client) -> T) -> Option<T> {
        self.current.borrow().client.as_ref().map(ask)
    }

    /// The client, if a write may be given to it.
    fn ready(&self) -> Result<zk::Client, StoreError> {
        match self.session() {
            SessionState::Connected => self
                .with_client(zk::Client::clone)
                .ok_or_else(outcome::not_connected),
            SessionState::Disconnected => Err(outcome::not_connected()),
            SessionState::Expired => Err(StoreError::SessionExpired),
        }
    }

    /// Runs `attempt` until it has an answer of a server, waiting for a connection and trying again over lost ones:
    /// reading twice does no harm.
    async fn reading<T, F, Fut>(&self, attempt: F) -> Result<T, StoreError>
    where
        T: Send,
        F: Fn(zk::Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, zk::Error>> + Send,
    {
        if self.session() == SessionState::Expired {
            return Err(StoreError::SessionExpired);
        }
        let tries = async {
            loop {
                let client = session::connected(self.current.clone()).await;
                match attempt(client).await {
                    Ok(read) => return Ok(read),
                    Err(error) if outcome::read_may_be_repeated(&error) => HostClock.sleep(READ_AGAIN).await,
                    Err(error) => return Err(outcome::of_read(&error)),
                }
            }
        };
        HostClock
            .timeout(self.options.call_deadline, tries)
            .await
            .unwrap_or_else(|| Err(outcome::too_late_to_read(self.options.call_deadline)))
    }

    /// Waits for the answer to a write that was given to the client.
    async fn written<T: Send, E: Send>(
        &self,
        write: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<Result<T, E>, StoreError> {
        HostClock
            .timeout(self.options.call_deadline, write)
            .await
            .ok_or_else(|| outcome::too_late_to_write(self.options.call_deadline))
    }

    /// One pass of [`Store::withdraw_ephemeral`]: how many znodes it deleted.
    async fn withdraw(&self, prefix: &str) -> Result<usize, StoreError> {
        let above = parent(prefix);
        let names = self.children(above).await?.unwrap_or_default();
        let mut deleted = 0;
        for name in names {
            let path = if above == "/" {
                format!("/{name}")
            } else {
                format!("{above}/{name}")
            };
            if path.starts_with(prefix) {
                match self.commit(Txn::new().delete_path(path, None)).await {
                    Ok(_) | Err(StoreError::NoNode { .. }) => deleted += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(deleted)
    }
}

impl fmt::Debug for ZooKeeperStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperStore")
            .field("servers", &self.options.servers)
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

impl Store for ZooKeeperStore {
    type Watch = HintWatch;

    fn session(&self) -> SessionState {
        self.current.borrow().state()
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        check_path(path)?;
        self.reading(async |client| match client.get_data(path).await {
            Ok((data, stat)) => Ok(Some(znode(data, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        check_paths(paths)?;
        self.reading(async |client| {
            let mut reader = client.new_multi_reader();
            for path in paths {
                reader.add_get_data(path)?;
            }
            let results = reader.commit().await?;
            results.into_iter().map(read_result).collect()
        })
        .await
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        check_path(path)?;
        self.reading(async |client| match client.list_children(path).await {
            Ok(mut names) => {
                names.sort();
                Ok(Some(names))
            }
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn scan(&self, paths: &[String]) -> Result<Vec<Option<Scanned>>, StoreError> {
        check_paths(paths)?;
        self.reading(async |client| {
            let mut reader = client.new_multi_reader();
            for path in paths {
                reader.add_get_data(path)?;
            }
            let mut scanned = Vec::with_capacity(paths.len());
            let mut parents = Vec::new();
            for (path, result) in paths.iter().zip(reader.commit().await?) {
                if counts_children(&result) {
                    parents.push((scanned.len(), path));
                }
                scanned.push(read_result(result)?.map(|znode| Scanned {
                    znode,
                    children: Vec::new(),
                }));
            }
            // Most znodes have no children and need not be asked for them.
            let mut reader = client.new_multi_reader();
            for (_, path) in &parents {
                reader.add_get_children(path)?;
            }
            for ((index, _), result) in parents.iter().zip(reader.commit().await?) {
                if let Some(Some(scanned)) = scanned.get_mut(*index) {
                    scanned.children = children_result(result)?;
                }
            }
            Ok(scanned)
        })
        .await
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        check_txn(&txn)?;
        if txn.ops.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.ready()?;
        let mut writer = client.new_multi_writer();
        for op in &txn.ops {
            add(&mut writer, op).map_err(|error| outcome::refused(&error))?;
        }
        match self.written(writer.commit()).await? {
            Ok(results) => outcome::applied(&txn, results),
            Err(error) => Err(outcome::of_commit(&txn, error)),
        }
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        check_path(prefix)?;
        check_bytes(prefix.len() + data.len())?;
        let client = self.ready()?;
        let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
        match self.written(client.create(prefix, data, &options)).await? {
            Ok((_, sequence)) => Ok(format!("{prefix}{sequence}")),
            Err(zk::Error::NoNode) => Err(StoreError::NoNode {
                path: parent(prefix).to_owned(),
                index: 0,
            }),
            Err(error) => Err(outcome::of_write(&error)),
        }
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        let Some(session) = self.session_id() else { return };
        let store = self.clone();
        let prefix = prefix.to_owned();
        // After this time the servers have ended a session that could not reach them, and what it created is gone.
        let patience = self.session_timeout().unwrap_or(self.options.session_timeout) * 2;
        let deadline = HostClock.now() + patience;
        tokio::spawn(async move { store.keep_withdrawing(&prefix, session, deadline).await });
    }

    fn watch_tree(&self, path: &str) -> HintWatch {
        tree_watch::start(self.current.clone(), path, self.options.call_deadline)
    }
}

impl ZooKeeperStore {
    async fn keep_withdrawing(&self, prefix: &str, session: i64, deadline: BootTime) {
        // A whole path ends in its number; a mere prefix may belong to a creation that is still on its way.
        let whole = prefix.ends_with(|last: char| last.is_ascii_digit());
        while HostClock.now() < deadline {
            match self.withdraw(prefix).await {
                Ok(deleted) if deleted > 0 || whole => return,
                Ok(_) | Err(_) => {}
            }
            if self.session_id().is_some_and(|current| current != session) {
                return;
            }
            HostClock.sleep(WITHDRAW_AGAIN).await;
        }
        if self.session() != SessionState::Connected {
            tracing::warn!(
                prefix,
                "ephemeral znodes could not be withdrawn and end with their session"
            );
        }
    }
}

fn add(writer: &mut zk::MultiWriter<'_>, op: &Op) -> Result<(), zk::Error> {
    let version = |version: &Option<ZnodeVersion>| version.map(|version| version.0);
    match op {
        Op::Check { path, version } => writer.add_check_version(path, version.0),
        // Nobody writes the znode of a lock, so as long as it exists it has the version it was created with.
        Op::Guard { path } => writer.add_check_version(path, 0),
        Op::Create { path, data } => {
            let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
            writer.add_create(path, data, &options)
        }
        Op::Set {
            path,
            data,
            version: expected,
        } => writer.add_set_data(path, data, version(expected)),
        Op::Delete {
            path,
            version: expected,
        } => writer.add_delete(path, version(expected)),
    }
}

fn znode(data: Vec<u8>, stat: &zk::Stat) -> Znode {
    Znode {
        data,
        version: ZnodeVersion(stat.version),
        modified: Zxid(stat.mzxid),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's results may grow")]
fn read_result(result: zk::MultiReadResult) -> Result<Option<Znode>, zk::Error> {
    match result {
        zk::MultiReadResult::Data { data, stat } => Ok(Some(znode(data, &stat))),
        zk::MultiReadResult::Error {
            err: zk::Error::NoNode,
        } => Ok(None),
        zk::MultiReadResult::Error { err } => Err(err),
        // The library may add results; we ask for data alone.
        other => Err(zk::Error::UnexpectedError(format!(
            "asked for data, got {other:?}"
        ))),
    }
}

fn counts_children(result: &zk::MultiReadResult) -> bool {
    matches!(result, zk::MultiReadResult::Data { stat, .. } if stat.num_children > 0)
}

/// The names of a znode's children, sorted; none if it is gone meanwhile.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's results may grow")]
fn children_result(result: zk::MultiReadResult) -> Result<Vec<String>, zk::Error> {
    match result {
        zk::MultiReadResult::Children { mut children } => {
            children.sort();
            Ok(children)
        }
        zk::MultiReadResult::Error {
            err: zk::Error::NoNode,
        } => Ok(Vec::new()),
        zk::MultiReadResult::Error { err } => Err(err),
        other => Err(zk::Error::UnexpectedError(format!(
            "asked for children, got {other:?}"
        ))),
    }
}
