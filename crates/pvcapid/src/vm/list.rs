//! Guests as the API shows them.

use std::time::{Duration, SystemTime};

use pvc_api::vm::{Vm, VmController, VmDisk, VmNetwork, VmSnapshot, VmTag, VmVnc};
use pvc_common::keys;
use pvc_common::keys::values::{CommaList, Json, OrNone};
use pvc_common::mirror::View;
use pvc_core::diff;
use pvc_core::guest_xml::{DiskSource, GuestXml, InterfaceKind, secrets};
use pvc_core::ids::{NodeName, TagName, VmId};
use pvc_core::states::{MigrationMethod, NodeSelector, VmState};
use serde_json::{Map, Value};

use super::parsed::{Parsed, Read};
use super::record;
use crate::error::ApiError;
use crate::filter::NameFilter;
use crate::node;
use crate::unreadable::Unreadable;

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
    /// Whether all guests fit.
    pub(crate) fn takes_all(&self) -> bool {
        self.name.is_none() && self.node.is_none() && self.state.is_none() && self.tag.is_none()
    }

    fn takes(&self, fits: bool) -> bool {
        match self.sense {
            Sense::Matching => fits,
            Sense::Negated => !fits,
        }
    }

    fn fits(&self, view: &View, id: VmId) -> bool {
        let keys = keys::domain(id);
        let named = |limit: &NameFilter| limit.matches(&record::shown_name(view, id));
        if !self.name.as_ref().is_none_or(named) {
            return false;
        }
        // Where one can not be read, what is shown in its place is what counts.
        let state = match (self.state, shown_state(view, id, &mut Unreadable::default())) {
            (_, None) => return false,
            (None, Some(_)) => true,
            (Some(wanted), Some(state)) => self.takes(state == wanted),
        };
        let node = match (&self.node, view.get(&keys.node())) {
            (_, Ok(None)) => return false,
            (None, Ok(Some(_)) | Err(_)) => true,
            (Some(wanted), Ok(Some(node))) => self.takes(node.value == *wanted),
            (Some(_), Err(_)) => self.takes(false),
        };
        let tag = match &self.tag {
            None => true,
            Some(wanted) => self.takes(view.children(&keys::domain_tags(id)).contains(wanted)),
        };
        state && node && tag
    }
}

/// All guests that fit, sorted by name.
pub(crate) fn list(view: &View, filter: &VmFilter) -> Result<Vec<VmId>, ApiError> {
    if let Some(node) = &filter.node
        && !node::names(view).contains(node)
    {
        return Err(ApiError::invalid("node", format!("there is no node {node}")));
    }
    let mut vms = Vec::new();
    for id in view.children(&keys::domains()) {
        if filter.fits(view, id) {
            vms.push((record::shown_name(view, id), id));
        }
    }
    vms.sort();
    Ok(vms.into_iter().map(|(_, id)| id).collect())
}

/// One guest.
pub(crate) fn one(view: &View, now: SystemTime, id: VmId, parsed: &Parsed) -> Result<Vm, ApiError> {
    let shown = figures(view, id, parsed)?;
    let stored = view.get(&keys::domain(id).xml()).ok().flatten();
    let xml_version = stored.as_ref().map(|stored| stored.version.0.into());
    let xml = stored.map(|stored| stored.value).unwrap_or_default();
    // Before anything is compared with it: nothing in what is shown may tell of a secret.
    let xml = secrets::mask(&xml).into_owned();
    let snapshots = view
        .children(&keys::domain_snapshots(id))
        .iter()
        .map(|name| shown_snapshot(id, name, &xml, now, view))
        .collect();
    Ok(Vm {
        snapshots,
        xml,
        xml_version,
        ..shown
    })
}

/// One guest without its XML and its snapshots: what figures are made of.
pub(crate) fn figures(view: &View, id: VmId, parsed: &Parsed) -> Result<Vm, ApiError> {
    let mut unreadable = Unreadable::default();
    let state = shown_state(view, id, &mut unreadable).ok_or_else(|| record::unknown(&id.to_string()))?;
    Ok(assemble(id, state, unreadable, &parsed.of(view, id), view))
}

/// A guest's state; `None` if there is no such guest.
pub(crate) fn shown_state(view: &View, id: VmId, unreadable: &mut Unreadable) -> Option<VmState> {
    unreadable.value(view.get(&keys::domain(id).state()), VmState::Fail)
}

/// One guest, with the passwords in its XML.
pub(crate) fn one_with_secrets(
    view: &View,
    now: SystemTime,
    id: VmId,
    parsed: &Parsed,
) -> Result<Vm, ApiError> {
    let mut vm = one(view, now, id, parsed)?;
    vm.xml = view.shown(&keys::domain(id).xml(), String::new());
    Ok(vm)
}

/// A guest's tags.
pub(crate) fn shown_tags(view: &View, id: VmId) -> Vec<VmTag> {
    view.children(&keys::domain_tags(id))
        .iter()
        .map(|tag| shown_tag(id, tag, view))
        .collect()
}

fn shown_tag(id: VmId, tag: &TagName, view: &View) -> VmTag {
    let keys = keys::tag(id, tag);
    VmTag {
        name: tag.to_string(),
        kind: view.shown(&keys.kind(), "user".to_owned()),
        protected: view.shown(&keys.protected(), false),
    }
}

/// A snapshot; `xml` is the guest's present definition as it is shown.
fn shown_snapshot(id: VmId, name: &str, xml: &str, now: SystemTime, view: &View) -> VmSnapshot {
    let keys = keys::domain_snapshot(id, name);
    let timestamp = view.shown(&keys.timestamp(), String::new());
    let made = timestamp
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        // A sum that can not be told would end the daemon.
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    VmSnapshot {
        name: name.to_owned(),
        age: made
            .and_then(|made| now.duration_since(made).ok())
            .and_then(|age| i64::try_from(age.as_secs()).ok())
            .unwrap_or(0),
        timestamp,
        xml_diff_lines: match view.get(&keys.xml()) {
            Ok(Some(then)) => diff::unified(("current", xml), (name, &secrets::mask(&then.value)), 1),
            // There is nothing to compare with.
            Ok(None) | Err(_) => Vec::new(),
        },
        rbd_snapshots: view.shown(&keys.rbd_snapshots(), CommaList(Vec::new())).0,
    }
}

/// Puts a guest together. Nothing in here can make it vanish: what can not be read is shown as empty.
fn assemble(id: VmId, state: VmState, mut unreadable: Unreadable, read: &Read, view: &View) -> Vm {
    let keys = keys::domain(id);
    let node = unreadable.known(view.get(&keys.node())).flatten();
    let guest = read.as_ref().ok();
    let stats = view
        .shown(&keys.stats(), None)
        .map_or(Value::Null, |Json(stats)| stats);
    let last_node = view
        .shown(&keys.last_node(), None)
        .map(|node| node.to_string())
        .unwrap_or_default();
    let limit = view.shown(&keys.node_limit(), CommaList(Vec::new())).0;
    let owner = view.shown(&keys.owner(), None);
    Vm {
        name: record::shown_name(view, id),
        uuid: id.to_string(),
        state,
        node: node.map(|node| node.value.to_string()).unwrap_or_default(),
        migrated: if last_node.is_empty() {
            "no".to_owned()
        } else {
            format!("from {last_node}")
        },
        last_node,
        failed_reason: view.shown(&keys.failed_reason(), String::new()),
        node_limit: (!limit.is_empty()).then(|| limit.iter().map(NodeName::to_string).collect()),
        node_selector: match view.shown(&keys.node_selector(), NodeSelector::None) {
            NodeSelector::None => None,
            selector @ (NodeSelector::Mem
            | NodeSelector::Memprov
            | NodeSelector::Load
            | NodeSelector::Vcpus
            | NodeSelector::Vms) => Some(selector.to_string()),
        },
        node_autostart: view.shown(&keys.autostart(), false),
        migration_method: match view.shown(&keys.migration_method(), MigrationMethod::None) {
            MigrationMethod::None => None,
            method @ (MigrationMethod::Live | MigrationMethod::Shutdown) => Some(method.to_string()),
        },
        migration_max_downtime: u64::from(view.shown(&keys.migration_max_downtime_ms(), 300)),
        tags: shown_tags(view, id),
        snapshots: Vec::new(),
        profile: view
            .shown(&keys.profile(), OrNone(None))
            .0
            .unwrap_or_else(|| "None".to_owned()),
        memory_stats: object(&stats, "mem_stats"),
        vcpu_stats: object(&stats, "cpu_stats"),
        vnc: vnc(&view.shown(&keys.vnc(), String::new())),
        running: owner.as_ref().is_some_and(record::runs),
        incoming: view
            .shown(&keys.incoming(), None)
            .map(|incoming| incoming.target.to_string())
            .unwrap_or_default(),
        recovery_priority: view.shown(&keys.recovery_priority(), 0),
        anti_affinity: view
            .shown(&keys.anti_affinity(), CommaList(Vec::new()))
            .0
            .iter()
            .map(TagName::to_string)
            .collect(),
        owner: owner.map(|owner| owner.node.to_string()).unwrap_or_default(),
        networks: guest.map(|guest| networks(guest, &stats)).unwrap_or_default(),
        disks: guest.map(|guest| disks(guest, &stats)).unwrap_or_default(),
        controllers: guest.map(controllers).unwrap_or_default(),
        memory: guest.map_or(0, |guest| guest.memory_mib),
        vcpu: guest.map_or(0, |guest| guest.vcpus),
        vcpu_topology: guest
            .and_then(|guest| guest.topology)
            .map_or_else(not_known, |topology| {
                format!("{}/{}/{}", topology.sockets, topology.cores, topology.threads)
            }),
        console: guest
            .and_then(|guest| guest.console.clone())
            .unwrap_or_else(not_known),
        description: of(guest, |guest| &guest.description),
        kind: of(guest, |guest| &guest.os_type),
        arch: of(guest, |guest| &guest.arch),
        machine: of(guest, |guest| &guest.machine),
        emulator: of(guest, |guest| &guest.emulator),
        features: guest.map(|guest| guest.features.clone()).unwrap_or_default(),
        xml: String::new(),
        xml_version: None,
        store_error: unreadable.text(),
        xml_error: read.as_ref().err().cloned(),
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
