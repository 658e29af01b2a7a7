//! `pvc node info`.

use clap::Args;
use pvc_api::node::Node;

use super::{drain, named_or_here};
use crate::client::{only, segment, typed};
use crate::commands::fence;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The node; this one if none is named
    node: Option<String>,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
    format: Format,
}

impl Info {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let name = named_or_here(self.node.as_deref())?;
        let value = only(session.client.get(&format!("/node/{}", segment(&name)), &[])?);
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let node: Node = typed(value)?;
        let mut lines = lines(&node);
        if self.format == Format::Long {
            long(&node, &mut lines);
        }
        output::print(&lines.render());
        Ok(())
    }
}

/// The node in labelled lines.
fn lines(node: &Node) -> Lines {
    let mut lines = Lines::default();
    lines.add("Name", &node.name);
    lines.add("PVC version", &node.pvc_version);
    lines.add("Health", output::health_text(&node.health));
    for detail in node
        .health_details
        .iter()
        .filter(|detail| detail.health_delta > 0)
    {
        lines.add(
            "",
            format!("-{}%  {}: {}", detail.health_delta, detail.name, detail.message),
        );
    }
    lines.add("Daemon state", output::painted(node.daemon_state.as_str()));
    lines.add(
        "Coordinator state",
        output::painted(node.coordinator_state.as_str()),
    );
    lines.add("Domain state", output::painted(node.domain_state.as_str()));
    if let Some(error) = &node.store_error {
        lines.add("Bad record", format!("\x1b[31m{error}\x1b[0m"));
    }
    if !node.hold.is_empty() {
        lines.add("On hold", format!("\x1b[31m{}\x1b[0m", node.hold));
    }
    if let Some(report) = node.drain.as_ref().filter(|report| drain::is_of_interest(report)) {
        drain::add(report, &mut lines);
    }
    if node.fence_open {
        lines.add(
            "Fence",
            format!(
                "{} ('pvc fence show {}')",
                output::painted(&node.fence),
                node.name
            ),
        );
    } else if node.fence != "none" && !node.fence.is_empty() {
        lines.add("Last fence", &node.fence);
    }
    lines.add(
        "BMC",
        node.bmc.as_ref().map_or_else(|| "-".to_owned(), fence::bmc_text),
    );
    lines.add(
        "Upstream",
        match &node.upstream {
            None => "-".to_owned(),
            Some(upstream) if upstream.reason.is_empty() => output::painted(up_or_down(upstream.up)),
            Some(upstream) => format!(
                "{}: {}",
                output::painted(up_or_down(upstream.up)),
                upstream.reason
            ),
        },
    );
    lines.gap();
    lines.add(
        "CPUs",
        format!(
            "{} (load {:.2}), {} vCPUs allocated",
            node.vcpu.total, node.load, node.vcpu.allocated
        ),
    );
    lines.add(
        "Memory",
        format!(
            "{}: {} used, {} free, {} allocated, {} provisioned",
            output::mebibytes(node.memory.total),
            output::mebibytes(node.memory.used),
            output::mebibytes(node.memory.free),
            output::mebibytes(node.memory.allocated),
            output::mebibytes(node.memory.provisioned),
        ),
    );
    lines.add("Running VMs", node.domains_count);
    if !node.running_domains.is_empty() {
        lines.add("", node.running_domains.join(", "));
    }
    lines
}

/// What is rarely asked for.
fn long(node: &Node, lines: &mut Lines) {
    lines.gap();
    lines.add("Architecture", &node.arch);
    lines.add("Operating system", &node.os);
    lines.add("Kernel", &node.kernel);
    for (name, stats) in &node.interfaces {
        lines.add(
            &format!("Interface {name}"),
            format!(
                "{} ({} Mbit/s), received {} bit/s, sent {} bit/s",
                stats.state,
                stats.link_speed / 1_000_000,
                stats.rx_bps,
                stats.tx_bps
            ),
        );
    }
    for detail in &node.health_details {
        lines.add(&format!("Check {}", detail.name), &detail.message);
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
