//! `pvc node log`.

use clap::Args;

use super::named_or_here;
use crate::client::segment;
use crate::error::Result;
use crate::log;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The node; this one if none is named
    node: Option<String>,
    /// How many of the last lines [default: 1000; with --follow: 10]
    #[arg(short, long)]
    lines: Option<u32>,
    /// Go on with the lines that come; Ctrl-C ends
    #[arg(short, long)]
    follow: bool,
}

impl Log {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let node = named_or_here(self.node.as_deref())?;
        let route = format!("/node/{}/log", segment(&node));
        log::show(session, &route, self.lines, self.follow)
    }
}
