//! `pvc cluster`.

mod adopt;
mod metrics;
mod status;

use clap::Subcommand;

use crate::commands::fault::{self, FaultCommand};
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show how the cluster is
    Status(status::Status),
    /// Maintenance: no node is fenced meanwhile
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// After the store was restored from a backup: take what really runs on the nodes as the truth
    Adopt(adopt::Adopt),
    /// Print Prometheus' metrics
    Metrics(metrics::Metrics),
    /// What is wrong in the cluster and wants a person
    #[command(subcommand)]
    Fault(FaultCommand),
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Switch maintenance on
    On,
    /// Switch maintenance off
    Off,
}

pub(crate) fn run(command: &ClusterCommand, session: &Session) -> Result<()> {
    match command {
        ClusterCommand::Status(command) => command.run(session),
        ClusterCommand::Adopt(command) => command.run(session),
        ClusterCommand::Metrics(command) => command.run(session),
        ClusterCommand::Fault(command) => fault::run(command, session),
        ClusterCommand::Maintenance(command) => {
            let state = match command {
                MaintenanceCommand::On => "true",
                MaintenanceCommand::Off => "false",
            };
            session.say(&session.client.post("/status", &[("state", state)])?);
            Ok(())
        }
    }
}
