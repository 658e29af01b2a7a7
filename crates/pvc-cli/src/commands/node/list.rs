//! `pvc node list`.

use clap::Args;
use comfy_table::Cell;
use pvc_api::node::Node;

use crate::client::typed;
use crate::commands::fence;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only nodes whose name matches this regular expression
    limit: Option<String>,
    /// Only nodes whose agent is in this state (short: -ds)
    #[arg(long)]
    daemon_state: Option<String>,
    /// Only nodes with this part in the primary role (short: -cs)
    #[arg(long)]
    coordinator_state: Option<String>,
    /// Only nodes in this domain state (short: -vs)
    #[arg(long)]
    domain_state: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl List {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        watch::show(session, self.watch, self.format, || self.text(session))
    }

    pub(crate) fn query(&self) -> Vec<(&str, &str)> {
        [
            ("limit", &self.limit),
            ("daemon_state", &self.daemon_state),
            ("coordinator_state", &self.coordinator_state),
            ("domain_state", &self.domain_state),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect()
    }

    fn text(&self, session: &Session) -> Result<String> {
        let value = session.client.list("/node", &self.query())?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let nodes: Vec<Node> = typed(value)?;
        if self.format == Format::Raw {
            return Ok(output::words(nodes.iter().map(|node| &node.name)));
        }
        if nodes.is_empty() {
            return Ok("There are no nodes\n".to_owned());
        }
        Ok(table(&nodes))
    }
}

/// Narrow enough for 100 columns; the rest is in `pvc node info`. Fences and BMCs are shown where there are any.
fn table(nodes: &[Node]) -> String {
    let fences = nodes.iter().any(|node| node.fence_open);
    let bmcs = nodes.iter().any(|node| node.bmc.is_some());
    let mut header = vec!["Node", ">Health", "Daemon", "Coordinator", "Domain"];
    if fences {
        header.push("Fence");
    }
    if bmcs {
        header.push("BMC");
    }
    header.extend([
        ">VMs", ">vCPUs", ">CPUs", ">Load", ">Memory", ">Free", ">Alloc", "Version",
    ]);
    let mut table = output::table(&header);
    for node in nodes {
        let mut row = vec![
            Cell::new(&node.name),
            output::health_cell(&node.health),
            output::state(node.daemon_state.as_str()),
            output::state(node.coordinator_state.as_str()),
            output::state(node.domain_state.as_str()),
        ];
        if fences {
            row.push(output::state(if node.fence_open { &node.fence } else { "-" }));
        }
        if bmcs {
            row.push(output::state(fence::bmc_word(node.bmc.as_ref())));
        }
        row.extend([
            output::number(node.domains_count),
            output::number(node.vcpu.allocated),
            output::number(node.vcpu.total),
            output::number(format!("{:.2}", node.load)),
            output::number(output::mebibytes(node.memory.total)),
            output::number(output::mebibytes(node.memory.free)),
            output::number(output::mebibytes(node.memory.allocated)),
            Cell::new(&node.pvc_version),
        ]);
        table.add_row(row);
    }
    output::render(table)
}
