//! The host's boot clock (`CLOCK_BOOTTIME`) as a value.
//!
//! It counts while the host is suspended, never jumps with the wall clock, and means nothing on another host: there
//! is deliberately no way to serialise it.

use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant on this host's boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(Duration);

impl BootTime {
    /// The moment that the host booted.
    pub const ZERO: BootTime = BootTime(Duration::ZERO);

    /// The instant `since_boot` after the host booted.
    pub const fn from_duration(since_boot: Duration) -> BootTime {
        BootTime(since_boot)
    }

    /// Time since the host booted.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// How much later `self` is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, rhs: Duration) -> BootTime {
        BootTime(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for BootTime {
    type Output = BootTime;

    fn sub(self, rhs: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(rhs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_instant_is_no_time_after_a_later_one() {
        let early = BootTime::from_duration(Duration::from_secs(3));
        let late = early + Duration::from_secs(2);
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early - Duration::from_secs(9), BootTime::ZERO);
    }
}
