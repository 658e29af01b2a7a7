//! Changing a guest's XML from a command: asking, applying it at once where that can be, restarting where it can not.

use std::time::Duration;

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::path;
use crate::client::Method;
use crate::confirm::{Answer, Asking, confirm};
use crate::diff;
use crate::error::{Cause, CliError, Exit, Result};
use crate::session::Session;
use crate::{task, wait};

/// How often an order is given again while the guest's node attaches or detaches another device, and how long it is left to
/// it: a minute in all, which is more than one takes.
const BUSY_TRIES: u32 = 30;
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// When a change applies.
#[derive(Debug, Args)]
pub(crate) struct When {
    /// Restart it, so that the change applies now
    #[arg(short, long, overrides_with = "no_restart")]
    restart: bool,
    /// Do not: the change applies at its next start
    #[arg(short = 'R', long, overrides_with = "restart")]
    no_restart: bool,
    /// Ask nothing about the change; whether to restart is said by --restart and --no-restart
    #[arg(short, long)]
    yes: bool,
}

/// Whether a device of a guest that runs is attached or detached at once.
#[derive(Debug, Args)]
pub(crate) struct Live {
    /// Change it at once if it runs (this is so unless --no-live is given)
    #[arg(short, long, overrides_with = "no_live")]
    live: bool,
    /// Change its definition alone
    #[arg(short = 'L', long, overrides_with = "live")]
    no_live: bool,
}

impl Live {
    pub(crate) fn is_on(&self) -> bool {
        !self.no_live
    }
}

/// What is done to a guest that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hotplug<'a> {
    /// Nothing: it has to be restarted.
    None,
    /// This device is attached.
    Attach(&'a str),
    /// This device is detached.
    Detach(&'a str),
}

/// Asks, stores the new XML, and makes it apply.
pub(crate) fn apply(
    session: &Session,
    vm: &Vm,
    xml: &str,
    question: &str,
    hotplug: Hotplug<'_>,
    when: &When,
) -> Result<()> {
    let changes = diff::lines(&vm.xml, xml);
    if diff::is_same(&changes) {
        session.say(&format!("VM {} is like that already", vm.name));
        return Ok(());
    }
    let asking = session.asking(when.yes);
    if asking == Asking::Ask {
        anstream::eprint!("{}", diff::render(&changes, 1));
    }
    if confirm(question, asking)? == Answer::No {
        return Ok(());
    }
    let runs = vm.state == VmState::Start;
    let hotplug = if runs { hotplug } else { Hotplug::None };
    let restart = runs && restarts(vm, hotplug, when, asking)?;
    session.say(&replace_xml(session, vm, xml, restart)?);
    let (method, device) = match hotplug {
        // A restart makes it apply as well, and not in two ways at a time.
        Hotplug::Attach(_) | Hotplug::Detach(_) if restart => return Ok(()),
        Hotplug::None => {
            if runs && !restart {
                session.remark(&format!(
                    "VM {} runs on as it is; the change takes effect at its next start",
                    vm.name
                ));
            }
            return Ok(());
        }
        Hotplug::Attach(device) => (Method::Post, device),
        Hotplug::Detach(device) => (Method::Delete, device),
    };
    let route = format!("{}/device", path(&vm.name));
    let ordered = || session.client.change(method, &route, &[("xml", device)]);
    let mut order = ordered();
    // One device at a time: the definition is changed already, so it is waited for the one before.
    for _ in 0..BUSY_TRIES {
        if !order.as_ref().is_err_and(|error| error.cause == Cause::Busy) {
            break;
        }
        wait::pause(BUSY_PAUSE);
        order = ordered();
    }
    order
        .and_then(|reply| task::finish(session, reply, true))
        .map_err(|error| {
            // That nothing was changed, as the exit code of an unreachable cluster says, is not so here.
            let (exit, running) = match error.exit {
                Exit::Unseen => (Exit::Unseen, "may not be"),
                Exit::Failure | Exit::Usage | Exit::NotFound | Exit::Unreachable | Exit::Interrupted => {
                    (Exit::Failure, "is not")
                }
            };
            CliError::new(
                exit,
                format!(
                    "The definition is changed, the running VM {running}: {}. It applies when VM {} starts the next time",
                    error.message.trim_end_matches('.'),
                    vm.name
                ),
            )
        })
}

/// Stores a new XML in the place of the one that was read, unless somebody has changed that meanwhile. Answers in words.
pub(super) fn replace_xml(session: &Session, vm: &Vm, xml: &str, restart: bool) -> Result<String> {
    let version = vm.xml_version.map(|version| version.to_string());
    let mut form = vec![("xml", xml), ("restart", if restart { "true" } else { "false" })];
    if let Some(version) = &version {
        form.push(("xml_version", version));
    }
    session.client.put(&path(&vm.name), &form)
}

/// Whether the guest is restarted: if that is said, or answered to the question. A question that is not asked, since everything
/// is confirmed beforehand or nobody is there, is taken as no: who confirms a change has not said that the guest may go down.
fn restarts(vm: &Vm, hotplug: Hotplug<'_>, when: &When, asking: Asking) -> Result<bool> {
    match (when.restart, when.no_restart, hotplug) {
        (true, _, _) => Ok(true),
        (_, true, _) | (_, _, Hotplug::Attach(_) | Hotplug::Detach(_)) => Ok(false),
        (false, false, Hotplug::None) => {
            if asking == Asking::Assume || !crate::confirm::is_answered() {
                return Ok(false);
            }
            let question = format!("Restart VM {} now, so that the change applies?", vm.name);
            Ok(confirm(&question, asking)? == Answer::Yes)
        }
    }
}
