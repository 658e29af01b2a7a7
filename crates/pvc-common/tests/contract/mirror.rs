//! The mirror: it shows what the store holds, sooner or later whatever happens, and never something that was not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::mirror::{Branch, Mirror, Mirrored, Scope, Stale, View};
use pvc_common::store::{
    Applied, Scanned, Seen, SessionState, Store, StoreError, StoreExt, Txn, Watch, Znode, ZnodeVersion,
};

use super::{Ensemble, FaultyClient, PATIENCE, eventually};

const SCOPE: Scope = Scope {
    subtrees: &["/domains", "/nodes", "/never"],
    left_out: |path| path.ends_with("/consolelog"),
};

/// Everything below the mirrored subtrees, by path.
type Content = BTreeMap<String, Znode>;

fn collect(path: &str, branch: &Branch, content: &mut Content) {
    if let Some(znode) = branch.znode() {
        content.insert(path.to_owned(), znode.clone());
    }
    for (name, child) in branch.children() {
        collect(&format!("{path}/{name}"), &child, content);
    }
}

fn shown(view: &View) -> Content {
    let mut content = Content::new();
    for subtree in SCOPE.subtrees {
        collect(subtree, &view.branch(subtree), &mut content);
    }
    content
}

async fn stored<S: Store>(store: &S) -> Content {
    let mut content = Content::new();
    for subtree in SCOPE.subtrees {
        content.extend(store.read_tree(subtree).await.unwrap());
    }
    content.retain(|path, _| SCOPE.covers(path));
    content
}

/// Waits until the mirror shows what the store holds, which nobody changes meanwhile.
async fn shows_all<S: Store>(mirror: &Mirror, store: &S) {
    let expected = stored(store).await;
    let equal = HostClock
        .timeout(PATIENCE, mirror.wait_for(|view| shown(view) == expected))
        .await;
    if equal.is_none() {
        let latest = mirror.latest().map(|view| shown(&view)).unwrap_or_default();
        let missing: Vec<_> = expected
            .iter()
            .filter(|(path, znode)| latest.get(*path) != Some(znode))
            .collect();
        let extra: Vec<_> = latest
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .collect();
        assert!(
            equal.is_some(),
            "the mirror lacks {missing:?} and has {extra:?} too much"
        );
    }
}

fn start<S: Store>(store: &S) -> Mirror {
    Mirror::start(store.clone(), HostClock, SCOPE)
}

fn guest(name: &str) -> Txn {
    Txn::new()
        .create_path(format!("/domains/{name}"), name)
        .create_path(format!("/domains/{name}/state"), "stop")
        .create_path(format!("/domains/{name}/tags"), "")
        .create_path(format!("/domains/{name}/tags/a"), "")
        .create_path(format!("/domains/{name}/consolelog"), "a long text")
}

fn without(name: &str) -> Txn {
    ["/tags/a", "/tags", "/state", "/consolelog", ""]
        .iter()
        .fold(Txn::new(), |txn, path| {
            txn.delete_path(format!("/domains/{name}{path}"), None)
        })
}

async fn seed<S: Store>(store: &S) {
    let txn = Txn::new()
        .create_path("/domains", "")
        .create_path("/nodes", "")
        .create_path("/nodes/hv1", "")
        .create_path("/leases", "");
    store.commit(txn.and(guest("one"))).await.unwrap();
}

pub async fn a_mirror_shows_what_is_there_and_what_changes(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    seed(two.store()).await;
    let mirror = start(one.store());
    shows_all(&mirror, two.store()).await;
    let view = mirror.latest().unwrap();
    assert!(view.znode("/domains/one/consolelog").is_none(), "left out");
    assert!(view.znode("/leases").is_none(), "not mirrored");
    for txn in [
        guest("two"),
        Txn::new().overwrite_path("/domains/one/state", "start"),
        // A subtree that is deleted and made again is another one, though it looks alike.
        without("one"),
        guest("one"),
        Txn::new()
            .create_path("/never", "")
            .create_path("/never/mind", ""),
        without("two").overwrite_path("/nodes/hv1", "x"),
        Txn::new()
            .delete_path("/never/mind", None)
            .delete_path("/never", None),
    ] {
        two.store().commit(txn).await.unwrap();
        shows_all(&mirror, two.store()).await;
    }
    // An earlier view stays as it was, and parts that did not change are the same in both.
    assert_eq!(view.znode("/domains/one/state").unwrap().data, b"stop");
    assert!(view.branch("/domains/two").znode().is_none());
    let before = mirror.latest().unwrap();
    two.store()
        .commit(Txn::new().overwrite_path("/nodes/hv1", "y"))
        .await
        .unwrap();
    let after = mirror.changed_since(before.number()).await;
    assert!(after.branch("/domains").is_same(&before.branch("/domains")));
    let (is, was) = (after.branch("/nodes"), before.branch("/nodes"));
    let names: Vec<&str> = is.changed_since(&was).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["hv1"]);
}

/// Writes and deletes as long as it may; every write grows a number that never falls.
async fn write_until<S: Store>(store: S, name: String, stop: Arc<AtomicBool>) -> u64 {
    let counter = format!("/nodes/{name}");
    store.commit(Txn::new().create_path(&counter, "0")).await.unwrap();
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let txn = Txn::new().overwrite_path(&counter, count.to_string());
        let txn = match count % 4 {
            1 => txn.and(guest(&name)),
            2 => txn.overwrite_path(format!("/domains/{name}/state"), count.to_string()),
            3 => txn.and(without(&name)).and(guest(&name)),
            _ => txn.and(without(&name)),
        };
        store.commit(txn).await.unwrap();
        // In memory nothing ever waits; the others must have their turn.
        HostClock.sleep(Duration::from_millis(1)).await;
    }
    count
}

fn counted(view: &View, writer: &str) -> u64 {
    view.znode(&format!("/nodes/{writer}"))
        .map_or(0, |znode| String::from_utf8_lossy(&znode.data).parse().unwrap())
}

/// Runs `trouble` while three clients write; afterwards the mirror shows all, and it has never gone back.
async fn under_writers<E: Ensemble>(ensemble: &E, mirror: &Mirror, trouble: impl AsyncFnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    let mut clients = Vec::new();
    for name in ["w1", "w2", "w3"] {
        let client = ensemble.client().await;
        let writing = write_until(client.store().clone(), name.to_owned(), Arc::clone(&stop));
        writers.push(tokio::spawn(writing));
        clients.push(client);
    }
    let watched = mirror.clone();
    let stopped = Arc::clone(&stop);
    let watcher = tokio::spawn(async move {
        let mut before = [0; 3];
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let next = HostClock
                .timeout(Duration::from_millis(100), watched.changed_since(number))
                .await;
            let Some(view) = next else { continue };
            number = view.number();
            for (before, writer) in before.iter_mut().zip(["w1", "w2", "w3"]) {
                let now = counted(&view, writer);
                assert!(now >= *before, "{writer} went from {before} back to {now}");
                *before = now;
            }
        }
    });
    let moved = async || {
        let before = mirror.latest().map(|view| counted(&view, "w1"));
        eventually("the mirror follows", async || {
            mirror.latest().map(|view| counted(&view, "w1")) > before
        })
        .await;
    };
    moved().await;
    trouble().await;
    moved().await;
    stop.store(true, Ordering::Relaxed);
    watcher.await.unwrap();
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    shows_all(mirror, clients[0].store()).await;
}

// A change that the mirror missed would show administrators, and programs that act on what they read, what is not so.
pub async fn a_mirror_misses_nothing_of_concurrent_writers(ensemble: &impl Ensemble) {
    let one = ensemble.client().await;
    seed(one.store()).await;
    let mirror = start(one.store());
    shows_all(&mirror, one.store()).await;
    under_writers(ensemble, &mirror, async || {}).await;
}

pub async fn a_mirror_catches_up_after_lost_connections_and_sessions(ensemble: &impl Ensemble) {
    let one = ensemble.client().await;
    seed(one.store()).await;
    let mirror = start(one.store());
    shows_all(&mirror, one.store()).await;
    under_writers(ensemble, &mirror, async || {
        one.disconnect().await;
        one.reconnect().await;
        one.expire().await;
        one.disconnect().await;
        one.reconnect().await;
    })
    .await;
}

pub async fn a_mirror_without_connection_grows_old_and_young_again(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    seed(one.store()).await;
    let mirror = start(one.store());
    let limit = Duration::from_secs(2);
    let current = || mirror.current(HostClock.now(), limit);
    eventually("a first view", async || current().is_ok()).await;
    one.disconnect().await;
    // The last view is handed out until it is too old.
    two.store()
        .commit(Txn::new().overwrite_path("/nodes/hv1", "missed"))
        .await
        .unwrap();
    eventually(
        "too old",
        async || matches!(current(), Err(Stale::Silent { age }) if age > limit),
    )
    .await;
    assert_eq!(mirror.latest().unwrap().znode("/nodes/hv1").unwrap().data, b"");
    one.reconnect().await;
    eventually("young again", async || current().is_ok()).await;
    assert_eq!(current().unwrap().znode("/nodes/hv1").unwrap().data, b"missed");
}

// An administrator who is told that a guest is started must not be shown in the next moment that it is not.
pub async fn a_commit_returns_when_the_mirror_shows_it(ensemble: &impl Ensemble) {
    let one = ensemble.client().await;
    seed(one.store()).await;
    let mirror = start(one.store());
    shows_all(&mirror, one.store()).await;
    let store = Mirrored::new(one.store().clone(), mirror.clone(), HostClock);
    let shown = |path: &str| {
        mirror
            .latest()
            .unwrap()
            .znode(path)
            .map(|znode| znode.data.clone())
    };
    for round in 0..20 {
        store
            .commit(guest("two").overwrite_path("/domains/two/state", "start"))
            .await
            .unwrap();
        assert_eq!(shown("/domains/two/state"), Some(b"start".to_vec()), "{round}");
        store
            .commit(Txn::new().set_path("/domains/two/state", "stop", ZnodeVersion(1)))
            .await
            .unwrap();
        assert_eq!(shown("/domains/two/state"), Some(b"stop".to_vec()), "{round}");
        store.commit(without("two")).await.unwrap();
        assert_eq!(shown("/domains/two"), None, "{round}");
    }
    // What is not mirrored is not waited for.
    store
        .commit(Txn::new().overwrite_path("/leases", "x"))
        .await
        .unwrap();
}

/// A store whose watches tell of what was before them and of nothing else.
#[derive(Debug, Clone)]
struct Deaf<S>(S);

struct DeafWatch<W> {
    inner: W,
    told: bool,
}

impl<W: Watch> Watch for DeafWatch<W> {
    async fn changed(&mut self) {
        self.inner.changed().await;
    }

    async fn changes(&mut self) -> Seen {
        if self.told {
            std::future::pending::<()>().await;
        }
        let seen = self.inner.changes().await;
        self.told = true;
        seen
    }
}

impl<S: Store> Store for Deaf<S> {
    type Watch = DeafWatch<S::Watch>;

    fn session(&self) -> SessionState {
        self.0.session()
    }

    async fn read(&self, path: &str) -> Result<Option<Znode>, StoreError> {
        self.0.read(path).await
    }

    async fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>, StoreError> {
        self.0.read_many(paths).await
    }

    async fn children(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        self.0.children(path).await
    }

    async fn scan(&self, paths: &[String]) -> Result<Vec<Option<Scanned>>, StoreError> {
        self.0.scan(paths).await
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        self.0.commit(txn).await
    }

    async fn create_ephemeral_sequential(&self, prefix: &str, data: &[u8]) -> Result<String, StoreError> {
        self.0.create_ephemeral_sequential(prefix, data).await
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        self.0.withdraw_ephemeral(prefix);
    }

    fn watch_tree(&self, path: &str) -> Self::Watch {
        DeafWatch {
            inner: self.0.watch_tree(path),
            told: false,
        }
    }
}

// A watch that fails silently, by a fault of the server or of the library, must not freeze what is shown for ever.
pub async fn a_mirror_finds_by_itself_what_no_watch_has_told(ensemble: &impl Ensemble) {
    let (one, two) = (ensemble.client().await, ensemble.client().await);
    seed(two.store()).await;
    let mirror = start(&Deaf(one.store().clone()));
    shows_all(&mirror, two.store()).await;
    two.store()
        .commit(
            guest("two")
                .overwrite_path("/nodes/hv1", "x")
                .delete_path("/domains/one/tags/a", None),
        )
        .await
        .unwrap();
    shows_all(&mirror, two.store()).await;
}
