//! `pvc storage`: what there is. Changes are among [`crate::plain`].

mod osd;
mod pool;
mod volume;

use clap::{Args, Subcommand};
use pvc_api::storage::CephText;
use serde_json::Value;

use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Show how Ceph is, in its own words
    Status(Text),
    /// Show how full Ceph is, in its own words
    Util(Text),
    /// OSDs
    #[command(subcommand)]
    Osd(osd::OsdCommand),
    /// Pools
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Text {
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(command: &StorageCommand, session: &Session) -> Result<()> {
    match command {
        StorageCommand::Status(command) => command.run(session, "/storage/ceph/status"),
        StorageCommand::Util(command) => command.run(session, "/storage/ceph/utilization"),
        StorageCommand::Osd(command) => osd::run(command, session),
        StorageCommand::Pool(command) => pool::run(command, session),
        StorageCommand::Volume(command) => volume::run(command, session),
    }
}

impl Text {
    fn run(&self, session: &Session, route: &str) -> Result<()> {
        watch::show(session, self.watch, Format::Pretty, || {
            let found: CephText = typed(session.client.get(route, &[])?)?;
            let text = found.ceph_data.trim_end();
            Ok(if text.is_empty() {
                "The primary node has not told how Ceph is yet\n".to_owned()
            } else {
                format!("{text}\n")
            })
        })
    }
}

/// A figure of Ceph's as text: figures that are not there yet are a dash, never a zero.
fn figure(stats: &Value, name: &str) -> String {
    match &stats[name] {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            "-".to_owned()
        }
    }
}

/// A figure of Ceph's that counts bytes.
fn size(stats: &Value, name: &str) -> String {
    stats[name].as_u64().map_or_else(|| "-".to_owned(), output::bytes)
}

/// A figure of Ceph's with two decimals.
fn decimal(stats: &Value, name: &str) -> String {
    stats[name]
        .as_f64()
        .map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_no_zero() {
        let stats = json!({"bytes": 10_240, "text": "1.5G", "weight": 1.0, "empty": ""});
        assert_eq!(size(&stats, "bytes"), "10K");
        assert_eq!(figure(&stats, "text"), "1.5G");
        assert_eq!(decimal(&stats, "weight"), "1.00");
        for missing in ["none", "empty"] {
            assert_eq!(figure(&stats, missing), "-");
            assert_eq!(size(&stats, missing), "-");
            assert_eq!(decimal(&stats, missing), "-");
        }
        assert_eq!(figure(&json!([]), "bytes"), "-");
    }
}
