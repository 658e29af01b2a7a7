//! Logs that are shown and followed: a guest's console, a node's log.

use std::time::Duration;

use serde::Deserialize;

use crate::client::typed;
use crate::error::{Exit, Result};
use crate::output;
use crate::session::Session;
use crate::wait;

/// How often is looked for new lines.
const POLL: Duration = Duration::from_millis(500);
/// How many lines are looked at while a log is followed: more than come between two looks, as a rule.
const WINDOW: u32 = 1000;
/// How many lines are shown if nothing is said, as by PVC 1.0.3.
const LINES: u32 = 1000;
/// The same before those that come.
const LINES_BEFORE: u32 = 10;

/// A log as the API sends it.
#[derive(Debug, Deserialize)]
struct Log {
    data: String,
}

/// Prints the last lines of the log at `path`, and with `follow` those that come, until the administrator ends it.
pub(crate) fn show(session: &Session, path: &str, lines: Option<u32>, follow: bool) -> Result<()> {
    let read = |lines: u32| -> Result<String> {
        let query = [("lines", lines.to_string())];
        let query = query.each_ref().map(|(name, value)| (*name, value.as_str()));
        Ok(typed::<Log>(session.client.get(path, &query)?)?.data)
    };
    let first = read(lines.unwrap_or(if follow { LINES_BEFORE } else { LINES }))?;
    print(&first);
    if !follow {
        return Ok(());
    }
    let mut seen = first;
    loop {
        wait::pause(POLL);
        match read(WINDOW) {
            Ok(now) => {
                let new = new_lines(&seen, &now);
                if new.may_miss {
                    session.remark("... lines skipped: more have come than are looked at");
                }
                print(new.lines);
                seen = now;
            }
            // The primary role moves: the lines that come meanwhile are not lost.
            Err(error) if error.exit == Exit::Unreachable => {}
            Err(error) => return Err(error),
        }
    }
}

fn print(lines: &str) {
    if !lines.is_empty() {
        output::line(lines.trim_end_matches('\n'));
    }
}

/// Lines that have come.
#[derive(Debug, PartialEq, Eq)]
struct New<'a> {
    lines: &'a str,
    /// Whether others may have come before them.
    may_miss: bool,
}

/// What of `now` has come since `seen`: all after the longest end of `seen` that is found in `now`. If there is none,
/// more lines came than are looked at, or it is another log, and all of it is new.
fn new_lines<'a>(seen: &str, now: &'a str) -> New<'a> {
    let seen = seen.trim_end_matches('\n');
    let now = now.trim_end_matches('\n');
    if seen.is_empty() {
        return New {
            lines: now,
            may_miss: false,
        };
    }
    match known(seen, now) {
        Some(lines) => New {
            lines,
            may_miss: false,
        },
        None => New {
            lines: now,
            may_miss: !now.is_empty(),
        },
    }
}

/// What comes in `now` after the longest end of `seen` that is in it.
fn known<'a>(seen: &str, now: &'a str) -> Option<&'a str> {
    // `now` may begin before `seen` does, when fewer lines were asked for at first.
    if let Some(at) = now.rfind(seen)
        && is_line_start(now, at)
        && let Some(rest) = after(now, at + seen.len())
    {
        return Some(rest);
    }
    let mut end = seen;
    while let Some(next) = end.find('\n') {
        end = &end[next + 1..];
        if let Some(rest) = now.strip_prefix(end)
            && (rest.is_empty() || rest.starts_with('\n'))
        {
            return Some(rest.strip_prefix('\n').unwrap_or(rest));
        }
    }
    None
}

fn is_line_start(text: &str, at: usize) -> bool {
    at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n')
}

/// What comes after the line that ends at `at`.
fn after(text: &str, at: usize) -> Option<&str> {
    let rest = text.get(at..)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_have_come_are_new() {
        let check = |seen: &str, now: &str, new: &str| {
            assert_eq!(new_lines(seen, now).lines, new, "{seen:?} {now:?}")
        };
        check("", "a\nb", "a\nb");
        check("a\nb", "a\nb", "");
        check("a\nb", "a\nb\nc", "c");
        // Asked for two lines first, and for more since.
        check("c\nd", "a\nb\nc\nd\ne", "e");
        // The window has moved on.
        check("a\nb\nc", "b\nc\nd\ne", "d\ne");
        // Nothing in common: it was emptied, or too much came.
        check("a\nb", "x\ny", "x\ny");
        // A repeated line: no more is taken for known than fits.
        check("a\na", "a\na\na", "");
        check("boot", "boot 2", "boot 2");
        check("a\nb\n", "a\nb\nc\n", "c");
    }

    /// Who reads along must not take what is shown for all that was written.
    #[test]
    fn it_is_known_whether_lines_may_be_missing() {
        assert!(new_lines("a\nb", "x\ny").may_miss);
        assert!(!new_lines("a\nb", "b\nc").may_miss);
        assert!(!new_lines("", "x\ny").may_miss);
        assert!(!new_lines("a\nb", "").may_miss);
    }
}
