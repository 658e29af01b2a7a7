//! `pvc vm log`.

use clap::Args;

use super::path;
use crate::error::Result;
use crate::log;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Name or UUID
    domain: String,
    /// How many of the last lines [default: 1000; with --follow: 10]
    #[arg(short, long)]
    lines: Option<u32>,
    /// Go on with the lines that come; Ctrl-C ends
    #[arg(short, long)]
    follow: bool,
}

impl Log {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let route = format!("{}/console", path(&self.domain));
        log::show(session, &route, self.lines, self.follow)
    }
}
