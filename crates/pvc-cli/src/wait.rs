//! Waiting for what was asked for, and showing that something happens.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{CliError, Exit, Result};

/// How often is looked.
const POLL: Duration = Duration::from_millis(500);
const POLLS_PER_SECOND: u64 = 2;
/// How often in a row the cluster may be out of reach while we wait: the floating address moves with the primary.
const MISSES: u32 = 60;

/// How wide a bar is.
const BAR: u64 = 20;

/// Lets time pass.
#[expect(
    clippy::disallowed_methods,
    reason = "a command line tool in the foreground; nothing steps its time"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// What was seen when looking.
#[derive(Debug)]
pub(crate) enum Look {
    /// Not there yet; this is how it is.
    Waiting(String),
    /// Not there yet; this is how it is, and that many parts of so many are done.
    Progress { state: String, current: u64, total: u64 },
    /// There; this is what to say.
    Done(String),
}

/// A bar of [`BAR`] characters and the numbers.
fn bar(current: u64, total: u64) -> String {
    let total = total.max(1);
    let current = current.min(total);
    let done = usize::try_from(current * BAR / total).unwrap_or(0);
    let left = usize::try_from(BAR).unwrap_or(0).saturating_sub(done);
    format!("[{}{}] {current}/{total}", "#".repeat(done), "-".repeat(left))
}

/// Looks until it is done or `limit` has passed. Shows a line with how it is and how long it took, on a terminal.
pub(crate) fn until(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look>) -> Result<String> {
    let spinner = if std::io::stderr().is_terminal() {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    } else {
        ProgressBar::hidden()
    };
    let mut last = String::new();
    let mut misses = 0;
    for _ in 0..limit.as_secs().saturating_mul(POLLS_PER_SECOND).max(1) {
        match look() {
            Ok(Look::Done(text)) => {
                spinner.finish_and_clear();
                return Ok(text);
            }
            Ok(Look::Waiting(state)) => {
                misses = 0;
                spinner.set_message(format!("{what}: {state}"));
                last = state;
            }
            Ok(Look::Progress {
                state,
                current,
                total,
            }) => {
                misses = 0;
                spinner.set_message(format!("{what}: {} {state}", bar(current, total)));
                last = state;
            }
            Err(error) if error.exit == Exit::Unreachable && misses < MISSES => {
                misses += 1;
                spinner.set_message(format!("{what}: the API does not answer, trying again"));
            }
            Err(error) => {
                spinner.finish_and_clear();
                return Err(error);
            }
        }
        pause(POLL);
    }
    spinner.finish_and_clear();
    Err(CliError::new(
        Exit::Timeout,
        format!(
            "{what}: not done after {} s, the state is {last}; it may still come to its end",
            limit.as_secs()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_within_their_bounds() {
        assert_eq!(bar(0, 4), "[--------------------] 0/4");
        assert_eq!(bar(1, 4), "[#####---------------] 1/4");
        assert_eq!(bar(9, 4), "[####################] 4/4");
        assert_eq!(bar(0, 0), "[--------------------] 0/1");
    }
}
