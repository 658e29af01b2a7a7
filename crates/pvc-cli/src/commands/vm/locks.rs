//! `pvc vm flush-locks`.

use std::time::Duration;

use clap::Args;
use pvc_api::vm::LockFlushStatus;

use super::path;
use crate::client::typed;
use crate::error::{CliError, Result};
use crate::output;
use crate::session::Session;
use crate::wait::{self, Look};

/// How long the node is waited for: a few calls of Ceph for each volume.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct FlushLocks {
    /// Name or UUID
    domain: String,
    /// Also in states in which it should run, as long as no node owns it
    #[arg(long)]
    force: bool,
    /// Wait until they are removed (this is so unless --no-wait is given)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
}

impl FlushLocks {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        run(session, &self.domain, self.force, !self.no_wait)
    }
}

fn run(session: &Session, domain: &str, force: bool, wait: bool) -> Result<()> {
    let path = format!("{}/locks", path(domain));
    let form: &[(&str, &str)] = if force { &[("force", "true")] } else { &[] };
    session.client.post_value(&path, form)?;
    if !wait {
        session.say(&format!(
            "The node of VM {domain} removes the locks of its volumes"
        ));
        return Ok(());
    }
    let mut status: Option<LockFlushStatus> = None;
    wait::until(&format!("Locks of VM {domain}"), LIMIT, || {
        let seen: LockFlushStatus = typed(session.client.get_once(&path, &[])?)?;
        let over = matches!(seen.state.as_str(), "done" | "failed");
        let look = if over {
            Look::Done(String::new())
        } else {
            Look::Waiting(format!("{} on node {}", seen.state, seen.node))
        };
        status = Some(seen);
        Ok(look)
    })?;
    let Some(status) = status else { return Ok(()) };
    for lock in &status.removed {
        output::line(format!(
            "Removed the lock {:?} of {} at {} from {}, and barred that client from Ceph",
            lock.lock, lock.locker, lock.address, lock.volume
        ));
    }
    if status.state == "failed" {
        return Err(CliError::failure(format!(
            "Not all locks of VM {domain} were removed: {}",
            status.reason
        )));
    }
    if status.removed.is_empty() {
        session.say(&format!("The volumes of VM {domain} have no locks"));
    }
    Ok(())
}
