//! The coordination store, read from inside the switch by typed keys.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_common::keys::{self, Key, Value};
use pvc_common::store::zookeeper::{ZooKeeperOptions, ZooKeeperStore};
use pvc_common::store::{Applied, Store as _, StoreExt as _, Txn, Versioned, Znode};
use pvc_core::ids::NodeName;
use pvc_core::states::CoordinatorState;
use pvc_lab::{Lab, Network};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::clock::Moment;
use crate::switch;

const CONNECT: Duration = Duration::from_secs(20);
/// Between two looks of a sampler.
const SAMPLE: Duration = Duration::from_millis(20);

/// A client of the ensemble, whose sockets are in the switch.
pub(crate) struct StoreView {
    runtime: Runtime,
    store: ZooKeeperStore,
}

impl std::fmt::Debug for StoreView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreView").finish_non_exhaustive()
    }
}

impl StoreView {
    /// Connects to the coordinators by their upstream addresses: the switch has no other.
    pub(crate) fn open(lab: &Lab) -> Result<StoreView> {
        let failed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&failed);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                if switch::enter().is_err() {
                    seen.store(true, Ordering::Relaxed);
                }
            })
            .build()
            .context("cannot start a runtime")?;
        let servers: Vec<String> = lab
            .state()
            .coordinators()
            .map(|node| format!("{}:2181", Network::Upstream.node_v4(node)))
            .collect();
        let options = ZooKeeperOptions::new(servers.join(","));
        let store = run(&runtime, async move { ZooKeeperStore::connect(options) })?;
        if failed.load(Ordering::Relaxed) {
            bail!("a thread could not enter the lab's switch");
        }
        let view = StoreView { runtime, store };
        view.wait_connected()?;
        Ok(view)
    }

    /// Waits until the store answers.
    pub(crate) fn wait_connected(&self) -> Result<()> {
        let store = self.store.clone();
        if !run(&self.runtime, async move { store.wait_connected(CONNECT).await })? {
            bail!("the store did not answer within {} s", CONNECT.as_secs());
        }
        Ok(())
    }

    /// The value at a key, none if there is no such znode.
    pub(crate) fn get<T: Value + Send + 'static>(&self, key: &Key<T>) -> Result<Option<Versioned<T>>> {
        let (store, key) = (self.store.clone(), key.clone());
        Ok(run(&self.runtime, async move { store.get(&key).await })??)
    }

    /// The value at a key that must exist.
    pub(crate) fn require<T: Value + Send + 'static>(&self, key: &Key<T>) -> Result<Versioned<T>> {
        let (store, key) = (self.store.clone(), key.clone());
        Ok(run(&self.runtime, async move { store.require(&key).await })??)
    }

    /// Many znodes in one multi-read; none for those that are not there.
    pub(crate) fn read_many(&self, paths: &[String]) -> Result<Vec<Option<Znode>>> {
        let (store, paths) = (self.store.clone(), paths.to_vec());
        Ok(run(&self.runtime, async move { store.read_many(&paths).await })??)
    }

    /// Applies a transaction.
    pub(crate) fn commit(&self, txn: Txn) -> Result<Vec<Applied>> {
        let store = self.store.clone();
        Ok(run(&self.runtime, async move { store.commit(txn).await })??)
    }

    /// Begins to sample the primary role on these nodes.
    pub(crate) fn sample_role(&self, nodes: &[NodeName]) -> Sampler {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&samples);
        let (store, nodes) = (self.store.clone(), nodes.to_vec());
        let task = self.runtime.spawn(async move {
            loop {
                if let Ok(sample) = look(&store, &nodes).await {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                }
                tokio::time::sleep(SAMPLE).await;
            }
        });
        Sampler { samples, task }
    }
}

/// Runs a future on the runtime's own threads: the caller's is not in the switch.
fn run<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let task = runtime.spawn(work);
    runtime.block_on(task).context("a task of the store ended early")
}

/// The primary role at one moment: one multi-read.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When the answer was there.
    pub(crate) at: Moment,
    /// What each node says of itself.
    pub(crate) states: Vec<(NodeName, CoordinatorState)>,
}

impl Sample {
    /// The nodes in this state.
    pub(crate) fn in_state(&self, state: CoordinatorState) -> Vec<&NodeName> {
        self.states
            .iter()
            .filter(|(_, found)| *found == state)
            .map(|(node, _)| node)
            .collect()
    }
}

async fn look(store: &ZooKeeperStore, nodes: &[NodeName]) -> Result<Sample> {
    let paths: Vec<String> = nodes
        .iter()
        .map(|node| keys::node(node).coordinator_state().path().to_owned())
        .collect();
    let znodes = store.read_many(&paths).await?;
    let at = Moment::now();
    let mut states = Vec::new();
    for (node, znode) in nodes.iter().zip(&znodes) {
        let key = keys::node(node).coordinator_state();
        states.push((node.clone(), key.decode_required(znode.as_ref())?.value));
    }
    Ok(Sample { at, states })
}

/// Samples the primary role until it is dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// All samples so far.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// When the node was first seen in the state at that moment or later.
    pub(crate) fn first_seen(
        &self,
        node: &NodeName,
        state: CoordinatorState,
        since: Moment,
    ) -> Option<Moment> {
        self.samples()
            .iter()
            .find(|sample| sample.at >= since && sample.in_state(state).contains(&node))
            .map(|sample| sample.at)
    }

    /// The longest time from one sample with a node in takeover or primary to the next.
    pub(crate) fn longest_without_primary(&self) -> Duration {
        let samples = self.samples();
        let covered: Vec<Moment> = samples
            .iter()
            .filter(|sample| {
                sample
                    .states
                    .iter()
                    .any(|(_, state)| matches!(state, CoordinatorState::Takeover | CoordinatorState::Primary))
            })
            .map(|sample| sample.at)
            .collect();
        covered
            .windows(2)
            .filter_map(|pair| match pair {
                [one, other] => Some(other.since(*one)),
                _ => None,
            })
            .max()
            .unwrap_or_default()
    }

    /// Fails if two nodes said `primary` at once.
    pub(crate) fn must_never_see_two_primaries(&self) -> Result<()> {
        for sample in self.samples() {
            let primaries = sample.in_state(CoordinatorState::Primary);
            if primaries.len() > 1 {
                bail!("the store showed more than one primary: {primaries:?}");
            }
        }
        Ok(())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}
