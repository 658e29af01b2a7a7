//! `pvc cluster health`.

use clap::Args;
use pvc_api::node::Health as Figure;
use pvc_api::status::{ClusterHealth, ClusterStatus};
use serde_json::json;

use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "short", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Health {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        watch::show(session, self.watch, self.format, || self.text(session))
    }

    fn text(&self, session: &Session) -> Result<String> {
        let value = session.client.get("/status", &[])?;
        if self.format.is_json() {
            let part = json!({
                "cluster_health": value["cluster_health"],
                "node_health": value["node_health"],
            });
            return output::json(&part, self.format);
        }
        let status: ClusterStatus = typed(value)?;
        let health = &status.cluster_health;
        if self.format == Format::Short {
            return Ok(format!("{}\n", output::health_text(&health.health)));
        }
        let mut lines = Lines::default();
        lines.add("Cluster", output::health_text(&health.health));
        for message in &health.messages {
            lines.add(
                "",
                format!("{}  {}", output::taken(message.health_delta), message.text),
            );
        }
        for (node, health) in &status.node_health {
            lines.add(&format!("Node {node}"), output::health_text(&health.health));
            for message in &health.messages {
                lines.add("", format!("  {message}"));
            }
        }
        let mut text = lines.render();
        text.push_str(verdict(&status.cluster_health));
        Ok(text)
    }
}

/// What there is to do, in a line.
fn verdict(health: &ClusterHealth) -> &'static str {
    match &health.health {
        Figure::Unknown(_) => "Nothing is known: does 'pvcnoded' run on the nodes?\n",
        Figure::Percent(_) if health.messages.is_empty() => "Nothing wants you\n",
        Figure::Percent(_) if health.messages.iter().all(|message| message.health_delta == 0) => {
            "Nothing lowers the health; 'info' is for you to know\n"
        }
        Figure::Percent(_) => "See 'pvc fault list' for what wants you, and since when\n",
    }
}
