//! The last lines of a guest's console.

use pvc_api::vm::VmConsole;
use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::ids::VmId;

use super::record::unknown;
use crate::error::ApiError;
use crate::snapshot::{Reading as _, Snapshot, Wanted};

/// The last `lines` of what the guest's node has published; fewer if there are fewer. Read from the store: such long texts,
/// which change all the time and are seldom looked at, are not kept in memory.
pub(crate) async fn show<S: Store>(store: &S, id: VmId, lines: usize) -> Result<VmConsole, ApiError> {
    let keys = keys::domain(id);
    let mut wanted = Wanted::default();
    wanted.key(&keys.name()).key(&keys.console_log());
    let seen = Snapshot::read(store, wanted).await?;
    let name = seen
        .get(&keys.name())?
        .ok_or_else(|| unknown(&id.to_string()))?
        .value;
    let log = seen.shown(&keys.console_log(), String::new());
    Ok(VmConsole {
        name: name.to_string(),
        data: last_lines(&log, lines).to_owned(),
    })
}

fn last_lines(text: &str, lines: usize) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    if lines == 0 {
        return "";
    }
    match text.rmatch_indices('\n').nth(lines.saturating_sub(1)) {
        Some((at, _)) => text.get(at.saturating_add(1)..).unwrap_or_default(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown() {
        for (text, lines, expected) in [
            ("", 10, ""),
            ("a\nb\nc\n", 2, "b\nc"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc", 3, "a\nb\nc"),
            ("a\nb\nc", 10, "a\nb\nc"),
            ("a\nb\n\n", 1, ""),
            ("a", 0, ""),
        ] {
            assert_eq!(last_lines(text, lines), expected, "{text:?} {lines}");
        }
    }
}
