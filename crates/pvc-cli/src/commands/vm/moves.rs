//! `pvc vm migrate|unmigrate|move`.

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::path;
use crate::client::{only, typed};
use crate::error::{CliError, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a move is waited for, in seconds: a guest with much memory takes long. What stands still is called off by its
/// node.
const LIMIT: u64 = 3600;

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Name or UUID
    domain: String,
    /// The node to go to; the best one if none is named
    #[arg(short, long)]
    target: Option<String>,
    /// Even if it is migrated already, and even if it should be kept apart from a VM there
    #[arg(short, long)]
    force: bool,
    /// Wait until it runs there
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
    /// Not at all rather than by shutting it down
    #[arg(long)]
    force_live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unmigrate {
    /// Name or UUID
    domain: String,
    /// Even if it should be kept apart from a VM there
    #[arg(short, long)]
    force: bool,
    /// Wait until it runs there
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
    /// Not at all rather than by shutting it down
    #[arg(long)]
    force_live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// Name or UUID
    domain: String,
    /// The node to go to; the best one if none is named
    #[arg(short, long)]
    target: Option<String>,
    /// Even if it should be kept apart from a VM there
    #[arg(short, long)]
    force: bool,
    /// Wait until it runs there
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
    /// Not at all rather than by shutting it down
    #[arg(long)]
    force_live: bool,
}

impl Migrate {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let asked = Asked::new("migrate", self.target.as_deref(), self.force, self.force_live);
        run(session, &self.domain, &asked, self.wait.then_some(self.timeout))
    }
}

impl Unmigrate {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let asked = Asked::new("unmigrate", None, self.force, self.force_live);
        run(session, &self.domain, &asked, self.wait.then_some(self.timeout))
    }
}

impl Move {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let asked = Asked::new("move", self.target.as_deref(), self.force, self.force_live);
        run(session, &self.domain, &asked, self.wait.then_some(self.timeout))
    }
}

/// What is asked for.
#[derive(Debug)]
struct Asked<'a> {
    form: Vec<(&'static str, &'a str)>,
    /// Whether asking twice comes to the same.
    is_repeatable: bool,
}

impl<'a> Asked<'a> {
    fn new(action: &'a str, target: Option<&'a str>, force: bool, force_live: bool) -> Asked<'a> {
        let mut form = vec![("action", action)];
        form.extend(target.map(|target| ("node", target)));
        if force {
            form.push(("force", "true"));
        }
        if force_live {
            form.push(("force_live", "true"));
        }
        // Without a target the second time is another move: the cluster chooses anew, away from where the first one led.
        let is_repeatable = target.is_some() || action == "unmigrate";
        Asked { form, is_repeatable }
    }

    fn send(&self, session: &Session, path: &str) -> Result<String> {
        if self.is_repeatable {
            session.client.post_repeatable(path, &self.form)
        } else {
            session.client.post(path, &self.form)
        }
    }
}

fn run(session: &Session, domain: &str, asked: &Asked<'_>, wait: Option<u64>) -> Result<()> {
    let vm_path = path(domain);
    let read = || -> Result<Vm> { typed(only(session.client.get_once(&vm_path, &[])?)) };
    // What is said of an earlier move must not be taken for the end of this one.
    let before: Option<(Vm, u64)> = match wait {
        Some(limit) => Some((read()?, limit)),
        None => None,
    };
    let said = asked.send(session, &format!("{vm_path}/node"))?;
    let Some((before, limit)) = before else {
        session.say(&said);
        return Ok(());
    };
    let mut target: Option<String> = None;
    let text = wait::until(session, &format!("VM {domain}"), limit, || {
        let vm = read()?;
        if is_moving(vm.state) {
            target = Some(vm.node.clone());
        }
        look(&vm, &before, target.as_deref())
    })?;
    session.say(&text);
    Ok(())
}

fn is_moving(state: VmState) -> bool {
    match state {
        VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => true,
        VmState::Start
        | VmState::Restart
        | VmState::Shutdown
        | VmState::Stop
        | VmState::Disable
        | VmState::Fail
        | VmState::Provision
        | VmState::Import
        | VmState::Restore
        | VmState::Mirror
        | VmState::Delete => false,
    }
}

/// How a move is, given the guest as it was before it was asked for, and the node that it was seen on its way to.
fn look(vm: &Vm, before: &Vm, target: Option<&str>) -> Result<Look> {
    if is_moving(vm.state) {
        let how = if vm.incoming.is_empty() {
            format!("{} to {}, still on {}", vm.state, vm.node, vm.owner)
        } else {
            format!("{} to {}, which is receiving it", vm.state, vm.node)
        };
        return Ok(Look::Waiting(how));
    }
    let stays = target.is_some_and(|target| target != vm.node)
        || (target.is_none() && vm.node == before.node && vm.failed_reason != before.failed_reason);
    if vm.state == VmState::Start && !stays {
        return Ok(if vm.running && vm.owner == vm.node {
            Look::Done(format!("VM {} runs on node {}", vm.name, vm.node))
        } else {
            Look::Waiting(format!("starting on {}", vm.node))
        });
    }
    if vm.state == before.state && !stays {
        return Ok(Look::Done(format!("VM {} is on node {}", vm.name, vm.node)));
    }
    let why = if vm.failed_reason.is_empty() {
        String::new()
    } else {
        format!(": {}", vm.failed_reason)
    };
    Err(CliError::failure(match (vm.state, target) {
        (VmState::Start, Some(target)) => format!(
            "VM {} did not come to node {target} and stays on {}{why}",
            vm.name, vm.node
        ),
        (VmState::Start, None) => format!("VM {} was not moved and stays on {}{why}", vm.name, vm.node),
        (state, _) => format!(
            "VM {} was not moved; it is in state {state} on node {}{why}",
            vm.name, vm.node
        ),
    }))
}
