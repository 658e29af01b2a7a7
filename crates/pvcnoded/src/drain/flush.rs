//! A round of a flush.

use std::collections::BTreeSet;

use pvc_common::clock::Clock;
use pvc_common::placement::Choice;
use pvc_common::store::{ReadError, Store};
use pvc_core::drain::{
    FlushStep, FlushView, PLACE_WITHIN, SHUTDOWNS_AT_ONCE, Waiting, is_left, next_flush_step,
};
use pvc_core::ids::NodeName;
use pvc_core::placement::{NoPlace, Wish};
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use tracing::{info, warn};

use super::DrainRounds;
use super::read::Guest;
use super::report::Line;

impl<S: Store, C: Clock> DrainRounds<S, C> {
    /// Takes each guest a step further. Answers whether none is left.
    pub(super) async fn flush_round(&mut self, now: BootTime, guests: &[Guest]) -> Result<bool, ReadError> {
        let me = self.parts.me.clone();
        let mut lines = Vec::new();
        let mut shut_down = 0;
        for guest in guests {
            let waits_for_us =
                guest.seen.node == me && guest.seen.autostart && guest.seen.state == VmState::Stop;
            shut_down += u32::from(waits_for_us);
            if is_left(&me, &guest.seen) {
                let memory = self.memory_of(guest.seen.vm);
                memory.observe(now, &me, &guest.seen);
            } else {
                self.memory.remove(&guest.seen.vm);
            }
        }
        // Those under way first, so that they are counted when the others ask for a place.
        let mut slots = Slots::default();
        for guest in guests {
            match self.step_of(now, guest, &slots) {
                FlushStep::Wait(waiting @ (Waiting::Moves | Waiting::ShutsDown)) => {
                    let memory = self.memory_of(guest.seen.vm);
                    memory.waits(now, Some(waiting));
                    slots.take(waiting, memory.holds_place(now));
                }
                FlushStep::Nothing
                | FlushStep::Wait(_)
                | FlushStep::Move { .. }
                | FlushStep::PlaceElsewhere => {}
            }
        }
        for guest in guests {
            let waiting = match self.step_of(now, guest, &slots) {
                FlushStep::Nothing => continue,
                FlushStep::Wait(waiting) => waiting,
                FlushStep::Move { after } => self.move_away(now, guest, &after, &mut slots).await?,
                FlushStep::PlaceElsewhere => self.move_away(now, guest, &BTreeSet::new(), &mut slots).await?,
            };
            let shutdown_timeout = self.parts.shutdown_timeout;
            let memory = self.memory_of(guest.seen.vm);
            memory.waits(now, Some(waiting));
            lines.push(Line {
                guest,
                is: waiting.to_string(),
                trouble: memory.trouble(now, shutdown_timeout),
            });
        }
        let left = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        self.reporter.tell(&self.parts, left, shut_down, &lines).await;
        Ok(left == 0)
    }

    fn step_of(&mut self, now: BootTime, guest: &Guest, slots: &Slots) -> FlushStep {
        let me = self.parts.me.clone();
        let memory = self.memory.get(&guest.seen.vm).cloned().unwrap_or_default();
        next_flush_step(&FlushView {
            now,
            me: &me,
            guest: &guest.seen,
            memory: &memory,
            moves_under_way: slots.moves,
            moves_in_all: slots.moves_in_all,
        })
    }

    /// Gives a guest another node, or shuts it down if none takes it. Answers what it is waited for in from now on.
    async fn move_away(
        &mut self,
        now: BootTime,
        guest: &Guest,
        after: &BTreeSet<NodeName>,
        slots: &mut Slots,
    ) -> Result<Waiting, ReadError> {
        match self.choose(guest, after).await? {
            None => Ok(Waiting::TriesAgain),
            Some(Ok(choice)) => self.order_move(now, guest, &choice, slots).await,
            Some(Err(no_place)) => self.do_without_place(now, guest, &no_place, slots).await,
        }
    }

    /// A node for the guest: one that has not failed it before if possible. `None` if its record can't be counted.
    async fn choose(
        &mut self,
        guest: &Guest,
        after: &BTreeSet<NodeName>,
    ) -> Result<Option<Result<Choice, NoPlace>>, ReadError> {
        let me = self.parts.me.clone();
        let vm = guest.seen.vm;
        let places = self.places().await?;
        let Some(wish) = places.wish(vm, vec![me.clone()]) else {
            return Ok(None);
        };
        if !after.is_empty() {
            let mut exclude = wish.exclude.clone();
            exclude.extend(after.iter().cloned());
            if let Ok(choice) = places.choose(&Wish {
                exclude,
                ..wish.clone()
            }) {
                return Ok(Some(Ok(choice)));
            }
            // All have failed it: once more from the beginning.
            self.memory_of(vm).failed_targets.clear();
        }
        Ok(Some(self.places().await?.choose(&wish)))
    }

    async fn order_move(
        &mut self,
        now: BootTime,
        guest: &Guest,
        choice: &Choice,
        slots: &mut Slots,
    ) -> Result<Waiting, ReadError> {
        let me = self.parts.me.clone();
        let target = &choice.node;
        let process_here = guest.seen.owner.as_ref() == Some(&me);
        let origin = guest.seen.last_node.clone().unwrap_or(me);
        let goes_home = origin == *target;
        let state = match (process_here, goes_home) {
            (true, false) => VmState::Migrate,
            // Called off, it belongs there still.
            (true, true) => VmState::Unmigrate,
            (false, _) => guest.seen.state,
        };
        let last_node = (!goes_home).then_some(origin);
        let txn = self.under_order().and(guest.placed(state, target, last_node));
        let txn = self.places().await?.reserve(txn, choice);
        if !self.write(txn).await? {
            return Ok(Waiting::Queues);
        }
        info!(vm = %guest.name, %target, "a guest leaves this node");
        self.places().await?.placed(choice, state);
        self.came_on(now);
        let memory = self.memory_of(guest.seen.vm);
        memory.without_place_since = None;
        if !process_here {
            return Ok(Waiting::Moves);
        }
        memory.ordered = Some((target.clone(), now));
        slots.take(Waiting::Moves, true);
        Ok(Waiting::Moves)
    }

    /// No node takes the guest: it is shut down, and starts again when this node is made ready. Where what stands against
    /// the others may pass, it waits a while.
    async fn do_without_place(
        &mut self,
        now: BootTime,
        guest: &Guest,
        no_place: &NoPlace,
        slots: &mut Slots,
    ) -> Result<Waiting, ReadError> {
        let memory = self.memory_of(guest.seen.vm);
        let since = *memory.without_place_since.get_or_insert(now);
        if no_place.may_pass() && now.since(since) < PLACE_WITHIN {
            return Ok(Waiting::LacksPlace);
        }
        if slots.shutdowns >= SHUTDOWNS_AT_ONCE {
            return Ok(Waiting::Queues);
        }
        let reason = format!(
            "It was shut down to empty {}, and starts again when that is made ready: {no_place}",
            self.parts.me
        );
        let txn = self.under_order().and(guest.shut_down(&reason));
        if !self.write(txn).await? {
            return Ok(Waiting::Queues);
        }
        warn!(vm = %guest.name, %no_place, "a guest is shut down to empty this node");
        self.came_on(now);
        slots.take(Waiting::ShutsDown, true);
        Ok(Waiting::ShutsDown)
    }

    pub(super) fn came_on(&mut self, now: BootTime) {
        if let Some(order) = &mut self.order {
            order.moved_at = now;
        }
    }
}

/// What is under way.
#[derive(Debug, Default)]
struct Slots {
    moves: usize,
    moves_in_all: usize,
    shutdowns: usize,
}

impl Slots {
    fn take(&mut self, waiting: Waiting, holds_place: bool) {
        match waiting {
            Waiting::Moves => {
                self.moves_in_all += 1;
                self.moves += usize::from(holds_place);
            }
            Waiting::ShutsDown => self.shutdowns += usize::from(holds_place),
            Waiting::Arrives
            | Waiting::Restarts
            | Waiting::Ends
            | Waiting::Queues
            | Waiting::TriesAgain
            | Waiting::LacksPlace => {}
        }
    }
}
