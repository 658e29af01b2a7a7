//! `pvc node flush|ready`.

use clap::Args;
use pvc_api::node::{Drain, NodeDomainState};
use pvc_core::states::DomainState;

use super::named_or_here;
use crate::client::{segment, typed};
use crate::error::{CliError, Result};
use crate::output::Lines;
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a node is waited for, in seconds: with many guests of much memory it takes long, and it shows how far it is.
const LIMIT: u64 = 4 * 3600;

/// What is asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Flush,
    Ready,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Order::Flush => "flush",
            Order::Ready => "ready",
        }
    }

    const fn under_way(self) -> DomainState {
        match self {
            Order::Flush => DomainState::Flush,
            Order::Ready => DomainState::Unflush,
        }
    }

    const fn done(self) -> DomainState {
        match self {
            Order::Flush => DomainState::Flushed,
            Order::Ready => DomainState::Ready,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Flush {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it is empty
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Ready {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it does
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
}

impl Flush {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        run(
            session,
            &named_or_here(self.node.as_deref())?,
            Order::Flush,
            self.wait.then_some(self.timeout),
        )
    }
}

impl Ready {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        run(
            session,
            &named_or_here(self.node.as_deref())?,
            Order::Ready,
            self.wait.then_some(self.timeout),
        )
    }
}

fn run(session: &Session, name: &str, order: Order, wait: Option<u64>) -> Result<()> {
    let path = format!("/node/{}/domain-state", segment(name));
    let said = session
        .client
        .post_repeatable(&path, &[("state", order.word())])?;
    let Some(limit) = wait else {
        session.say(&said);
        return Ok(());
    };
    let text = wait::until(session, &format!("Node {name}"), limit, || {
        let seen: NodeDomainState = typed(session.client.get_once(&path, &[])?)?;
        let report = seen
            .drain
            .filter(|report| report.order == order.under_way().as_str());
        if seen.domain_state == order.done() {
            let what = match order {
                Order::Flush => format!("Node {name} is empty and takes no VMs"),
                Order::Ready => format!("Node {name} is ready"),
            };
            return Ok(Look::Done(match report {
                None => what,
                Some(report) => format!("{what}: {}", ended(&report)),
            }));
        }
        if seen.domain_state == order.under_way() {
            return Ok(Look::Waiting(match report {
                None => seen.domain_state.to_string(),
                Some(report) => format!("{}, {}", seen.domain_state, so_far(&report)),
            }));
        }
        Err(CliError::failure(format!(
            "Somebody else has ordered otherwise: node {name} is in domain state {}",
            seen.domain_state
        )))
    })?;
    session.say(&text);
    Ok(())
}

/// Whether a report tells something that still matters: an order under way, or guests that were left as they were.
pub(crate) fn is_of_interest(report: &Drain) -> bool {
    report.ended_at.is_none()
        || report.left > 0
        || report.guests.iter().any(|guest| !guest.trouble.is_empty())
}

/// How far it is, as labelled lines.
pub(crate) fn add(report: &Drain, lines: &mut Lines) {
    let label = match report.order.as_str() {
        "flush" => "Emptying",
        _ => "Filling",
    };
    let how = match report.ended_at {
        None => so_far(report),
        Some(_) => ended(report),
    };
    lines.add(label, how);
    for guest in &report.guests {
        let text = if guest.trouble.is_empty() {
            format!("  {}: {}", guest.name, guest.doing)
        } else {
            format!(
                "  {}: {}: \x1b[33m{}\x1b[0m",
                guest.name, guest.doing, guest.trouble
            )
        };
        lines.add("", text);
    }
}

fn so_far(report: &Drain) -> String {
    let mut text = format!("{} of {} VMs left", report.left, report.total);
    if let Some(guest) = report.guests.first() {
        let what = if guest.trouble.is_empty() {
            &guest.doing
        } else {
            &guest.trouble
        };
        text.push_str(&format!(", {}: {what}", guest.name));
    }
    text
}

fn ended(report: &Drain) -> String {
    let done = report.total.saturating_sub(report.left);
    let mut text = format!("{done} of {} VMs done", report.total);
    if report.shut_down > 0 {
        text.push_str(&format!(
            ", {} of them shut down until it is made ready again",
            report.shut_down
        ));
    }
    if report.left > 0 {
        text.push_str(&format!(", {} left as they were", report.left));
    }
    text
}
