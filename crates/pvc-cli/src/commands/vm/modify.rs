//! `pvc vm modify`.

use std::path::PathBuf;

use clap::Args;
use pvc_api::vm::Vm;
use pvc_core::states::VmState;

use super::change::replace_xml;
use super::{read, read_xml};
use crate::confirm::{Answer, Asking, confirm};
use crate::diff;
use crate::editor;
use crate::error::Result;
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
        let vm = read(session, &self.domain)?;
        match &self.cfgfile {
            Some(file) => self.change(session, &vm, &read_xml(file)?),
            None => editor::edit(&format!("{}.xml", vm.name), &vm.xml, |new| {
                self.change(session, &vm, new)
            }),
        }
    }

    fn change(&self, session: &Session, vm: &Vm, new: &str) -> Result<()> {
        let domain = &self.domain;
        let changes = diff::lines(&vm.xml, new);
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
        session.say(&replace_xml(session, vm, new, restart)?);
        Ok(())
    }
}
