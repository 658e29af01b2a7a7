//! Leases: how long a holder may act, and when a silent one may be replaced.
//!
//! A lease is a persistent znode that its holder rewrites once a period, each time on condition of its own last
//! version. Two clocks judge it, and they are never compared:
//!
//! * The **holder** counts from the moment it *sent* the last acknowledged renewal: its right ends at `sent + L`.
//! * An **observer** counts from the moment it first *saw* a version: after `C` without another it may claim.
//!
//! `sent < commit < sight`, so with `C = L + lateness of the kernel + margin` the holder's addresses are gone before
//! anybody claims, whatever the clocks of the two hosts say.

use std::time::Duration;

use crate::ids::ZnodeVersion;
use crate::time::BootTime;

/// The periods of the lease protocol. Every node of a cluster must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// Between renewals (`p`).
    pub period: Duration,
    /// How long an acknowledged renewal gives a right (`L`).
    pub lease: Duration,
    /// How late the kernel may drop an address whose lifetime has ended (`g`): measured up to 1.0 s.
    pub kernel_lateness: Duration,
    /// Drift between hosts and scheduling (`m`).
    pub margin: Duration,
}

impl LeaseTiming {
    /// The periods used by the daemons; see docs/operations/timing.md for what was measured to choose them.
    pub const DEFAULT: LeaseTiming = LeaseTiming {
        period: Duration::from_millis(1000),
        // A little over 5 s, so that the whole seconds that are left when an answer comes are 5 and not 4: the kernel
        // would otherwise drop the addresses of a healthy primary a second before its right ends.
        lease: Duration::from_millis(5250),
        kernel_lateness: Duration::from_millis(1100),
        margin: Duration::from_millis(400),
    };

    /// How long a lease must have been silent before it may be claimed (`C = L + g + m`).
    pub fn claim_after(&self) -> Duration {
        self.lease + self.kernel_lateness + self.margin
    }
}

/// The holder's side of a lease: whether it may act, judged by its own clock alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRight {
    ends: BootTime,
}

impl LeaseRight {
    /// No right at all.
    pub const NONE: LeaseRight = LeaseRight { ends: BootTime::ZERO };

    /// The right given by a renewal that was sent at `sent` and has been acknowledged.
    pub fn acknowledged(sent: BootTime, timing: &LeaseTiming) -> LeaseRight {
        LeaseRight {
            ends: sent + timing.lease,
        }
    }

    /// When it ends.
    pub fn ends(&self) -> BootTime {
        self.ends
    }

    /// Whether the holder may act at `now`.
    pub fn holds(&self, now: BootTime) -> bool {
        now < self.ends
    }
}

/// The observer's side: what was seen last, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting<T> {
    /// What the znode holds.
    pub value: T,
    /// Its version.
    pub version: ZnodeVersion,
    /// When this version was first seen here.
    pub first_seen: BootTime,
}

impl<T> Sighting<T> {
    /// How long this version has stood, as far as this observer knows.
    pub fn age(&self, now: BootTime) -> Duration {
        now.since(self.first_seen)
    }
}

/// Takes a new reading into an observer's memory: the time of first sight stays while the version does.
pub fn sight<T>(before: Option<Sighting<T>>, value: T, version: ZnodeVersion, now: BootTime) -> Sighting<T> {
    let first_seen = match before {
        Some(seen) if seen.version == version => seen.first_seen,
        Some(_) | None => now,
    };
    Sighting {
        value,
        version,
        first_seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nobody_may_claim_while_the_kernel_can_still_hold_the_address() {
        // The worst order: the renewal is acknowledged the instant it is sent, seen at once, and the kernel is as late
        // as it was ever measured. Two nodes would answer for one address if C were smaller than this.
        let timing = LeaseTiming::DEFAULT;
        let sent = BootTime::from_duration(SECOND * 100);
        let whole_seconds_left = Duration::from_secs(timing.lease.as_secs());
        let last_refresh = sent + (timing.lease - whole_seconds_left);
        let kernel_drops = last_refresh + whole_seconds_left + timing.kernel_lateness;
        assert!(kernel_drops < sent + timing.claim_after());
    }

    #[test]
    fn the_periods_have_a_number_of_their_own() {
        // Nodes tell by the protocol's number whether they keep their leases alike. Whoever changes a period raises it:
        // else nodes of two releases join one cluster, and one claims what the other still holds.
        let ms = Duration::from_millis;
        let periods = LeaseTiming {
            period: ms(1000),
            lease: ms(5250),
            kernel_lateness: ms(1100),
            margin: ms(400),
        };
        assert_eq!((LeaseTiming::DEFAULT, crate::records::PROTOCOL), (periods, 1));
    }

    #[test]
    fn a_right_ends_exactly_one_lease_after_the_sending_of_its_renewal() {
        let timing = LeaseTiming::DEFAULT;
        let sent = BootTime::from_duration(SECOND * 100);
        let right = LeaseRight::acknowledged(sent, &timing);
        assert!(right.holds(sent + timing.lease - Duration::from_nanos(1)));
        assert!(!right.holds(sent + timing.lease));
        assert!(!LeaseRight::NONE.holds(BootTime::ZERO));
    }

    #[test]
    fn first_sight_moves_with_the_version_and_only_with_it() {
        let t = |s: u64| BootTime::from_duration(SECOND * u32::try_from(s).unwrap());
        let seen = sight(None, 'a', ZnodeVersion(4), t(10));
        let seen = sight(Some(seen), 'a', ZnodeVersion(4), t(13));
        assert_eq!(seen.age(t(13)), SECOND * 3);
        let seen = sight(Some(seen), 'a', ZnodeVersion(5), t(14));
        assert_eq!(seen.age(t(14)), Duration::ZERO);
        // A store that was rolled back shows an older version: that is a change too.
        let seen = sight(Some(seen), 'a', ZnodeVersion(4), t(20));
        assert_eq!(seen.age(t(20)), Duration::ZERO);
    }
}
