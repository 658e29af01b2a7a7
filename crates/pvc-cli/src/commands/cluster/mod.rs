//! `pvc cluster`.

mod adopt;
mod health;
mod metrics;
mod status;
mod store;
mod task;

use clap::Subcommand;

use crate::commands::fault::{self, FaultCommand};
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show how the cluster is
    Status(status::Status),
    /// Show what lowers the health of the cluster and its nodes
    Health(health::Health),
    /// List tasks, or follow one
    Task(task::Task),
    /// Set the store up for a new cluster
    Init(store::Init),
    /// Save everything that the store holds
    Backup(store::Backup),
    /// Replace everything that the store holds by a backup
    Restore(store::Restore),
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
        ClusterCommand::Health(command) => command.run(session),
        ClusterCommand::Task(command) => command.run(session),
        ClusterCommand::Init(command) => command.run(session),
        ClusterCommand::Backup(command) => command.run(session),
        ClusterCommand::Restore(command) => command.run(session),
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
