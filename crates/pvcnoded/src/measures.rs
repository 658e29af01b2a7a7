//! What this agent measures of itself: how much of its leases is left when they are renewed, how long its rounds take.
//!
//! Its loops tell it here, and the heartbeat publishes it in the node's record ([`AgentFigures`]), from where metrics are
//! made. Nothing is decided by it. What is worst is kept for a minute, so that a scrape now and then does not miss it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pvc_core::records::{AgentFigures, LeaseFigures, RoundFigures};
use pvc_core::time::BootTime;

/// The worst is kept in slots of this length.
const SLOT: Duration = Duration::from_secs(10);
/// The slot that is being filled, and the whole minute before it.
const SLOTS: usize = 7;

/// A lease that this node renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnLease {
    /// That of the node.
    Node,
    /// That of the primary role.
    Role,
}

/// What the agent does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Renewing the node's lease.
    Lease,
    /// The node's part in the primary role.
    Role,
    /// Watching the others.
    Fence,
    /// Looking after guests.
    Guests,
    /// Emptying and filling the node.
    Drain,
    /// Collecting and publishing figures.
    Statistics,
}

impl OwnLease {
    const COUNT: usize = 2;

    const fn place(self) -> usize {
        match self {
            OwnLease::Node => 0,
            OwnLease::Role => 1,
        }
    }
}

impl Duty {
    const ALL: [Duty; 6] = [
        Duty::Lease,
        Duty::Role,
        Duty::Fence,
        Duty::Guests,
        Duty::Drain,
        Duty::Statistics,
    ];

    const fn place(self) -> usize {
        match self {
            Duty::Lease => 0,
            Duty::Role => 1,
            Duty::Fence => 2,
            Duty::Guests => 3,
            Duty::Drain => 4,
            Duty::Statistics => 5,
        }
    }

    /// Its name in the record.
    pub const fn name(self) -> &'static str {
        match self {
            Duty::Lease => "lease",
            Duty::Role => "role",
            Duty::Fence => "fence",
            Duty::Guests => "vm",
            Duty::Drain => "drain",
            Duty::Statistics => "statistics",
        }
    }
}

/// What is measured. Clones share it. It is of a fixed size and locked for no longer than it takes to copy that: the
/// leases' thread tells things here.
#[derive(Debug, Clone, Default)]
pub struct Measures {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Inner {
    leases: [Margin; OwnLease::COUNT],
    rounds: [Rounds; Duty::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct Margin {
    last: Duration,
    least: Window,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rounds {
    count: u64,
    total: Duration,
    longest: Window,
    /// When the one that is under way began.
    under_way: Option<BootTime>,
}

impl Measures {
    /// A renewal was acknowledged at `now`, when that much of the right before it was left.
    pub fn renewed(&self, lease: OwnLease, now: BootTime, left: Duration) {
        if let Some(margin) = self.lock().leases.get_mut(lease.place()) {
            margin.last = left;
            margin.least.put(now, left, Duration::min);
        }
    }

    /// A round begins. One that is never said to have ended was given up.
    pub fn began(&self, duty: Duty, now: BootTime) {
        if let Some(rounds) = self.lock().rounds.get_mut(duty.place()) {
            rounds.under_way = Some(now);
        }
    }

    /// The round has ended.
    pub fn ended(&self, duty: Duty, now: BootTime) {
        let mut inner = self.lock();
        let Some(rounds) = inner.rounds.get_mut(duty.place()) else {
            return;
        };
        let Some(began) = rounds.under_way.take() else {
            return;
        };
        let took = now.since(began);
        rounds.count += 1;
        rounds.total = rounds.total.saturating_add(took);
        rounds.longest.put(now, took, Duration::max);
    }

    /// What was measured until `now`. A lease that was not renewed for a minute is not this node's, or not now.
    pub fn figures(&self, now: BootTime) -> AgentFigures {
        let Inner { leases, rounds } = *self.lock();
        let lease = |lease: OwnLease| {
            let margin = leases.get(lease.place())?;
            Some(LeaseFigures {
                left_us: micros(margin.last),
                least_us: micros(margin.least.worst(now, Duration::min)?),
            })
        };
        let rounds = Duty::ALL.into_iter().filter_map(|duty| {
            let rounds = rounds.get(duty.place())?;
            if rounds.count == 0 && rounds.under_way.is_none() {
                return None;
            }
            let longest = rounds.longest.worst(now, Duration::max);
            // One that hangs shows before it ends: it may never.
            let longest = longest.max(rounds.under_way.map(|began| now.since(began)));
            let figures = RoundFigures {
                count: rounds.count,
                total_us: micros(rounds.total),
                longest_us: longest.map(micros),
            };
            Some((duty.name().to_owned(), figures))
        });
        AgentFigures {
            node_lease: lease(OwnLease::Node),
            role_lease: lease(OwnLease::Role),
            rounds: rounds.collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worst of the last minute, and of up to ten seconds more.
#[derive(Debug, Clone, Copy, Default)]
struct Window([Option<(u64, Duration)>; SLOTS]);

impl Window {
    fn put(&mut self, now: BootTime, value: Duration, worse: fn(Duration, Duration) -> Duration) {
        let number = slot(now);
        let place = usize::try_from(number).unwrap_or(0) % SLOTS;
        if let Some(slot) = self.0.get_mut(place) {
            *slot = match *slot {
                Some((of, before)) if of == number => Some((number, worse(before, value))),
                Some(_) | None => Some((number, value)),
            };
        }
    }

    fn worst(&self, now: BootTime, worse: fn(Duration, Duration) -> Duration) -> Option<Duration> {
        let oldest = (slot(now) + 1).saturating_sub(u64::try_from(SLOTS).unwrap_or(0));
        let recent = self.0.iter().flatten().filter(|(of, _)| *of >= oldest);
        recent.map(|(_, value)| *value).reduce(worse)
    }
}

fn slot(now: BootTime) -> u64 {
    now.since_boot().as_secs() / SLOT.as_secs()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    const SECOND: Duration = Duration::from_secs(1);

    // A margin that was nearly used up between two scrapes must be in the next one: it is the warning before a fence.
    #[test]
    fn the_least_that_was_left_is_told_for_a_minute() {
        let measures = Measures::default();
        measures.renewed(OwnLease::Node, at(1000), 4 * SECOND);
        measures.renewed(OwnLease::Node, at(1003), SECOND);
        for second in 1004..1064 {
            measures.renewed(OwnLease::Node, at(second), 3 * SECOND);
            let lease = measures.figures(at(second)).node_lease.unwrap();
            assert_eq!(
                (lease.left_us, lease.least_us),
                (3_000_000, 1_000_000),
                "{second}"
            );
        }
        measures.renewed(OwnLease::Node, at(1080), 4 * SECOND);
        let lease = measures.figures(at(1080)).node_lease.unwrap();
        assert_eq!((lease.left_us, lease.least_us), (4_000_000, 3_000_000));
        assert_eq!(measures.figures(at(1080)).role_lease, None);
        // A role that was handed on.
        assert_eq!(measures.figures(at(1200)).node_lease, None);
    }

    #[test]
    fn rounds_are_counted_and_the_longest_is_told_for_a_minute() {
        let measures = Measures::default();
        for (began, ended) in [(100, 101), (110, 114), (120, 122)] {
            measures.began(Duty::Guests, at(began));
            measures.ended(Duty::Guests, at(ended));
        }
        measures.ended(Duty::Guests, at(500));
        let of = |now| measures.figures(at(now)).rounds.remove("vm").unwrap();
        let figures = of(130);
        assert_eq!((figures.count, figures.total_us), (3, 7_000_000));
        assert_eq!(figures.longest_us, Some(4_000_000));
        assert_eq!(of(175).longest_us, Some(4_000_000));
        assert_eq!(of(181).longest_us, Some(2_000_000));
        assert_eq!(of(300).longest_us, None);
        assert_eq!(measures.figures(at(130)).rounds.len(), 1);
    }

    // A round that waits for libvirt for ever would otherwise be told as the quickest of all.
    #[test]
    fn a_round_that_hangs_is_seen_before_it_ends() {
        let measures = Measures::default();
        measures.began(Duty::Fence, at(100));
        let figures = measures.figures(at(400)).rounds.remove("fence").unwrap();
        assert_eq!((figures.count, figures.longest_us), (0, Some(300_000_000)));
        // What was given up is not counted when the next one begins.
        measures.began(Duty::Fence, at(400));
        measures.ended(Duty::Fence, at(401));
        let figures = measures.figures(at(401)).rounds.remove("fence").unwrap();
        assert_eq!((figures.count, figures.longest_us), (1, Some(1_000_000)));
    }
}
