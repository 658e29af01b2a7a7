//! `pvc node primary|secondary|is-primary`.

use std::time::Duration;

use clap::Args;
use pvc_api::node::NodeCoordinatorState;
use pvc_api::status::PrimaryNode;
use pvc_core::states::CoordinatorState;

use super::named_or_here;
use crate::client::{segment, typed};
use crate::error::{CliError, Exit, Result};
use crate::session::Session;
use crate::wait::{self, Look};

/// How long a change of the primary role is waited for. It takes seconds; a named node that can not take it gives
/// way to others after 10.
const ROLE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Primary {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it is
    #[arg(short, long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Secondary {
    /// The node; this one if none is named
    node: Option<String>,
    /// Wait until it has
    #[arg(short, long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IsPrimary {
    /// The node; this one if none is named
    node: Option<String>,
}

impl Primary {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        role(session, &name, CoordinatorState::Primary, self.wait)
    }
}

impl Secondary {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        role(session, &name, CoordinatorState::Secondary, self.wait)
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

fn role(session: &Session, name: &str, wanted: CoordinatorState, wait: bool) -> Result<()> {
    let path = format!("/node/{}/coordinator-state", segment(name));
    let said = session
        .client
        .post_repeatable(&path, &[("state", wanted.as_str())])?;
    if !wait {
        session.say(&said);
        return Ok(());
    }
    let text = wait::until(&format!("Node {name} is to become {wanted}"), ROLE_LIMIT, || {
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
