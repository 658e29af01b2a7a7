//! The node agent's entry point.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pvc_common::config;
use pvc_common::telemetry::{self, Format, RecentLines, Verbosity};
use pvc_core::ids::NodeName;
use tracing::{error, warn};

/// The PVC node agent: keeps this node's lease, takes part in the primary role, runs its guests.
#[derive(Debug, Parser)]
#[command(name = "pvcnoded", version)]
struct Arguments {
    /// The configuration file; otherwise PVC_CONFIG_FILE, otherwise /etc/pvc/pvc.conf.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, say all that is wrong with it, and exit.
    #[arg(long, conflicts_with = "drop_role")]
    check_config: bool,
    /// Take the addresses of the primary role off this host and release the role; for when the agent has ended.
    #[arg(long)]
    drop_role: bool,
    /// Order that every agent that is on hold takes what really runs on its node as the truth, and exit: for a store
    /// that was restored from a snapshot, and for a stopped cluster of PVC 1.0.3 whose guests run.
    #[arg(long, conflicts_with_all = ["drop_role", "check_config"])]
    adopt: bool,
    /// With --adopt: a node that is off, which you have made sure of. It is not waited for.
    #[arg(long, value_name = "NODE", requires = "adopt")]
    without: Vec<NodeName>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = arguments.config.unwrap_or_else(config::path_from_environment);
    let node = match config::host_node_name() {
        Ok(node) => node,
        Err(error) => return complain(&format!("this host's name can't be a node's name: {error}")),
    };
    if arguments.check_config {
        return match config::check(&path, &node) {
            Ok(report) => {
                eprintln!("{report}");
                ExitCode::from(report.exit_code())
            }
            Err(error) => complain(&error.to_string()),
        };
    }
    let loaded = config::load(&path, &node);
    let verbosity = loaded.as_ref().map_or(Verbosity::Normal, |loaded| {
        Verbosity::from(&loaded.config.logging)
    });
    let recent = RecentLines::new(
        loaded
            .as_ref()
            .map_or(0, |loaded| kept_lines(&loaded.config.logging)),
    );
    let _telemetry = match telemetry::init_keeping(Format::detect(), verbosity, &recent) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&error.to_string()),
    };
    let loaded = loaded
        .map_err(|error| error!(%error, "no usable configuration"))
        .ok();
    let outcome = if arguments.drop_role {
        pvcnoded::daemon::drop_role(loaded.as_ref().map(|loaded| &loaded.config))
    } else {
        let Some(loaded) = loaded else {
            return ExitCode::FAILURE;
        };
        if arguments.adopt {
            return match pvcnoded::daemon::order_adoption(&loaded.config, arguments.without) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("{error:#}")),
            };
        }
        for finding in &loaded.warnings {
            warn!(%finding, "configuration");
        }
        pvcnoded::daemon::run(loaded.config, recent)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "node agent ends");
            ExitCode::FAILURE
        }
    }
}

/// How many lines of the log are kept for the store.
fn kept_lines(logging: &config::Logging) -> usize {
    match logging.zookeeper {
        true => usize::try_from(logging.node_lines).unwrap_or(usize::MAX),
        false => 0,
    }
}

fn complain(what: &str) -> ExitCode {
    eprintln!("pvcnoded: {what}");
    ExitCode::FAILURE
}
