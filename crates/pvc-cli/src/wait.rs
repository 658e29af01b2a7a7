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
    /// There; this is what to say.
    Done(String),
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
