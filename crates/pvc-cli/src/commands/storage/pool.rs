//! `pvc storage pool list`.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::storage::Pool;

use super::{figure, size};
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List pools
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only pools whose name matches this regular expression
    limit: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(command: &PoolCommand, session: &Session) -> Result<()> {
    match command {
        PoolCommand::List(command) => {
            watch::show(session, command.watch, command.format, || command.text(session))
        }
    }
}

impl List {
    fn text(&self, session: &Session) -> Result<String> {
        let query: Vec<(&str, &str)> = self.limit.iter().map(|limit| ("limit", limit.as_str())).collect();
        let value = session.client.list("/storage/ceph/pool", &query)?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let pools: Vec<Pool> = typed(value)?;
        if self.format == Format::Raw {
            return Ok(output::words(pools.iter().map(|pool| &pool.name)));
        }
        if pools.is_empty() {
            return Ok("There are no pools\n".to_owned());
        }
        let mut table = output::table(&[
            "Pool",
            "Tier",
            ">PGs",
            ">Volumes",
            ">Used",
            ">Free",
            ">Full",
            ">Objects",
            ">Degraded",
            ">Unfound",
        ]);
        for pool in &pools {
            let full = pool.stats["used_percent"].as_f64();
            table.add_row(vec![
                Cell::new(&pool.name),
                Cell::new(&pool.tier),
                output::number(&pool.pgs),
                output::number(pool.volume_count),
                output::number(size(&pool.stats, "used_bytes")),
                output::number(size(&pool.stats, "free_bytes")),
                output::number(full.map_or_else(|| "-".to_owned(), |part| format!("{:.1}%", part * 100.0))),
                output::number(figure(&pool.stats, "num_objects")),
                output::number(figure(&pool.stats, "num_objects_degraded")),
                output::number(figure(&pool.stats, "num_objects_unfound")),
            ]);
        }
        Ok(output::render(table))
    }
}
