//! `pvc fence`.

use clap::{Subcommand, ValueEnum};
use pvc_api::fence::{Bmc, Fence, FenceTrack, NodeFence};

use crate::client::{segment, typed};
use crate::confirm::{Answer, confirm, confirm_by_name};
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;
use crate::time;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum FenceCommand {
    /// Show for each node whether it is suspect or dead, and whether it could be switched off
    List {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
        /// Show it again whenever something changes, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show the fence of a node: why, what proves it dead, what is missing, what comes next, what was done when
    Show {
        /// The node
        node: String,
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
        /// Show it again whenever something changes, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Confirm something about an open fence
    Confirm {
        /// The node
        node: String,
        /// What
        kind: ConfirmKind,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

/// What an administrator can confirm about a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfirmKind {
    /// Seek a proof, although many nodes fell silent at once
    Proceed,
    /// The machine is off, I have seen it: its guests are started elsewhere on this word
    MachineIsOff,
}

pub(crate) fn run(command: &FenceCommand, session: &Session) -> Result<()> {
    match command {
        FenceCommand::List { format, watch } => {
            watch::show(session, *watch, *format, || list(session, *format))
        }
        FenceCommand::Show { node, format, watch } => {
            watch::show(session, *watch, *format, || show(session, node, *format))
        }
        FenceCommand::Confirm { node, kind, yes } => say(session, node, *kind, *yes),
    }
}

fn list(session: &Session, format: Format) -> Result<String> {
    let value = session.client.list("/fence", &[])?;
    if format.is_json() {
        return output::json(&value, format);
    }
    let fences: Vec<NodeFence> = typed(value)?;
    let mut table = output::table(&["Node", "Agent", "Fence", "Dead by", "BMC", "Now"]);
    for fence in &fences {
        table.add_row(vec![
            comfy_table::Cell::new(&fence.node),
            output::state(fence.daemon_state.as_str()),
            output::state(&fence.state),
            comfy_table::Cell::new(fence.proof.as_deref().unwrap_or("-")),
            output::state(bmc_word(fence.bmc.as_ref())),
            comfy_table::Cell::new(if fence.state == "none" { "-" } else { &fence.now }),
        ]);
    }
    let mut text = output::render(table);
    for fence in fences.iter().filter(|fence| !fence.can_confirm.is_empty()) {
        text.push_str(&format!(
            "Node {} may need you: 'pvc fence show {}' tells what is missing\n",
            fence.node, fence.node
        ));
    }
    Ok(text)
}

/// A word for whether the node could be switched off.
pub(crate) fn bmc_word(bmc: Option<&Bmc>) -> &'static str {
    match bmc {
        None => "-",
        Some(bmc) if bmc.works && bmc.identity == "verified" => "works",
        Some(bmc) if bmc.works => "unverified",
        Some(_) => "broken",
    }
}

/// What is known of a BMC, in one line.
pub(crate) fn bmc_text(bmc: &Bmc) -> String {
    let word = output::painted(bmc_word(Some(bmc)));
    let tried = time::moment(bmc.tried_at);
    if bmc.reason.is_empty() {
        format!("{word} (tried {tried})")
    } else {
        format!("{word}: {} (tried {tried})", bmc.reason)
    }
}

fn show(session: &Session, node: &str, format: Format) -> Result<String> {
    let value = session.client.get(&format!("/fence/{}", segment(node)), &[])?;
    if format.is_json() {
        return output::json(&value, format);
    }
    let shown: NodeFence = typed(value)?;
    let mut lines = Lines::default();
    lines.add("Node", &shown.node);
    lines.add("Agent", output::painted(shown.daemon_state.as_str()));
    if let Some(bmc) = &shown.bmc {
        lines.add("BMC", bmc_text(bmc));
    }
    lines.add("Fence", output::painted(&shown.state));
    lines.add("Now", &shown.now);
    if !shown.next.is_empty() {
        lines.add("Next", &shown.next);
    }
    if let Some(at) = shown.next_try_at {
        lines.add("Next try", time::moment(at));
    }
    let mut label = "Missing";
    for missing in &shown.missing {
        lines.add(label, missing);
        label = "";
    }
    if let Some(fence) = &shown.fence {
        details(fence, &mut lines);
    }
    let mut text = lines.render();
    if let Some(fence) = &shown.fence {
        events(fence, &mut text);
    }
    if !shown.can_confirm.is_empty() {
        advice(&shown, &mut text);
    }
    Ok(text)
}

fn details(fence: &Fence, lines: &mut Lines) {
    lines.gap();
    lines.add("Power-off", track(&fence.power));
    lines.add("Storage barred", track(&fence.storage));
    lines.add("Switched on", track(&fence.restart));
    if let Some(confirmation) = &fence.confirmation {
        lines.add(
            "Confirmed",
            format!(
                "{} by {} at {}",
                confirmation.kind,
                confirmation.by,
                time::moment(confirmation.at)
            ),
        );
    }
    for (label, guests) in [
        ("Guests to go", &fence.guests_owned),
        ("Guests waiting", &fence.guests_parked),
        ("Guests in doubt", &fence.guests_left),
    ] {
        if !guests.is_empty() {
            lines.add(label, guests.join(", "));
        }
    }
    lines.add("Fencer", format!("{} (attempt {})", fence.fencer, fence.attempt));
    lines.add(
        "Dead boot",
        format!("{} of machine {}", fence.victim_boot_id, fence.victim_machine_id),
    );
}

fn track(track: &FenceTrack) -> String {
    if track.detail.is_empty() {
        output::painted(&track.state)
    } else {
        format!("{}: {}", output::painted(&track.state), track.detail)
    }
}

/// What was seen and done, with the time since the line before: where the seconds went is the first question
/// afterwards.
fn events(fence: &Fence, text: &mut String) {
    if fence.events.is_empty() {
        return;
    }
    text.push('\n');
    let mut before: Option<u64> = None;
    let width = fence
        .events
        .iter()
        .map(|event| event.node.len())
        .max()
        .unwrap_or(0);
    for event in &fence.events {
        let since = before
            .and_then(|before| event.at.checked_sub(before))
            .map_or_else(
                || "        ".to_owned(),
                |seconds| format!("{:>8}", format!("+{seconds} s")),
            );
        before = Some(event.at);
        text.push_str(&format!(
            "{}{since}  {:<width$}  {}\n",
            time::moment(event.at),
            event.node,
            event.text
        ));
    }
}

fn advice(shown: &NodeFence, text: &mut String) {
    text.push('\n');
    for kind in &shown.can_confirm {
        match kind.as_str() {
            "proceed" => text.push_str(&format!(
                "If it should be fenced although many nodes fell silent at once: pvc fence confirm {} proceed\n",
                shown.node
            )),
            "machine-is-off" => text.push_str(&format!(
                "If you have seen yourself that the machine is off: pvc fence confirm {} machine-is-off\n",
                shown.node
            )),
            _ => {}
        }
    }
}

fn say(session: &Session, node: &str, kind: ConfirmKind, yes: bool) -> Result<()> {
    let (word, answer) = match kind {
        ConfirmKind::Proceed => (
            "proceed",
            confirm(
                &format!("Seek a proof of the death of node {node}, and switch it off for that?"),
                session.asking(yes),
            )?,
        ),
        ConfirmKind::MachineIsOff => (
            "machine-is-off",
            confirm_by_name(
                &format!(
                    "Its guests are started elsewhere on your word. If node {node} still runs, they run twice and destroy \
                     their volumes.\nHave you seen that the machine is without power?"
                ),
                node,
                session.asking(yes),
            )?,
        ),
    };
    match answer {
        Answer::Yes => {
            let path = format!("/fence/{}/confirm", segment(node));
            session.say(&session.client.post(&path, &[("kind", word)])?);
            Ok(())
        }
        Answer::No => Ok(()),
    }
}
