//! A dead node is switched on again.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::store::{Store, Txn};
use pvc_core::fence::{FencePhase, PowerTrack, RESTART_ORDERS, RestartTrack};

use super::book::{FenceBook, FenceError};
use super::rounds::Fencer;
use super::seek::{Victim, order_on};
use crate::host::{PowerControl, PowerState, Storage};

/// For how long after it was switched on a node that has not come back is looked at for being off again. Short: later it
/// may be off because somebody works on it.
const RESTART_WATCHED: Duration = Duration::from_secs(75);

impl<S: Store, C: Clock, P: PowerControl, T: Storage> Fencer<S, C, P, T> {
    /// Guests of it can't be recovered for now. Its record stays open, which keeps it from starting or claiming anything,
    /// so it may as well be on: what is missing may be its OSDs, and its next boot is a proof of its own.
    pub(super) async fn switch_on_early(
        &mut self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
    ) -> Result<(), FenceError> {
        // Also when an earlier order came to nothing: what is waited for may be on that node.
        let due = book.record.as_ref().is_some_and(|record| {
            record.power == PowerTrack::Off
                && match record.restart {
                    RestartTrack::NotDue | RestartTrack::Ordered | RestartTrack::Failed { .. } => true,
                    RestartTrack::Done => false,
                }
        });
        if !due {
            return Ok(());
        }
        self.memory.entry(victim.node.clone()).or_default().stuck_since = Some(self.parts.clock.now());
        book.change(|record| record.restart = RestartTrack::Ordered);
        book.note("its guests could not be recovered for a minute: switching it on, it takes no part until they are");
        book.write(Txn::new()).await?;
        self.power_on(book, victim).await
    }

    /// Whether the BMC of a node that this fencer has just switched on says that it is off. Only the fencer that gave the
    /// order asks: another one can't tell how long ago that was, and an hour later somebody may have opened the machine.
    pub(super) async fn is_off_after_restart(&self, book: &FenceBook<'_, S, C>, victim: &Victim) -> bool {
        let watched = self
            .memory
            .get(&book.victim)
            .and_then(|memory| memory.switched_on)
            .is_some_and(|switched_on| self.parts.clock.now().since(switched_on) < RESTART_WATCHED);
        let away = book.record.as_ref().is_some_and(|record| {
            matches!(record.phase, FencePhase::Done { .. })
                && record.restart == RestartTrack::Done
                && record.returned.is_none()
        });
        match &victim.bmc {
            Ok(bmc) if watched && away => {
                matches!(self.parts.power.state(bmc).await, Ok(PowerState::Off))
            }
            Ok(_) | Err(_) => false,
        }
    }

    pub(super) async fn power_on(
        &mut self,
        book: &mut FenceBook<'_, S, C>,
        victim: &Victim,
    ) -> Result<(), FenceError> {
        book.confirm().await?;
        self.parts.may_act()?;
        let memory = self.memory.entry(victim.node.clone()).or_default();
        memory.switched_on = Some(self.parts.clock.now());
        let outcome = order_on(&self.parts.power, victim).await;
        book.reread().await?;
        match outcome {
            Ok(()) => {
                book.change(|record| {
                    record.restart = RestartTrack::Done;
                    record.restart_orders = record.restart_orders.saturating_add(1);
                });
                let orders = book.record.as_ref().map_or(1, |record| record.restart_orders);
                book.note(match orders {
                    0 | 1 => "switched on again".to_owned(),
                    _ => {
                        format!("it was off again: switched on once more, order {orders} of {RESTART_ORDERS}")
                    }
                });
            }
            Err(reason) => {
                book.change(|record| {
                    record.restart = RestartTrack::Failed {
                        reason: reason.clone(),
                    }
                });
                book.note(format!("it could not be switched on again: {reason}"));
            }
        }
        book.write(Txn::new()).await
    }
}
