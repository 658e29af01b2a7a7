//! The node agent of one node, as an unkind administrator handles it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pvc_lab::{Node, PAUSE_FOLDER, wait_for};

const UNIT: &str = "pvcnoded.service";
/// A drop-in that lasts until the next boot.
const DROP_IN: &str = "/run/systemd/system/pvcnoded.service.d/cluster-test.conf";
/// An orderly stop hands the role over.
const STOP: Duration = Duration::from_secs(60);

/// A signal to the agent's own process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// Ends it at once.
    Kill,
    /// Stops it where it stands.
    Stop,
    /// Lets it go on.
    Continue,
}

/// Whether systemd looks after an agent that does not report in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    /// As shipped.
    On,
    /// Off: to see what the kernel does by itself.
    Off,
}

/// Sends a signal to the agent's process alone.
pub(crate) fn signal(node: &Node, signal: Signal) -> Result<()> {
    let name = match signal {
        Signal::Kill => "SIGKILL",
        Signal::Stop => "SIGSTOP",
        Signal::Continue => "SIGCONT",
    };
    node.exec(&["systemctl", "kill", "--kill-whom=main", "--signal", name, UNIT])?
        .ok()
        .with_context(|| format!("cannot send {name} to the agent of {}", node.id()))?;
    Ok(())
}

/// A property of the agent's unit, as systemd words it.
pub(crate) fn property(node: &Node, property: &str) -> Result<String> {
    let text = node
        .exec(&[
            "systemctl",
            "show",
            "--timestamp=us",
            "--value",
            "--property",
            property,
            UNIT,
        ])?
        .ok()?;
    Ok(text.trim().to_owned())
}

/// Process id of the agent inside its node; none while it does not run.
pub(crate) fn main_pid(node: &Node) -> Result<Option<u32>> {
    Ok(property(node, "MainPID")?.parse().ok().filter(|pid| *pid != 0))
}

/// Starts, stops or restarts the agent and waits for systemd to have done it.
pub(crate) fn control(node: &Node, verb: &str) -> Result<()> {
    node.exec_within(STOP, &["systemctl", verb, UNIT])?
        .ok()
        .with_context(|| format!("cannot {verb} the agent of {}", node.id()))?;
    Ok(())
}

/// Switches systemd's watchdog over the agent, and restarts it: the agent counts from its start.
pub(crate) fn set_watchdog(node: &Node, watchdog: Watchdog) -> Result<()> {
    match watchdog {
        Watchdog::Off => node.write_file(DROP_IN, 0o644, "[Service]\nWatchdogSec=0\n")?,
        Watchdog::On => {
            if !node.exec(&["test", "-e", DROP_IN])?.success() {
                return Ok(());
            }
            node.exec(&["rm", "-f", DROP_IN])?.ok()?;
        }
    }
    node.exec(&["systemctl", "daemon-reload"])?.ok()?;
    control(node, "restart")
}

/// Ends what a case may have left: stopped processes, held threads, the watchdog off.
pub(crate) fn restore(node: &Node) -> Result<()> {
    node.exec(&["sh", "-c", &format!("rm -f {PAUSE_FOLDER}/*")])?
        .ok()?;
    if main_pid(node)?.is_some() {
        signal(node, Signal::Continue)?;
    }
    set_watchdog(node, Watchdog::On)?;
    if !node.exec(&["systemctl", "is-active", "--quiet", UNIT])?.success() {
        node.exec(&["systemctl", "reset-failed", UNIT])?;
        control(node, "start")?;
    }
    Ok(())
}

/// A point in the agent at which a thread is held while this lives.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    node: &'a Node,
    point: &'static str,
}

impl<'a> Hold<'a> {
    /// The next thread that comes to the point is held there.
    pub(crate) fn at(node: &'a Node, point: &'static str) -> Result<Hold<'a>> {
        let hold = Hold { node, point };
        node.exec(&["rm", "-f", &hold.reached()])?.ok()?;
        node.write_file(&hold.request(), 0o644, "")?;
        Ok(hold)
    }

    fn request(&self) -> String {
        format!("{PAUSE_FOLDER}/{}", self.point)
    }

    fn reached(&self) -> String {
        format!("{PAUSE_FOLDER}/{}.reached", self.point)
    }

    /// Waits until a thread stands there.
    pub(crate) fn wait_reached(&self, deadline: Duration) -> Result<()> {
        let reached = self.reached();
        wait_for(
            &format!("the agent of {} to reach {}", self.node.id(), self.point),
            deadline,
            || Ok(self.node.exec(&["test", "-e", &reached])?.success().then_some(())),
        )
    }

    /// Lets the thread go on.
    pub(crate) fn release(self) -> Result<()> {
        self.node
            .exec(&["rm", "-f", &self.request(), &self.reached()])?
            .ok()?;
        Ok(())
    }
}

/// The end of the agent's log.
pub(crate) fn log(node: &Node, lines: u32) -> Result<String> {
    let output = node.exec(&[
        "journalctl",
        "--unit",
        UNIT,
        "--lines",
        &lines.to_string(),
        "--output=short-precise",
        "--no-pager",
    ])?;
    Ok(output.stdout)
}

/// The first line of the agent's log since that mark that says this.
pub(crate) fn find_log(node: &Node, since: &str, text: &str) -> Result<Option<String>> {
    let output = node.exec(&[
        "journalctl",
        "--unit",
        UNIT,
        "--since",
        since,
        "--output=cat",
        "--no-pager",
    ])?;
    let line = output.stdout.lines().find(|line| line.contains(text));
    Ok(line.map(ToOwned::to_owned))
}

/// Waits until the agent's log says this.
pub(crate) fn wait_log(node: &Node, since: &str, text: &str, deadline: Duration) -> Result<String> {
    wait_for(
        &format!("the log of {} to say {text:?}", node.id()),
        deadline,
        || find_log(node, since, text),
    )
}

/// Now, as `journalctl --since` takes it on that node.
pub(crate) fn log_mark(node: &Node) -> Result<String> {
    let text = node.exec(&["date", "+%Y-%m-%d %H:%M:%S.%6N"])?.ok()?;
    let text = text.trim().to_owned();
    if text.is_empty() {
        bail!("{} does not know what time it is", node.id());
    }
    Ok(text)
}
