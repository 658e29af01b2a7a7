//! `pvc storage osd list`.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::storage::Osd;
use serde_json::Value;

use super::{decimal, figure};
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum OsdCommand {
    /// List OSDs
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only OSDs whose number matches this regular expression
    limit: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(command: &OsdCommand, session: &Session) -> Result<()> {
    match command {
        OsdCommand::List(command) => {
            watch::show(session, command.watch, command.format, || command.text(session))
        }
    }
}

impl List {
    fn text(&self, session: &Session) -> Result<String> {
        let query: Vec<(&str, &str)> = self.limit.iter().map(|limit| ("limit", limit.as_str())).collect();
        let value = session.client.list("/storage/ceph/osd", &query)?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let osds: Vec<Osd> = typed(value)?;
        if self.format == Format::Raw {
            return Ok(output::words(osds.iter().map(|osd| &osd.id)));
        }
        if osds.is_empty() {
            return Ok("There are no OSDs\n".to_owned());
        }
        let mut table = output::table(&[
            ">OSD", "Node", "Device", "Up", "In", "Class", ">Weight", ">PGs", ">Used", ">Free", ">Full",
        ]);
        for osd in &osds {
            table.add_row(vec![
                output::number(&osd.id),
                Cell::new(&osd.node),
                Cell::new(&osd.device),
                output::state(word(&osd.stats, "up", "up", "down")),
                output::state(word(&osd.stats, "in", "in", "out")),
                Cell::new(figure(&osd.stats, "class")),
                output::number(decimal(&osd.stats, "weight")),
                output::number(figure(&osd.stats, "pgs")),
                output::number(figure(&osd.stats, "used")),
                output::number(figure(&osd.stats, "avail")),
                output::number(match decimal(&osd.stats, "utilization") {
                    unknown if unknown == "-" => unknown,
                    percent => format!("{percent}%"),
                }),
            ]);
        }
        Ok(output::render(table))
    }
}

/// 1 and 0 as words.
fn word(stats: &Value, name: &str, yes: &'static str, no: &'static str) -> &'static str {
    match stats[name].as_u64() {
        Some(0) => no,
        Some(_) => yes,
        None => "-",
    }
}
