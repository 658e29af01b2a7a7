//! How long the kernel may keep an address of the role: the one reckoning, used by the real network and by the fake.

use std::num::NonZeroU32;
use std::time::Duration;

use pvc_core::time::BootTime;

/// The lifetime, in whole seconds, of an address whose right ends at `right_ends`; `None` with less than 1 s left,
/// since the kernel takes no fraction and 0 is no lifetime. Rounded down: the kernel may be late by itself (up to
/// 1.1 s, which claimants wait for), but never because of us.
pub fn valid_lft(right_ends: BootTime, now: BootTime) -> Option<NonZeroU32> {
    // u32::MAX means "for ever" to the kernel.
    let seconds = right_ends.since(now).as_secs().min(u64::from(u32::MAX - 1));
    u32::try_from(seconds).ok().and_then(NonZeroU32::new)
}

/// How often an address is set until it is in the kernel with a lifetime that fits. The second lifetime has most of a
/// second to spare, so a third is needed only on a host that stands still again and again.
pub const TRIES: usize = 3;

/// Whether an address that the kernel was given for `valid_lft` some time before `now` may outlive its right: then the
/// host stood still between the reckoning and the call.
pub fn outlives(right_ends: BootTime, valid_lft: NonZeroU32, now: BootTime) -> bool {
    now + Duration::from_secs(u64::from(valid_lft.get())) > right_ends
}

#[cfg(test)]
mod tests {

    use super::*;

    fn check(left_ms: u64, expected: Option<u32>) {
        let now = BootTime::from_duration(Duration::from_millis(1_234_567));
        let right_ends = now + Duration::from_millis(left_ms);
        assert_eq!(
            valid_lft(right_ends, now).map(NonZeroU32::get),
            expected,
            "{left_ms} ms left"
        );
    }

    #[test]
    fn a_lifetime_never_outlives_the_right() {
        check(0, None);
        check(999, None);
        check(1000, Some(1));
        check(1999, Some(1));
        check(4500, Some(4));
    }

    #[test]
    fn a_right_that_has_ended_gives_no_lifetime_and_a_huge_one_is_not_for_ever() {
        let late = BootTime::from_duration(Duration::from_secs(10));
        assert_eq!(valid_lft(BootTime::ZERO, late), None);
        let huge = BootTime::from_duration(Duration::MAX);
        assert_eq!(valid_lft(huge, late).map(NonZeroU32::get), Some(u32::MAX - 1));
    }

    // A host that is frozen right after a call that came late must not answer until after the next claim.
    #[test]
    fn a_call_that_came_late_leaves_a_lifetime_that_is_too_long() {
        let ms = Duration::from_millis;
        let right_ends = BootTime::from_duration(ms(10_000));
        let four = NonZeroU32::new(4).unwrap();
        for (now, expected) in [(5_500, false), (6_000, false), (6_001, true), (9_999, true)] {
            let now = BootTime::from_duration(ms(now));
            assert_eq!(outlives(right_ends, four, now), expected, "{now:?}");
        }
    }
}
