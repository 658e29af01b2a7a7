//! The one clock of all observations: that of this machine, which its nodes share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A moment, as the time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Moment {
        Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// So long ago.
    pub(crate) fn now_less(ago: Duration) -> Moment {
        Moment(Moment::now().0.saturating_sub(ago))
    }

    /// The moment of a time stamp without a time zone, as programs on the nodes print it (their zone is UTC).
    pub(crate) fn parse(text: &str) -> Result<Moment> {
        let date: DateTime = text
            .parse()
            .with_context(|| format!("{text:?} is no time stamp"))?;
        let stamp = date.to_zoned(TimeZone::UTC)?.timestamp();
        Ok(Moment(Duration::try_from(
            stamp.duration_since(jiff::Timestamp::UNIX_EPOCH),
        )?))
    }

    /// The time from an earlier moment to this one; none if it is not earlier.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// The time since this moment.
    pub(crate) fn elapsed(self) -> Duration {
        Moment::now().since(self)
    }

    /// Seconds since another moment, negative if that is later; for output.
    pub(crate) fn seconds_after(self, other: Moment) -> f64 {
        self.0.as_secs_f64() - other.0.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_ip_monitor_are_on_the_same_clock() {
        let moment = Moment::parse("2026-11-22T19:43:00.123456").unwrap();
        assert_eq!(moment.0, Duration::new(1_795_376_580, 123_456_000));
        assert!(Moment::parse("soon").is_err());
    }
}
