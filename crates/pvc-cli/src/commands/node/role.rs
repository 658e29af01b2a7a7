//! `pvc node primary|secondary|is-primary`.

use clap::Args;
use pvc_api::node::NodeCoordinatorState;
use pvc_api::status::PrimaryNode;
use pvc_core::states::CoordinatorState;

use super::named_or_here;
use crate::client::{segment, typed};
use crate::error::{CliError, Exit, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a change of the primary role is waited for, in seconds. A named node that can not take it gives way to others
/// after 10.
const LIMIT: u64 = 60;

#[derive(Debug, Args)]
pub(crate) struct Primary {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it is
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Secondary {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it has
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct IsPrimary {
    /// The node; this one if none is named
    node: Option<String>,
}

impl Primary {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        role(
            session,
            &name,
            CoordinatorState::Primary,
            self.wait.then_some(self.timeout),
        )
    }
}

impl Secondary {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        role(
            session,
            &name,
            CoordinatorState::Secondary,
            self.wait.then_some(self.timeout),
        )
    }
}

impl IsPrimary {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        let value = session.client.get("/status/primary_node", &[])?;
        let primary: Option<PrimaryNode> = if value.is_null() {
            None
        } else {
            Some(typed(value)?)
        };
        match primary {
            Some(primary) if primary.primary_node == name => Ok(()),
            // No words: the exit code is the answer.
            Some(_) | None => Err(CliError::new(Exit::Failure, "")),
        }
    }
}

fn role(session: &Session, name: &str, wanted: CoordinatorState, wait: Option<u64>) -> Result<()> {
    let path = format!("/node/{}/coordinator-state", segment(name));
    let said = session
        .client
        .post_repeatable(&path, &[("state", wanted.as_str())])?;
    let Some(limit) = wait else {
        session.say(&said);
        return Ok(());
    };
    let what = format!("Node {name} is to become {wanted}");
    let text = wait::until(session, &what, limit, || {
        let seen: NodeCoordinatorState = typed(session.client.get_once(&path, &[])?)?;
        Ok(if seen.coordinator_state == wanted {
            Look::Done(format!("Node {name} is {wanted}"))
        } else {
            Look::Waiting(seen.coordinator_state.to_string())
        })
    })?;
    session.say(&text);
    Ok(())
}
