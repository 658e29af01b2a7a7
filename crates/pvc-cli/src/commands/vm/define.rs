//! `pvc vm define`.

use std::path::PathBuf;

use clap::Args;

use super::{Method, Selector, read_xml, word};
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Define {
    /// File with its libvirt XML (- for standard input)
    vmconfig: PathBuf,
    /// The node to put it on; chosen by the selector if none is named
    #[arg(short, long)]
    target: Option<String>,
    /// The nodes that it may run on, separated by commas
    #[arg(short, long)]
    limit: Option<String>,
    /// How a node is chosen
    #[arg(short = 's', long, default_value = "none")]
    node_selector: Selector,
    /// Start it when its node becomes ready the next time
    #[arg(short, long)]
    autostart: bool,
    /// Do not (this is so unless --autostart is given)
    #[arg(short = 'A', long, overrides_with = "autostart")]
    no_autostart: bool,
    /// How it may be moved
    #[arg(short, long, default_value = "none")]
    method: Method,
    /// How long it may pause at the end of a live migration, in milliseconds
    #[arg(short = 'd', long, default_value_t = 300)]
    max_downtime: u32,
    /// A tag; may be given several times
    #[arg(short = 'g', long)]
    tag: Vec<String>,
    /// A tag that can not be removed; may be given several times
    #[arg(short = 'G', long)]
    protected_tag: Vec<String>,
    /// When its node dies, guests with a higher number are started elsewhere first
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    recovery_priority: i32,
    /// Keep it on another node than the other guests of this group; may be given several times
    #[arg(long, value_name = "GROUP")]
    anti_affinity: Vec<String>,
}

impl Define {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let xml = read_xml(&self.vmconfig)?;
        let selector = word(self.node_selector);
        let method = word(self.method);
        let downtime = self.max_downtime.to_string();
        let priority = self.recovery_priority.to_string();
        let mut form: Vec<(&str, &str)> = vec![
            ("xml", &xml),
            ("selector", &selector),
            ("autostart", if self.autostart { "true" } else { "false" }),
            ("migration_method", &method),
            ("migration_max_downtime", &downtime),
            ("recovery_priority", &priority),
        ];
        form.extend(
            self.anti_affinity
                .iter()
                .map(|group| ("anti_affinity", group.as_str())),
        );
        if let Some(target) = &self.target {
            form.push(("node", target));
        }
        if let Some(limit) = &self.limit {
            form.push(("limit", limit));
        }
        form.extend(self.tag.iter().map(|tag| ("user_tags", tag.as_str())));
        form.extend(
            self.protected_tag
                .iter()
                .map(|tag| ("protected_tags", tag.as_str())),
        );
        session.say(&session.client.post("/vm", &form)?);
        Ok(())
    }
}
