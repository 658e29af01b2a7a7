//! `pvc vm start|restart|shutdown|stop|disable`.

use std::time::Duration;

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::{ask, path};
use crate::client::{only, typed};
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a guest's shutdown is waited for: its node ends it after 180 s unless configured otherwise.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(300);
/// How long a guest's start or stop is waited for.
const START_LIMIT: Duration = Duration::from_secs(120);

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
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Name or UUID
    domain: String,
    /// Wait until it has
    #[arg(short, long)]
    wait: bool,
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
        finish(session, &self.domain, said, self.wait.then_some(Goal::Running))
    }
}

impl Restart {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        ask(session, &format!("Restart VM {}?", self.domain), self.yes, || {
            let said = set_state(session, &self.domain, "restart", false)?;
            finish(session, &self.domain, said, self.wait.then_some(Goal::Restarted))
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
                finish(session, &self.domain, said, self.wait.then_some(Goal::Stopped))
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
                finish(session, &self.domain, said, self.wait.then_some(Goal::Stopped))
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

fn finish(session: &Session, domain: &str, said: String, goal: Option<Goal>) -> Result<()> {
    let Some(goal) = goal else {
        session.say(&said);
        return Ok(());
    };
    let limit = match goal {
        Goal::Running => START_LIMIT,
        Goal::Restarted | Goal::Stopped => SHUTDOWN_LIMIT,
    };
    let text = wait::until(&format!("VM {domain}"), limit, || {
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
