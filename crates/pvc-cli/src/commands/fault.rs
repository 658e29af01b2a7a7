//! `pvc fault`, which is `pvc cluster fault` as well.

use clap::Subcommand;
use comfy_table::Cell;
use pvc_api::fault::Fault;

use crate::client::{segment, typed};
use crate::confirm::{Answer, confirm};
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format, Lines, formats, or_dash};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// List faults
    List {
        /// Only this one
        limit: Option<String>,
        /// How to show them
        #[arg(short, long, default_value = "short", value_parser = formats(&["short", "long", "json", "json-pretty"]))]
        format: Format,
        /// Show it again whenever something changes, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Acknowledge faults: they lower the health no more
    Ack {
        /// Their ids
        #[arg(required = true, value_name = "FAULT_ID")]
        ids: Vec<String>,
    },
    /// Acknowledge all faults
    AckAll {
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Delete faults; those that still last come back
    Delete {
        /// Their ids
        #[arg(required = true, value_name = "FAULT_ID")]
        ids: Vec<String>,
    },
    /// Delete all faults
    DeleteAll {
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) fn run(command: &FaultCommand, session: &Session) -> Result<()> {
    match command {
        FaultCommand::List { limit, format, watch } => watch::show(session, *watch, *format, || {
            list(session, limit.as_deref(), *format)
        }),
        FaultCommand::Ack { ids } => each(ids, |id| session.client.put(&path(id), &[]), session),
        FaultCommand::Delete { ids } => each(ids, |id| session.client.delete(&path(id)), session),
        FaultCommand::AckAll { yes } => all(session, "Acknowledge all faults?", *yes, || {
            session.client.put("/faults", &[])
        }),
        FaultCommand::DeleteAll { yes } => all(session, "Delete all faults?", *yes, || {
            session.client.delete("/faults")
        }),
    }
}

fn path(id: &str) -> String {
    format!("/faults/{}", segment(id))
}

fn all(session: &Session, question: &str, yes: bool, go: impl FnOnce() -> Result<String>) -> Result<()> {
    match confirm(question, session.asking(yes))? {
        Answer::Yes => {
            session.say(&go()?);
            Ok(())
        }
        Answer::No => Ok(()),
    }
}

/// Does it for each; one that fails keeps no other from being done, and the first failure is the command's.
fn each(ids: &[String], go: impl Fn(&str) -> Result<String>, session: &Session) -> Result<()> {
    let mut failed: Option<CliError> = None;
    for id in ids {
        match go(id) {
            Ok(said) => session.say(&said),
            Err(error) => match &failed {
                None => failed = Some(error),
                Some(_) => anstream::eprintln!("\x1b[31mError:\x1b[0m {error}"),
            },
        }
    }
    failed.map_or(Ok(()), Err)
}

fn list(session: &Session, id: Option<&str>, format: Format) -> Result<String> {
    let value = match id {
        None => session.client.get("/faults", &[])?,
        Some(id) => session.client.get(&path(id), &[])?,
    };
    if format.is_json() {
        return output::json(&value, format);
    }
    let faults: Vec<Fault> = typed(value)?;
    match (id, faults.is_empty()) {
        (Some(id), true) => Err(CliError::new(
            Exit::NotFound,
            format!("There is no fault {id:?}; see 'pvc fault list'"),
        )),
        (None, true) => Ok("There are no faults\n".to_owned()),
        (_, false) if format == Format::Long => Ok(faults.iter().map(details).collect()),
        (_, false) => Ok(table(&faults)),
    }
}

fn details(fault: &Fault) -> String {
    let mut lines = Lines::default();
    lines.add("Fault", &fault.id);
    lines.add("What", &fault.message);
    lines.add("Health", output::taken(fault.health_delta));
    lines.add("First seen", &fault.first_reported);
    lines.add("Last seen", &fault.last_reported);
    lines.add("Acknowledged", or_dash(&fault.acknowledged_at));
    lines.gap();
    lines.render()
}

fn table(faults: &[Fault]) -> String {
    let mut table = output::table(&["Fault", ">Health", "Status", "First seen", "Last seen", "What"]);
    for fault in faults {
        table.add_row(vec![
            Cell::new(&fault.id),
            output::number(output::taken(fault.health_delta)),
            output::state(&fault.status),
            Cell::new(&fault.first_reported),
            Cell::new(&fault.last_reported),
            Cell::new(&fault.message),
        ]);
    }
    output::render(table)
}
