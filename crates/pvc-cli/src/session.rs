//! What a command that talks to a cluster is given.

use crate::cli::Global;
use crate::client::Client;
use crate::confirm::Asking;
use crate::connection;
use crate::error::Result;
use crate::output;

/// A cluster, and how the administrator wants to be spoken to.
#[derive(Debug)]
pub(crate) struct Session {
    /// The cluster.
    pub(crate) client: Client,
    /// Whether questions are asked.
    pub(crate) asking: Asking,
    silent: bool,
}

impl Session {
    /// Chooses the cluster; nothing is sent yet.
    pub(crate) fn open(global: &Global) -> Result<Session> {
        let connection = connection::choose(
            global.connection.as_deref(),
            global.url.as_deref(),
            global.api_key_file.as_deref(),
        )?;
        if !global.quiet && !global.silent {
            anstream::eprintln!("Using connection {} ({})", connection.name, connection.url);
        }
        Ok(Session {
            client: Client::new(connection, global.debug)?,
            asking: if global.r#unsafe {
                Asking::Assume
            } else {
                Asking::Ask
            },
            silent: global.silent,
        })
    }

    /// Says what was done.
    pub(crate) fn say(&self, text: &str) {
        if !self.silent && !text.is_empty() {
            output::line(text);
        }
    }

    /// Says something beside what was asked for: a remark, not what was done.
    pub(crate) fn remark(&self, text: &str) {
        if !self.silent {
            anstream::eprintln!("{text}");
        }
    }

    /// Whether nothing but what was asked for and errors is to be said.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether to ask, given a command's own `--yes`.
    pub(crate) fn asking(&self, yes: bool) -> Asking {
        if yes { Asking::Assume } else { self.asking }
    }
}
