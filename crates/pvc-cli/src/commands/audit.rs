//! `pvc audit`: what was done through the API, by whom.

use clap::Args;
use comfy_table::{Cell, Color};
use pvc_api::access::AuditRecord;

use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats, or_dash};
use crate::session::Session;
use crate::time;

/// Show what was done through the API, the latest first.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// At most so many entries
    #[arg(short, long, default_value_t = 100)]
    limit: usize,
    /// Only what was done by those of whose name this is a part
    #[arg(short, long)]
    who: Option<String>,
    /// Only what this is a part of the operation, the path or the parameters of: a guest's name, say
    what: Option<String>,
    /// Only that request
    #[arg(long, value_name = "REQUEST")]
    request_id: Option<String>,
    /// Only what was done within that time: 2h, 30m, 7d
    #[arg(short, long, value_name = "TIME", value_parser = time::span)]
    since: Option<u64>,
    /// Only failures
    #[arg(long)]
    failed: bool,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
    format: Format,
}

impl Audit {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let limit = self.limit.to_string();
        let since = self
            .since
            .map(|span| time::now().saturating_sub(span).to_string());
        let mut query = vec![("limit", limit.as_str())];
        for (name, value) in [
            ("who", &self.who),
            ("what", &self.what),
            ("request_id", &self.request_id),
            ("since", &since),
        ] {
            if let Some(value) = value {
                query.push((name, value.as_str()));
            }
        }
        if self.failed {
            query.push(("failed", "true"));
        }
        let value = session.client.get("/audit", &query)?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let records: Vec<AuditRecord> = typed(value)?;
        if records.is_empty() {
            session.say("There is nothing like that in the audit log");
        } else if self.format == Format::Long {
            output::print(&records.iter().map(details).collect::<String>());
        } else {
            output::print(&table(&records));
        }
        Ok(())
    }
}

fn what(record: &AuditRecord) -> String {
    let target = record
        .target
        .strip_prefix(pvc_api::PREFIX)
        .unwrap_or(&record.target);
    format!("{} {target} {}", record.method, record.parameters)
        .trim_end()
        .to_owned()
}

fn status(record: &AuditRecord) -> Cell {
    match record.status {
        None => Cell::new("?").fg(Color::DarkYellow),
        Some(status @ 0..400) => Cell::new(status).fg(Color::DarkGreen),
        Some(status) => Cell::new(status).fg(Color::DarkRed),
    }
}

fn table(records: &[AuditRecord]) -> String {
    let mut table = output::table(&["When", "Who", "From", "What", "Result", "Said", "Request"]);
    for record in records {
        table.add_row(vec![
            Cell::new(time::moment(record.at)),
            Cell::new(&record.who),
            Cell::new(&record.from),
            Cell::new(what(record)),
            status(record),
            Cell::new(or_dash(&record.message)),
            Cell::new(&record.request_id),
        ]);
    }
    output::render(table)
}

fn details(record: &AuditRecord) -> String {
    let mut lines = Lines::default();
    lines.add("Request", &record.request_id);
    lines.add("When", format!("{} on {}", time::moment(record.at), record.node));
    lines.add(
        "Who",
        format!(
            "{} ({}) from {}",
            record.who,
            record.role.as_deref().unwrap_or("not let in"),
            record.from
        ),
    );
    lines.add("What", format!("{}: {}", record.operation, what(record)));
    lines.add(
        "Result",
        record
            .status
            .map_or_else(|| "not known (yet)".to_owned(), |status| status.to_string()),
    );
    lines.add("Said", or_dash(&record.message));
    lines.gap();
    lines.render()
}
