//! `pvc fault`, which is `pvc cluster fault` as well.

use pvc_api::fault::Fault;

use crate::Session;
use crate::args::FaultCommand;
use crate::client::{segment, typed};
use crate::confirm::{Answer, confirm};
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format, Lines};

pub(crate) fn run(command: &FaultCommand, session: &Session) -> Result<()> {
    match command {
        FaultCommand::List { limit, format } => list(session, limit.as_deref(), *format),
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

fn list(session: &Session, id: Option<&str>, format: Format) -> Result<()> {
    let value = match id {
        None => session.client.get("/faults", &[])?,
        Some(id) => session.client.get(&path(id), &[])?,
    };
    match format {
        Format::Json | Format::JsonPretty => return output::json(&value, format),
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {}
    }
    let faults: Vec<Fault> = typed(value)?;
    match (id, faults.is_empty()) {
        (Some(id), true) => {
            return Err(CliError::new(Exit::NotFound, format!("There is no fault {id:?}")));
        }
        (None, true) => {
            session.say("There are no faults");
            return Ok(());
        }
        (_, false) => {}
    }
    if format == Format::Long {
        for fault in &faults {
            let mut lines = Lines::default();
            lines.add("Fault", &fault.id);
            lines.add("What", &fault.message);
            lines.add("Health", format!("-{}%", fault.health_delta));
            lines.add("First seen", &fault.first_reported);
            lines.add("Last seen", &fault.last_reported);
            lines.add("Acknowledged", or_dash(&fault.acknowledged_at));
            lines.gap();
            lines.print();
        }
        return Ok(());
    }
    let mut table = output::table(&["Fault", ">Health", "Status", "First seen", "Last seen", "What"]);
    for fault in &faults {
        table.add_row(vec![
            comfy_table::Cell::new(&fault.id),
            output::number(format!("-{}%", fault.health_delta)),
            output::state(&fault.status),
            comfy_table::Cell::new(&fault.first_reported),
            comfy_table::Cell::new(&fault.last_reported),
            comfy_table::Cell::new(&fault.message),
        ]);
    }
    output::print_table(table);
    Ok(())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
