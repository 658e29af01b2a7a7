//! Tasks: orders that a node carries out and that are on record.
//!
//! Each kind of order has a record of its own in the store, from which its node acts. Here they are shown alike, as clients
//! of PVC 1.0.3 expect tasks.

use std::collections::BTreeMap;

use pvc_api::task::{TaskBrief, TaskResult, TaskStatus, Tasks};
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_core::device_order::{DeviceAction, DeviceOrderState};
use pvc_core::ids::VmId;
use pvc_core::lock_flush::LockFlushState;
use serde_json::json;

use crate::error::ApiError;

/// How many digits of an order's identity a client is given.
const ID_LENGTH: usize = 8;

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    Running { current: u32, what: &'static str },
    Done { result: String },
    Failed { reason: String },
}

/// A task on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// Its whole identity.
    pub(crate) id: String,
    pub(crate) name: &'static str,
    /// The guest that it is about.
    pub(crate) vm: VmId,
    pub(crate) node: String,
    pub(crate) by: String,
    pub(crate) at: u64,
    /// Steps in all.
    pub(crate) total: u32,
    pub(crate) progress: Progress,
}

impl Task {
    fn short_id(&self) -> String {
        self.id.chars().take(ID_LENGTH).collect()
    }

    /// The word of PVC 1.0.3.
    pub(crate) fn state(&self) -> &'static str {
        match self.progress {
            Progress::Pending => "PENDING",
            Progress::Running { .. } => "RUNNING",
            Progress::Done { .. } => "SUCCESS",
            Progress::Failed { .. } => "FAILURE",
        }
    }
}

/// All tasks on record, the oldest first.
pub(crate) fn all(view: &View) -> Vec<Task> {
    let flushes = view.children(&keys::lock_flushes()).into_iter();
    let guests = view.children(&keys::domains()).into_iter();
    let mut tasks: Vec<Task> = flushes
        .filter_map(|vm| lock_flush(view, vm))
        .chain(guests.filter_map(|vm| device(view, vm)))
        .collect();
    tasks.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    tasks
}

/// The tasks about one guest.
pub(crate) fn of(view: &View, vm: VmId) -> Vec<Task> {
    lock_flush(view, vm).into_iter().chain(device(view, vm)).collect()
}

fn device(view: &View, vm: VmId) -> Option<Task> {
    let order = view.shown(&keys::device_order(vm), None)?;
    let (name, done) = match order.action {
        DeviceAction::Attach => ("vm.device_attach", "The device is attached"),
        DeviceAction::Detach => ("vm.device_detach", "The device is detached"),
    };
    let progress = match order.state {
        DeviceOrderState::Ordered => Progress::Pending,
        DeviceOrderState::Working { .. } | DeviceOrderState::Recorded { .. } => Progress::Running {
            current: 0,
            what: "Working on the guest",
        },
        DeviceOrderState::Done => Progress::Done {
            result: done.to_owned(),
        },
        DeviceOrderState::Failed { reason } => Progress::Failed { reason },
    };
    Some(Task {
        id: order.id,
        name,
        vm,
        node: order.node.to_string(),
        by: order.by,
        at: order.at,
        total: 1,
        progress,
    })
}

fn lock_flush(view: &View, vm: VmId) -> Option<Task> {
    let order = view.shown(&keys::lock_flush(vm), None)?;
    let progress = match order.state {
        LockFlushState::Ordered => Progress::Pending,
        LockFlushState::Removing => Progress::Running {
            current: 1,
            what: "Removing locks",
        },
        LockFlushState::Done => Progress::Done {
            result: format!("{} locks were removed", order.removed.len()),
        },
        LockFlushState::Failed { reason } => Progress::Failed { reason },
    };
    Some(Task {
        id: order.id,
        name: "vm.flush_locks",
        vm,
        node: order.node.to_string(),
        by: order.by,
        at: order.at,
        total: 2,
        progress,
    })
}

/// All tasks, in the shape of PVC 1.0.3.
pub(crate) fn list(view: &View) -> Tasks {
    let mut tasks = Tasks::default();
    for task in all(view) {
        let list = match task.progress {
            Progress::Pending => &mut tasks.reserved,
            Progress::Running { .. } => &mut tasks.active,
            Progress::Done { .. } | Progress::Failed { .. } => &mut tasks.finished,
        };
        list.entry(task.node.clone()).or_default().push(brief(view, task));
    }
    tasks
}

fn brief(view: &View, task: Task) -> TaskBrief {
    let name = match view.get(&keys::domain(task.vm).name()) {
        Ok(Some(name)) => name.value.to_string(),
        Ok(None) | Err(_) => task.vm.to_string(),
    };
    TaskBrief {
        id: task.short_id(),
        name: task.name.to_owned(),
        args: Vec::new(),
        kwargs: BTreeMap::from([
            ("domain".to_owned(), json!(name)),
            ("run_on".to_owned(), json!(task.node)),
        ]),
        state: task.state().to_owned(),
        ordered_by: task.by,
        ordered_at: task.at,
    }
}

/// How far that task is. `id` is its whole identity, or the digits that a client was given.
pub(crate) fn one(view: &View, id: &str) -> Result<TaskStatus, ApiError> {
    let found = all(view)
        .into_iter()
        .find(|task| task.id == id || task.short_id() == id)
        .ok_or_else(|| ApiError::not_found(format!("There is no task {id:?} on record")))?;
    let state = found.state().to_owned();
    let total = found.total;
    Ok(match found.progress {
        Progress::Pending => TaskStatus {
            state,
            current: 0,
            total,
            status: format!("Waiting for node {}", found.node),
            result: None,
        },
        Progress::Running { current, what } => TaskStatus {
            state,
            current,
            total,
            status: what.to_owned(),
            result: None,
        },
        Progress::Done { result } => TaskStatus {
            state,
            current: total,
            total,
            status: result.clone(),
            result: Some(TaskResult {
                status: result,
                current: total,
                total,
            }),
        },
        Progress::Failed { reason } => TaskStatus {
            state,
            current: 1,
            total: 1,
            status: reason,
            result: None,
        },
    })
}
