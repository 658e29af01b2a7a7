//! The events between two views.

use std::fmt;
use std::str::FromStr;

use pvc_common::keys;
use pvc_common::keys::values::{CommaList, Maintenance, OrNone, RunningDomains};
use pvc_common::mirror::View;
use pvc_core::ids::{NodeName, TagName, VmId};
use pvc_core::records::PrimaryRecord;
use pvc_core::states::{MigrationMethod, NodeSelector};
use serde_json::{Value, json};

use crate::unreadable::Unreadable;
use crate::vm::list;
use crate::{adopt, task};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Cluster,
    Primary,
    Node,
    Vm,
    Fault,
    Task,
}

impl Kind {
    /// All.
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Cluster,
        Kind::Primary,
        Kind::Node,
        Kind::Vm,
        Kind::Fault,
        Kind::Task,
    ];

    /// Its word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Primary => "primary",
            Kind::Node => "node",
            Kind::Vm => "vm",
            Kind::Fault => "fault",
            Kind::Task => "task",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{text:?} must be one of {}", all.join(", "))
        })
    }
}

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Added,
    Changed,
    Removed,
}

impl Action {
    /// Its word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Action::Added => "added",
            Action::Changed => "changed",
            Action::Removed => "removed",
        }
    }
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) action: Action,
    /// How it is now; how it was last if it was removed.
    pub(crate) what: Value,
}

/// What has changed between the two, in the order of [`Kind`]. Figures that are measured all the time are no events.
pub(super) fn diff(before: &View, now: &View) -> Vec<Event> {
    let mut events = Vec::new();
    compare(&mut events, Kind::Cluster, cluster(before), cluster(now));
    compare(&mut events, Kind::Primary, primary(before), primary(now));
    for name in changed(before, now, "/nodes", "/fences") {
        if let Ok(name) = name.parse::<NodeName>() {
            compare(&mut events, Kind::Node, node(before, &name), node(now, &name));
        }
    }
    for id in changed(before, now, "/domains", "") {
        if let Ok(id) = id.parse::<VmId>() {
            compare(&mut events, Kind::Vm, vm(before, id), vm(now, id));
        }
    }
    for id in changed(before, now, "/faults", "") {
        compare(&mut events, Kind::Fault, fault(before, &id), fault(now, &id));
    }
    tasks(&mut events, before, now);
    events
}

/// The names below one path or another of which anything has changed, sorted.
fn changed(before: &View, now: &View, one: &str, other: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for top in [one, other] {
        if !top.is_empty() {
            let (was, is) = (before.branch(top), now.branch(top));
            names.extend(
                is.changed_since(&was)
                    .into_iter()
                    .map(|(name, _)| name.to_owned()),
            );
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn compare(events: &mut Vec<Event>, kind: Kind, was: Option<Value>, is: Option<Value>) {
    let (action, what) = match (was, is) {
        (None, None) => return,
        (None, Some(is)) => (Action::Added, is),
        (Some(was), None) => (Action::Removed, was),
        (Some(was), Some(is)) if was == is => return,
        (Some(_), Some(is)) => (Action::Changed, is),
    };
    events.push(Event { kind, action, what });
}

fn cluster(view: &View) -> Option<Value> {
    let maintenance = view.shown(&keys::config().maintenance(), Maintenance::Off);
    Some(json!({
        "name": view.shown(&keys::config().cluster_name(), String::new()),
        "maintenance": maintenance == Maintenance::On,
    }))
}

fn primary(view: &View) -> Option<Value> {
    let record = view.shown(&keys::config().primary_node(), PrimaryRecord::None);
    let holds: Vec<String> = view
        .children(&keys::nodes())
        .into_iter()
        .filter(|name| {
            matches!(
                view.get(&keys::node(name).coordinator_state()),
                Ok(Some(state)) if state.value == pvc_core::states::CoordinatorState::Primary
            )
        })
        .map(|name| name.to_string())
        .collect();
    Some(json!({"primary_node": record.to_string(), "held_by": holds}))
}

fn node(view: &View, name: &NodeName) -> Option<Value> {
    let keys = keys::node(name);
    let word = |text: Option<String>| text.unwrap_or_default();
    let daemon_state = crate::node::shown_daemon_state(view, name, &mut Unreadable::default())?;
    Some(json!({
        "name": name.to_string(),
        "daemon_state": daemon_state.to_string(),
        "coordinator_state": word(view.get(&keys.coordinator_state()).ok().flatten().map(|state| state.value.to_string())),
        "domain_state": word(view.get(&keys.domain_state()).ok().flatten().map(|state| state.value.to_string())),
        "health": view.shown(&keys.monitoring_health(), OrNone(None)).0,
        "domains_count": view.shown(&keys.running_domains(), RunningDomains(Vec::new())).0.len(),
        "fence": view.shown(&pvc_common::keys::fence(name), None).map_or("none", |fence| fence.phase.word()),
        // Grows with each step of a fence.
        "fence_record": view.znode(pvc_common::keys::fence(name).path()).map(|record| record.version.0),
        "hold": view.shown(&keys.hold(), None).map(|hold| adopt::hold_text(&hold)).unwrap_or_default(),
        "upstream": view.shown(&keys.upstream(), None).map(|reading| reading.up),
    }))
}

fn vm(view: &View, id: VmId) -> Option<Value> {
    let keys = keys::domain(id);
    // One that can not be read is there all the same: it must not look as if the guest had been removed.
    let state = list::shown_state(view, id, &mut Unreadable::default())?;
    let owner = view.shown(&keys.owner(), None);
    Some(json!({
        "uuid": id.to_string(),
        "name": view.get(&keys.name()).ok().flatten().map(|name| name.value.to_string()).unwrap_or_default(),
        "state": state.to_string(),
        "node": view.get(&keys.node()).ok().flatten().map(|node| node.value.to_string()).unwrap_or_default(),
        "last_node": view.shown(&keys.last_node(), None).map(|node| node.to_string()).unwrap_or_default(),
        "owner": owner.as_ref().map(|owner| owner.node.to_string()).unwrap_or_default(),
        "running": owner.as_ref().is_some_and(crate::vm::record::runs),
        "incoming": view.shown(&keys.incoming(), None).map(|incoming| incoming.target.to_string()).unwrap_or_default(),
        "failed_reason": view.shown(&keys.failed_reason(), String::new()),
        "tags": view.children(&pvc_common::keys::domain_tags(id)).iter().map(TagName::to_string).collect::<Vec<_>>(),
        "node_autostart": view.shown(&keys.autostart(), false),
        "node_limit": view.shown(&keys.node_limit(), CommaList(Vec::new())).0.iter().map(NodeName::to_string).collect::<Vec<_>>(),
        "node_selector": view.shown(&keys.node_selector(), NodeSelector::None).to_string(),
        "migration_method": view.shown(&keys.migration_method(), MigrationMethod::None).to_string(),
        // Grows with each change of its definition.
        "definition": view.get(&keys.xml()).ok().flatten().map(|xml| xml.version.0),
    }))
}

fn fault(view: &View, id: &str) -> Option<Value> {
    let keys = keys::fault(id);
    view.get(&keys.root()).ok()??;
    // Not when it was seen last: one that lasts is no event each minute.
    Some(json!({
        "id": id,
        "status": view.shown(&keys.status(), String::new()),
        "health_delta": view.shown(&keys.delta(), 0),
        "message": view.shown(&keys.message(), String::new()),
    }))
}

/// Only those of guests of which anything has changed are compared.
fn tasks(events: &mut Vec<Event>, before: &View, now: &View) {
    let shown = |task: &task::Task| {
        json!({
            "id": task.id, "name": task.name, "vm": task.vm.to_string(), "node": task.node, "state": task.state(),
        })
    };
    for id in changed(before, now, "/domains", "/flush_locks") {
        let Ok(id) = id.parse::<VmId>() else { continue };
        let (was, is) = (task::of(before, id), task::of(now, id));
        for task in &is {
            let earlier = was.iter().find(|earlier| earlier.id == task.id);
            compare(events, Kind::Task, earlier.map(shown), Some(shown(task)));
        }
        for task in was
            .iter()
            .filter(|task| is.iter().all(|other| other.id != task.id))
        {
            compare(events, Kind::Task, Some(shown(task)), None);
        }
    }
}
