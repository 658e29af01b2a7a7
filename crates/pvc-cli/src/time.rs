//! Moments for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by this machine's clock, to be shown.
#[expect(
    clippy::disallowed_methods,
    reason = "a time for a person to read; nothing is decided by it"
)]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `seconds` since 1970 as `YYYY-MM-DD HH:MM:SS` in UTC: administrators of one cluster sit in several zones, and the
/// nodes' logs are compared with it.
pub(crate) fn moment(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = date(days);
    let rest = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The date `days` after 1970-01-01: years begin with March here, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Seconds of a span such as `90d`, `12h`, `30m` or `45s`.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time such as 90d, 12h, 30m or 45s");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text
        .strip_suffix(unit)
        .unwrap_or_default()
        .parse()
        .map_err(|_| wrong())?;
    count
        .checked_mul(seconds)
        .filter(|span| *span > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(moment(4_107_542_400), "2100-03-01 00:00:00 UTC");
        assert_eq!(moment(1_795_384_983), "2026-11-22 22:03:03 UTC");
    }

    #[test]
    fn spans_have_a_unit() {
        for (text, seconds) in [
            ("45s", 45),
            ("30m", 1800),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(span(text), Ok(seconds));
        }
        for bad in [
            "",
            "d",
            "5",
            "0d",
            "-1d",
            "1.5h",
            "1y",
            "99999999999999999999d",
            "9999999999999999d",
            "5µ",
        ] {
            assert!(span(bad).is_err(), "{bad:?}");
        }
    }
}
