//! `pvc vm flush-locks`.

use clap::Args;
use pvc_api::vm::LockFlushStatus;

use super::path;
use crate::client::typed;
use crate::error::{CliError, Result};
use crate::output;
use crate::session::Session;
use crate::wait::{self, Look};

/// How long the node is waited for, in seconds: a few calls of Ceph for each volume.
const LIMIT: u64 = 120;

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
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_wait", default_value_t = LIMIT)]
    timeout: u64,
}

impl FlushLocks {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let wait = (!self.no_wait).then_some(self.timeout);
        run(session, &self.domain, self.force, wait)
    }
}

fn run(session: &Session, domain: &str, force: bool, wait: Option<u64>) -> Result<()> {
    let path = format!("{}/locks", path(domain));
    let form: &[(&str, &str)] = if force { &[("force", "true")] } else { &[] };
    session.client.post_value(&path, form)?;
    let Some(limit) = wait else {
        session.say(&format!(
            "The node of VM {domain} removes the locks of its volumes"
        ));
        return Ok(());
    };
    let mut status: Option<LockFlushStatus> = None;
    wait::until(session, &format!("Locks of VM {domain}"), limit, || {
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
