//! Telling how far a drain is.

use pvc_common::clock::Clock;
use pvc_common::faults::{self, Fault, fault_id};
use pvc_common::keys;
use pvc_common::store::{ReadError, Store, StoreExt as _, Txn};
use pvc_core::ids::NodeName;
use pvc_core::records::{DrainReport, DrainedGuest};
use pvc_core::states::DomainState;
use tracing::{debug, info};

use super::DrainParts;
use super::read::Guest;
use crate::registration::wall_seconds;

/// Guests named in a report: what one can read. It also keeps the value far below what the store takes.
const GUESTS_TOLD: usize = 30;
/// Guests named in a fault.
const GUESTS_IN_FAULT: usize = 5;
/// What the fault takes from the cluster's health, in percent: a person should look, nothing is down by it.
const FAULT_DELTA: u32 = 10;

/// One guest in this round.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) guest: &'a Guest,
    pub(super) is: String,
    pub(super) trouble: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn troubled(guest: &'a Guest, trouble: String) -> Line<'a> {
        Line {
            guest,
            is: "left as it is".to_owned(),
            trouble: Some(trouble),
        }
    }
}

/// Publishes the report and the fault. Failing in that changes nothing else: the next round tells again.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    report: Option<DrainReport>,
    written: Option<DrainReport>,
    rests: bool,
}

fn fault_of(me: &NodeName) -> [&str; 2] {
    ["NODE_DRAIN", me.as_str()]
}

impl Reporter {
    /// An order begins. One that an earlier life of this agent has begun goes on with its figures.
    pub(super) async fn begin<S: Store, C: Clock>(
        &mut self,
        parts: &DrainParts<S, C>,
        order: DomainState,
    ) -> Result<(), ReadError> {
        let stored = parts.store.get(&keys::node(&parts.me).drain()).await?;
        let going_on = stored
            .and_then(|stored| stored.value)
            .filter(|report| report.order == order && report.ended_at.is_none());
        // This life's own order of before was replaced, so that the new one counts anew.
        let same_life = self.report.is_some();
        self.report = Some(match going_on {
            Some(report) if !same_life => report,
            Some(_) | None => DrainReport {
                order,
                began_at: wall_seconds(&parts.clock),
                ended_at: None,
                total: 0,
                left: 0,
                shut_down: 0,
                guests: Vec::new(),
            },
        });
        self.rests = false;
        Ok(())
    }

    /// So far it is.
    pub(super) async fn tell<S: Store, C: Clock>(
        &mut self,
        parts: &DrainParts<S, C>,
        left: u32,
        shut_down: u32,
        lines: &[Line<'_>],
    ) {
        let Some(report) = &mut self.report else { return };
        report.left = left;
        report.total = report.total.max(left);
        report.shut_down = shut_down.min(report.total);
        let mut guests: Vec<DrainedGuest> = lines.iter().map(told).collect();
        guests.sort_by_key(|guest| (guest.trouble.is_empty(), guest.is == "waiting for its turn"));
        guests.truncate(GUESTS_TOLD);
        report.guests = guests;
        self.publish(parts).await;
        self.tell_fault(parts).await;
    }

    /// The order is carried out. Guests that were left as they are stay in the report.
    pub(super) async fn end<S: Store, C: Clock>(&mut self, parts: &DrainParts<S, C>) {
        if let Some(report) = &mut self.report {
            report.ended_at = Some(wall_seconds(&parts.clock));
            let done = report.total.saturating_sub(report.left);
            info!(order = %report.order, total = report.total, done, shut_down = report.shut_down, "a drain has ended");
        }
        self.publish(parts).await;
        self.report = None;
        clear(parts).await;
    }

    /// There is no order. An earlier life of this agent, or an order that was taken back, may have left a fault.
    pub(super) async fn at_rest<S: Store, C: Clock>(&mut self, parts: &DrainParts<S, C>) {
        if self.rests {
            return;
        }
        if let Some(report) = &mut self.report {
            // Taken back, for example by an administrator who wrote `ready`.
            report.ended_at = Some(wall_seconds(&parts.clock));
            self.publish(parts).await;
            self.report = None;
        }
        self.rests = clear(parts).await;
    }

    async fn publish<S: Store, C: Clock>(&mut self, parts: &DrainParts<S, C>) {
        if self.report == self.written {
            return;
        }
        // Blind: the value is this node's own and depends on nothing read.
        let txn = Txn::new().overwrite(&keys::node(&parts.me).drain(), &self.report);
        match parts.store.commit(txn).await {
            Ok(_) => self.written = self.report.clone(),
            Err(error) => debug!(%error, "failed to publish how far the drain is"),
        }
    }

    async fn tell_fault<S: Store, C: Clock>(&self, parts: &DrainParts<S, C>) {
        let Some(report) = &self.report else { return };
        let troubled: Vec<&DrainedGuest> = report
            .guests
            .iter()
            .filter(|guest| !guest.trouble.is_empty())
            .collect();
        if troubled.is_empty() {
            clear(parts).await;
            return;
        }
        let message = fault_message(&parts.me, report, &troubled);
        let fault = Fault::new(&fault_of(&parts.me), FAULT_DELTA, message);
        if let Err(error) = faults::raise(&parts.store, &parts.clock, &fault).await {
            debug!(%error, "failed to tell of a drain in trouble");
        }
    }
}

fn told(line: &Line<'_>) -> DrainedGuest {
    // What its own node says of it says more than we can.
    let reason = &line.guest.failed_reason.value;
    let trouble = match &line.trouble {
        None => String::new(),
        Some(trouble) if reason.is_empty() || trouble.contains(reason.as_str()) => trouble.clone(),
        Some(trouble) => format!("{trouble}: {reason}"),
    };
    DrainedGuest {
        name: line.guest.name.to_string(),
        is: line.is.clone(),
        trouble,
    }
}

fn fault_message(me: &NodeName, report: &DrainReport, troubled: &[&DrainedGuest]) -> String {
    let what = match report.order {
        DomainState::Flush => "emptied",
        DomainState::Unflush | DomainState::Ready | DomainState::Flushed | DomainState::FenceFlush => {
            "filled again"
        }
    };
    let done = report.total.saturating_sub(report.left);
    let mut message = format!(
        "Node {me} is being {what}: {done} of {} VMs are done, and {} need a look",
        report.total,
        troubled.len()
    );
    for (index, guest) in troubled.iter().take(GUESTS_IN_FAULT).enumerate() {
        let lead = if index == 0 { ": " } else { "; " };
        message.push_str(&format!("{lead}{} {}", guest.name, guest.trouble));
    }
    if troubled.len() > GUESTS_IN_FAULT {
        message.push_str("; and others");
    }
    message
}

/// Whether no fault is left.
async fn clear<S: Store, C: Clock>(parts: &DrainParts<S, C>) -> bool {
    match faults::clear(&parts.store, &fault_id(&fault_of(&parts.me))).await {
        Ok(()) => true,
        Err(error) => {
            debug!(%error, "failed to clear the fault of a drain");
            false
        }
    }
}
