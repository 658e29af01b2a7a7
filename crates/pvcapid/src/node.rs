//! Nodes: reading them, and handing the primary role on.

use std::collections::BTreeMap;

use pvc_api::node::{Health, HealthDetail, InterfaceStats, Node, NodeMemory, NodeVcpu, Upstream};
use pvc_common::keys::values::{Json, Load, OrNone, RunningDomains, SpaceList};
use pvc_common::keys::{self, NodeKeys};
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::ids::{NodeName, VmId};
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{CoordinatorState, DaemonMode, DaemonState, DomainState};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::filter::NameFilter;
use crate::snapshot::{Reading, Snapshot, Wanted};
use crate::unreadable::Unreadable;
use crate::{adopt, drain, fence};

/// How often a transaction is tried again after somebody else was faster.
const RETRIES: usize = 8;

/// Which nodes a list shows: those that fit everything that is named.
#[derive(Debug, Default)]
pub(crate) struct NodeFilter {
    pub(crate) name: Option<NameFilter>,
    pub(crate) daemon_state: Option<DaemonState>,
    pub(crate) coordinator_state: Option<CoordinatorState>,
    pub(crate) domain_state: Option<DomainState>,
}

impl NodeFilter {
    /// Whether all nodes fit.
    pub(crate) fn takes_all(&self) -> bool {
        self.name.is_none()
            && self.daemon_state.is_none()
            && self.coordinator_state.is_none()
            && self.domain_state.is_none()
    }

    fn fits(&self, node: &Node) -> bool {
        self.daemon_state.is_none_or(|state| state == node.daemon_state)
            && self
                .coordinator_state
                .is_none_or(|state| state == node.coordinator_state)
            && self.domain_state.is_none_or(|state| state == node.domain_state)
    }
}

/// The node that a path names.
pub(crate) fn parse_name(name: &str) -> Result<NodeName, ApiError> {
    // What can not be a name is not the name of any node.
    NodeName::new(name).map_err(|_| unknown(name))
}

/// There is no such node.
pub(crate) fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("There is no node {name:?} in this cluster"))
}

/// All nodes that fit, sorted by name.
pub(crate) fn list(view: &View, filter: &NodeFilter) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in names(view) {
        let named = |limit: &NameFilter| limit.matches(name.as_str());
        if filter.name.as_ref().is_none_or(named)
            && let Some(node) = read(view, &name)
            && filter.fits(&node)
        {
            nodes.push(node);
        }
    }
    nodes
}

/// One node.
pub(crate) fn one(view: &View, name: &NodeName) -> Result<Node, ApiError> {
    read(view, name).ok_or_else(|| unknown(name.as_str()))
}

/// The names of all nodes, sorted.
pub(crate) fn names(view: &View) -> Vec<NodeName> {
    view.children(&keys::nodes())
}

/// The last lines of a node's log. They are not mirrored: a log is long, and few ask for it.
pub(crate) async fn log<S: Store>(app: &App<S>, name: &NodeName, lines: usize) -> Result<String, ApiError> {
    daemon_state(&app.view()?, name)?;
    let found = app.store.get(&keys::log(name).messages()).await?;
    let text = found.map(|found| found.value).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let last = all.iter().skip(all.len().saturating_sub(lines)).copied();
    Ok(last.collect::<Vec<_>>().join("\n"))
}

/// How a node's agent is.
pub(crate) fn daemon_state(view: &View, name: &NodeName) -> Result<DaemonState, ApiError> {
    let found = view.get(&keys::node(name).daemon_state())?;
    found
        .map(|found| found.value)
        .ok_or_else(|| unknown(name.as_str()))
}

/// A node's part in the primary role.
pub(crate) fn coordinator_state(view: &View, name: &NodeName) -> Result<CoordinatorState, ApiError> {
    let found = view.get(&keys::node(name).coordinator_state())?;
    found
        .map(|found| found.value)
        .ok_or_else(|| unknown(name.as_str()))
}

/// A node as it is shown; `None` if there is no such node.
fn read(view: &View, name: &NodeName) -> Option<Node> {
    let mut unreadable = Unreadable::default();
    // A node that is just being removed has nothing of it.
    let daemon_state = shown_daemon_state(view, name, &mut unreadable)?;
    Some(assemble(name, daemon_state, unreadable, view))
}

/// How a node's agent is, as it is shown; `None` if there is no such node.
pub(crate) fn shown_daemon_state(
    view: &View,
    name: &NodeName,
    unreadable: &mut Unreadable,
) -> Option<DaemonState> {
    unreadable.value(view.get(&keys::node(name).daemon_state()), DaemonState::Init)
}

fn plugins(view: &View, keys: &NodeKeys) -> Vec<String> {
    view.shown(&keys.monitoring_plugins(), SpaceList(Vec::new())).0
}

fn assemble(name: &NodeName, daemon_state: DaemonState, mut unreadable: Unreadable, view: &View) -> Node {
    let keys = keys::node(name);
    let coordinator_state = unreadable.known(view.require(&keys.coordinator_state()));
    let domain_state = unreadable.known(view.require(&keys.domain_state()));
    let made_of = view.shown(&keys.static_data(), None);
    let running = view.shown(&keys.running_domains(), RunningDomains(Vec::new())).0;
    let health_plugins = plugins(view, &keys);
    // A fence that can not be read is shown as such: it must not look like none.
    let (phase, fence_open) = match view.get(&keys::fence(name)) {
        Ok(None) => ("none", false),
        Ok(Some(found)) => found
            .value
            .map_or(("none", false), |record| (record.phase.word(), record.is_open())),
        Err(_) => ("unreadable", true),
    };
    Node {
        name: name.to_string(),
        daemon_state,
        coordinator_state: coordinator_state.map_or(CoordinatorState::Client, |state| state.value),
        domain_state: domain_state.map_or(DomainState::Flush, |state| state.value),
        pvc_version: view
            .get(&keys.pvc_version())
            .ok()
            .flatten()
            .map(|release| release.value.to_string())
            .unwrap_or_default(),
        health: match view.shown(&keys.monitoring_health(), OrNone(None)).0 {
            Some(percent) => Health::Percent(u8::try_from(percent.min(100)).unwrap_or(100)),
            None => Health::unknown(),
        },
        health_details: health_plugins
            .iter()
            .map(|plugin| health_detail(name, plugin, view))
            .collect(),
        health_plugins,
        load: view.shown(&keys.cpu_load(), Load(0.0)).0,
        domains_count: view.shown(&keys.domains_count(), 0),
        running_domains: running_names(&running, view),
        vcpu: NodeVcpu {
            total: made_of.as_ref().map_or(0, |made_of| made_of.cpus),
            allocated: u32::try_from(view.shown(&keys.vcpu_allocated(), 0)).unwrap_or(u32::MAX),
        },
        memory: NodeMemory {
            total: view.shown(&keys.memory_total_mib(), 0),
            allocated: view.shown(&keys.memory_allocated_mib(), 0),
            provisioned: view.shown(&keys.memory_provisioned_mib(), 0),
            used: view.shown(&keys.memory_used_mib(), 0),
            free: view.shown(&keys.memory_free_mib(), 0),
        },
        interfaces: view
            .shown(&keys.network_stats(), None)
            .map(|Json(stats)| interfaces(&stats))
            .unwrap_or_default(),
        cpu_count: made_of.as_ref().map_or(0, |made_of| made_of.cpus),
        kernel: made_of
            .as_ref()
            .map(|made_of| made_of.kernel.clone())
            .unwrap_or_default(),
        os: made_of
            .as_ref()
            .map(|made_of| made_of.os.clone())
            .unwrap_or_default(),
        arch: made_of.map(|made_of| made_of.arch).unwrap_or_default(),
        fence: phase.to_owned(),
        fence_open,
        bmc: view.shown(&keys.bmc(), None).as_ref().map(fence::bmc),
        upstream: view.shown(&keys.upstream(), None).map(|reading| Upstream {
            up: reading.up,
            reason: reading.reason,
        }),
        drain: view.shown(&keys.drain(), None).map(drain::shown),
        hold: view
            .shown(&keys.hold(), None)
            .map(|record| adopt::hold_text(&record))
            .unwrap_or_default(),
        store_error: unreadable.text(),
    }
}

/// Names of running guests; the UUID where a guest has no name any more.
fn running_names(running: &[VmId], view: &View) -> Vec<String> {
    running
        .iter()
        .map(|id| match view.get(&keys::domain(*id).name()) {
            Ok(Some(name)) => name.value.to_string(),
            Ok(None) | Err(_) => id.to_string(),
        })
        .collect()
}

fn health_detail(node: &NodeName, plugin: &str, view: &View) -> HealthDetail {
    let keys = keys::monitoring_plugin(node, plugin);
    HealthDetail {
        name: plugin.to_owned(),
        last_run: match view.shown(&keys.last_run(), 0) {
            0 => None,
            seconds => i64::try_from(seconds).ok(),
        },
        health_delta: i64::from(view.shown(&keys.health_delta(), 0)),
        message: view.shown(&keys.message(), String::new()),
        data: view
            .shown(&keys.data(), None)
            .map_or_else(|| Value::Object(serde_json::Map::new()), |Json(data)| data),
    }
}

fn interfaces(stats: &Value) -> BTreeMap<String, InterfaceStats> {
    let Some(stats) = stats.as_object() else {
        return BTreeMap::new();
    };
    stats
        .iter()
        .map(|(name, figures)| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rates are shown as whole numbers; `as` saturates at the ends"
            )]
            let number = |field: &str| {
                figures
                    .get(field)
                    .and_then(|value| {
                        value
                            .as_i64()
                            .or_else(|| value.as_f64().map(|value| value as i64))
                    })
                    .unwrap_or(0)
            };
            let stats = InterfaceStats {
                rx_bps: number("rx_bps"),
                rx_pps: number("rx_pps"),
                tx_bps: number("tx_bps"),
                tx_pps: number("tx_pps"),
                total_bps: number("total_bps"),
                total_pps: number("total_pps"),
                link_speed: number("link_speed"),
                state: figures
                    .get("state")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
            };
            (name.clone(), stats)
        })
        .collect()
}

/// Names `target` in the record of the primary role; the agents do the rest. Answers in words.
///
/// # Idempotence
/// A node that is named already is success, without a write.
pub(crate) async fn make_primary<S: Store>(store: &S, target: &NodeName) -> Result<String, ApiError> {
    let keys = keys::node(target);
    for _ in 0..RETRIES {
        let mut wanted = Wanted::default();
        wanted
            .key(&keys.daemon_state())
            .key(&keys.daemon_mode())
            .key(&keys::config().primary_node());
        let seen = Snapshot::read(store, wanted).await?;
        let daemon_state = seen
            .get(&keys.daemon_state())?
            .ok_or_else(|| unknown(target.as_str()))?;
        match seen.require(&keys.daemon_mode())?.value {
            DaemonMode::Coordinator => {}
            DaemonMode::Hypervisor => {
                return Err(ApiError::invalid(
                    "state",
                    format!("node {target} is not a coordinator and can not be primary"),
                ));
            }
        }
        if daemon_state.value != DaemonState::Run {
            return Err(ApiError::invalid(
                "state",
                format!(
                    "node {target} can not become primary: its agent is in state {}, not run",
                    daemon_state.value
                ),
            ));
        }
        let record = seen.require(&keys::config().primary_node())?;
        if record.value.names(target) {
            return Ok(format!("Node {target} has the primary role or is taking it"));
        }
        let txn = Txn::new().check(&keys.daemon_state(), daemon_state.version).set(
            &keys::config().primary_node(),
            &PrimaryRecord::Node(target.clone()),
            record.version,
        );
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(node = %target, before = %record.value, "primary role given to a node");
                return Ok(format!("Node {target} is taking the primary role"));
            }
            // Agents write there too. Look again, decide again.
            Err(StoreError::BadVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The primary role"))
}

/// Takes the primary role away from `node`, if it has it; the other coordinators contend for it then.
///
/// # Idempotence
/// A node that is not primary is success, without a write.
pub(crate) async fn make_secondary<S: Store>(store: &S, node: &NodeName) -> Result<String, ApiError> {
    let keys = keys::node(node);
    for _ in 0..RETRIES {
        let mut wanted = Wanted::default();
        wanted
            .key(&keys.daemon_mode())
            .key(&keys::config().primary_node());
        let seen = Snapshot::read(store, wanted).await?;
        let mode = seen
            .get(&keys.daemon_mode())?
            .ok_or_else(|| unknown(node.as_str()))?;
        match mode.value {
            DaemonMode::Coordinator => {}
            DaemonMode::Hypervisor => {
                return Err(ApiError::invalid(
                    "state",
                    format!("node {node} is not a coordinator"),
                ));
            }
        }
        let record = seen.require(&keys::config().primary_node())?;
        if !record.value.names(node) {
            return Ok(format!("Node {node} does not have the primary role"));
        }
        let txn = Txn::new().set(
            &keys::config().primary_node(),
            &PrimaryRecord::None,
            record.version,
        );
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(node = %node, "primary role taken from a node");
                return Ok(format!("Node {node} is giving up the primary role"));
            }
            Err(StoreError::BadVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The primary role"))
}

/// Which node has or takes the primary role.
pub(crate) fn primary(view: &View) -> Result<PrimaryRecord, ApiError> {
    Ok(view
        .get(&keys::config().primary_node())?
        .map_or(PrimaryRecord::None, |record| record.value))
}
