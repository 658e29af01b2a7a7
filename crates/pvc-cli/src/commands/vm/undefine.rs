//! `pvc vm undefine|remove`.

use clap::Args;

use super::{ask, path, read};
use crate::client::{Method, said};
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Undefine {
    /// Name or UUID
    domain: String,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or UUID
    domain: String,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
}

impl Undefine {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let domain = &self.domain;
        let question = format!("Switch VM {domain} off and remove its definition? Its volumes are kept.");
        ask(session, &question, self.yes, || {
            session.say(&session.client.delete(&path(domain))?);
            Ok(())
        })
    }
}

impl Remove {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        // By name what will be lost: the question is the last moment at which a wrong VM is noticed.
        let vm = read(session, &self.domain)?;
        let volumes: Vec<&str> = vm.disks.iter().map(|disk| disk.name.as_str()).collect();
        let what = if volumes.is_empty() {
            "It has no volumes.".to_owned()
        } else {
            format!("Its volumes are DELETED: {}.", volumes.join(", "))
        };
        let question = format!("Switch VM {} off and remove it? {what}", vm.name);
        ask(session, &question, self.yes, || {
            let form = [("delete_disks", "true")];
            let reply = session
                .client
                .change(Method::Delete, &path(&self.domain), &form)?;
            session.say(&said(reply)?);
            Ok(())
        })
    }
}
