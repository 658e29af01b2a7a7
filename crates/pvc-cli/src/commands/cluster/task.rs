//! `pvc cluster task`.

use clap::Args;
use comfy_table::Cell;
use pvc_api::task::{TaskBrief, TaskStatus, Tasks};
use serde_json::Value;

use crate::client::{segment, typed};
use crate::error::{CliError, Result};
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;
use crate::task;
use crate::time;
use crate::watch;

#[derive(Debug, Args)]
pub(crate) struct Task {
    /// Follow this task; all are listed if none is named, or 'list'
    task_id: Option<String>,
    /// Wait until it is done (this is so unless --no-wait is given)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_wait", default_value_t = task::LIMIT)]
    timeout: u64,
    /// Only show how far it is
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show the list again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Task {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        // No task has that identity: identities are eight digits.
        match self.task_id.as_deref().filter(|id| *id != "list") {
            None => watch::show(session, self.watch, self.format, || self.list(session)),
            Some(_) if self.watch => Err(CliError::usage(
                "--watch is for the list of tasks; a task is followed anyway",
            )),
            Some(id) if self.no_wait => self.show(session, id),
            Some(id) => task::follow(session, id, "", self.timeout),
        }
    }

    fn list(&self, session: &Session) -> Result<String> {
        let value = session.client.get("/tasks", &[])?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let tasks: Tasks = typed(value)?;
        let rows = rows(&tasks);
        if self.format == Format::Raw {
            return Ok(output::words(rows.iter().map(|(_, task)| &task.id)));
        }
        if rows.is_empty() {
            return Ok("There are no tasks\n".to_owned());
        }
        let mut table = output::table(&["Task", "Name", "State", "Node", "About", "Ordered", "By"]);
        for (node, task) in rows {
            table.add_row(vec![
                Cell::new(&task.id),
                Cell::new(&task.name),
                output::state(&task.state.to_lowercase()),
                Cell::new(node),
                Cell::new(about(task)),
                Cell::new(match task.ordered_at {
                    0 => "-".to_owned(),
                    at => time::moment(at),
                }),
                Cell::new(output::or_dash(&task.ordered_by)),
            ]);
        }
        Ok(output::render(table))
    }

    fn show(&self, session: &Session, id: &str) -> Result<()> {
        let value = session.client.get(&format!("/tasks/{}", segment(id)), &[])?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let status: TaskStatus = typed(value)?;
        let state = status.state.to_lowercase();
        if self.format == Format::Raw {
            output::line(state);
            return Ok(());
        }
        let mut lines = Lines::default();
        lines.add("Task", id);
        lines.add("State", output::painted(&state));
        lines.add("Progress", format!("{} of {}", status.current, status.total));
        lines.add("Status", output::or_dash(&status.status));
        output::print(&lines.render());
        Ok(())
    }
}

/// All tasks with the node of each: those at work first, then those that wait, then those that are over.
fn rows(tasks: &Tasks) -> Vec<(&String, &TaskBrief)> {
    [&tasks.active, &tasks.reserved, &tasks.scheduled, &tasks.finished]
        .into_iter()
        .flatten()
        .flat_map(|(node, tasks)| tasks.iter().map(move |task| (node, task)))
        .collect()
}

/// What a task is about, in a few words.
fn about(task: &TaskBrief) -> String {
    let words: Vec<String> = task
        .kwargs
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                format!("{name}={value}")
            }
        })
        .collect();
    output::or_dash(&words.join(" ")).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tasks_at_work_come_first() {
        let tasks: Tasks = typed(json!({
            "active": {"hv2": [{"id": "0a1b2c3d", "name": "vm.flush_locks", "args": [], "kwargs": {"domain": "web1", "force": true}}]},
            "reserved": {"hv1": [{"id": "11111111", "name": "vm.device_attach", "args": [], "kwargs": {}}]},
            "scheduled": {},
        }))
        .unwrap();
        let rows = rows(&tasks);
        assert_eq!((rows[0].0.as_str(), rows[1].0.as_str()), ("hv2", "hv1"));
        assert_eq!(about(rows[0].1), "domain=web1 force=true");
        assert_eq!(about(rows[1].1), "-");
    }
}
