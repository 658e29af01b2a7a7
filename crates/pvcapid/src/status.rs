//! The cluster as a whole.
//!
//! Health is what can be told from nodes, guests, the primary role and recorded faults. What is on record as a fault counts
//! as that, so that it can be acknowledged; what is plain to see is told before its fault is raised too.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pvc_api::fault::Fault;
use pvc_api::node::{Health, Node};
use pvc_api::status::{
    ClusterHealth, ClusterStatus, CpuResources, Detail, DiskResources, HealthMessage, MemoryResources,
    NodeBrief, NodeHealth, OsdBrief, Resources, VmBrief,
};
use pvc_api::storage::Osd;
use pvc_common::faults::fault_id;
use pvc_common::keys;
use pvc_common::keys::values::Maintenance;
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::ids::VmId;
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{DaemonState, VmState};
use serde_json::Value;

use crate::error::ApiError;
use crate::fault::{self, SortKey};
use crate::fence;
use crate::node::{self, NodeFilter};
use crate::storage;
use crate::unreadable::Unreadable;
use crate::vm::{list, record};

/// How often a change is tried again after somebody else was faster.
const RETRIES: usize = 8;

/// Points that a node costs whose agent is silent or that was fenced: half the cluster's health, as in PVC 1.0.3.
const NODE_LOST: u8 = 50;
/// Points that a node costs which does not take part, for whatever reason.
const NODE_ABSENT: u8 = 10;
/// Points that a guest costs which could not be started.
const VM_FAILED: u8 = 10;
/// Points that a node costs which does not reach the upstream network.
const UPSTREAM_LOST: u8 = 10;
/// Points for a cluster that nobody leads: its floating address answers nowhere.
const NO_PRIMARY: u8 = 25;

/// Everything that the status shows.
pub(crate) fn read(view: &View) -> Result<ClusterStatus, ApiError> {
    let nodes = node::list(view, &NodeFilter::default());
    let ids: Vec<VmId> = view.children(&keys::domains());
    let faults = fault::list(view, SortKey::default());
    let networks = view.children(&keys::networks()).len();
    let osds = storage::osds(view, None)?;
    let pools = view.children(&keys::pools()).len();
    let (volumes, snapshots) = storage::counts(view);

    let mut vms = Vec::with_capacity(ids.len());
    let mut unreadable = Vec::new();
    for id in ids {
        let mut trouble = Unreadable::default();
        // A guest that was removed since its name was listed is none.
        if let Some(state) = list::shown_state(view, id, &mut trouble) {
            let name = record::shown_name(view, id);
            if let Some(trouble) = trouble.text() {
                unreadable.push((name.clone(), trouble));
            }
            vms.push(VmBrief {
                uuid: id.to_string(),
                name,
                state,
            });
        }
    }
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    let fences = if nodes.iter().any(|node| node.fence_open) {
        let mut fences = fence::list(view);
        fences.retain(|fence| fence.open);
        fences
    } else {
        Vec::new()
    };
    let primary = view.shown(&keys::config().primary_node(), PrimaryRecord::None);

    Ok(ClusterStatus {
        cluster_name: view.shown(&keys::config().cluster_name(), String::new()),
        cluster_health: health(&nodes, &vms, &unreadable, &primary, &faults),
        node_health: nodes
            .iter()
            .map(|node| (node.name.clone(), node_health(node)))
            .collect(),
        maintenance: match view.shown(&keys::config().maintenance(), Maintenance::Off) {
            Maintenance::On => "true",
            Maintenance::Off => "false",
        }
        .to_owned(),
        pvc_version: nodes
            .iter()
            .find(|node| node.name == primary.to_string())
            .map(|node| node.pvc_version.clone())
            .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        primary_node: primary.to_string(),
        upstream_ip: view.shown(&keys::config().upstream_ip(), String::new()),
        nodes: count(
            nodes
                .iter()
                .map(|node| format!("{},{}", node.daemon_state, node.domain_state)),
        ),
        vms: count(vms.iter().map(|vm| vm.state.to_string())),
        networks: number(networks),
        osds: count(osds.iter().map(|osd| {
            let brief = osd_brief(osd);
            format!("{},{}", brief.up, brief.in_)
        })),
        pools: number(pools),
        volumes: number(volumes),
        snapshots: number(snapshots),
        fences,
        holding: number(nodes.iter().filter(|node| !node.hold.is_empty()).count()),
        resources: resources(&nodes, &osds),
        detail: Detail {
            node: nodes
                .iter()
                .map(|node| NodeBrief {
                    name: node.name.clone(),
                    daemon_state: node.daemon_state,
                    domain_state: node.domain_state,
                })
                .collect(),
            vm: vms,
            osd: osds.iter().map(osd_brief).collect(),
            faults,
        },
    })
}

/// Switches maintenance on or off. Answers in words.
///
/// # Idempotence
/// What is so already is success, without a write.
pub(crate) async fn set_maintenance<S: Store>(store: &S, wanted: Maintenance) -> Result<String, ApiError> {
    let key = keys::config().maintenance();
    let words = match wanted {
        Maintenance::On => "The cluster is under maintenance: no node is fenced",
        Maintenance::Off => "The cluster is not under maintenance",
    };
    for _ in 0..RETRIES {
        let seen = store.require(&key).await?;
        if seen.value == wanted {
            return Ok(words.to_owned());
        }
        match store.commit(Txn::new().set(&key, &wanted, seen.version)).await {
            Ok(_) => {
                tracing::info!(maintenance = ?wanted, "maintenance switched");
                return Ok(words.to_owned());
            }
            Err(StoreError::BadVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The maintenance switch"))
}

fn health(
    nodes: &[Node],
    vms: &[VmBrief],
    unreadable: &[(String, String)],
    primary: &PrimaryRecord,
    faults: &[Fault],
) -> ClusterHealth {
    if nodes.is_empty() {
        return ClusterHealth {
            health: Health::unknown(),
            messages: Vec::new(),
        };
    }
    let mut messages = Vec::new();
    let mut add = |id: String, health_delta: u8, text: String| {
        messages.push(HealthMessage {
            id,
            health_delta,
            text,
        });
    };
    let is_on_record = |id: &str| faults.iter().any(|fault| fault.id == id);
    for node in nodes {
        if let Some(error) = &node.store_error {
            add(
                fault_id(&["NODE_UNREADABLE", &node.name]),
                NODE_ABSENT,
                format!("The record of node {} can not be read: {error}", node.name),
            );
            continue;
        }
        let delta = node_delta(node.daemon_state);
        let id = match node.daemon_state {
            DaemonState::Dead | DaemonState::Fenced => fault_id(&["DEAD_NODE", &node.name]),
            DaemonState::Run | DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => {
                fault_id(&["NODE", &node.name])
            }
        };
        if delta > 0 && !is_on_record(&id) {
            add(
                id,
                delta,
                format!("Node {} is in state {}", node.name, node.daemon_state),
            );
        }
    }
    for node in nodes {
        // Its fault tells the same, and what to do.
        let told = is_on_record(&fault_id(&["NODE_PLUGIN_IPMI", &node.name]));
        if let Some(bmc) = node.bmc.as_ref().filter(|bmc| !bmc.works && !told) {
            add(
                format!("NODE_BMC_{}", node.name.to_uppercase()),
                0,
                format!("The BMC of node {} does not work: {}", node.name, bmc.reason),
            );
        }
        if let Some(upstream) = node.upstream.as_ref().filter(|upstream| !upstream.up) {
            add(
                format!("NODE_UPSTREAM_{}", node.name.to_uppercase()),
                UPSTREAM_LOST,
                format!(
                    "Node {} does not reach the upstream network: {}",
                    node.name, upstream.reason
                ),
            );
        }
    }
    if *primary == PrimaryRecord::None {
        add(
            "NO_PRIMARY".to_owned(),
            NO_PRIMARY,
            "No node has the primary role".to_owned(),
        );
    }
    for (name, error) in unreadable {
        add(
            fault_id(&["VM_UNREADABLE", name]),
            VM_FAILED,
            format!("The record of VM {name} can not be read: {error}"),
        );
    }
    let is_unreadable = |vm: &&VmBrief| unreadable.iter().any(|(name, _)| *name == vm.name);
    let failed = vms.iter().filter(|vm| vm.state == VmState::Fail);
    for vm in failed.filter(|vm| !is_unreadable(vm)) {
        let id = fault_id(&["VM_FAILED", &vm.name]);
        if !is_on_record(&id) {
            add(id, VM_FAILED, format!("VM {} has failed", vm.name));
        }
    }
    for fault in faults.iter().filter(|fault| !fault.is_acknowledged()) {
        add(
            fault.id.clone(),
            u8::try_from(fault.health_delta).unwrap_or(u8::MAX),
            fault.message.clone(),
        );
    }
    // What is told for information is not to stand above what is broken.
    messages.sort_by_key(|message| Reverse(message.health_delta));
    let lost: u32 = messages
        .iter()
        .map(|message| u32::from(message.health_delta))
        .sum();
    ClusterHealth {
        health: Health::Percent(u8::try_from(100_u32.saturating_sub(lost)).unwrap_or(0)),
        messages,
    }
}

fn node_delta(state: DaemonState) -> u8 {
    match state {
        DaemonState::Run => 0,
        DaemonState::Init | DaemonState::Shutdown | DaemonState::Stop => NODE_ABSENT,
        DaemonState::Dead | DaemonState::Fenced => NODE_LOST,
    }
}

fn node_health(node: &Node) -> NodeHealth {
    NodeHealth {
        health: node.health.clone(),
        messages: node
            .health_details
            .iter()
            .filter(|detail| detail.health_delta > 0)
            .map(|detail| format!("{}: {}", detail.name, detail.message))
            .collect(),
    }
}

fn count(words: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::from([("total".to_owned(), 0)]);
    for word in words {
        *counts.entry("total".to_owned()).or_default() += 1;
        *counts.entry(word).or_default() += 1;
    }
    counts
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn osd_brief(osd: &Osd) -> OsdBrief {
    let state = storage::osd_state(osd);
    OsdBrief {
        id: osd.id.clone(),
        up: if state.up == 1 { "up" } else { "down" }.to_owned(),
        in_: if state.in_ == 1 { "in" } else { "out" }.to_owned(),
    }
}

fn disks(osds: &[Osd]) -> DiskResources {
    let sum = |field: &str| {
        osds.iter().fold(0_u64, |sum, osd| {
            sum.saturating_add(osd.stats.get(field).and_then(Value::as_u64).unwrap_or(0))
        })
    };
    let used_percent: Vec<f64> = osds
        .iter()
        .filter_map(|osd| osd.stats.get("utilization").and_then(Value::as_f64))
        .collect();
    let total: f64 = used_percent.iter().fold(0.0, |sum, percent| sum + percent);
    DiskResources {
        total: sum("kb"),
        used: sum("kb_used"),
        free: sum("kb_avail"),
        // The mean of the OSDs, as in PVC 1.0.3: `percent` is of a hundred here.
        utilization: percent(total, 100.0 * precise(number(used_percent.len()))),
    }
}

fn resources(nodes: &[Node], osds: &[Osd]) -> Resources {
    let sum = |part: fn(&Node) -> u64| nodes.iter().map(part).sum::<u64>();
    let total = sum(|node| node.memory.total);
    let used = sum(|node| node.memory.used);
    let cpus = sum(|node| u64::from(node.vcpu.total));
    // Not `sum`, which makes -0 of nothing.
    let load = nodes.iter().fold(0.0, |sum, node| sum + node.load);
    Resources {
        memory: MemoryResources {
            total,
            free: sum(|node| node.memory.free),
            used,
            allocated: sum(|node| node.memory.allocated),
            provisioned: sum(|node| node.memory.provisioned),
            utilization: percent(precise(used), precise(total)),
        },
        cpu: CpuResources {
            total: cpus,
            load,
            allocated: sum(|node| u64::from(node.vcpu.allocated)),
            utilization: percent(load, precise(cpus)),
        },
        disk: disks(osds),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people; MiB and CPUs stay far below 2^52"
)]
fn precise(number: u64) -> f64 {
    number as f64
}

/// How much `part` is of `whole`, in percent with two decimals; nothing of nothing is 0.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part / whole * 10_000.0).round() / 100.0
    } else {
        0.0
    }
}
