//! The system services that a node needs, started by systemd.
//!
//! Most of them run already: the agent's start must not wait for those, and a service that does not start is told and
//! not fatal. What needs it says so by itself.

use std::time::Duration;

use futures::future::join_all;
use pvc_common::command::{CommandError, CommandRunner, Invocation, Program};
use pvc_common::config::Subsystems;
use pvc_core::ids::NodeName;
use pvc_core::states::DaemonMode;

/// How long one service may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long systemd may take to say whether it runs.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A service that could not be started.
#[derive(Debug)]
pub struct ServiceFailure {
    /// Its unit.
    pub unit: String,
    /// Why not.
    pub error: CommandError,
}

/// The units that a node needs, by what it is configured to be. OSDs are not among them: Ceph starts them itself, whether
/// or not there is an agent.
pub fn needed(node: &NodeName, mode: DaemonMode, subsystems: &Subsystems) -> Vec<String> {
    let coordinates = match mode {
        DaemonMode::Coordinator => true,
        DaemonMode::Hypervisor => false,
    };
    let mut units = Vec::new();
    if coordinates {
        units.push("zookeeper.service".to_owned());
    }
    if subsystems.hypervisor {
        units.push("libvirtd.service".to_owned());
    }
    if coordinates && subsystems.storage {
        units.push(format!("ceph-mon@{node}.service"));
        units.push(format!("ceph-mgr@{node}.service"));
    }
    units
}

/// Starts these units, side by side, and waits for at most 20 s.
///
/// # Idempotence
/// A unit that is active is left alone, and well even if systemd would not start it now.
pub async fn start<R: CommandRunner>(runner: &R, units: &[String]) -> Vec<ServiceFailure> {
    let starts = units.iter().map(|unit| async move {
        let call = Invocation::new(Program::Systemctl, START_LIMIT).args(["start", unit]);
        let error = runner.run(&call).await.err()?;
        let call = Invocation::new(Program::Systemctl, LOOK_LIMIT).args(["is-active", "--quiet", unit]);
        if runner.run(&call).await.is_ok() {
            return None;
        }
        Some(ServiceFailure {
            unit: unit.clone(),
            error,
        })
    });
    join_all(starts).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pvc_common::command::{CommandOutput, Exit};

    use super::*;

    #[test]
    fn a_node_starts_what_its_part_needs() {
        let node = NodeName::new("hv1").unwrap();
        let units = |mode, hypervisor, storage| {
            let subsystems = Subsystems {
                hypervisor,
                networking: true,
                storage,
                worker: true,
                api: true,
                prometheus: true,
            };
            needed(&node, mode, &subsystems).join(" ").replace(".service", "")
        };
        use DaemonMode::{Coordinator, Hypervisor};
        assert_eq!(
            units(Coordinator, true, true),
            "zookeeper libvirtd ceph-mon@hv1 ceph-mgr@hv1"
        );
        assert_eq!(
            units(Coordinator, false, true),
            "zookeeper ceph-mon@hv1 ceph-mgr@hv1"
        );
        assert_eq!(units(Coordinator, true, false), "zookeeper libvirtd");
        assert_eq!(units(Hypervisor, true, true), "libvirtd");
    }

    #[derive(Default)]
    struct Systemctl {
        log: Mutex<Vec<String>>,
    }

    impl CommandRunner for Systemctl {
        async fn run(&self, invocation: &Invocation) -> Result<CommandOutput, CommandError> {
            let command = invocation.command_line();
            self.log.lock().unwrap().push(command.to_string());
            let text = command.to_string();
            // Does not start, and does not run either; the monitor runs.
            if text.contains("libvirtd") || text.ends_with("start ceph-mon@hv1.service") {
                return Err(CommandError::Failed {
                    command,
                    exit: Exit::Code(5),
                    stderr: "Unit libvirtd.service not found.".to_owned(),
                });
            }
            Ok(CommandOutput::default())
        }
    }

    #[tokio::test]
    async fn one_that_does_not_start_is_told_and_keeps_no_other() {
        let units = ["zookeeper.service", "libvirtd.service", "ceph-mon@hv1.service"].map(str::to_owned);
        let runner = Systemctl::default();
        let failures = start(&runner, &units).await;
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].unit, "libvirtd.service");
        let log = runner.log.lock().unwrap();
        assert_eq!(log.len(), 5);
        assert_eq!(log[0], "systemctl start zookeeper.service");
    }
}
