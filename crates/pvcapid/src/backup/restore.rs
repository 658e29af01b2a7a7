//! Putting a backup back.
//!
//! ```text
//! checked whole -> every living agent on hold -> written in parts, each on condition that this restore is the last one
//!               -> compared once more -> done; the agents stay on hold until what runs was adopted
//! ```
//!
//! A store of any size does not fit into one transaction. So that nobody acts on a half of it, every agent is brought to
//! hold still first, and stays so for as long as the record of the restore does not say that it is whole. A restore that
//! was interrupted is seen by that, and is ended by ordering the same again: what is so already is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::schema::{self, NewNode};
use pvc_common::store::{Op, ReadError, Store, StoreError, StoreExt, Txn, Versioned, ZnodeVersion};
use pvc_core::backup::{Backup, Change, ChangeGroup, Stored, plan};
use pvc_core::hold::{HoldPhase, RestorePhase, RestoreRecord};
use pvc_core::ids::NodeName;
use pvc_core::states::{DaemonMode, DomainState};

use super::{living, stored};
use crate::app::App;
use crate::error::ApiError;

/// How long agents may take to hold still: each compares every 5 s, and looks three times.
const HOLD_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at them.
const HOLD_PERIOD: Duration = Duration::from_millis(250);
/// How often the store is compared with the backup again after somebody else wrote.
const PASSES: usize = 5;
/// Changes in one transaction, unless one thing has more.
const CHANGES_AT_ONCE: usize = 400;
/// Bytes in one transaction: its limit is a megabyte, overhead included.
const BYTES_AT_ONCE: usize = 600_000;
/// Room for the headers of one change.
const OVERHEAD: usize = 128;

/// Puts `backup` back. Answers in words.
///
/// # Errors
/// 409 when something is in the way or an agent does not hold still (nothing was changed then, but agents may be on
/// hold), or when others keep writing; 503 when the store does not answer. After the last two it is ordered again.
///
/// # Idempotence
/// What is so already is left alone.
pub(crate) async fn restore<S: Store>(app: &App<S>, backup: &Backup, by: &str) -> Result<String, ApiError> {
    let _turn = app.turn_to_restore()?;
    // Before anybody is disturbed.
    let unknown_secret = uuid::Uuid::new_v4().to_string();
    changes(app, backup, &unknown_secret).await?;
    let mut mark = Mark::begin(app, by).await?;
    tracing::warn!(restore = %mark.record.id, by, "a backup is being put into the store");
    if let Err(error) = all_hold(app).await {
        mark.set(app, RestorePhase::Abandoned).await?;
        return Err(error);
    }
    mark.set(app, RestorePhase::Writing).await?;
    let mut written = 0;
    for _ in 0..PASSES {
        let groups = changes(app, backup, &unknown_secret).await?;
        if groups.is_empty() {
            mark.set(app, RestorePhase::Done).await?;
            tracing::warn!(restore = %mark.record.id, written, "the backup is in the store");
            return Ok(format!(
                "The backup is in the store: {} nodes, {} VMs, {written} changes. Agents are on hold until what really \
                 runs was taken as the truth: see 'pvc cluster adopt'",
                backup.nodes().len(),
                backup.guests().len(),
            ));
        }
        written += write(app, &mark, groups).await?;
    }
    Err(ApiError::busy(
        "The store is half restored, and agents stay on hold: it",
    ))
}

async fn changes<S: Store>(
    app: &App<S>,
    backup: &Backup,
    unknown_secret: &str,
) -> Result<Vec<ChangeGroup>, ApiError> {
    let view = app.view()?;
    let mut stored = stored(&view);
    let kept: BTreeSet<_> = backup.guests().into_iter().collect();
    for id in view.children(&keys::domains()) {
        // A guest that goes has to go with its console's log, which is not mirrored.
        if !kept.contains(&id)
            && let Some(log) = app.store.read(keys::domain(id).console_log().path()).await?
        {
            let log = Stored {
                value: log.data,
                version: log.version,
            };
            stored.insert(keys::domain(id).console_log().path().to_owned(), log);
        }
    }
    plan(backup, &defaults(backup, &view), &stored, unknown_secret)
        .map_err(|in_the_way| ApiError::conflict(in_the_way.to_string()))
}

/// The keys that must exist beside those of the backup, such as the owners of its guests.
fn defaults(backup: &Backup, view: &View) -> BTreeMap<String, Vec<u8>> {
    let nodes = backup.nodes().into_iter().map(|name| {
        let mode = backup.value(keys::node(&name).daemon_mode().path());
        schema::node_keys(&NewNode {
            mode: mode
                .and_then(|mode| mode.parse().ok())
                .unwrap_or(DaemonMode::Hypervisor),
            domain_state: DomainState::Flushed,
            keepalive: 0,
            name,
        })
    });
    let guests = backup.guests().into_iter().map(|id| {
        let keys = keys::domain(id);
        let txn = schema::protocol_keys_of_domain(id);
        match view.znode(keys.name().path()) {
            Some(_) => txn,
            // Not in backups. Of a guest that is there it can't be told from a view whether these are: texts that long
            // are not mirrored.
            None => txn
                .create(&keys.console_log(), &String::new())
                .create(&keys.stats(), &None)
                .create(&keys.vnc(), &String::new()),
        }
    });
    let all = std::iter::once(schema::base_keys()).chain(nodes).chain(guests);
    all.flat_map(|txn| txn.ops)
        .filter_map(|op| match op {
            Op::Create { path, data } => Some((path, data)),
            Op::Check { .. } | Op::Guard { .. } | Op::Set { .. } | Op::Delete { .. } => None,
        })
        // What is outside of the backup's roots can't be compared; it is made by the agents and at their start.
        .filter(|(path, _)| pvc_core::backup::ROOTS.iter().any(|root| path.starts_with(root)))
        .collect()
}

/// The record of this restore, which every write of it depends on.
#[derive(Debug)]
struct Mark {
    record: RestoreRecord,
    version: ZnodeVersion,
}

impl Mark {
    async fn begin<S: Store>(app: &App<S>, by: &str) -> Result<Mark, ApiError> {
        let record = RestoreRecord {
            id: uuid::Uuid::new_v4().to_string(),
            by: by.to_owned(),
            at: app.clock_seconds(),
            phase: RestorePhase::Preparing,
        };
        let key = keys::config().restore();
        let found = app.store.get(&key).await?.ok_or_else(|| {
            ApiError::conflict(
                "The store has no layout of this release yet: start an agent on a coordinator, or initialize it first",
            )
        })?;
        let mut mark = Mark {
            record,
            version: found.version,
        };
        mark.set(app, RestorePhase::Preparing).await?;
        Ok(mark)
    }

    /// An order to adopt that was given before the restore is whole is taken away with each step: it was not about this.
    async fn set<S: Store>(&mut self, app: &App<S>, phase: RestorePhase) -> Result<(), ApiError> {
        let (key, adopt) = (keys::config().restore(), keys::config().adopt());
        self.record.phase = phase;
        let order: Versioned<_> = app.store.require(&adopt).await?;
        let txn = Txn::new()
            .set(&key, &Some(self.record.clone()), self.version)
            .set(&adopt, &None, order.version);
        let applied = app.store.commit(txn).await?;
        if let Some(version) = applied.first().and_then(|applied| applied.version()) {
            self.version = version;
        }
        Ok(())
    }
}

/// Waits until every agent that lives holds still.
async fn all_hold<S: Store>(app: &App<S>) -> Result<(), ApiError> {
    let deadline = app.clock.now() + HOLD_LIMIT;
    loop {
        let living = living(app).await?;
        let mut acting: Vec<&NodeName> = Vec::new();
        for (node, incarnation) in &living {
            let hold = app.store.get(&keys::node(node).hold()).await?;
            let holds = hold
                .and_then(|hold| hold.value)
                .is_some_and(|hold| hold.incarnation == *incarnation && holds_still(&hold.phase));
            if !holds {
                acting.push(node);
            }
        }
        if acting.is_empty() {
            return Ok(());
        }
        if app.clock.now() >= deadline {
            let names: Vec<&str> = acting.into_iter().map(NodeName::as_str).collect();
            return Err(ApiError::conflict(format!(
                "The agents of {} did not hold still within {} s, so nothing of the backup was written. The others are on \
                 hold now: 'pvc cluster adopt' ends that",
                names.join(", "),
                HOLD_LIMIT.as_secs()
            )));
        }
        app.clock.sleep(HOLD_PERIOD).await;
    }
}

fn holds_still(phase: &HoldPhase) -> bool {
    match phase {
        HoldPhase::Held { .. } | HoldPhase::Adopting { .. } | HoldPhase::Adopted { .. } => true,
        HoldPhase::Free | HoldPhase::Lifted { .. } => false,
    }
}

/// Writes the changes in parts. Answers how many were made; those that somebody else was faster with are left for the
/// next comparison.
async fn write<S: Store>(app: &App<S>, mark: &Mark, groups: Vec<ChangeGroup>) -> Result<usize, ApiError> {
    let mut written = 0;
    for batch in batches(groups) {
        let txn = batch.iter().fold(
            Txn::new().check(&keys::config().restore(), mark.version),
            |txn, change| match change {
                Change::Create { path, value } => txn.create_path(path.clone(), value.clone()),
                Change::Set { path, value, version } => txn.set_path(path.clone(), value.clone(), *version),
                Change::Delete { path, version } => txn.delete_path(path.clone(), Some(*version)),
            },
        );
        match app.store.commit(txn).await {
            Ok(_) => written += batch.len(),
            Err(StoreError::BadVersion { index: 0, .. }) => {
                return Err(ApiError::conflict(
                    "Another restore was begun meanwhile; this one has ended",
                ));
            }
            Err(
                StoreError::BadVersion { .. }
                | StoreError::NoNode { .. }
                | StoreError::NodeExists { .. }
                | StoreError::NotEmpty { .. }
                | StoreError::Unknown { .. },
            ) => {}
            Err(
                error @ (StoreError::LockLost { .. }
                | StoreError::Unavailable { .. }
                | StoreError::SessionExpired
                | StoreError::Refused { .. }),
            ) => return Err(ReadError::Store(error).into()),
        }
    }
    Ok(written)
}

/// Puts groups together as long as they fit into one transaction. A group is parted only if it does not fit by itself.
fn batches(groups: Vec<ChangeGroup>) -> Vec<Vec<Change>> {
    let cost = |change: &Change| change.bytes() + OVERHEAD;
    let mut batches: Vec<Vec<Change>> = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for group in groups {
        let group_bytes: usize = group.changes.iter().map(cost).sum();
        let fits =
            batch.len() + group.changes.len() <= CHANGES_AT_ONCE && bytes + group_bytes <= BYTES_AT_ONCE;
        if !fits && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        for change in group.changes {
            let next = cost(&change);
            if !batch.is_empty() && (batch.len() >= CHANGES_AT_ONCE || bytes + next > BYTES_AT_ONCE) {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += next;
            batch.push(change);
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, sizes: &[usize]) -> ChangeGroup {
        ChangeGroup {
            changes: sizes
                .iter()
                .enumerate()
                .map(|(index, size)| Change::Create {
                    path: format!("/{name}/{index}"),
                    value: vec![b'x'; *size],
                })
                .collect(),
        }
    }

    #[test]
    fn what_belongs_together_is_written_together_if_it_fits() {
        let all = batches(vec![
            group("a", &[100_000, 400_000]),
            group("b", &[50_000, 100_000]),
            group("c", &[500_000, 500_000, 10]),
            group("d", &[1; 500]),
        ]);
        let shape: Vec<(usize, &str)> = all.iter().map(|batch| (batch.len(), batch[0].path())).collect();
        assert_eq!(
            shape,
            [
                (2, "/a/0"),
                (2, "/b/0"),
                (1, "/c/0"),
                (2, "/c/1"),
                (400, "/d/0"),
                (100, "/d/400")
            ]
        );
    }
}
