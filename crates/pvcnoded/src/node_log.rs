//! Publishes the last lines of this agent's log, for `pvc node log`.
//!
//! The lines are kept in memory by whoever logs ([`RecentLines`]); here they are written to `/logs/N/messages` when there are
//! new ones, all of them at once and no more often than every few seconds. A store that does not answer costs the lines
//! that no longer fit into memory meanwhile, and nothing else: the journal has them all.
//!
//! What is debugging is not published: it would never end. Writing makes no line that is kept, so it can't go on by itself.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::secret::Secret;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn};
use pvc_common::telemetry::{RECENT_BYTES, RecentLines};
use pvc_core::ids::NodeName;
use tokio::sync::watch;
use tracing::debug;

/// Between two writes. Who follows a log sees it a little late, and a node that logs without end costs the store no more
/// than [`RECENT_BYTES`] in this time.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// A secret that is shorter than this is a word that may be in any line, and no secret.
const SECRET_LENGTH: usize = 6;
/// In place of a line that holds a secret all the same: every viewer may read the log, and the journal is for root.
const LEFT_OUT: &str = "(a line that held a password or key is left out here)";

/// Publishes the log.
#[derive(Debug)]
pub struct NodeLog<S, C> {
    /// The store.
    pub store: S,
    /// Time.
    pub clock: C,
    /// This node.
    pub me: NodeName,
    /// The lines.
    pub recent: RecentLines,
    /// What must never be published, though nothing should log it.
    pub secrets: Vec<Secret>,
}

/// What is remembered between writes. All of it may be lost at any time.
#[derive(Debug, Default)]
pub struct Memory {
    /// The lines that earlier lives of this agent had published; none before they were read.
    earlier: Option<Vec<String>>,
    /// How many lines there had been when they were written last.
    written: u64,
}

impl<S: Store, C: Clock> NodeLog<S, C> {
    /// Publishes until told to stop; then once more.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut memory = Memory::default();
        loop {
            if let Err(error) = self.look(&mut memory).await {
                debug!(%error, "the log can't be published now");
            }
            let until = self.clock.now() + WRITE_EVERY;
            tokio::select! {
                () = self.clock.sleep_until(until) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if let Err(error) = self.look(&mut memory).await {
            debug!(%error, "the end of the log was not published");
        }
    }

    /// Publishes what there is, if there is anything new.
    ///
    /// # Errors
    /// When the store does not answer: the next look goes on.
    pub async fn look(&self, memory: &mut Memory) -> Result<(), ReadError> {
        let key = keys::log(&self.me).messages();
        if memory.earlier.is_none() {
            let before = match self.store.get(&key).await {
                Ok(found) => found.map(|found| found.value).unwrap_or_default(),
                // What nobody can read is no log.
                Err(ReadError::Value { .. }) => String::new(),
                Err(error) => return Err(error),
            };
            let before = last_lines(before.lines(), self.recent.most());
            memory.earlier = Some(before.lines().map(str::to_owned).collect());
        }
        if self.recent.count() == memory.written {
            return Ok(());
        }
        let (count, recent) = self.recent.lines();
        let earlier = memory.earlier.iter().flatten().map(String::as_str);
        let ours = recent.iter().map(|line| self.published(line));
        let text = last_lines(earlier.chain(ours), self.recent.most());
        // Blind: only this agent writes it, and nothing is decided by it.
        self.store.commit(Txn::new().overwrite(&key, &text)).await?;
        memory.written = count;
        Ok(())
    }

    fn published<'a>(&self, line: &'a str) -> &'a str {
        let holds = |secret: &Secret| {
            let secret = secret.expose();
            secret.len() >= SECRET_LENGTH && line.contains(secret)
        };
        match self.secrets.iter().any(holds) {
            true => LEFT_OUT,
            false => line,
        }
    }
}

/// The last of the lines, as many as may be kept and have room.
fn last_lines<'a>(lines: impl Iterator<Item = &'a str>, most: usize) -> String {
    let lines: Vec<&str> = lines.collect();
    let mut bytes = 0_usize;
    let fits = |line: &&&str| {
        bytes = bytes.saturating_add(line.len() + 1);
        bytes <= RECENT_BYTES
    };
    let mut kept: Vec<&str> = lines.iter().rev().take(most).take_while(fits).copied().collect();
    kept.reverse();
    kept.join("\n")
}

#[cfg(test)]
mod tests;
