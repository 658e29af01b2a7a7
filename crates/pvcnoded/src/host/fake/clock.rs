//! A clock that stands still until a test moves it.
//!
//! It needs no runtime: a sleeper leaves its waker here and is woken when the clock passes its deadline, so any
//! executor can drive the rounds. [`VirtualClock::run`] is the simplest one.

use std::collections::BTreeMap;
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

/// The clock; clones show the same time. [`VirtualClock::of_host`] makes the clock of a host, which goes with this one
/// unless it is stopped or jumps.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    state: Arc<Mutex<State>>,
    /// Its place in [`State::hosts`].
    host: usize,
}

#[derive(Debug)]
struct State {
    now: BootTime,
    next_sleeper: u64,
    /// By the world's time of their deadline, and by number.
    sleepers: BTreeMap<(BootTime, u64), Sleeper>,
    /// The first is the world's own clock.
    hosts: Vec<HostTime>,
}

/// How a host's clock differs from the world's.
#[derive(Debug, Clone, Copy, Default)]
struct HostTime {
    /// Nanoseconds by which it is ahead; negative if it is behind.
    ahead: i128,
    /// It stands still and shows this.
    stopped_at: Option<BootTime>,
}

impl HostTime {
    fn shows(self, world: BootTime) -> BootTime {
        self.stopped_at.unwrap_or_else(|| shifted(world, self.ahead))
    }

    /// When, in the world's time, it will show `instant`; never while it stands still.
    fn world_time_of(self, instant: BootTime) -> BootTime {
        match self.stopped_at {
            Some(_) => NEVER,
            None => shifted(instant, -self.ahead),
        }
    }
}

/// Far behind every deadline.
const NEVER: BootTime = BootTime::from_duration(Duration::MAX);

fn shifted(instant: BootTime, nanoseconds: i128) -> BootTime {
    if nanoseconds == 0 {
        return instant;
    }
    let magnitude = u64::try_from(nanoseconds.unsigned_abs()).unwrap_or(u64::MAX);
    let by = Duration::from_nanos(magnitude);
    if nanoseconds > 0 {
        instant + by
    } else {
        instant - by
    }
}

#[derive(Debug)]
struct Sleeper {
    host: usize,
    /// As its host's clock shows it.
    deadline: BootTime,
    waker: Waker,
}

impl State {
    /// The clock of `host` was changed: its sleepers' deadlines are at other times now.
    fn rearrange(&mut self, host: usize) {
        let of_host: Vec<_> = self
            .sleepers
            .iter()
            .filter(|(_, sleeper)| sleeper.host == host)
            .map(|(key, _)| *key)
            .collect();
        let time = self.host(host);
        for key in of_host {
            if let Some(sleeper) = self.sleepers.remove(&key) {
                self.sleepers
                    .insert((time.world_time_of(sleeper.deadline), key.1), sleeper);
            }
        }
    }

    fn host(&self, host: usize) -> HostTime {
        self.hosts.get(host).copied().unwrap_or_default()
    }
}

impl VirtualClock {
    /// A clock that shows `now`.
    pub fn starting_at(now: BootTime) -> VirtualClock {
        VirtualClock {
            state: Arc::new(Mutex::new(State {
                now,
                next_sleeper: 0,
                sleepers: BTreeMap::new(),
                hosts: vec![HostTime::default()],
            })),
            host: 0,
        }
    }

    /// The clock of another host, which shows the same time as the world's at first.
    pub fn of_host(&self) -> VirtualClock {
        let mut state = locked(&self.state);
        state.hosts.push(HostTime::default());
        VirtualClock {
            state: Arc::clone(&self.state),
            host: state.hosts.len() - 1,
        }
    }

    /// This host's clock stands still from now on, and whoever sleeps on it sleeps on.
    pub fn stop(&self) {
        let mut state = locked(&self.state);
        let shown = state.host(self.host).shows(state.now);
        if let Some(host) = state.hosts.get_mut(self.host) {
            host.stopped_at = Some(shown);
        }
        state.rearrange(self.host);
    }

    /// This host's clock goes on from where it stood: it is behind from now on.
    pub fn go_on(&self) {
        let mut state = locked(&self.state);
        let now = nanoseconds(state.now);
        if let Some(host) = state.hosts.get_mut(self.host)
            && let Some(stopped_at) = host.stopped_at.take()
        {
            host.ahead = nanoseconds(stopped_at) - now;
        }
        state.rearrange(self.host);
    }

    /// This host's clock jumps ahead (a suspended host wakes up, and its boot clock has counted).
    pub fn jump(&self, by: Duration) {
        let mut state = locked(&self.state);
        if let Some(host) = state.hosts.get_mut(self.host) {
            match &mut host.stopped_at {
                Some(stopped_at) => *stopped_at = *stopped_at + by,
                None => host.ahead += nanoseconds(BootTime::from_duration(by)),
            }
        }
        state.rearrange(self.host);
    }

    /// What the world's clock shows, whatever this host's does.
    pub fn world_now(&self) -> BootTime {
        locked(&self.state).now
    }

    /// Moves the clock on by `duration`, in one jump, and wakes whoever waited for an instant in it, earliest
    /// deadline first. This is how a frozen host looks to its agent: use [`VirtualClock::advance_to_next`] to let
    /// each sleeper run at its own time.
    pub fn advance(&self, duration: Duration) {
        let target = self.world_now() + duration;
        self.advance_to(target);
    }

    /// Moves the world's clock on to `instant`, in one jump. It never goes back.
    pub fn advance_to(&self, instant: BootTime) {
        let due = {
            let mut state = locked(&self.state);
            state.now = state.now.max(instant);
            let now = state.now;
            let mut due = Vec::new();
            while let Some(first) = state.sleepers.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove().waker);
            }
            due
        };
        // Not under the lock: a waker may run the task at once.
        for waker in due {
            waker.wake();
        }
    }

    /// The earliest deadline that somebody waits for, in the world's time.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let state = locked(&self.state);
        let ((deadline, _), _) = state.sleepers.first_key_value()?;
        (*deadline < NEVER).then_some(*deadline)
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
        let end = self.world_now() + limit;
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
        let state = locked(&self.state);
        state.host(self.host).shows(state.now)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_AT_BOOT + self.now().since_boot()
    }

    fn sleep_until(&self, deadline: BootTime) -> impl Future<Output = ()> + Send {
        Sleep {
            clock: self.clone(),
            deadline,
            place: None,
        }
    }
}

fn nanoseconds(instant: BootTime) -> i128 {
    i128::try_from(instant.since_boot().as_nanos()).unwrap_or(i128::MAX)
}

struct Sleep {
    clock: VirtualClock,
    deadline: BootTime,
    /// Its place among the sleepers, unless its host's clock was changed meanwhile.
    place: Option<(BootTime, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = locked(&this.clock.state);
        let host = state.host(this.clock.host);
        if host.shows(state.now) >= this.deadline {
            return Poll::Ready(());
        }
        if let Some(sleeper) = this.place.and_then(|place| state.sleepers.get_mut(&place)) {
            sleeper.waker.clone_from(context.waker());
            return Poll::Pending;
        }
        if let Some((_, number)) = this.place {
            // Elsewhere, or woken at a time that has become another.
            state.sleepers.retain(|(_, other), _| *other != number);
        }
        state.next_sleeper += 1;
        let place = (host.world_time_of(this.deadline), state.next_sleeper);
        let sleeper = Sleeper {
            host: this.clock.host,
            deadline: this.deadline,
            waker: context.waker().clone(),
        };
        state.sleepers.insert(place, sleeper);
        this.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // A sleep that lost a race must not hold the clock at its deadline.
        let Some(place) = self.place else {
            return;
        };
        let mut state = locked(&self.clock.state);
        let host = state.host(self.clock.host);
        if state.sleepers.remove(&place).is_none() && place.0 != host.world_time_of(self.deadline) {
            state.sleepers.retain(|(_, other), _| *other != place.1);
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
    fn a_stopped_host_sleeps_on_and_a_jump_wakes_its_sleepers_alone() {
        let world = VirtualClock::default();
        let [one, two] = [world.of_host(), world.of_host()];
        let start = world.now();
        let woken = |clock: VirtualClock| async move {
            clock.sleep(Duration::from_secs(5)).await;
            clock.world_now().since(start)
        };
        one.stop();
        let resume = async {
            world.sleep(Duration::from_secs(60)).await;
            one.go_on();
            assert_eq!(one.now(), start);
            world.sleep(Duration::from_secs(1)).await;
            one.jump(Duration::from_secs(4));
        };
        let all = join(resume, join(woken(one.clone()), woken(two.clone())));
        let ((), (first, second)) = world.run(HOUR, all).unwrap();
        assert_eq!((first, second), (Duration::from_secs(61), Duration::from_secs(5)));
        assert_eq!(one.now(), start + Duration::from_secs(5));
        assert_eq!(world.next_deadline(), None);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = VirtualClock::default();
        let start = clock.now();
        clock.advance_to(BootTime::ZERO);
        assert_eq!(clock.now(), start);
    }
}
