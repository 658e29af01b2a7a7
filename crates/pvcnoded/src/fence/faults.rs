//! What an administrator is told about fences, as faults.

use std::collections::BTreeMap;
use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::faults::{Fault, clear, fault_id, raise};
use pvc_common::store::Store;
use pvc_core::fence::{FencePhase, FenceRecord, PowerTrack, Standing, is_left_by_stop};
use pvc_core::ids::NodeName;
use pvc_core::time::BootTime;
use tracing::debug;

use super::FenceParts;
use crate::host::{PowerControl, Storage};

/// A node whose agent was stopped is looked at after this time, and again each time it has passed.
const FIRST_LOOK: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(60);

fn fence_id(node: &NodeName) -> String {
    fault_id(&["FENCE", node.as_str()])
}

fn stopped_id(node: &NodeName) -> String {
    fault_id(&["NODE_STOPPED_WITH_GUESTS", node.as_str()])
}

/// The fault that a fence is for now; `None` once nobody has to look at it any more.
fn fault_of(node: &NodeName, record: &FenceRecord) -> Option<Fault> {
    let (delta, message) = match &record.phase {
        FencePhase::Suspected | FencePhase::Proving if !record.waits_for.is_empty() => (
            100,
            format!("{node} is silent and is not fenced: {}", record.waits_for),
        ),
        FencePhase::Suspected | FencePhase::Proving => {
            let without = match &record.power {
                PowerTrack::Unavailable { reason } => format!(" without its BMC ({reason})"),
                PowerTrack::Untried | PowerTrack::Ordered | PowerTrack::Off | PowerTrack::Failed { .. } => {
                    String::new()
                }
            };
            (
                50,
                format!("{node} is silent; a proof of its death is sought{without}"),
            )
        }
        FencePhase::Proven { by } | FencePhase::Recovering { by } if record.waits_for.is_empty() => (
            50,
            format!("{node} is dead (proof: {by}); its guests are started on other nodes"),
        ),
        FencePhase::Proven { by } | FencePhase::Recovering { by } => {
            (50, format!("{node} is dead (proof: {by}): {}", record.waits_for))
        }
        FencePhase::Done { by } if record.returned.is_none() => (
            25,
            format!("{node} was fenced (proof: {by}) and is not back yet; repair it, then switch it on"),
        ),
        FencePhase::Done { .. } | FencePhase::Abandoned { .. } => return None,
    };
    let message = match record.parked.len() {
        0 => message,
        count => format!("{message}. {count} of its guests are stopped, since no node can take them"),
    };
    Some(Fault {
        id: fence_id(node),
        delta,
        message: format!("{message}. See: pvc fence show {node}"),
    })
}

/// Raises or clears the fault of a fence. That it can't be written is no matter: the record tells all.
pub(super) async fn tell<S: Store, C: Clock>(
    store: &S,
    clock: &C,
    node: &NodeName,
    record: Option<&FenceRecord>,
) {
    let outcome = match record.and_then(|record| fault_of(node, record)) {
        Some(fault) => raise(store, clock, &fault).await.map(|_| ()),
        None => clear(store, &fence_id(node)).await,
    };
    if let Err(error) = outcome {
        debug!(%node, %error, "the fault of a fence was not written");
    }
}

/// Nodes that were stopped in good order and have guests all the same: nobody expects such a node to renew its lease, so
/// if it dies it is not fenced, and its guests stay down.
#[derive(Debug, Default)]
pub(super) struct StoppedNodes {
    since: BTreeMap<NodeName, BootTime>,
    told: BTreeMap<NodeName, BootTime>,
}

impl StoppedNodes {
    /// Takes a round in, and tells what is due.
    pub(super) async fn look<S: Store, C: Clock, P: PowerControl, T: Storage>(
        &mut self,
        parts: &FenceParts<S, C, P, T>,
        now: BootTime,
        standings: &BTreeMap<NodeName, Standing>,
    ) {
        for (node, standing) in standings {
            if *standing != Standing::Stopped {
                self.since.remove(node);
                if self.told.remove(node).is_some()
                    && let Err(error) = clear(&parts.store, &stopped_id(node)).await
                {
                    debug!(%node, %error, "a fault was not cleared");
                }
                continue;
            }
            let since = *self.since.entry(node.clone()).or_insert(now);
            let due = self
                .told
                .get(node)
                .is_none_or(|told| now.since(*told) >= LOOK_EVERY);
            if now.since(since) < FIRST_LOOK || !due {
                continue;
            }
            self.told.insert(node.clone(), now);
            let Ok(guests) = parts.read_guests().await else {
                continue;
            };
            let count = guests
                .iter()
                .filter(|guest| is_left_by_stop(node, &guest.records(false), now.since(since)))
                .count();
            let outcome = if count == 0 {
                clear(&parts.store, &stopped_id(node)).await
            } else {
                let fault = Fault {
                    id: stopped_id(node),
                    delta: 50,
                    message: format!(
                        "The agent of {node} was stopped, and {count} guests belong to it, are placed there or were sent to \
                         it: they are not looked after or started, and if the node dies it is not fenced. Start pvcnoded \
                         there"
                    ),
                };
                raise(&parts.store, &parts.clock, &fault).await.map(|_| ())
            };
            if let Err(error) = outcome {
                debug!(%node, %error, "a fault was not written");
            }
        }
    }
}
