//! A clock that stands still until a test moves it.
//!
//! It needs no runtime: a sleeper leaves its waker here and is woken when the clock passes its deadline, so any
//! executor can drive the rounds. [`VirtualClock::run`] is the simplest one.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use pvc_common::clock::Clock;
use pvc_core::time::BootTime;

use super::locked;

/// What the virtual wall clock shows at boot: 2026-01-01 00:00:00 UTC.
const WALL_AT_BOOT: Duration = Duration::from_secs(1_767_225_600);

/// How often a future may be polled at one instant before it is taken to be spinning.
const POLLS_PER_INSTANT: u32 = 100_000;

/// The clock; clones show the same time.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    now: BootTime,
    next_sleeper: u64,
    sleepers: Vec<Sleeper>,
}

#[derive(Debug)]
struct Sleeper {
    id: u64,
    deadline: BootTime,
    waker: Waker,
}

impl VirtualClock {
    /// A clock that shows `now`.
    pub fn starting_at(now: BootTime) -> VirtualClock {
        VirtualClock {
            state: Arc::new(Mutex::new(State {
                now,
                next_sleeper: 0,
                sleepers: Vec::new(),
            })),
        }
    }

    /// Moves the clock on by `duration`, in one jump, and wakes whoever waited for an instant in it, earliest
    /// deadline first. This is how a frozen host looks to its agent: use [`VirtualClock::advance_to_next`] to let
    /// each sleeper run at its own time.
    pub fn advance(&self, duration: Duration) {
        let target = self.now() + duration;
        self.advance_to(target);
    }

    /// Moves the clock on to `instant`, in one jump. It never goes back.
    pub fn advance_to(&self, instant: BootTime) {
        let due = {
            let mut state = locked(&self.state);
            state.now = state.now.max(instant);
            let now = state.now;
            let (mut due, waiting): (Vec<_>, Vec<_>) = state
                .sleepers
                .drain(..)
                .partition(|sleeper| sleeper.deadline <= now);
            state.sleepers = waiting;
            due.sort_by_key(|sleeper| (sleeper.deadline, sleeper.id));
            due
        };
        // Not under the lock: a waker may run the task at once.
        for sleeper in due {
            sleeper.waker.wake();
        }
    }

    /// The earliest deadline that somebody waits for.
    pub fn next_deadline(&self) -> Option<BootTime> {
        locked(&self.state)
            .sleepers
            .iter()
            .map(|sleeper| sleeper.deadline)
            .min()
    }

    /// Moves the clock on to the earliest deadline that somebody waits for and wakes them; `None`, and nothing
    /// happens, if nobody waits.
    pub fn advance_to_next(&self) -> Option<BootTime> {
        let deadline = self.next_deadline()?;
        self.advance_to(deadline);
        Some(deadline)
    }

    /// Runs `work` to its end on this clock, which jumps from deadline to deadline whenever the work waits. `None`
    /// if the work did not end within `limit`, or waits for something other than this clock.
    pub fn run<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let end = self.now() + limit;
        let mut work = pin!(work);
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut polls = 0;
        loop {
            if woken.0.swap(false, Ordering::SeqCst) {
                if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(output);
                }
                polls += 1;
                if polls > POLLS_PER_INSTANT {
                    return None;
                }
                continue;
            }
            if self.next_deadline()? > end {
                self.advance_to(end);
                return None;
            }
            self.advance_to_next();
            polls = 0;
        }
    }
}

impl Default for VirtualClock {
    /// A clock of a host that booted 1000 s ago.
    fn default() -> Self {
        VirtualClock::starting_at(BootTime::from_duration(Duration::from_secs(1000)))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> BootTime {
        locked(&self.state).now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_AT_BOOT + self.now().since_boot()
    }

    fn sleep_until(&self, deadline: BootTime) -> impl Future<Output = ()> + Send {
        Sleep {
            clock: self.clone(),
            deadline,
            id: None,
        }
    }
}

struct Sleep {
    clock: VirtualClock,
    deadline: BootTime,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = Arc::clone(&self.clock.state);
        let mut state = locked(&state);
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(|| {
            state.next_sleeper += 1;
            state.next_sleeper
        });
        let waker = context.waker().clone();
        match state.sleepers.iter_mut().find(|sleeper| sleeper.id == id) {
            Some(sleeper) => sleeper.waker = waker,
            None => state.sleepers.push(Sleeper {
                id,
                deadline: self.deadline,
                waker,
            }),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // A sleep that lost a race must not hold the clock at its deadline.
        if let Some(id) = self.id {
            locked(&self.clock.state)
                .sleepers
                .retain(|sleeper| sleeper.id != id);
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn sleepers_run_each_at_its_own_time() {
        let clock = VirtualClock::default();
        let start = clock.now();
        let log = Mutex::new(Vec::new());
        let sleeper = |seconds| {
            let (clock, log) = (&clock, &log);
            async move {
                for _ in 0..2 {
                    clock.sleep(Duration::from_secs(seconds)).await;
                    log.lock()
                        .unwrap()
                        .push((clock.now().since(start).as_secs(), seconds));
                }
            }
        };
        assert!(clock.run(HOUR, join(sleeper(3), sleeper(2))).is_some());
        assert_eq!(*log.lock().unwrap(), [(2, 2), (3, 3), (4, 2), (6, 3)]);
    }

    #[test]
    fn work_that_does_not_end_in_time_or_waits_for_nothing_is_given_up() {
        let clock = VirtualClock::default();
        let start = clock.now();
        let long = clock.run(HOUR, clock.sleep(HOUR * 2));
        assert!(long.is_none());
        assert_eq!(clock.now().since(start), HOUR);
        assert!(clock.run(HOUR, std::future::pending::<()>()).is_none());
    }

    #[test]
    fn a_sleep_that_was_dropped_holds_nobody_up() {
        let clock = VirtualClock::default();
        let outcome = clock.run(HOUR, clock.timeout(Duration::from_secs(9), async { 5 }));
        assert_eq!(outcome, Some(Some(5)));
        assert_eq!(clock.next_deadline(), None);
        let outcome = clock.run(HOUR, clock.timeout(Duration::from_secs(9), clock.sleep(HOUR)));
        assert_eq!(outcome, Some(None));
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = VirtualClock::default();
        let start = clock.now();
        clock.advance_to(BootTime::ZERO);
        assert_eq!(clock.now(), start);
    }
}
