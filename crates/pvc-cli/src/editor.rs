//! Text that an administrator changes in an editor of their choice.
//!
//! What somebody has written is not lost: where it is not taken, it stays in its file, and the error says where that is.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::confirm::{Answer, Asking, confirm, is_answered};
use crate::error::{Cause, CliError, Result};
use crate::interrupt;

/// Text in a file while it is worked on. Nobody else can read it; it is removed with this, unless it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    directory: TempDir,
    file: PathBuf,
    before: String,
}

impl Draft {
    /// Puts `text` into a file of that name.
    pub(crate) fn new(name: &str, text: &str) -> Result<Draft> {
        let failed = |error: std::io::Error| CliError::failure(format!("Can not edit {name}: {error}"));
        let directory = tempfile::Builder::new()
            .prefix("pvc-edit-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(failed)?;
        let file = directory.path().join(name.replace('/', "_"));
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed)?;
        Ok(Draft {
            directory,
            file,
            before: text.to_owned(),
        })
    }

    /// Lets the administrator change it, and answers with what it is then.
    pub(crate) fn edit(&self) -> Result<String> {
        let editor = std::env::var("EDITOR")
            .ok()
            .filter(|editor| !editor.is_empty())
            .unwrap_or_else(|| "editor".to_owned());
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("editor");
        // In an editor Ctrl-C is a key like others. The terminal sends it to this program too.
        #[expect(
            clippy::disallowed_methods,
            reason = "an editor runs in the foreground for as long as a person wants"
        )]
        let mut command = std::process::Command::new(program);
        command.args(words).arg(&self.file);
        let status = interrupt::unheard(|| command.status()).map_err(|error| {
            CliError::failure(format!(
                "Can not run {program:?}: {error}; set EDITOR to your editor"
            ))
        })?;
        if !status.success() {
            return Err(CliError::failure(format!(
                "{program} ended with an error; nothing is changed"
            )));
        }
        fs::read_to_string(&self.file).map_err(|error| {
            CliError::failure(format!("Can not read {} again: {error}", self.file.display()))
        })
    }

    /// The error, with where the text is that was written in vain. What was not changed is not kept.
    pub(crate) fn keep(self, mut error: CliError) -> CliError {
        if fs::read_to_string(&self.file).is_ok_and(|text| text == self.before) {
            return error;
        }
        let _ = self.directory.keep();
        error.message = format!(
            "{}. Your text is in {}",
            error.message.trim_end_matches('.'),
            self.file.display()
        );
        error
    }
}

/// Lets the administrator change `text` and hands it to `send`; again, if that says what is wrong with it and somebody is there.
pub(crate) fn edit(name: &str, text: &str, mut send: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let draft = Draft::new(name, text)?;
    loop {
        match draft.edit().and_then(|text| send(&text)) {
            Ok(()) => return Ok(()),
            Err(error) if error.cause == Cause::Invalid && is_answered() => {
                anstream::eprintln!("\x1b[31mError:\x1b[0m {error}");
                match confirm("Edit it again?", Asking::Ask) {
                    Ok(Answer::Yes) => {}
                    Ok(Answer::No) | Err(_) => return Err(draft.keep(error)),
                }
            }
            Err(error) => return Err(draft.keep(error)),
        }
    }
}
