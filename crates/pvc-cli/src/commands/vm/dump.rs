//! `pvc vm dump`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use pvc_api::vm::Vm;

use super::path;
use crate::client::{only, typed};
use crate::error::{CliError, Result};
use crate::output;
use crate::private;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// Name or UUID
    domain: String,
    /// Save it in this file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Show the passwords in it (for the role admin); a file is readable for its owner alone then
    #[arg(long)]
    secrets: bool,
}

impl Dump {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let query: &[(&str, &str)] = if self.secrets { &[("secrets", "true")] } else { &[] };
        let vm: Vm = typed(only(session.client.get(&path(&self.domain), query)?))?;
        let text = format!("{}\n", vm.xml.trim_end());
        let Some(file) = &self.file else {
            output::print(&text);
            return Ok(());
        };
        let saved = if self.secrets {
            private::write(file, &text)
        } else {
            fs::write(file, text)
        };
        saved.map_err(|error| CliError::failure(format!("Can not write {}: {error}", file.display())))?;
        session.say(&format!("Saved the XML of VM {} in {}", vm.name, file.display()));
        Ok(())
    }
}
