//! Waiting for what was asked for, and showing that something happens.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Cause, CliError, Exit, Result};
use crate::interrupt;
use crate::session::Session;

/// How often is looked.
const POLL: Duration = Duration::from_millis(500);
/// How long on end the cluster may be out of reach while we wait: the floating address moves with the primary, which takes
/// seconds.
const OUT_OF_REACH: Duration = Duration::from_secs(60);

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

/// A moment, to measure from.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a command has waited; nothing in the cluster is decided by it"
)]
fn moment() -> Instant {
    Instant::now()
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

/// Looks until it is done or `limit` seconds have passed. Shows a line with how it is and how long it took, on a terminal.
///
/// It is for what was asked for already. So whatever ends the waiting is not an end of that: it is told as "not seen to be
/// done".
pub(crate) fn until(
    session: &Session,
    what: &str,
    limit: u64,
    mut look: impl FnMut() -> Result<Look>,
) -> Result<String> {
    let spinner = if std::io::stderr().is_terminal() && !session.is_silent() {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    } else {
        ProgressBar::hidden()
    };
    interrupt::say_when_ended("Not waited for any more; what was asked for goes on");
    let result = look_until(what, Duration::from_secs(limit), &spinner, &mut look);
    spinner.finish_and_clear();
    result
}

fn look_until(
    what: &str,
    limit: Duration,
    spinner: &ProgressBar,
    look: &mut impl FnMut() -> Result<Look>,
) -> Result<String> {
    let began = moment();
    let mut last: Option<String> = None;
    let mut heard = began;
    loop {
        match look() {
            Ok(Look::Done(text)) => return Ok(text),
            Ok(Look::Waiting(state)) => {
                heard = moment();
                spinner.set_message(format!("{what}: {state}"));
                last = Some(state);
            }
            Ok(Look::Progress {
                state,
                current,
                total,
            }) => {
                heard = moment();
                spinner.set_message(format!("{what}: {} {state}", bar(current, total)));
                last = Some(state);
            }
            Err(error) if error.exit == Exit::Unreachable => {
                if heard.elapsed() >= OUT_OF_REACH.min(limit) {
                    return Err(out_of_sight(what, &error));
                }
                spinner.set_message(format!("{what}: the API does not answer, trying again"));
            }
            Err(error) => return Err(error),
        }
        if began.elapsed() >= limit {
            break;
        }
        pause(POLL);
    }
    let state = last.map_or_else(String::new, |state| format!(", the state is {state}"));
    Err(CliError::new(
        Exit::Unseen,
        format!(
            "{what}: not done after {} s{state}; it may still come to its end",
            limit.as_secs()
        ),
    ))
}

/// The cluster can not be seen any more while something is done in it.
fn out_of_sight(what: &str, error: &CliError) -> CliError {
    CliError::new(
        Exit::Unseen,
        format!(
            "{what}: it was asked for, and can not be seen to be done: {}",
            error.message
        ),
    )
    .because(Cause::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(limit: u64, mut look: impl FnMut() -> Result<Look>) -> Result<String> {
        look_until(
            "It",
            Duration::from_secs(limit),
            &ProgressBar::hidden(),
            &mut look,
        )
    }

    /// A script that is told "try again later" orders once more what goes on.
    #[test]
    fn a_cluster_out_of_sight_is_no_cluster_that_was_not_asked() {
        let error = wait(1, || {
            Err(CliError::new(Exit::Unreachable, "gone").because(Cause::NotNow))
        })
        .unwrap_err();
        assert_eq!(error.exit, Exit::Unseen, "{error}");
        assert!(error.message.contains("was asked for"), "{error}");
    }

    /// A look that takes long must not stretch the limit, as counting looks did.
    #[test]
    fn the_limit_is_one_of_time() {
        let mut looks = 0;
        let error = wait(1, || {
            looks += 1;
            pause(Duration::from_millis(1100));
            Ok(Look::Waiting("shutdown".to_owned()))
        })
        .unwrap_err();
        assert_eq!((error.exit, looks), (Exit::Unseen, 1), "{error}");
        assert!(error.message.contains("the state is shutdown"), "{error}");
    }

    #[test]
    fn bars_stay_within_their_bounds() {
        assert_eq!(bar(0, 4), "[--------------------] 0/4");
        assert_eq!(bar(1, 4), "[#####---------------] 1/4");
        assert_eq!(bar(9, 4), "[####################] 4/4");
        assert_eq!(bar(0, 0), "[--------------------] 0/1");
    }
}
