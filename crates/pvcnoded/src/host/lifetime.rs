//! How long the kernel may keep an address of the role: the one reckoning, used by the real network and by the fake.

use std::num::NonZeroU32;

use pvc_core::time::BootTime;

/// The lifetime, in whole seconds, of an address whose right ends at `right_ends`; `None` with less than 1 s left,
/// since the kernel takes no fraction and 0 is no lifetime. Rounded down: the kernel may be late by itself (up to
/// 1.1 s, which claimants wait for), but never because of us.
pub fn valid_lft(right_ends: BootTime, now: BootTime) -> Option<NonZeroU32> {
    // u32::MAX means "for ever" to the kernel.
    let seconds = right_ends.since(now).as_secs().min(u64::from(u32::MAX - 1));
    u32::try_from(seconds).ok().and_then(NonZeroU32::new)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
