//! Tasks: long work that a node does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Tasks by the node that does them.
pub type TasksByNode = BTreeMap<String, Vec<TaskBrief>>;

/// All tasks on record.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Tasks {
    /// Always empty: nothing is planned for a time here.
    pub scheduled: TasksByNode,
    /// Those that are being done.
    pub active: TasksByNode,
    /// Those that nobody has taken up yet.
    pub reserved: TasksByNode,
    /// Those that are over and still on record. Addition to PVC 1.0.3.
    #[serde(default)]
    pub finished: TasksByNode,
}

/// A task in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskBrief {
    /// Its identity: eight hexadecimal digits.
    pub id: String,
    /// What it is, such as `vm.flush_locks`.
    pub name: String,
    /// Always empty: what it is about is in `kwargs`.
    pub args: Vec<String>,
    /// What it is about.
    #[schema(value_type = Object)]
    pub kwargs: BTreeMap<String, Value>,
    /// Who ordered it. Addition to PVC 1.0.3.
    #[serde(default)]
    pub ordered_by: String,
    /// When, in seconds since 1970. Addition to PVC 1.0.3.
    #[serde(default)]
    pub ordered_at: u64,
    /// `PENDING`, `RUNNING`, `SUCCESS` or `FAILURE`. Addition to PVC 1.0.3.
    #[serde(default)]
    pub state: String,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStatus {
    /// `PENDING`, `RUNNING`, `SUCCESS` or `FAILURE`.
    pub state: String,
    /// Steps that are done.
    pub current: u32,
    /// Steps in all.
    pub total: u32,
    /// What is being done, or what has gone wrong.
    pub status: String,
    /// What came of it; only after success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskResult {
    /// In words.
    pub status: String,
    /// Steps that were done.
    pub current: u32,
    /// Steps in all.
    pub total: u32,
}
