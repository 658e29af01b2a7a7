//! Guests as the API shows them.

use std::time::{Duration, SystemTime};

use pvc_api::vm::{Vm, VmController, VmDisk, VmNetwork, VmSnapshot, VmTag, VmVnc};
use pvc_common::keys::values::{CommaList, Json, OrNone};
use pvc_common::keys::{self, DomainKeys};
use pvc_common::store::Store;
use pvc_core::guest_xml::{self, DiskSource, GuestXml, InterfaceKind};
use pvc_core::ids::{NodeName, TagName, VmId};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};
use serde_json::{Map, Value};

use super::record;
use crate::error::ApiError;
use crate::filter::NameFilter;
use crate::node;
use crate::snapshot::{Snapshot, Wanted, children_of_all};

/// Which guests a list shows: those that fit everything that is named.
#[derive(Debug, Default)]
pub(crate) struct VmFilter {
    pub(crate) name: Option<NameFilter>,
    pub(crate) node: Option<NodeName>,
    pub(crate) state: Option<VmState>,
    pub(crate) tag: Option<TagName>,
    pub(crate) sense: Sense,
}

/// Whether node, state and tag are those of the guests that are shown, or of those that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sense {
    #[default]
    Matching,
    Negated,
}

impl VmFilter {
    fn takes(&self, fits: bool) -> bool {
        match self.sense {
            Sense::Matching => fits,
            Sense::Negated => !fits,
        }
    }

    fn fits(&self, seen: &Snapshot, keys: &DomainKeys) -> Result<bool, ApiError> {
        let state = match (self.state, seen.get(&keys.state())?) {
            (_, None) => return Ok(false),
            (None, Some(_)) => true,
            (Some(wanted), Some(state)) => self.takes(state.value == wanted),
        };
        let node = match (&self.node, seen.get(&keys.node())?) {
            (_, None) => return Ok(false),
            (None, Some(_)) => true,
            (Some(wanted), Some(node)) => self.takes(node.value == *wanted),
        };
        Ok(state && node)
    }
}

/// All guests that fit, sorted by name.
pub(crate) async fn list<S: Store>(
    store: &S,
    now: SystemTime,
    filter: &VmFilter,
) -> Result<Vec<Vm>, ApiError> {
    if let Some(node) = &filter.node
        && !node::names(store).await?.contains(node)
    {
        return Err(ApiError::invalid("node", format!("there is no node {node}")));
    }
    let mut ids: Vec<VmId> = record::names(store)
        .await?
        .into_iter()
        .filter(|(id, name)| {
            let shown = name.clone().unwrap_or_else(|| id.to_string());
            filter.name.as_ref().is_none_or(|limit| limit.matches(&shown))
        })
        .map(|(id, _)| id)
        .collect();
    if filter.state.is_some() || filter.node.is_some() {
        let mut wanted = Wanted::default();
        for id in &ids {
            let keys = keys::domain(*id);
            wanted.key(&keys.state()).key(&keys.node());
        }
        let seen = Snapshot::read(store, wanted).await?;
        let mut kept = Vec::with_capacity(ids.len());
        for id in ids {
            if filter.fits(&seen, &keys::domain(id))? {
                kept.push(id);
            }
        }
        ids = kept;
    }
    let mut vms = read(store, now, ids).await?;
    if let Some(tag) = &filter.tag {
        vms.retain(|vm| filter.takes(vm.tags.iter().any(|found| found.name == tag.as_str())));
    }
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(vms)
}

/// One guest.
pub(crate) async fn one<S: Store>(store: &S, now: SystemTime, id: VmId) -> Result<Vm, ApiError> {
    read(store, now, vec![id])
        .await?
        .pop()
        .ok_or_else(|| record::unknown(&id.to_string()))
}

fn want(wanted: &mut Wanted, keys: &DomainKeys) {
    wanted
        .key(&keys.name())
        .key(&keys.xml())
        .key(&keys.state())
        .key(&keys.profile())
        .key(&keys.stats())
        .key(&keys.node())
        .key(&keys.last_node())
        .key(&keys.failed_reason())
        .key(&keys.vnc())
        .key(&keys.autostart())
        .key(&keys.migration_method())
        .key(&keys.migration_max_downtime_ms())
        .key(&keys.node_selector())
        .key(&keys.node_limit())
        .key(&keys.owner())
        .key(&keys.incoming())
        .key(&keys.recovery_priority())
        .key(&keys.anti_affinity());
}

/// Reads guests. One that was removed meanwhile is left out.
async fn read<S: Store>(store: &S, now: SystemTime, ids: Vec<VmId>) -> Result<Vec<Vm>, ApiError> {
    let mut wanted = Wanted::default();
    for id in &ids {
        want(&mut wanted, &keys::domain(*id));
    }
    let seen = Snapshot::read(store, wanted).await?;
    let tags = children_of_all(store, ids.iter().map(|id| keys::domain_tags(*id)).collect()).await?;
    let snapshots =
        children_of_all(store, ids.iter().map(|id| keys::domain_snapshots(*id)).collect()).await?;
    let mut wanted = Wanted::default();
    for (id, (tags, snapshots)) in ids.iter().zip(tags.iter().zip(&snapshots)) {
        for tag in tags {
            let keys = keys::tag(*id, tag);
            wanted.key(&keys.kind()).key(&keys.protected());
        }
        for snapshot in snapshots {
            let keys = keys::domain_snapshot(*id, snapshot);
            wanted.key(&keys.timestamp()).key(&keys.rbd_snapshots());
        }
    }
    let below = Snapshot::read(store, wanted).await?;
    let mut vms = Vec::with_capacity(ids.len());
    for (id, (tags, snapshots)) in ids.iter().zip(tags.iter().zip(&snapshots)) {
        let Some(state) = seen.get(&keys::domain(*id).state())? else {
            continue;
        };
        let tags = tags.iter().map(|tag| shown_tag(*id, tag, &below)).collect();
        let snapshots = snapshots
            .iter()
            .map(|name| shown_snapshot(*id, name, now, &below))
            .collect();
        vms.push(assemble(*id, state.value, tags, snapshots, &seen));
    }
    Ok(vms)
}

fn shown_tag(id: VmId, tag: &TagName, below: &Snapshot) -> VmTag {
    let keys = keys::tag(id, tag);
    VmTag {
        name: tag.to_string(),
        kind: below.shown(&keys.kind(), "user".to_owned()),
        protected: below.shown(&keys.protected(), false),
    }
}

fn shown_snapshot(id: VmId, name: &str, now: SystemTime, below: &Snapshot) -> VmSnapshot {
    let keys = keys::domain_snapshot(id, name);
    let timestamp = below.shown(&keys.timestamp(), String::new());
    let made = timestamp
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    VmSnapshot {
        name: name.to_owned(),
        age: made
            .and_then(|made| now.duration_since(made).ok())
            .and_then(|age| i64::try_from(age.as_secs()).ok())
            .unwrap_or(0),
        timestamp,
        xml_diff_lines: Vec::new(),
        rbd_snapshots: below.shown(&keys.rbd_snapshots(), CommaList(Vec::new())).0,
    }
}

/// Puts a guest together. Nothing in here can make it vanish: what can not be read is shown as empty.
fn assemble(id: VmId, state: VmState, tags: Vec<VmTag>, snapshots: Vec<VmSnapshot>, seen: &Snapshot) -> Vm {
    let keys = keys::domain(id);
    let xml = seen.shown(&keys.xml(), String::new());
    let (guest, xml_error) = match guest_xml::parse(&xml) {
        Ok(guest) => (Some(guest), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let stats = seen
        .shown(&keys.stats(), None)
        .map_or(Value::Null, |Json(stats)| stats);
    let last_node = seen
        .shown(&keys.last_node(), None)
        .map(|node| node.to_string())
        .unwrap_or_default();
    let limit = seen.shown(&keys.node_limit(), CommaList(Vec::new())).0;
    let owner = seen.shown(&keys.owner(), None);
    Vm {
        name: match seen.get(&keys.name()) {
            Ok(Some(name)) => name.value.to_string(),
            Ok(None) | Err(_) => id.to_string(),
        },
        uuid: id.to_string(),
        state,
        node: match seen.get(&keys.node()) {
            Ok(Some(node)) => node.value.to_string(),
            Ok(None) | Err(_) => String::new(),
        },
        migrated: if last_node.is_empty() {
            "no".to_owned()
        } else {
            format!("from {last_node}")
        },
        last_node,
        failed_reason: seen.shown(&keys.failed_reason(), String::new()),
        node_limit: (!limit.is_empty()).then(|| limit.iter().map(NodeName::to_string).collect()),
        node_selector: match seen.shown(&keys.node_selector(), NodeSelector::None) {
            NodeSelector::None => None,
            selector @ (NodeSelector::Mem
            | NodeSelector::Memprov
            | NodeSelector::Load
            | NodeSelector::Vcpus
            | NodeSelector::Vms) => Some(selector.to_string()),
        },
        node_autostart: seen.shown(&keys.autostart(), false),
        migration_method: match seen.shown(&keys.migration_method(), MigrationMethod::None) {
            MigrationMethod::None => None,
            method @ (MigrationMethod::Live | MigrationMethod::Shutdown) => Some(method.to_string()),
        },
        migration_max_downtime: u64::from(seen.shown(&keys.migration_max_downtime_ms(), 300)),
        tags,
        snapshots,
        profile: seen
            .shown(&keys.profile(), OrNone(None))
            .0
            .unwrap_or_else(|| "None".to_owned()),
        memory_stats: object(&stats, "mem_stats"),
        vcpu_stats: object(&stats, "cpu_stats"),
        vnc: vnc(&seen.shown(&keys.vnc(), String::new())),
        running: owner.as_ref().is_some_and(record::runs),
        incoming: seen
            .shown(&keys.incoming(), None)
            .map(|incoming| incoming.target.to_string())
            .unwrap_or_default(),
        recovery_priority: seen.shown(&keys.recovery_priority(), 0),
        anti_affinity: seen
            .shown(&keys.anti_affinity(), CommaList(Vec::new()))
            .0
            .iter()
            .map(TagName::to_string)
            .collect(),
        owner: owner.map(|owner| owner.node.to_string()).unwrap_or_default(),
        networks: guest
            .as_ref()
            .map(|guest| networks(guest, &stats))
            .unwrap_or_default(),
        disks: guest
            .as_ref()
            .map(|guest| disks(guest, &stats))
            .unwrap_or_default(),
        controllers: guest.as_ref().map(controllers).unwrap_or_default(),
        memory: guest.as_ref().map_or(0, |guest| guest.memory_mib),
        vcpu: guest.as_ref().map_or(0, |guest| guest.vcpus),
        vcpu_topology: guest
            .as_ref()
            .and_then(|guest| guest.topology)
            .map_or_else(not_known, |topology| {
                format!("{}/{}/{}", topology.sockets, topology.cores, topology.threads)
            }),
        console: guest
            .as_ref()
            .and_then(|guest| guest.console.clone())
            .unwrap_or_else(not_known),
        description: of(guest.as_ref(), |guest| &guest.description),
        kind: of(guest.as_ref(), |guest| &guest.os_type),
        arch: of(guest.as_ref(), |guest| &guest.arch),
        machine: of(guest.as_ref(), |guest| &guest.machine),
        emulator: of(guest.as_ref(), |guest| &guest.emulator),
        features: guest.map(|guest| guest.features).unwrap_or_default(),
        xml: xml.replace('"', "'"),
        xml_error,
    }
}

fn not_known() -> String {
    "N/A".to_owned()
}

fn of(guest: Option<&GuestXml>, part: fn(&GuestXml) -> &String) -> String {
    guest.map(|guest| part(guest).clone()).unwrap_or_default()
}

fn object(stats: &Value, part: &str) -> Value {
    match stats.get(part) {
        Some(Value::Object(found)) => Value::Object(found.clone()),
        Some(_) | None => Value::Object(Map::new()),
    }
}

fn vnc(stored: &str) -> VmVnc {
    match stored.rsplit_once(':') {
        Some((listen, port)) => VmVnc {
            listen: Some(listen.to_owned()),
            port: Some(port.to_owned()),
        },
        None => VmVnc::default(),
    }
}

fn controllers(guest: &GuestXml) -> Vec<VmController> {
    guest
        .controllers
        .iter()
        .map(|controller| VmController {
            kind: controller.kind.clone(),
            model: controller.model.clone(),
        })
        .collect()
}

/// The entry of a list of statistics that has one of these values in one of these fields: lists are joined by what
/// their entries say of themselves, never by position.
fn entry<'a>(stats: &'a Value, list: &str, fields: &[&str], values: &[&str]) -> Option<&'a Value> {
    stats.get(list)?.as_array()?.iter().find(|entry| {
        fields.iter().any(|field| {
            entry
                .get(field)
                .and_then(Value::as_str)
                .is_some_and(|found| !found.is_empty() && values.contains(&found))
        })
    })
}

fn figure(entry: Option<&Value>, field: &str) -> u64 {
    entry
        .and_then(|entry| entry.get(field))
        .and_then(Value::as_u64)
        .unwrap_or(0)
}

fn disks(guest: &GuestXml, stats: &Value) -> Vec<VmDisk> {
    guest
        .disks
        .iter()
        .map(|disk| {
            let (kind, name) = match &disk.source {
                DiskSource::Rbd(rbd) => ("rbd", rbd.volume.to_string()),
                DiskSource::File { path } => ("file", path.clone()),
                DiskSource::Empty => ("file", String::new()),
            };
            let found = entry(stats, "disk_stats", &["name", "dev"], &[&name, &disk.target]);
            VmDisk {
                kind: kind.to_owned(),
                dev: disk.target.clone(),
                bus: disk.bus.clone(),
                rd_req: figure(found, "rd_req"),
                rd_bytes: figure(found, "rd_bytes"),
                wr_req: figure(found, "wr_req"),
                wr_bytes: figure(found, "wr_bytes"),
                name,
            }
        })
        .collect()
}

fn networks(guest: &GuestXml, stats: &Value) -> Vec<VmNetwork> {
    guest
        .interfaces
        .iter()
        .map(|interface| {
            let (vni, source) = match &interface.kind {
                InterfaceKind::Bridge { bridge } => (vni_of(bridge), bridge.clone()),
                InterfaceKind::Direct { device } => (format!("macvtap:{device}"), device.clone()),
                InterfaceKind::Hostdev { address } => (format!("hostdev:{address}"), address.clone()),
            };
            // By MAC where the agent says it: two interfaces may be on one bridge.
            let found = entry(stats, "net_stats", &["mac"], &[&interface.mac])
                .or_else(|| entry(stats, "net_stats", &["bridge", "source"], &[&source]));
            VmNetwork {
                kind: interface.kind.as_str().to_owned(),
                vni,
                mac: interface.mac.clone(),
                source,
                model: interface.model.clone(),
                rd_bytes: figure(found, "rd_bytes"),
                rd_packets: figure(found, "rd_packets"),
                rd_errors: figure(found, "rd_errors"),
                rd_drops: figure(found, "rd_drops"),
                wr_bytes: figure(found, "wr_bytes"),
                wr_packets: figure(found, "wr_packets"),
                wr_errors: figure(found, "wr_errors"),
                wr_drops: figure(found, "wr_drops"),
            }
        })
        .collect()
}

/// The network's number in the name of its bridge (`vmbr100`), or the name of a bridge of ours (`brupstream`).
fn vni_of(bridge: &str) -> String {
    bridge
        .strip_prefix("vmbr")
        .or_else(|| bridge.strip_prefix("br"))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(bridge)
        .to_owned()
}
