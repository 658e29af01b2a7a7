//! What is told to Prometheus.
//!
//! * `exposition` - the text format.
//! * `health`, `resource` - the metrics of PVC 1.0.3, made from what the API shows. Pure.
//! * `instruments` - what this daemon measures of itself.
//! * `agents` - what the nodes' agents measure of themselves. Pure.
//! * `http_get` - asking Ceph's manager and ZooKeeper for theirs.
//! * `texts` - all of these made once for all who ask at about the same time.

mod agents;
mod exposition;
mod health;
mod http_get;
mod instruments;
mod resource;
mod texts;

pub(crate) use exposition::CONTENT_TYPE;
pub(crate) use instruments::Instruments;
pub(crate) use texts::{Text, Texts};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use pvc_core::records::{NodeAddresses, PrimaryRecord};

use crate::app::App;
use crate::error::ApiError;
use crate::node::{self, NodeFilter};
use crate::vm::list::{self, VmFilter};
use crate::vm::parsed::Parsed;
use crate::{status, storage, task};
use exposition::Exposition;
use resource::Resources;
use texts::off_thread;

/// Where Ceph's active manager tells its metrics, on the storage network.
const CEPH_PORT: u16 = 9283;
/// Where ZooKeeper tells its metrics, on the cluster network.
const ZOOKEEPER_PORT: u16 = 9141;
/// How long Ceph and ZooKeeper may take: a scrape of all must be answered while one of them is gone.
const SOURCE_LIMIT: Duration = Duration::from_secs(2);

/// Counts and health.
pub(crate) async fn health<S: Store>(app: &Arc<App<S>>) -> Result<Arc<Text>, ApiError> {
    let view = app.view()?;
    let make = || off_thread(move || Ok(health::health(&status::read(&view)?)));
    app.replies.texts.get(&app.clock, "health", make).await
}

/// Figures of nodes, guests, OSDs and pools.
pub(crate) async fn resource<S: Store>(app: &Arc<App<S>>) -> Result<Arc<Text>, ApiError> {
    let view = app.view()?;
    let its = Arc::clone(app);
    let make = || off_thread(move || resources(&view, &its.entries.parsed));
    app.replies.texts.get(&app.clock, "resource", make).await
}

fn resources(view: &View, parsed: &Parsed) -> Result<String, ApiError> {
    let vms = list::list(view, &VmFilter::default())?
        .into_iter()
        .map(|id| list::figures(view, id, parsed))
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(resource::resource(&Resources {
        nodes: &node::list(view, &NodeFilter::default()),
        vms: &vms,
        osds: &storage::osds(view, None)?,
        pools: &storage::pools(view, None)?,
    }))
}

/// What the daemons measure of themselves.
pub(crate) fn daemon<S: Store>(app: &App<S>, instruments: &Instruments) -> String {
    let mut text = Exposition::default();
    text.gauge(
        "pvc_api_mirror_age_seconds",
        "How old what this daemon shows may be; about a second while the store answers",
    )
    .put_known(
        &[],
        app.mirror().age(app.clock.now()).map(|age| age.as_secs_f64()),
    );
    text.gauge(
        "pvc_api_mirror_changes",
        "Changes of the store that this daemon has seen since its start",
    )
    .put_known(&[], app.mirror().latest().map(|view| view.number()));
    text.gauge(
        "pvc_api_event_clients",
        "Clients that this daemon tells of events",
    )
    .put(&[], app.events().clients());
    // What is on record is told as long as it can be: of an old store rather than not at all.
    let view = app.mirror().latest();
    let tasks = view.as_ref().map(task::all).unwrap_or_default();
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for task in &tasks {
        *counts.entry((task.name, task.state())).or_default() += 1;
    }
    let mut samples = text.gauge("pvc_tasks", "Tasks on record by name and state");
    for ((name, state), count) in counts {
        samples.put(&[("name", name), ("state", state)], count);
    }
    if let Some(view) = &view {
        agents::write(&mut text, &agents::read(view));
    }
    let mut text = text.finish();
    text.push_str(&instruments.text());
    text
}

/// Everything, in parts. Ceph's and ZooKeeper's part is left out while they do not answer.
pub(crate) async fn all<S: Store>(
    app: &Arc<App<S>>,
    instruments: &Instruments,
) -> Result<Vec<Arc<Text>>, ApiError> {
    let (health, resource, ceph, zookeeper) =
        futures::join!(health(app), resource(app), ceph(app), zookeeper(app));
    let mut text = daemon(app, instruments);
    let mut up = Exposition::default();
    let mut samples = up.gauge(
        "pvc_metrics_source_up",
        "1 if this source answered and its metrics are below",
    );
    for (source, found) in [("ceph", &ceph), ("zookeeper", &zookeeper)] {
        samples.put(&[("source", source)], found.is_ok());
    }
    text.push_str(&up.finish());
    let mut parts = vec![health?, resource?, Arc::new(Text::new(text))];
    parts.extend([ceph, zookeeper].into_iter().flatten());
    Ok(parts)
}

/// What Ceph's active manager tells.
pub(crate) async fn ceph<S: Store>(app: &Arc<App<S>>) -> Result<Arc<Text>, ApiError> {
    let view = app.view()?;
    let clock = app.clock;
    let make = || ask_ceph(clock, view);
    app.replies.texts.get(&app.clock, "ceph", make).await
}

/// A manager that stands by answers with nothing, so all nodes are asked.
async fn ask_ceph(clock: impl Clock, view: View) -> Result<String, ApiError> {
    let addresses = node_addresses(&view);
    let asked = addresses
        .iter()
        .map(|(_, addresses)| fetch(&clock, addresses.storage, CEPH_PORT));
    let mut failure = format!("no node has told its address; is port {CEPH_PORT} the right one?");
    for (answer, (node, _)) in join_all(asked).await.into_iter().zip(&addresses) {
        match answer {
            Ok(text) if !text.trim().is_empty() => return Ok(text),
            Ok(_) => {}
            Err(error) => failure = format!("{node}: {error}"),
        }
    }
    Err(no_source(format!(
        "No active manager of Ceph tells metrics on port {CEPH_PORT} ({failure}); \
         'ceph mgr module enable prometheus' switches that on"
    )))
}

/// What the primary's ZooKeeper tells.
pub(crate) async fn zookeeper<S: Store>(app: &Arc<App<S>>) -> Result<Arc<Text>, ApiError> {
    let view = app.view()?;
    let clock = app.clock;
    let make = || ask_zookeeper(clock, view);
    app.replies.texts.get(&app.clock, "zookeeper", make).await
}

async fn ask_zookeeper(clock: impl Clock, view: View) -> Result<String, ApiError> {
    let PrimaryRecord::Node(primary) = view.shown(&keys::config().primary_node(), PrimaryRecord::None) else {
        return Err(no_source("No node has the primary role".to_owned()));
    };
    let addresses = node_addresses(&view);
    let Some((_, address)) = addresses.into_iter().find(|(node, _)| *node == primary) else {
        return Err(no_source(format!("Node {primary} has not told its address")));
    };
    match fetch(&clock, address.cluster, ZOOKEEPER_PORT).await {
        // As PVC 1.0.3 does: the client port in labels would make series of their own.
        Ok(text) => off_thread(move || Ok(text.replace(":2181", ""))).await,
        Err(error) => Err(no_source(format!(
            "ZooKeeper on {primary} tells no metrics on port {ZOOKEEPER_PORT} ({error}); \
             see metricsProvider.httpPort in its zoo.cfg"
        ))),
    }
}

/// No fault of this daemon, nor of the store.
fn no_source(message: String) -> ApiError {
    ApiError::not_found(message)
}

async fn fetch(clock: &impl Clock, address: IpAddr, port: u16) -> Result<String, String> {
    let get = http_get::get(SocketAddr::new(address, port), "/metrics");
    match clock.timeout(SOURCE_LIMIT, get).await {
        Some(Ok(text)) => Ok(text),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("no answer within {} s", SOURCE_LIMIT.as_secs())),
    }
}

fn node_addresses(view: &View) -> Vec<(NodeName, NodeAddresses)> {
    node::names(view)
        .into_iter()
        .filter_map(|name| {
            let addresses = view.shown(&keys::node(&name).addresses(), None)?;
            Some((name, addresses))
        })
        .collect()
}
