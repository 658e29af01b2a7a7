//! BMCs over the network (IPMI 2.0, `lanplus`), by `ipmitool`.
//!
//! One packet is waited for 1 s and sent once more, so a BMC that is dead costs 2 s; the process is killed at 3 s. The
//! password goes by the environment. The exit status decides nothing but that there is no answer: a state is only what
//! is printed as one.

use std::time::Duration;

use pvc_common::command::{CommandError, CommandRunner, Invocation, Program};

use super::{BmcAccess, PowerControl, PowerError, PowerState, parse};

/// A command is killed after this time. It is below the 4.5 s and more that a lease lasts, so the right under which
/// it was sent can't have gone to somebody else before it ended.
const DEADLINE: Duration = Duration::from_secs(3);
/// No answer of a BMC that we ask for is longer, in bytes.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Power control by `ipmitool`.
#[derive(Debug, Clone)]
pub struct Ipmitool<R> {
    runner: R,
}

impl<R: CommandRunner + Clone + 'static> Ipmitool<R> {
    /// Runs it by `runner`.
    pub fn new(runner: R) -> Ipmitool<R> {
        Ipmitool { runner }
    }

    async fn ask(
        &self,
        bmc: &BmcAccess,
        action: &'static str,
        command: &[&str],
    ) -> Result<String, PowerError> {
        let invocation = Invocation::new(Program::Ipmitool, DEADLINE)
            .args(["-I", "lanplus", "-N", "1", "-R", "1"])
            .args(["-H", &bmc.host, "-U", &bmc.user, "-E"])
            .args(command)
            .secret("IPMI_PASSWORD", bmc.password.clone())
            .output_limit(OUTPUT_LIMIT);
        match self.runner.run(&invocation).await {
            Ok(output) => Ok(output.text().into_owned()),
            Err(error) => Err(power_error(bmc, action, error)),
        }
    }

    /// The GUID of this host as its own BMC tells it from inside, without the network. `None` if it can't be had.
    pub async fn local_guid(&self) -> Option<String> {
        let invocation = Invocation::new(Program::Ipmitool, DEADLINE)
            .args(["mc", "guid", "dump"])
            .output_limit(OUTPUT_LIMIT);
        match self.runner.run(&invocation).await {
            Ok(output) => parse::guid(&output.text()),
            Err(error) => {
                tracing::debug!(%error, "the BMC of this host can't be asked from inside");
                None
            }
        }
    }
}

fn power_error(bmc: &BmcAccess, action: &'static str, error: CommandError) -> PowerError {
    let host = bmc.host.clone();
    match error {
        CommandError::NotFound { .. } | CommandError::Start { .. } => PowerError::NoProgram {
            reason: error.to_string(),
        },
        CommandError::TimedOut { deadline, .. } => PowerError::NoAnswer {
            host,
            reason: format!("nothing within {deadline:?}"),
        },
        CommandError::Failed { exit, stderr, .. } => match parse::refusal(&stderr) {
            Some(reason) => PowerError::Refused {
                host,
                action,
                reason: reason.to_owned(),
            },
            None => PowerError::NoAnswer {
                host,
                reason: match stderr.trim() {
                    "" => exit.to_string(),
                    said => said.to_owned(),
                },
            },
        },
        CommandError::OutputTooLarge { .. } | CommandError::Pipe { .. } => PowerError::NotUnderstood {
            host,
            said: error.to_string(),
        },
    }
}

impl<R: CommandRunner + Clone + 'static> PowerControl for Ipmitool<R> {
    async fn state(&self, bmc: &BmcAccess) -> Result<PowerState, PowerError> {
        let said = self
            .ask(bmc, "tell its state", &["chassis", "power", "status"])
            .await?;
        parse::power_state(&said).ok_or_else(|| not_understood(bmc, &said))
    }

    async fn order_off(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.ask(bmc, "power off", &["chassis", "power", "off"])
            .await
            .map(|_| ())
    }

    async fn order_on(&self, bmc: &BmcAccess) -> Result<(), PowerError> {
        self.ask(bmc, "power on", &["chassis", "power", "on"])
            .await
            .map(|_| ())
    }

    async fn guid(&self, bmc: &BmcAccess) -> Result<String, PowerError> {
        // The bytes as they came: what they mean in which order differs between BMCs.
        let said = self.ask(bmc, "tell its GUID", &["mc", "guid", "dump"]).await?;
        parse::guid(&said).ok_or_else(|| not_understood(bmc, &said))
    }
}

fn not_understood(bmc: &BmcAccess, said: &str) -> PowerError {
    let said: String = said.trim().chars().take(200).collect();
    PowerError::NotUnderstood {
        host: bmc.host.clone(),
        said,
    }
}
