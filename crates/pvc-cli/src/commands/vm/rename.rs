//! `pvc vm rename`.

use clap::Args;

use super::{ask, path};
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// Name or UUID
    domain: String,
    /// Its new name
    new_name: String,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

impl Rename {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let question = format!("Rename VM {} to {}?", self.domain, self.new_name);
        ask(session, &question, self.yes, || {
            let route = format!("{}/rename", path(&self.domain));
            session.say(&session.client.post(&route, &[("new_name", &self.new_name)])?);
            Ok(())
        })
    }
}
