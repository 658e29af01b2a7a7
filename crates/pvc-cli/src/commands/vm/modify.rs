//! `pvc vm modify`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use pvc_core::states::VmState;

use super::{path, read, read_xml};
use crate::confirm::{Answer, Asking, confirm};
use crate::diff;
use crate::error::{CliError, Result};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Modify {
    /// Name or UUID
    domain: String,
    /// File with its new XML (- for standard input)
    #[arg(required_unless_present = "editor")]
    cfgfile: Option<PathBuf>,
    /// Edit the present XML in $EDITOR
    #[arg(short, long, conflicts_with = "cfgfile")]
    editor: bool,
    /// Restart it, so that the change applies now
    #[arg(short, long)]
    restart: bool,
    /// Do not ask whether the change is right
    #[arg(short = 'd', long)]
    confirm_diff: bool,
    /// Do not ask whether to restart
    #[arg(short, long)]
    confirm_restart: bool,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

impl Modify {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let domain = &self.domain;
        let vm = read(session, domain)?;
        let new = match &self.cfgfile {
            Some(file) => read_xml(file)?,
            None => edit(&vm.name, &vm.xml)?,
        };
        // The API shows the present XML with single quotes; quotes alone are no difference.
        let shown = new.replace('"', "'");
        let changes = diff::lines(&vm.xml, &shown);
        if diff::is_same(&changes) {
            session.say("Nothing has changed");
            return Ok(());
        }
        let asking = session.asking(self.yes || self.confirm_diff);
        if asking == Asking::Ask {
            anstream::eprint!("{}", diff::render(&changes, 1));
        }
        if confirm(&format!("Change VM {domain} like this?"), asking)? == Answer::No {
            return Ok(());
        }
        let restart = self.restart
            && vm.state == VmState::Start
            && confirm(
                &format!("Restart VM {domain}, so that the change applies now?"),
                session.asking(self.yes || self.confirm_restart),
            )? == Answer::Yes;
        let form = [
            ("xml", new.as_str()),
            ("restart", if restart { "true" } else { "false" }),
        ];
        session.say(&session.client.put(&path(domain), &form)?);
        Ok(())
    }
}

/// Lets the administrator change `text` in an editor of their choice.
fn edit(name: &str, text: &str) -> Result<String> {
    let failed = |error: std::io::Error| CliError::failure(format!("Can not edit the XML: {error}"));
    let editor = std::env::var("EDITOR")
        .ok()
        .filter(|editor| !editor.is_empty())
        .unwrap_or_else(|| "editor".to_owned());
    let directory = std::env::temp_dir().join(format!("pvc-edit-{}", std::process::id()));
    fs::create_dir(&directory).map_err(failed)?;
    let file = directory.join(format!("{name}.xml"));
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
