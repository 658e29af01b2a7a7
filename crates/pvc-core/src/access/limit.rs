//! How often a source address may fail to log in.
//!
//! A bucket of guesses for each address: every failure takes one, and they grow back one by one. An empty bucket means
//! that no password or configured token of that address is even looked at. A client that repeats one wrong token, as a
//! dashboard does after the token was changed, guesses nothing: it takes only one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::time::BootTime;

/// Guesses that an address has at first.
const BURST: u32 = 10;

/// In which time one guess grows back: twenty a minute are many for a person and nothing for a machine.
const REFILL: Duration = Duration::from_secs(3);

/// Addresses that are kept. Beyond it the one goes that was least lately seen failing.
const TABLE: usize = 4096;

/// Whom failures are counted for: an IPv4 address, or the 64 bits of an IPv6 network, all of whose addresses one host
/// may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        })
    }
}

/// Tells one guess from another without being one: some bytes of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess(pub u64);

#[derive(Debug)]
struct Bucket {
    /// When it will be, or was, full.
    full_at: BootTime,
    last_failure: BootTime,
    last_guess: Guess,
}

/// The failures of all addresses. Bounded; time is an argument.
#[derive(Debug, Default)]
pub struct FailureLimit {
    buckets: HashMap<Source, Bucket>,
}

impl FailureLimit {
    /// Whether `source` may try now; otherwise how long it has to wait.
    ///
    /// # Errors
    /// The time until it may try.
    pub fn check(&self, source: Source, now: BootTime) -> Result<(), Duration> {
        let Some(bucket) = self.buckets.get(&source) else {
            return Ok(());
        };
        // Empty means that a whole burst, less the one guess that is asked for, is missing.
        let missing = bucket.full_at.since(now);
        let most = REFILL * (BURST - 1);
        if missing <= most {
            Ok(())
        } else {
            Err(missing - most)
        }
    }

    /// Counts a failure of `source`.
    pub fn fail(&mut self, source: Source, guess: Guess, now: BootTime) {
        if !self.buckets.contains_key(&source) {
            self.make_room(now);
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket {
            full_at: now,
            last_failure: now,
            // Never that of the first.
            last_guess: Guess(!guess.0),
        });
        bucket.last_failure = now;
        if bucket.last_guess != guess {
            bucket.last_guess = guess;
            bucket.full_at = bucket.full_at.max(now) + REFILL;
        }
    }

    fn make_room(&mut self, now: BootTime) {
        if self.buckets.len() < TABLE {
            return;
        }
        self.buckets.retain(|_, bucket| bucket.full_at > now);
        if self.buckets.len() >= TABLE
            && let Some(oldest) = self
                .buckets
                .iter()
                .min_by_key(|(_, bucket)| bucket.last_failure)
                .map(|(source, _)| *source)
        {
            self.buckets.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpAddr>().unwrap())
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn guesses_run_out_and_grow_back() {
        let mut limit = FailureLimit::default();
        let (attacker, other) = (source("192.0.2.7"), source("192.0.2.8"));
        for guess in 0..u64::from(BURST) {
            assert_eq!(limit.check(attacker, at(100)), Ok(()), "guess {guess}");
            limit.fail(attacker, Guess(guess), at(100));
        }
        let wait = limit.check(attacker, at(100)).unwrap_err();
        assert_eq!(wait, REFILL);
        assert_eq!(limit.check(other, at(100)), Ok(()), "each address has its own");
        assert!(limit.check(attacker, at(102)).is_err());
        assert_eq!(limit.check(attacker, at(103)), Ok(()));
        limit.fail(attacker, Guess(99), at(103));
        assert!(limit.check(attacker, at(103)).is_err());
        assert_eq!(limit.check(attacker, at(10_000)), Ok(()));
    }

    #[test]
    fn a_client_that_repeats_one_wrong_token_locks_nobody_out() {
        let mut limit = FailureLimit::default();
        let dashboard = source("192.0.2.7");
        for second in 0..1_000 {
            assert_eq!(limit.check(dashboard, at(second)), Ok(()));
            limit.fail(dashboard, Guess(7), at(second));
        }
    }

    #[test]
    fn a_host_can_not_multiply_by_its_ipv6_addresses() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::2:3:4:5"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
    }

    proptest! {
        // An attacker with many addresses must not be able to fill the daemon's memory.
        #[test]
        fn the_table_is_bounded(failures in proptest::collection::vec((any::<u32>(), any::<u64>(), 0_u64..100), 0..6_000)) {
            let mut limit = FailureLimit::default();
            for (address, guess, second) in failures {
                limit.fail(Source::from(IpAddr::from(address.to_be_bytes())), Guess(guess), at(second));
            }
            prop_assert!(limit.buckets.len() <= TABLE);
        }

        // However it tries, nobody gets more guesses than a burst and what grew back.
        #[test]
        fn guesses_are_bounded_in_every_order(gaps in proptest::collection::vec(0_u64..5, 1..200)) {
            let mut limit = FailureLimit::default();
            let attacker = source("192.0.2.7");
            let (mut second, mut guesses) = (0, 0_u64);
            for (index, gap) in gaps.iter().enumerate() {
                second += gap;
                if limit.check(attacker, at(second)).is_ok() {
                    guesses += 1;
                    limit.fail(attacker, Guess(index as u64), at(second));
                }
            }
            prop_assert!(guesses <= u64::from(BURST) + second / REFILL.as_secs());
        }
    }
}
