//! `pvc storage volume list` and `pvc storage volume snapshot list`.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::storage::{Snapshot, Volume};
use serde_json::Value;

use super::{figure, size};
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List volumes
    List(List),
    /// Snapshots of volumes
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only volumes whose name matches this regular expression
    limit: Option<String>,
    /// Only those in this pool
    #[arg(short, long)]
    pool: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List snapshots of volumes
    List(Snapshots),
}

#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Only snapshots whose name matches this regular expression
    limit: Option<String>,
    /// Only those of volumes in this pool
    #[arg(short, long)]
    pool: Option<String>,
    /// Only those of this volume
    #[arg(short = 'o', long)]
    volume: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

pub(super) fn run(command: &VolumeCommand, session: &Session) -> Result<()> {
    match command {
        VolumeCommand::List(command) => {
            watch::show(session, command.watch, command.format, || command.text(session))
        }
        VolumeCommand::Snapshot(SnapshotCommand::List(command)) => {
            output::print(&command.text(session)?);
            Ok(())
        }
    }
}

/// The filters that were given.
fn query<'a>(filters: &[(&'a str, &'a Option<String>)]) -> Vec<(&'a str, &'a str)> {
    filters
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        .collect()
}

impl List {
    fn text(&self, session: &Session) -> Result<String> {
        let query = query(&[("limit", &self.limit), ("pool", &self.pool)]);
        let value = session.client.list("/storage/ceph/volume", &query)?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let volumes: Vec<Volume> = typed(value)?;
        if self.format == Format::Raw {
            let names = volumes
                .iter()
                .map(|volume| format!("{}/{}", volume.pool, volume.name));
            return Ok(output::words(names));
        }
        if volumes.is_empty() {
            return Ok("There are no volumes\n".to_owned());
        }
        let mut table = output::table(&[
            "Volume",
            "Pool",
            ">Size",
            ">Objects",
            ">Order",
            ">Format",
            ">Snapshots",
            "Features",
        ]);
        for volume in &volumes {
            let stats = &volume.stats;
            table.add_row(vec![
                Cell::new(&volume.name),
                Cell::new(&volume.pool),
                output::number(figure(stats, "size")),
                output::number(figure(stats, "objects")),
                output::number(figure(stats, "order")),
                output::number(figure(stats, "format")),
                output::number(figure(stats, "snapshot_count")),
                Cell::new(output::or_dash(&joined(&stats["features"]))),
            ]);
        }
        Ok(output::render(table))
    }
}

impl Snapshots {
    fn text(&self, session: &Session) -> Result<String> {
        let query = query(&[
            ("limit", &self.limit),
            ("pool", &self.pool),
            ("volume", &self.volume),
        ]);
        let value = session.client.list("/storage/ceph/snapshot", &query)?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let snapshots: Vec<Snapshot> = typed(value)?;
        if self.format == Format::Raw {
            let names = snapshots
                .iter()
                .map(|snapshot| format!("{}/{}@{}", snapshot.pool, snapshot.volume, snapshot.snapshot));
            return Ok(output::words(names));
        }
        if snapshots.is_empty() {
            return Ok("There are no snapshots\n".to_owned());
        }
        let mut table = output::table(&["Snapshot", "Volume", "Pool", ">Size"]);
        for snapshot in &snapshots {
            table.add_row(vec![
                Cell::new(&snapshot.snapshot),
                Cell::new(&snapshot.volume),
                Cell::new(&snapshot.pool),
                output::number(size(&snapshot.stats, "size")),
            ]);
        }
        Ok(output::render(table))
    }
}

/// The words of a list.
fn joined(list: &Value) -> String {
    let words: Vec<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    words.join(",")
}
