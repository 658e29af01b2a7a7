//! A round of an unflush.

use pvc_common::clock::Clock;
use pvc_common::placement::Choice;
use pvc_common::store::{ReadError, Store};
use pvc_core::drain::{UNFLUSH_STALLS_AFTER, UnflushStep, UnflushView, Waiting, next_unflush_step};
use pvc_core::placement::Obstacle;
use pvc_core::states::VmState;
use pvc_core::time::BootTime;
use tracing::{info, warn};

use super::DrainRounds;
use super::read::Guest;
use super::report::Line;

/// What becomes of a guest in this round.
enum Doing {
    Nothing,
    Waits(Waiting),
    /// It can't be done, for this reason.
    Not(String),
}

impl<S: Store, C: Clock> DrainRounds<S, C> {
    /// Takes each guest a step further. Answers whether the node can be ready.
    pub(super) async fn unflush_round(&mut self, now: BootTime, guests: &[Guest]) -> Result<bool, ReadError> {
        let mut moves = guests.iter().filter(|guest| self.arrives(now, guest)).count();
        let mut lines = Vec::new();
        let mut left = 0;
        let mut came_on = false;
        for guest in guests {
            let memory = self.memory.get(&guest.seen.vm).cloned().unwrap_or_default();
            let me = self.parts.me.clone();
            let step = next_unflush_step(&UnflushView {
                me: &me,
                guest: &guest.seen,
                memory: &memory,
                moves_under_way: moves,
            });
            let doing = self.carry_out(now, guest, step, &mut moves).await?;
            let waiting = match &doing {
                Doing::Waits(waiting) => Some(*waiting),
                Doing::Nothing | Doing::Not(_) => None,
            };
            came_on |= memory.waiting.map(|(waiting, _)| waiting) != waiting;
            let shutdown_timeout = self.parts.shutdown_timeout;
            if waiting.is_some() || memory.waiting.is_some() {
                self.memory_of(guest.seen.vm).waits(now, waiting);
            }
            match doing {
                Doing::Nothing => {
                    if let Some(trouble) = self.trouble_of(guest) {
                        lines.push(Line::troubled(guest, trouble));
                    }
                }
                Doing::Not(trouble) => lines.push(Line::troubled(guest, trouble)),
                Doing::Waits(waiting) => {
                    left += 1;
                    lines.push(Line {
                        guest,
                        is: waiting.to_string(),
                        trouble: self.memory_of(guest.seen.vm).trouble(now, shutdown_timeout),
                    });
                }
            }
        }
        if came_on {
            self.came_on(now);
        }
        self.reporter.tell(&self.parts, left, 0, &lines).await;
        let stalled = self
            .order
            .as_ref()
            .is_some_and(|order| now.since(order.moved_at) >= UNFLUSH_STALLS_AFTER);
        if left > 0 && stalled {
            warn!(
                left,
                "guests of this node do not come home; it takes guests all the same"
            );
        }
        Ok(left == 0 || stalled)
    }

    /// Whether it is on its way here and keeps others waiting.
    fn arrives(&self, now: BootTime, guest: &Guest) -> bool {
        let under_way = match guest.seen.state {
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => true,
            VmState::Start
            | VmState::Restart
            | VmState::Shutdown
            | VmState::Stop
            | VmState::Disable
            | VmState::Fail
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => false,
        };
        under_way
            && guest.seen.node == self.parts.me
            && self
                .memory
                .get(&guest.seen.vm)
                .is_none_or(|memory| memory.holds_place(now))
    }

    /// What became of a guest that was tried.
    fn trouble_of(&self, guest: &Guest) -> Option<String> {
        let memory = self.memory.get(&guest.seen.vm)?;
        if memory.failures > 0 {
            return Some("not tried again".to_owned());
        }
        let away = memory.ordered.is_some() && guest.seen.node != self.parts.me;
        away.then(|| "did not come home".to_owned())
    }

    async fn carry_out(
        &mut self,
        now: BootTime,
        guest: &Guest,
        step: UnflushStep,
        moves: &mut usize,
    ) -> Result<Doing, ReadError> {
        let me = self.parts.me.clone();
        match step {
            UnflushStep::Nothing => Ok(Doing::Nothing),
            UnflushStep::Wait(waiting) => Ok(Doing::Waits(waiting)),
            UnflushStep::Start => self.start(now, guest).await,
            UnflushStep::ComeHome => self.come_home(now, guest, moves).await,
            UnflushStep::Forget => {
                let txn = self.under_order().and(guest.forget());
                self.write(txn).await?;
                Ok(Doing::Nothing)
            }
            UnflushStep::BelongHere => {
                let txn = self.under_order().and(guest.placed(guest.seen.state, &me, None));
                self.write(txn).await?;
                // One that another node has shut down to be emptied starts here in the next round.
                Ok(match guest.seen.state == VmState::Stop && guest.seen.autostart {
                    true => Doing::Waits(Waiting::Arrives),
                    false => Doing::Nothing,
                })
            }
            UnflushStep::Stay => {
                let txn = self.under_order().and(guest.placed(VmState::Start, &me, None));
                if self.write(txn).await? {
                    info!(vm = %guest.name, "a guest that was to leave this node stays");
                }
                // A migration that its source has begun meanwhile is seen in the next round.
                Ok(Doing::Waits(Waiting::Moves))
            }
        }
    }

    async fn start(&mut self, now: BootTime, guest: &Guest) -> Result<Doing, ReadError> {
        // It was here before, and stays down otherwise: neither its limit nor its groups keep it from starting.
        let choice = match self.here(guest, |obstacle| !is_about_room(obstacle)).await? {
            Ok(choice) => choice,
            Err(refused) => {
                let reason = format!("It waits for room on {}: {refused}", self.parts.me);
                if guest.failed_reason.value != reason {
                    let txn = self.under_order().and(guest.explain(&reason));
                    self.write(txn).await?;
                }
                return Ok(self.not(guest, refused));
            }
        };
        let txn = self.under_order().and(guest.start());
        let txn = self.places().await?.reserve(txn, &choice);
        if !self.write(txn).await? {
            return Ok(Doing::Waits(Waiting::Queues));
        }
        info!(vm = %guest.name, "a guest that waited for this node starts");
        self.places().await?.placed(&choice, VmState::Start);
        self.memory_of(guest.seen.vm).ordered = Some((choice.node, now));
        Ok(Doing::Nothing)
    }

    async fn come_home(
        &mut self,
        now: BootTime,
        guest: &Guest,
        moves: &mut usize,
    ) -> Result<Doing, ReadError> {
        let me = self.parts.me.clone();
        let passed_over = |obstacle: &Obstacle| match obstacle {
            Obstacle::NotReady { .. } | Obstacle::NotRunning { .. } => true,
            Obstacle::Excluded
            | Obstacle::Limited
            | Obstacle::Silent
            | Obstacle::Unknown
            | Obstacle::TooLarge { .. }
            | Obstacle::Full { .. }
            | Obstacle::Vcpus { .. }
            | Obstacle::Together { .. } => false,
        };
        let choice = match self.here(guest, passed_over).await? {
            Ok(choice) => choice,
            Err(refused) => return Ok(self.not(guest, refused)),
        };
        let elsewhere = guest.seen.owner.as_ref().is_some_and(|owner| *owner != me);
        let state = if elsewhere {
            VmState::Unmigrate
        } else {
            // Nothing has to be carried: it starts here, or runs here still.
            VmState::Start
        };
        let txn = self.under_order().and(guest.placed(state, &me, None));
        let txn = self.places().await?.reserve(txn, &choice);
        if !self.write(txn).await? {
            return Ok(Doing::Waits(Waiting::Queues));
        }
        info!(vm = %guest.name, from = %guest.seen.node, "a guest comes home");
        self.places().await?.placed(&choice, state);
        self.memory_of(guest.seen.vm).ordered = Some((me, now));
        if elsewhere {
            *moves += 1;
        }
        Ok(Doing::Waits(Waiting::Arrives))
    }

    /// This node for the guest, or why it has no room for it.
    async fn here(
        &mut self,
        guest: &Guest,
        passed_over: impl Fn(&Obstacle) -> bool,
    ) -> Result<Result<Choice, String>, ReadError> {
        let me = self.parts.me.clone();
        let places = self.places().await?;
        let Some(wish) = places.wish(guest.seen.vm, Vec::new()) else {
            return Ok(Err("its record can't be counted".to_owned()));
        };
        Ok(places
            .named(&wish, &me, passed_over)
            .map_err(|refused| refused.to_string()))
    }

    /// The guest is left as it is, and not tried again under this order.
    fn not(&mut self, guest: &Guest, reason: String) -> Doing {
        warn!(vm = %guest.name, reason, "a guest of this node is left as it is");
        self.memory_of(guest.seen.vm).failures = 1;
        Doing::Not(reason)
    }
}

/// Whether the node lacks what the guest needs.
fn is_about_room(obstacle: &Obstacle) -> bool {
    match obstacle {
        Obstacle::TooLarge { .. } | Obstacle::Full { .. } | Obstacle::Vcpus { .. } | Obstacle::Unknown => {
            true
        }
        Obstacle::Excluded
        | Obstacle::Limited
        | Obstacle::Silent
        | Obstacle::NotRunning { .. }
        | Obstacle::NotReady { .. }
        | Obstacle::Together { .. } => false,
    }
}
