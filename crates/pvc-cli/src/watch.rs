//! `--watch`: a list that shows itself again whenever something changes.

use std::io::IsTerminal;

use crate::error::{Exit, Result};
use crate::events::Changes;
use crate::output;
use crate::session::Session;
use crate::time;

/// Shows `text` once; or, with `watch`, again after each change until the administrator ends it.
///
/// On a terminal it takes the place of what was shown before. Elsewhere it is written again when it has changed.
pub(crate) fn show(session: &Session, watch: bool, text: impl Fn() -> Result<String>) -> Result<()> {
    if !watch {
        output::print(&text()?);
        return Ok(());
    }
    let terminal = std::io::stdout().is_terminal();
    let mut changes = Changes::of(session.client.clone());
    let mut before: Option<String> = None;
    loop {
        let now = match text() {
            Ok(text) => text,
            // Watching goes on: that there is nothing (yet), or that the primary role moves, is what one watches for.
            Err(error) if matches!(error.exit, Exit::Unreachable | Exit::NotFound) => {
                format!("{}\n", error.message)
            }
            Err(error) => return Err(error),
        };
        if terminal {
            output::print(&format!(
                "\x1b[2J\x1b[H\x1b[2m{}, Ctrl-C ends\x1b[0m\n{now}",
                time::moment(time::now())
            ));
        } else if before.as_deref() != Some(&now) {
            output::print(&now);
        }
        before = Some(now);
        changes.wait();
    }
}
