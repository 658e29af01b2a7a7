//! `pvc vm meta`.

use clap::Args;
use pvc_api::vm::VmMeta;

use super::{Method, Selector, path, word};
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Lines};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Meta {
    /// Name or UUID
    domain: String,
    /// The nodes that it may run on, separated by commas; empty for any
    #[arg(short, long)]
    limit: Option<String>,
    /// How a node is chosen
    #[arg(short = 's', long)]
    node_selector: Option<Selector>,
    /// Start it when its node becomes ready the next time
    #[arg(short, long)]
    autostart: bool,
    /// Do not
    #[arg(short = 'A', long, conflicts_with = "autostart")]
    no_autostart: bool,
    /// How it may be moved
    #[arg(short, long)]
    method: Option<Method>,
    /// How long it may pause at the end of a live migration, in milliseconds
    #[arg(short = 'd', long)]
    max_downtime: Option<u32>,
    /// The provisioner profile that it belongs to; empty for none
    #[arg(short, long)]
    profile: Option<String>,
    /// When its node dies, guests with a higher number are started elsewhere first
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    recovery_priority: Option<i32>,
    /// Keep it on another node than the other guests of this group; may be given several times, '' for none
    #[arg(long, value_name = "GROUP")]
    anti_affinity: Vec<String>,
}

impl Meta {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let mut form: Vec<(&str, String)> = Vec::new();
        let mut add = |name, value: Option<String>| form.extend(value.map(|value| (name, value)));
        add("limit", self.limit.clone());
        add("selector", self.node_selector.map(word));
        add("autostart", self.autostart.then(|| "true".to_owned()));
        add("autostart", self.no_autostart.then(|| "false".to_owned()));
        add("migration_method", self.method.map(word));
        add(
            "migration_max_downtime",
            self.max_downtime.map(|downtime| downtime.to_string()),
        );
        add("profile", self.profile.clone());
        add(
            "recovery_priority",
            self.recovery_priority.map(|priority| priority.to_string()),
        );
        for group in &self.anti_affinity {
            add("anti_affinity", Some(group.clone()));
        }
        let path = format!("{}/meta", path(&self.domain));
        if form.is_empty() {
            return show(session, &path);
        }
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        session.say(&session.client.post(&path, &form)?);
        Ok(())
    }
}

fn show(session: &Session, path: &str) -> Result<()> {
    let meta: VmMeta = typed(session.client.get(path, &[])?)?;
    let limit = meta.node_limit.unwrap_or_default().join(", ");
    let or = |text: String, otherwise: &str| {
        if text.is_empty() {
            otherwise.to_owned()
        } else {
            text
        }
    };
    let mut lines = Lines::default();
    lines.add("Name", &meta.name);
    lines.add("Node limit", or(limit, "any node"));
    lines.add("Node selector", &meta.node_selector);
    lines.add(
        "Autostart",
        if meta.node_autostart == "True" {
            "yes"
        } else {
            "no"
        },
    );
    lines.add(
        "Migration",
        format!(
            "method {}, pause of {} ms at most",
            meta.migration_method, meta.migration_max_downtime
        ),
    );
    lines.add("Recovery priority", meta.recovery_priority);
    lines.add("Keep apart", or(meta.anti_affinity.join(", "), "-"));
    output::print(&lines.render());
    Ok(())
}
