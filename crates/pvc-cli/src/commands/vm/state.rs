//! `pvc vm start|restart|shutdown|stop|disable`.

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::{ask, path};
use crate::client::{only, typed};
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a guest's shutdown is waited for, in seconds. Its node ends it after `vm_shutdown_timeout`, 180 s unless
/// configured otherwise; who has set that to minutes must not be told too soon that it does not shut down.
const SHUTDOWN_LIMIT: u64 = 900;
/// How long a guest's start is waited for, in seconds.
const START_LIMIT: u64 = 120;
/// How long it is waited for that a guest is switched off, in seconds.
const STOP_LIMIT: u64 = 300;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Name or UUID
    domain: String,
    /// Even if it is a mirror of another cluster's
    #[arg(long)]
    force: bool,
    /// Wait until it runs
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = START_LIMIT)]
    timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Name or UUID
    domain: String,
    /// Wait until it has
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = SHUTDOWN_LIMIT)]
    timeout: u64,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    /// Name or UUID
    domain: String,
    /// Wait until it has
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = SHUTDOWN_LIMIT)]
    timeout: u64,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Name or UUID
    domain: String,
    /// Even if it is a mirror of another cluster's
    #[arg(long)]
    force: bool,
    /// Wait until it is
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = STOP_LIMIT)]
    timeout: u64,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Disable {
    /// Name or UUID
    domain: String,
    /// Switch it off rather than shutting it down
    #[arg(long)]
    force: bool,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

impl Start {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let said = set_state(session, &self.domain, "start", self.force)?;
        finish(
            session,
            &self.domain,
            said,
            self.wait.then_some((Goal::Running, self.timeout)),
        )
    }
}

impl Restart {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        ask(session, &format!("Restart VM {}?", self.domain), self.yes, || {
            let said = set_state(session, &self.domain, "restart", false)?;
            finish(
                session,
                &self.domain,
                said,
                self.wait.then_some((Goal::Restarted, self.timeout)),
            )
        })
    }
}

impl Shutdown {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        ask(
            session,
            &format!("Shut VM {} down?", self.domain),
            self.yes,
            || {
                let said = set_state(session, &self.domain, "shutdown", false)?;
                finish(
                    session,
                    &self.domain,
                    said,
                    self.wait.then_some((Goal::Stopped, self.timeout)),
                )
            },
        )
    }
}

impl Stop {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        ask(
            session,
            &format!("Switch VM {} off?", self.domain),
            self.yes,
            || {
                let said = set_state(session, &self.domain, "stop", self.force)?;
                finish(
                    session,
                    &self.domain,
                    said,
                    self.wait.then_some((Goal::Stopped, self.timeout)),
                )
            },
        )
    }
}

impl Disable {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        ask(session, &format!("Disable VM {}?", self.domain), self.yes, || {
            session.say(&set_state(session, &self.domain, "disable", self.force)?);
            Ok(())
        })
    }
}

fn set_state(session: &Session, domain: &str, state: &str, force: bool) -> Result<String> {
    let mut form = vec![("state", state)];
    if force {
        form.push(("force", "true"));
    }
    session.client.post(&format!("{}/state", path(domain)), &form)
}

/// What a command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The guest runs.
    Running,
    /// The guest was shut down and is to run again.
    Restarted,
    /// The guest does not run.
    Stopped,
}

fn finish(session: &Session, domain: &str, said: String, goal: Option<(Goal, u64)>) -> Result<()> {
    let Some((goal, limit)) = goal else {
        session.say(&said);
        return Ok(());
    };
    let text = wait::until(session, &format!("VM {domain}"), limit, || {
        let vm: Vm = typed(only(session.client.get_once(&path(domain), &[])?))?;
        look(goal, &vm)
    })?;
    session.say(&text);
    Ok(())
}

/// Whether a guest is where it should be. The owner record says whether a process of it may exist: state words alone
/// run ahead of what is so.
fn look(goal: Goal, vm: &Vm) -> Result<Look> {
    if vm.state == VmState::Fail {
        return Err(CliError::failure(format!(
            "VM {} has failed: {}",
            vm.name, vm.failed_reason
        )));
    }
    let held = !vm.owner.is_empty();
    Ok(match (goal, vm.state) {
        (Goal::Running | Goal::Restarted, VmState::Start) if vm.running => {
            Look::Done(format!("VM {} runs on node {}", vm.name, vm.owner))
        }
        (Goal::Stopped, VmState::Stop | VmState::Disable) if !held => {
            Look::Done(format!("VM {} is stopped", vm.name))
        }
        (Goal::Running | Goal::Restarted, VmState::Stop | VmState::Disable)
        | (Goal::Stopped, VmState::Start) => {
            return Err(CliError::failure(format!(
                "VM {} went to state {} instead: somebody else asked for it",
                vm.name, vm.state
            )));
        }
        (_, state) => Look::Waiting(state.to_string()),
    })
}
