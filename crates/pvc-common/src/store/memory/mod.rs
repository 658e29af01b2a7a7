//! The coordination store in memory: for tests and the simulator.
//!
//! A [`MemoryServer`] stands for the whole ensemble; each [`MemoryServer::client`] is a session of its own. It behaves
//! as ZooKeeper does (versions, zxids, ephemeral and sequential znodes, all-or-nothing transactions, watches that are
//! silent while disconnected) and fails on order: see the methods of [`MemoryStore`] and [`MemoryServer`]. It has no
//! timers and no tasks, so it runs on any executor; every call ends at its first poll.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hints::{self, HintSender, HintWatch};
use super::limits::{check_bytes, check_path, check_paths, check_txn};
use super::{Applied, Seen, SessionState, Store, StoreError, Txn, Znode};

mod tree;

use tree::Tree;

/// A session, numbered in the order of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SessionNumber(u64);

/// What becomes of a write whose answer its caller will not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never reaches the server.
    Lost,
    /// It is applied now.
    Applied,
    /// It waits in the client and is applied when the client reconnects in the same session, before anything else.
    AppliedOnReconnect,
}

/// The servers and their tree.
#[derive(Clone)]
pub struct MemoryServer {
    state: Arc<Mutex<State>>,
}

/// A client of a [`MemoryServer`]. Clones share one session.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    client: u64,
}

struct State {
    tree: Tree,
    observer: Option<Observer>,
    quorum: bool,
    sessions: u64,
    clients: BTreeMap<u64, Client>,
}

struct Client {
    session: SessionNumber,
    link: Link,
    /// The server has ended the session, which the client learns when it next connects.
    ended: bool,
    fates: VecDeque<Fate>,
    late: Vec<Late>,
    /// The tree that this client's reads see, if its server lags behind.
    lagging: Option<Tree>,
    watches: Vec<(String, HintSender)>,
    withdrawals: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
    Expired,
}

enum Late {
    Txn(Txn),
    Sequential { prefix: String, data: Vec<u8> },
}

/// A znode that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// By which client ([`MemoryStore::number`]).
    pub client: u64,
    /// Its path.
    pub path: String,
    /// What it held before; `None` if it was not there.
    pub before: Option<Vec<u8>>,
    /// What it holds now; `None` if it is gone.
    pub after: Option<Vec<u8>>,
}

/// Keeps what is written where somebody looks.
struct Observer {
    looks_at: fn(&str) -> bool,
    seen: Vec<Written>,
}

/// All znodes as they were at one moment.
#[derive(Clone)]
pub struct Snapshot(Tree);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// How a write goes on after its client's state was looked at.
enum Gate {
    Open,
    Unseen(Fate),
}

impl MemoryServer {
    /// An ensemble with nothing but the root.
    pub fn new() -> MemoryServer {
        MemoryServer {
            state: Arc::new(Mutex::new(State {
                tree: Tree::new(),
                observer: None,
                quorum: true,
                sessions: 0,
                clients: BTreeMap::new(),
            })),
        }
    }

    /// A new client, connected in a session of its own.
    pub fn client(&self) -> MemoryStore {
        let mut state = lock(&self.state);
        let session = state.next_session();
        let client = session.0;
        state.clients.insert(client, Client::new(session));
        MemoryStore {
            state: Arc::clone(&self.state),
            client,
        }
    }

    /// The ensemble loses its quorum: every client is disconnected, no session ends.
    pub fn lose_quorum(&self) {
        lock(&self.state).quorum = false;
    }

    /// The ensemble has a quorum again: clients that were not cut off for themselves are connected.
    pub fn restore_quorum(&self) {
        let mut state = lock(&self.state);
        state.quorum = true;
        let up: Vec<u64> = state
            .clients
            .iter()
            .filter(|(_, client)| client.link == Link::Up)
            .map(|(number, _)| *number)
            .collect();
        for client in up {
            state.connect(client);
        }
    }
}

/// What tests and the simulator see from outside.
impl MemoryServer {
    /// From now on what is written at paths that `looks_at` says yes to is kept for [`MemoryServer::seen`].
    pub fn observe(&self, looks_at: fn(&str) -> bool) {
        lock(&self.state).observer = Some(Observer {
            looks_at,
            seen: Vec::new(),
        });
    }

    /// What was written since the last call, in order.
    pub fn seen(&self) -> Vec<Written> {
        let mut state = lock(&self.state);
        state
            .observer
            .as_mut()
            .map(|observer| std::mem::take(&mut observer.seen))
            .unwrap_or_default()
    }

    /// The znode at `path` as the leader has it, whatever becomes of the clients.
    pub fn peek(&self, path: &str) -> Option<Znode> {
        lock(&self.state).tree.read(path)
    }

    /// The names of the children of `path` as the leader has them.
    pub fn peek_children(&self, path: &str) -> Vec<String> {
        lock(&self.state).tree.children(path).unwrap_or_default()
    }

    /// All znodes as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(lock(&self.state).tree.clone())
    }

    /// Puts the servers back to `snapshot`, as when their files are restored: sessions are gone with the znodes that
    /// belonged to them, versions and the order of writes go on from then.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = lock(&self.state);
        state.tree = snapshot.0.clone();
        let numbers: Vec<u64> = state.clients.keys().copied().collect();
        for number in numbers {
            let Some(client) = state.clients.get_mut(&number) else {
                continue;
            };
            client.end();
            let session = client.session;
            state.tree.end_session(session);
        }
    }
}

impl Default for MemoryServer {
    fn default() -> MemoryServer {
        MemoryServer::new()
    }
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// The number by which [`Written`] names this client.
    pub fn number(&self) -> u64 {
        self.client
    }
}

/// Faults on order.
impl MemoryStore {
    /// Cuts the connection. The session goes on.
    pub fn disconnect(&self) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&self.client)
            && client.link == Link::Up
        {
            client.link = Link::Down;
        }
    }

    /// Connects again: late writes are applied, watches fire. If the server has ended the session meanwhile the client
    /// finds itself [`SessionState::Expired`]; from there another call makes a new session.
    pub fn reconnect(&self) {
        let mut state = lock(&self.state);
        let fresh = state.next_session();
        if let Some(client) = state.clients.get_mut(&self.client) {
            match client.link {
                Link::Expired => {
                    client.session = fresh;
                    client.link = Link::Up;
                }
                Link::Up | Link::Down => client.link = Link::Up,
            }
        }
        state.connect(self.client);
    }

    /// The server ends the session: ephemeral znodes are deleted. A client that is connected learns it at once, one
    /// that is not when it reconnects.
    pub fn expire(&self) {
        let mut state = lock(&self.state);
        let Some(client) = state.clients.get_mut(&self.client) else {
            return;
        };
        match client.link {
            Link::Up => client.end(),
            Link::Down => client.ended = true,
            Link::Expired => return,
        }
        let session = client.session;
        for path in state.tree.end_session(session) {
            state.notify(&path);
        }
    }

    /// The next write that is sent has an outcome that its caller does not learn. Repeated calls queue up.
    pub fn hide_next_write(&self, fate: Fate) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.fates.push_back(fate);
        }
    }

    /// From now on this client's reads show the tree as it is now, until it writes or reconnects, or
    /// [`MemoryStore::catch_up`].
    pub fn lag(&self) {
        let mut state = lock(&self.state);
        let snapshot = state.tree.clone();
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.lagging = Some(snapshot);
        }
    }

    /// Ends [`MemoryStore::lag`].
    pub fn catch_up(&self) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.lagging = None;
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    type Watch = HintWatch;

    fn session(&self) -> SessionState {
        let state = lock(&self.state);
        match state.clients.get(&self.client).map(|client| client.link) {
            Some(Link::Up) if state.quorum => SessionState::Connected,
            Some(Link::Expired) => SessionState::Expired,
            Some(Link::Up | Link::Down) | None => SessionState::Disconnected,
        }
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        check_path(path)?;
        let state = lock(&self.state);
        Ok(state.view(self.client)?.read(path))
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        check_paths(paths)?;
        let state = lock(&self.state);
        let tree = state.view(self.client)?;
        Ok(paths.iter().map(|path| tree.read(path)).collect())
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        check_path(path)?;
        let state = lock(&self.state);
        Ok(state.view(self.client)?.children(path))
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        check_txn(&txn)?;
        if txn.ops.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = lock(&self.state);
        match state.gate(self.client)? {
            Gate::Open => state.apply(self.client, &txn),
            Gate::Unseen(fate) => {
                state.hide(self.client, fate, Late::Txn(txn));
                Err(unseen())
            }
        }
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        check_path(prefix)?;
        check_bytes(prefix.len() + data.len())?;
        let mut state = lock(&self.state);
        match state.gate(self.client)? {
            Gate::Open => state.create_sequential(self.client, prefix, data),
            Gate::Unseen(fate) => {
                let late = Late::Sequential {
                    prefix: prefix.to_owned(),
                    data: data.to_vec(),
                };
                state.hide(self.client, fate, late);
                Err(unseen())
            }
        }
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.withdrawals.push(prefix.to_owned());
        }
        state.withdraw(self.client);
    }

    fn watch_tree(&self, path: &str) -> HintWatch {
        let (sender, watch) = hints::channel(Seen::Anything);
        let mut state = lock(&self.state);
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.watches.retain(|(_, watch)| !watch.is_closed());
            client.watches.push((path.to_owned(), sender));
        }
        watch
    }
}

impl Client {
    fn new(session: SessionNumber) -> Client {
        Client {
            session,
            link: Link::Up,
            ended: false,
            fates: VecDeque::new(),
            late: Vec::new(),
            lagging: None,
            watches: Vec::new(),
            withdrawals: Vec::new(),
        }
    }

    /// The client learns that its session has ended.
    fn end(&mut self) {
        self.link = Link::Expired;
        self.ended = false;
        self.late.clear();
        self.withdrawals.clear();
    }
}

impl State {
    fn next_session(&mut self) -> SessionNumber {
        self.sessions += 1;
        SessionNumber(self.sessions)
    }

    /// The client if it is connected.
    fn connected(&self, client: u64) -> Result<&Client, StoreError> {
        match self.clients.get(&client) {
            Some(client) if client.link == Link::Expired => Err(StoreError::SessionExpired),
            Some(client) if client.link == Link::Up && self.quorum => Ok(client),
            Some(_) | None => Err(StoreError::Unavailable {
                reason: "not connected".to_owned(),
            }),
        }
    }

    /// The tree as this client's server shows it.
    fn view(&self, client: u64) -> Result<&Tree, StoreError> {
        let client = self.connected(client)?;
        Ok(client.lagging.as_ref().unwrap_or(&self.tree))
    }

    fn gate(&mut self, client: u64) -> Result<Gate, StoreError> {
        self.connected(client)?;
        let Some(client) = self.clients.get_mut(&client) else {
            return Ok(Gate::Open);
        };
        // The server that answers a write has applied it, and what came before it.
        client.lagging = None;
        Ok(client.fates.pop_front().map_or(Gate::Open, Gate::Unseen))
    }

    fn hide(&mut self, client: u64, fate: Fate, write: Late) {
        match fate {
            Fate::Lost => {}
            Fate::Applied => self.apply_late(client, write),
            Fate::AppliedOnReconnect => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.late.push(write);
                }
            }
        }
    }

    /// Applies a write whose caller has gone: nobody learns of its failure.
    fn apply_late(&mut self, client: u64, write: Late) {
        match write {
            Late::Txn(txn) => drop(self.apply(client, &txn)),
            Late::Sequential { prefix, data } => drop(self.create_sequential(client, &prefix, &data)),
        }
    }

    fn apply(&mut self, client: u64, txn: &Txn) -> Result<Vec<Applied>, StoreError> {
        let before = self.before(txn);
        let applied = self.tree.apply(txn)?;
        for (path, before) in before {
            let after = self.tree.read(&path).map(|znode| znode.data);
            if let Some(observer) = &mut self.observer {
                observer.seen.push(Written {
                    client,
                    path,
                    before,
                    after,
                });
            }
        }
        for op in &txn.ops {
            match op {
                super::Op::Create { path, .. }
                | super::Op::Set { path, .. }
                | super::Op::Delete { path, .. } => self.notify(path),
                super::Op::Check { .. } | super::Op::Guard { .. } => {}
            }
        }
        Ok(applied)
    }

    /// What the znodes that `txn` writes and somebody looks at hold now.
    fn before(&self, txn: &Txn) -> Vec<(String, Option<Vec<u8>>)> {
        let Some(observer) = &self.observer else {
            return Vec::new();
        };
        let written = txn.ops.iter().filter_map(|op| match op {
            super::Op::Create { path, .. } | super::Op::Set { path, .. } | super::Op::Delete { path, .. } => {
                Some(path)
            }
            super::Op::Check { .. } | super::Op::Guard { .. } => None,
        });
        written
            .filter(|path| (observer.looks_at)(path))
            .map(|path| (path.clone(), self.tree.read(path).map(|znode| znode.data)))
            .collect()
    }

    fn create_sequential(&mut self, client: u64, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        let session = self.connected(client)?.session;
        let path = self.tree.create_sequential(prefix, data, session)?;
        self.notify(&path);
        Ok(path)
    }

    /// Fires the watches of connected clients over `path`.
    fn notify(&self, path: &str) {
        if !self.quorum {
            return;
        }
        for client in self.clients.values().filter(|client| client.link == Link::Up) {
            for (watched, watch) in &client.watches {
                if covers(watched, path) {
                    watch.path(path);
                }
            }
        }
    }

    /// What happens when a client's connection is there (again).
    fn connect(&mut self, number: u64) {
        if !self.quorum {
            return;
        }
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if client.ended {
            client.end();
            return;
        }
        client.lagging = None;
        for write in std::mem::take(&mut client.late) {
            self.apply_late(number, write);
        }
        if let Some(client) = self.clients.get(&number) {
            for (_, watch) in &client.watches {
                watch.anything();
            }
        }
        self.withdraw(number);
    }

    fn withdraw(&mut self, number: u64) {
        let Ok(client) = self.connected(number) else {
            return;
        };
        let session = client.session;
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let creates_late = client
            .late
            .iter()
            .any(|late| matches!(late, Late::Sequential { .. }));
        for prefix in std::mem::take(&mut client.withdrawals) {
            let found = self.tree.ephemerals(session, &prefix);
            if found.is_empty()
                && creates_late
                && let Some(client) = self.clients.get_mut(&number)
            {
                // Its creation is still on its way: looked for again after that.
                client.withdrawals.push(prefix);
                continue;
            }
            for path in found {
                drop(self.apply(number, &Txn::new().delete_path(path, None)));
            }
        }
    }
}

/// Whether `path` is `watched` or below it.
fn covers(watched: &str, path: &str) -> bool {
    match path.strip_prefix(watched) {
        Some(rest) => watched == "/" || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

fn unseen() -> StoreError {
    StoreError::Unknown {
        reason: "the answer was lost".to_owned(),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing panics while it holds the lock; if a test's assertion ever did, the tree is still whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
