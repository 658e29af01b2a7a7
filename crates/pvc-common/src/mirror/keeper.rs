//! Keeping the copy: one task that looks where watches say, and now and then everywhere else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select, select_all};
use pvc_core::time::BootTime;
use tokio::sync::watch;

use super::entry::{self, Entry, Put, same_write};
use super::load::{Names, load, read_all};
use super::view::View;
use super::{Published, Scope, is_at_or_below};
use crate::clock::Clock;
use crate::store::{Scanned, Seen, Store, StoreError, Txn, Watch, ZnodeVersion};

/// How long after the first sign of a change others are waited for: those of one transaction come together, and a burst
/// is read in one go.
const GATHER: Duration = Duration::from_millis(2);
/// How often it is looked again for changes that came while others were read, before what was read is published.
const ROUNDS: usize = 4;
/// How often the store is asked whether it is there. Less often than its client would ask by itself when idle, so this
/// takes the place of that.
const PROBE: Duration = Duration::from_millis(900);
/// Pause after the store did not answer.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Within that time every znode is looked at again, whatever the watches say.
const WHOLE_CHECK: Duration = Duration::from_secs(600);
/// Znodes that are looked at with each probe at least, and at most.
const CHECKED_AT_LEAST: usize = 32;
const CHECKED_AT_MOST: usize = 1000;

pub(super) struct Keeper<S: Store, C> {
    store: S,
    clock: C,
    scope: Scope,
    watches: Vec<(&'static str, S::Watch)>,
    /// Subtrees that were never read.
    unread: BTreeSet<&'static str>,
    publisher: watch::Sender<Published>,
    names: Names,
    /// As it is being made; the published view shares it.
    root: Arc<Entry>,
    number: u64,
    todo: Todo,
    /// Where the check of everything is.
    checked: String,
    /// Znodes seen in the present round of the check, and in the one before.
    counted: usize,
    total: usize,
    /// The store did not answer when it was last asked.
    silent: bool,
}

/// What has to be read.
#[derive(Debug, Default)]
struct Todo {
    /// With everything below.
    whole: BTreeSet<String>,
    /// By themselves.
    single: BTreeSet<String>,
}

impl Todo {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.single.is_empty()
    }
}

impl<S: Store, C: Clock> Keeper<S, C> {
    pub(super) fn new(store: S, clock: C, scope: Scope, publisher: watch::Sender<Published>) -> Self {
        let watches = scope
            .subtrees
            .iter()
            .map(|subtree| (*subtree, store.watch_tree(subtree)))
            .collect();
        Keeper {
            store,
            clock,
            scope,
            watches,
            unread: scope.subtrees.iter().copied().collect(),
            publisher,
            names: Names::default(),
            root: Arc::new(Entry::root()),
            number: 0,
            todo: Todo::default(),
            checked: String::new(),
            counted: 0,
            total: 0,
            silent: false,
        }
    }

    /// Keeps the mirror until nobody looks at it any more.
    pub(super) async fn run(mut self) {
        let mut probe_at = self.clock.now();
        while !self.publisher.is_closed() {
            self.wait(probe_at).await;
            let asked = self.clock.now();
            // What was told before the answer has been read when the round is over.
            let due = asked >= probe_at;
            if due {
                probe_at = asked + PROBE;
            }
            match self.round(due).await {
                Ok(asked_store) => {
                    if self.silent {
                        tracing::info!("the coordination store answers again; the mirror is kept up to date");
                        self.silent = false;
                    }
                    if asked_store && self.is_whole() {
                        self.confirm(asked);
                    }
                }
                Err(error) => {
                    if !self.silent {
                        tracing::warn!(%error, "the mirror can not be kept up to date");
                        self.silent = true;
                    }
                    self.clock.sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Waits for a sign of a change, for the next probe, or not at all if there is something to do.
    async fn wait(&mut self, probe_at: BootTime) {
        if self.todo.is_empty() {
            let signs = self
                .watches
                .iter_mut()
                .map(|(subtree, watch)| Box::pin(async move { (*subtree, watch.changes().await) }));
            let probe = Box::pin(self.clock.sleep_until(probe_at));
            let sign = match select(select_all(signs), probe).await {
                Either::Left(((sign, _, _), _)) => sign,
                Either::Right(((), _)) => return,
            };
            self.todo.note(&self.scope, sign.0, sign.1);
            self.clock.sleep(GATHER).await;
        }
        self.gather();
    }

    /// Takes what the watches have seen by now.
    fn gather(&mut self) {
        for (subtree, watch) in &mut self.watches {
            if let Some(seen) = watch.changes().now_or_never() {
                self.todo.note(&self.scope, subtree, seen);
            }
        }
    }

    /// Reads what has to be read, and what a probe looks at; publishes if anything is new. Says whether the store has
    /// answered something and everything that was told before is read.
    async fn round(&mut self, probe: bool) -> Result<bool, StoreError> {
        if probe {
            self.check().await?;
        }
        let mut readings = 0;
        while !self.todo.is_empty() && readings < ROUNDS {
            self.load().await?;
            self.read().await?;
            readings += 1;
            // What belongs to the same transaction was told before its part was read.
            self.gather();
        }
        // A view that mixes what was before a loss of the connection with what is now may never have been.
        if self.is_whole() {
            self.publish();
        }
        // The probe's answer, or that to the first reading, came after what was told before; the next reading took that up.
        Ok(probe || readings > 1 || (readings == 1 && self.todo.is_empty()))
    }

    /// Reads whole subtrees.
    async fn load(&mut self) -> Result<(), StoreError> {
        if self.todo.whole.is_empty() {
            return Ok(());
        }
        catch_up(&self.store).await?;
        while let Some(path) = self.todo.whole.first().cloned() {
            let before = entry::find(&self.root, &path).cloned();
            let loaded = load(&self.store, &path, before, self.scope.left_out, &mut self.names).await?;
            match loaded {
                Some(entry) => {
                    let name = self.names.keep(last_name(&path));
                    if entry::graft(&mut self.root, &path, name, entry) == Put::NoParent {
                        self.todo.single.extend(parent(&path));
                    }
                }
                None => {
                    entry::remove(&mut self.root, &path);
                }
            }
            self.todo.whole.remove(&path);
            self.unread.remove(path.as_str());
        }
        Ok(())
    }

    /// Reads single znodes.
    async fn read(&mut self) -> Result<(), StoreError> {
        let paths = std::mem::take(&mut self.todo.single);
        let read = read_all(&self.store, paths.iter().cloned().collect()).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.todo.single = paths;
                return Err(error);
            }
        };
        // In the order of paths: parents before their children.
        for (path, znode) in read {
            let Some(mut znode) = znode else {
                entry::remove(&mut self.root, &path);
                continue;
            };
            znode.data.shrink_to_fit();
            let name = self.names.keep(last_name(&path));
            if entry::put(&mut self.root, &path, name, znode) == Put::NoParent {
                // Its parent was deleted or created since; the two are read again, the parent first.
                self.todo.single.extend(parent(&path));
                self.todo.single.insert(path);
            }
        }
        Ok(())
    }

    /// Looks at some znodes again, which is at the same time the question whether the store is there. What differs without
    /// a watch having told is read again: a missed sign costs time and nothing else.
    async fn check(&mut self) -> Result<(), StoreError> {
        let probes = WHOLE_CHECK.as_millis() / PROBE.as_millis();
        let share = self.total / usize::try_from(probes).unwrap_or(1).max(1);
        let most = share.clamp(CHECKED_AT_LEAST, CHECKED_AT_MOST);
        let mut paths = entry::paths_after(&self.root, &self.checked, most);
        self.counted += paths.len();
        match paths.last() {
            Some(last) if paths.len() == most => self.checked.clone_from(last),
            Some(_) | None => {
                self.checked.clear();
                self.total = std::mem::take(&mut self.counted);
            }
        }
        if paths.is_empty() {
            // Nothing is mirrored yet; the question alone remains.
            paths.push("/".to_owned());
        }
        let scanned = self.store.scan(&paths).await?;
        self.gather();
        for (path, scanned) in paths.iter().zip(scanned) {
            if path != "/" {
                self.compare(path, scanned);
            }
        }
        Ok(())
    }

    fn compare(&mut self, path: &str, scanned: Option<Scanned>) {
        let known = entry::find(&self.root, path);
        let (differs, strange) = match (known, scanned) {
            (None, None) => return,
            (Some(_), None) | (None, Some(_)) => (true, Vec::new()),
            (Some(known), Some(scanned)) => {
                let strange: Vec<String> = scanned
                    .children
                    .iter()
                    .filter(|child| known.child(child).is_none())
                    .map(|child| format!("{path}/{child}"))
                    .filter(|path| self.scope.covers(path))
                    .collect();
                let differs = !same_write(&known.znode, &scanned.znode);
                (differs, strange)
            }
        };
        let told = |path: &String| self.todo.covers(path);
        let missed: Vec<String> = differs
            .then(|| path.to_owned())
            .into_iter()
            .filter(|path| !told(path))
            .collect();
        let strange: Vec<String> = strange.into_iter().filter(|path| !told(path)).collect();
        if missed.is_empty() && strange.is_empty() {
            return;
        }
        tracing::warn!(path, "the mirror had missed a change here");
        self.todo.single.extend(missed);
        self.todo.whole.extend(strange);
    }

    /// Whether every subtree was read since its watch was last set.
    fn is_whole(&self) -> bool {
        self.unread.is_empty() && self.todo.whole.is_empty()
    }

    /// Shows what has been read.
    fn publish(&mut self) {
        let root = &self.root;
        let number = self.number + 1;
        let published = self.publisher.send_if_modified(|published| {
            let shown = published.view.as_ref();
            if shown.is_some_and(|view| Arc::ptr_eq(&view.root, root)) {
                return false;
            }
            published.view = Some(View {
                root: Arc::clone(root),
                number,
            });
            true
        });
        if published {
            self.number = number;
        }
    }

    /// Everything that had happened at `moment` is in the view. Wakes nobody: those who wait, wait for a view.
    fn confirm(&self, moment: BootTime) {
        self.publisher.send_if_modified(|published| {
            published.confirmed = Some(moment);
            false
        });
    }
}

impl Todo {
    fn note(&mut self, scope: &Scope, subtree: &str, seen: Seen) {
        match seen {
            Seen::Anything => {
                self.whole.insert(subtree.to_owned());
            }
            Seen::Paths(paths) => self
                .single
                .extend(paths.into_iter().filter(|path| scope.covers(path))),
        }
    }

    /// Whether `path` will be read anyway.
    fn covers(&self, path: &str) -> bool {
        self.single.contains(path) || self.whole.iter().any(|whole| is_at_or_below(path, whole))
    }
}

/// Makes the server that answers our reads know all that was written until now: after a reconnection it may be one
/// that lags behind the one before. It has to carry out a write for that; whether this one holds does not matter.
async fn catch_up<S: Store>(store: &S) -> Result<(), StoreError> {
    match store.commit(Txn::new().check_path("/", ZnodeVersion(0))).await {
        Ok(_)
        | Err(
            StoreError::BadVersion { .. }
            | StoreError::NoNode { .. }
            | StoreError::NodeExists { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::LockLost { .. },
        ) => Ok(()),
        Err(
            error @ (StoreError::Unknown { .. }
            | StoreError::Unavailable { .. }
            | StoreError::SessionExpired
            | StoreError::Refused { .. }),
        ) => Err(error),
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The parent of `path`, unless that is the root, which is not mirrored.
fn parent(path: &str) -> Option<String> {
    match path.rsplit_once('/') {
        Some(("", _)) | None => None,
        Some((parent, _)) => Some(parent.to_owned()),
    }
}
