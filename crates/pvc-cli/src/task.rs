//! Following a task: long work that a node does, and that `pvcapid` tells the progress of.

use pvc_api::task::TaskStatus;
use pvc_api::vm::Task;
use serde_json::Value;

use crate::client::{said, segment, typed};
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a task is waited for, in seconds: the copy of a large volume takes hours.
pub(crate) const LIMIT: u64 = 24 * 3600;

/// Ends a change that may be done at once or be a task: says what was done, or follows the task.
pub(crate) fn finish(session: &Session, reply: Value, wait: bool) -> Result<()> {
    if reply.get("task_id").is_none() {
        session.say(&said(reply)?);
        return Ok(());
    }
    let task: Task = typed(reply)?;
    if wait {
        return follow(session, &task.task_id, &task.task_name, LIMIT);
    }
    session.say(&format!(
        "Task {} ({}) was given to {}; follow it with 'pvc cluster task {}'",
        task.task_id, task.task_name, task.run_on, task.task_id
    ));
    Ok(())
}

/// Shows how far a task is until it ends, and ends as it does.
pub(crate) fn follow(session: &Session, id: &str, name: &str, limit: u64) -> Result<()> {
    let path = format!("/tasks/{}", segment(id));
    let what = if name.is_empty() {
        format!("Task {id}")
    } else {
        format!("Task {id} ({name})")
    };
    let text = wait::until(session, &what, limit, || {
        let status: TaskStatus = typed(session.client.get_once(&path, &[])?)?;
        match status.state.as_str() {
            "SUCCESS" => Ok(Look::Done(status.status)),
            "FAILURE" | "REVOKED" => Err(CliError::failure(format!("{what} has failed: {}", status.status))),
            _ if status.total > 1 => Ok(Look::Progress {
                state: status.status,
                current: status.current.into(),
                total: status.total.into(),
            }),
            _ => Ok(Look::Waiting(if status.status.is_empty() {
                status.state.to_lowercase()
            } else {
                status.status
            })),
        }
    })?;
    session.say(&text);
    Ok(())
}
