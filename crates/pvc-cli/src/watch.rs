//! `--watch`: a list that shows itself again whenever something changes.

use std::io::{IsTerminal, Write};

use crate::error::{Exit, Result};
use crate::events::Changes;
use crate::output::{self, Format};
use crate::session::Session;
use crate::time;

/// Shows `text` once; or, with `watch`, again after each change until the administrator ends it.
///
/// On a terminal it takes the place of what was shown before. Elsewhere it is written again when it has changed.
pub(crate) fn show(
    session: &Session,
    watch: bool,
    format: Format,
    text: impl Fn() -> Result<String>,
) -> Result<()> {
    if !watch {
        output::print(&text()?);
        return Ok(());
    }
    let terminal = std::io::stdout().is_terminal();
    session.client.keep_replies();
    // What can not be shown at all is no thing to watch: a wrong address, a name that does not exist.
    let mut now: Result<String> = Ok(text()?);
    let mut changes = Changes::of(session.client.clone());
    let mut shown: Option<String> = None;
    let mut noticed: Option<String> = None;
    loop {
        let (page, notice) = match now {
            Ok(page) => (Some(page), None),
            // Watching goes on: that there is nothing any more, or that the primary role moves, is what one watches for.
            Err(error) if matches!(error.exit, Exit::Unreachable | Exit::NotFound) => {
                let notice = format!("{}\n", error.message);
                // Where a program reads, words would not be what it reads: they go beside.
                if is_for_programs(format) {
                    (None, Some(notice))
                } else {
                    (Some(notice), None)
                }
            }
            Err(error) => return Err(error),
        };
        if let Some(notice) = &notice
            && noticed.as_ref() != Some(notice)
        {
            anstream::eprint!("{notice}");
        }
        noticed = notice;
        if let Some(page) = page {
            if terminal {
                clear();
                output::print(&format!(
                    "\x1b[2m{}, Ctrl-C ends\x1b[0m\n{page}",
                    time::moment(time::now())
                ));
            } else if shown.as_ref() != Some(&page) {
                output::print(&page);
            }
            shown = Some(page);
        }
        changes.wait();
        now = text();
    }
}

/// Empties the terminal. Not by the stream that takes colours out: to clear is not a colour.
fn clear() {
    let mut out = std::io::stdout().lock();
    // Who can not be written to any more is noticed by the page that follows.
    let _ = out.write_all(b"\x1b[2J\x1b[H").and_then(|()| out.flush());
}

fn is_for_programs(format: Format) -> bool {
    match format {
        Format::Json | Format::JsonPretty | Format::Raw | Format::JsonPrometheus => true,
        Format::Pretty | Format::Short | Format::Long => false,
    }
}
