//! Text that an administrator changes in an editor of their choice.

use std::fs;

use crate::error::{CliError, Result};

/// Lets the administrator change `text`, which is in a file of that name meanwhile.
pub(crate) fn edit(name: &str, text: &str) -> Result<String> {
    let failed = |error: std::io::Error| CliError::failure(format!("Can not edit {name}: {error}"));
    let editor = std::env::var("EDITOR")
        .ok()
        .filter(|editor| !editor.is_empty())
        .unwrap_or_else(|| "editor".to_owned());
    let directory = std::env::temp_dir().join(format!("pvc-edit-{}", std::process::id()));
    fs::create_dir(&directory).map_err(failed)?;
    let file = directory.join(name);
    let edited = fs::write(&file, text).map_err(failed).and_then(|()| {
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("editor");
        #[expect(
            clippy::disallowed_methods,
            reason = "an editor runs in the foreground for as long as a person wants"
        )]
        let status = std::process::Command::new(program)
            .args(words)
            .arg(&file)
            .status()
            .map_err(|error| {
                CliError::failure(format!(
                    "Can not run {program:?}: {error}; set EDITOR to your editor"
                ))
            })?;
        if !status.success() {
            return Err(CliError::failure(format!(
                "{program} ended with an error; nothing is changed"
            )));
        }
        fs::read_to_string(&file).map_err(failed)
    });
    let _ = fs::remove_dir_all(&directory);
    edited
}
