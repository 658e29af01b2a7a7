//! Emptying nodes and filling them again.
//!
//! A request writes the order into the node's domain state; the node itself carries it out, guest by guest, and reports
//! how far it is. An opposite order takes the place of one under way at once.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use pvc_api::message::ErrorCode;
use pvc_api::node::{Drain, DrainGuest};
use pvc_common::clock::Clock;
use pvc_common::keys;
use pvc_common::mirror::View;
use pvc_common::store::{Store, StoreError, Txn, Watch};
use pvc_core::fence::FenceRecord;
use pvc_core::ids::{NodeName, VmId};
use pvc_core::records::DrainReport;
use pvc_core::states::{DaemonState, DomainState};

use crate::app::App;
use crate::error::ApiError;
use crate::node;
use crate::snapshot::{Reading, Snapshot, Wanted};
use crate::vm::state::Reply;
use crate::vm::wait::unseen;

/// How often a transaction is tried again after somebody else was faster.
const RETRIES: usize = 8;
/// How long a missed change can delay a waiting request.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a request waits in all: somewhat less than the client of PVC 1.0.3 does, which gives up after ten minutes.
const IN_ALL: Duration = Duration::from_secs(570);
/// How much longer than a guest's shutdown may take an order may stand still before nobody waits any more.
const MARGIN: Duration = Duration::from_secs(60);

/// What is asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Give your guests away, and take none.
    Flush,
    /// Take your guests back, and others.
    Ready,
}

impl Order {
    /// The state in which it is carried out.
    const fn under_way(self) -> DomainState {
        match self {
            Order::Flush => DomainState::Flush,
            Order::Ready => DomainState::Unflush,
        }
    }

    /// The state in which it is done.
    const fn done(self) -> DomainState {
        match self {
            Order::Flush => DomainState::Flushed,
            Order::Ready => DomainState::Ready,
        }
    }
}

/// What there is to do about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is done.
    Done,
    /// The node is at it.
    UnderWay,
    /// Write it.
    Write,
    /// The node is dead, and others look after its guests.
    Refuse,
}

/// Whether a node has guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guests {
    None,
    Some,
}

impl Guests {
    /// Whether that node does.
    fn on(view: &View, name: &NodeName) -> Guests {
        let owns = |vm: &VmId| {
            view.shown(&keys::domain(*vm).owner(), None)
                .is_some_and(|owner| owner.node == *name)
        };
        match view.children(&keys::domains()).iter().any(owns) {
            true => Guests::Some,
            false => Guests::None,
        }
    }
}

fn next_step(order: Order, now: DomainState, guests: Guests) -> Step {
    match now {
        DomainState::FenceFlush => Step::Refuse,
        // Somebody has started one there since.
        DomainState::Flushed if order == Order::Flush && guests == Guests::Some => Step::Write,
        now if now == order.done() => Step::Done,
        now if now == order.under_way() => Step::UnderWay,
        // The opposite is done, or under way and cancelled by this.
        DomainState::Ready | DomainState::Flushed | DomainState::Flush | DomainState::Unflush => Step::Write,
    }
}

/// Orders a node to be emptied or filled. Answers in words.
///
/// # Idempotence
/// What is so already, or under way, is success without a write.
///
/// # Cancellation
/// What was written stays; only the waiting ends.
pub(crate) async fn request<S: Store>(
    app: &App<S>,
    name: &NodeName,
    order: Order,
    reply: Reply,
) -> Result<String, ApiError> {
    let _waiter = match reply {
        Reply::WhenDone => Some(app.waiter()?),
        Reply::AtOnce => None,
    };
    let guests = Guests::on(&app.view()?, name);
    let text = app.promptly(write(&app.store, name, order, guests)).await?;
    match reply {
        Reply::AtOnce => Ok(text),
        Reply::WhenDone => until_done(app, name, order).await,
    }
}

async fn write<S: Store>(
    store: &S,
    name: &NodeName,
    order: Order,
    guests: Guests,
) -> Result<String, ApiError> {
    let keys = keys::node(name);
    for _ in 0..RETRIES {
        let mut wanted = Wanted::default();
        wanted
            .key(&keys.daemon_state())
            .key(&keys.domain_state())
            .key(&keys::fence(name));
        let seen = Snapshot::read(store, wanted).await?;
        let now = seen
            .get(&keys.domain_state())?
            .ok_or_else(|| node::unknown(name.as_str()))?;
        match next_step(order, now.value, guests) {
            Step::Done => return Ok(done_text(name, order)),
            Step::UnderWay => return Ok(under_way_text(name, order, "already")),
            Step::Refuse => {
                return Err(ApiError::conflict(format!(
                    "Node {name} is dead and its guests are being given to others; 'fence show {name}' tells how far that is"
                )));
            }
            Step::Write => {}
        }
        let daemon_state = seen.require(&keys.daemon_state())?;
        if daemon_state.value != DaemonState::Run {
            return Err(ApiError::conflict(format!(
                "Node {name} would not do it: its agent is in state {}, not run",
                daemon_state.value
            )));
        }
        let fence = seen.get(&keys::fence(name))?;
        if fence
            .as_ref()
            .is_some_and(|fence| fence.value.as_ref().is_some_and(FenceRecord::is_open))
        {
            return Err(ApiError::conflict(format!(
                "Node {name} is being fenced; 'fence show {name}' tells how far that is"
            )));
        }
        let mut txn = Txn::new().check(&keys.daemon_state(), daemon_state.version).set(
            &keys.domain_state(),
            &order.under_way(),
            now.version,
        );
        if let Some(fence) = fence {
            txn = txn.check(&keys::fence(name), fence.version);
        }
        match store.commit(txn).await {
            Ok(_) => {
                tracing::info!(node = %name, from = %now.value, to = %order.under_way(), "drain ordered");
                return Ok(under_way_text(name, order, "now"));
            }
            Err(StoreError::BadVersion { .. } | StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy("The node"))
}

fn done_text(name: &NodeName, order: Order) -> String {
    match order {
        Order::Flush => format!("Node {name} is empty and takes no guests"),
        Order::Ready => format!("Node {name} is ready"),
    }
}

fn under_way_text(name: &NodeName, order: Order, when: &str) -> String {
    match order {
        Order::Flush => format!("Node {name} is {when} being emptied"),
        Order::Ready => format!("Node {name} is {when} being made ready"),
    }
}

/// Waits until the order is carried out or replaced, as long as it goes on.
async fn until_done<S: Store>(app: &App<S>, name: &NodeName, order: Order) -> Result<String, ApiError> {
    let keys = keys::node(name);
    let mut watch = app.store.watch_tree(keys.domain_state().path());
    let begun = app.clock.now();
    let patience = app.settings.waits.shutdown + MARGIN;
    let mut stands_since = (None, begun);
    loop {
        let read = app.promptly(read_progress(&app.store, name)).await;
        let now = app.clock.now();
        let at_end = now.since(begun) >= IN_ALL;
        match read {
            Ok((state, report)) => {
                if state == order.done() {
                    return Ok(match report.filter(|report| report.order == order.under_way()) {
                        Some(report) => format!("{}{}", done_text(name, order), tally(&report)),
                        None => done_text(name, order),
                    });
                }
                if state != order.under_way() {
                    return Err(ApiError::conflict(format!(
                        "Somebody else has ordered otherwise: node {name} is in domain state {state}"
                    )));
                }
                let mark = Some((state, report.clone()));
                if stands_since.0 != mark {
                    stands_since = (mark, now);
                }
                if at_end || now.since(stands_since.1) >= patience {
                    return Err(too_late(name, state, report.as_ref(), now.since(begun)));
                }
            }
            Err(error) if error.code == ErrorCode::StoreUnavailable && !at_end => {}
            Err(error) if error.code == ErrorCode::StoreUnavailable => {
                return Err(unseen(&format!("node {name}")));
            }
            Err(error) => return Err(error),
        }
        let next = app.clock.now() + LOOK_AGAIN;
        match select(pin!(watch.changed()), pin!(app.clock.sleep_until(next))).await {
            Either::Left(((), _)) | Either::Right(((), _)) => {}
        }
    }
}

/// A node's domain state, and its report on the order under way or the last one.
pub(crate) fn progress(
    seen: &impl Reading,
    name: &NodeName,
) -> Result<(DomainState, Option<DrainReport>), ApiError> {
    let keys = keys::node(name);
    let state = seen
        .get(&keys.domain_state())?
        .ok_or_else(|| node::unknown(name.as_str()))?;
    Ok((state.value, seen.shown(&keys.drain(), None)))
}

/// As [`progress`], as the store has it now.
async fn read_progress<S: Store>(
    store: &S,
    name: &NodeName,
) -> Result<(DomainState, Option<DrainReport>), ApiError> {
    let keys = keys::node(name);
    let mut wanted = Wanted::default();
    wanted.key(&keys.domain_state()).key(&keys.drain());
    progress(&Snapshot::read(store, wanted).await?, name)
}

fn tally(report: &DrainReport) -> String {
    let mut text = format!(
        " ({} of {} guests done",
        report.total - report.left.min(report.total),
        report.total
    );
    if report.shut_down > 0 {
        text.push_str(&format!(
            ", {} of them shut down until it is made ready",
            report.shut_down
        ));
    }
    text.push(')');
    text
}

fn too_late(name: &NodeName, state: DomainState, report: Option<&DrainReport>, waited: Duration) -> ApiError {
    let left = match report {
        None => String::new(),
        Some(report) => {
            let guests: Vec<String> = report
                .guests
                .iter()
                .take(5)
                .map(|guest| match guest.trouble.as_str() {
                    "" => format!("{} ({})", guest.name, guest.is),
                    trouble => format!("{} ({trouble})", guest.name),
                })
                .collect();
            format!("; {} guests are left: {}", report.left, guests.join(", "))
        }
    };
    ApiError::new(
        ErrorCode::WaitTimeout,
        format!(
            "Node {name} is in domain state {state} after {} s{left}. It goes on by itself",
            waited.as_secs()
        ),
    )
}

/// A node's report as it is shown.
pub(crate) fn shown(report: DrainReport) -> Drain {
    Drain {
        order: report.order.to_string(),
        began_at: report.began_at,
        ended_at: report.ended_at,
        total: report.total,
        left: report.left,
        shut_down: report.shut_down,
        guests: report
            .guests
            .into_iter()
            .map(|guest| DrainGuest {
                name: guest.name,
                doing: guest.is,
                trouble: guest.trouble,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_replaces_its_opposite_and_is_given_once() {
        // Lesson 50: a drain can be cancelled and replaced by a newer order.
        let check = |order, now, step| {
            assert_eq!(next_step(order, now, Guests::None), step, "{order:?} {now}");
        };
        check(Order::Flush, DomainState::Ready, Step::Write);
        check(Order::Flush, DomainState::Unflush, Step::Write);
        check(Order::Flush, DomainState::Flush, Step::UnderWay);
        check(Order::Flush, DomainState::Flushed, Step::Done);
        check(Order::Flush, DomainState::FenceFlush, Step::Refuse);
        check(Order::Ready, DomainState::Flushed, Step::Write);
        check(Order::Ready, DomainState::Flush, Step::Write);
        check(Order::Ready, DomainState::Unflush, Step::UnderWay);
        check(Order::Ready, DomainState::Ready, Step::Done);
        check(Order::Ready, DomainState::FenceFlush, Step::Refuse);
        // A guest was started there since: it is not empty.
        let again = next_step(Order::Flush, DomainState::Flushed, Guests::Some);
        assert_eq!(again, Step::Write);
    }
}
