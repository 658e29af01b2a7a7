//! `pvc cluster status`.

use clap::Args;
use pvc_api::status::ClusterStatus;

use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, Lines, formats};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "short", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        watch::show(session, self.watch, self.format, || self.text(session))
    }

    fn text(&self, session: &Session) -> Result<String> {
        let value = session.client.get("/status", &[])?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let status: ClusterStatus = typed(value)?;
        let mut lines = summary(&status);
        if self.format != Format::Short {
            details(&status, &mut lines);
        }
        Ok(lines.render())
    }
}

fn summary(status: &ClusterStatus) -> Lines {
    let mut lines = Lines::default();
    lines.add("Cluster", &status.cluster_name);
    lines.add("Health", output::health_text(&status.cluster_health.health));
    for message in &status.cluster_health.messages {
        lines.add(
            "",
            format!("{}  {}", output::taken(message.health_delta), message.text),
        );
    }
    if status.maintenance == "true" {
        lines.add("Maintenance", "\x1b[33mon\x1b[0m: no node is fenced");
    }
    let mut label = "Fences";
    for fence in &status.fences {
        lines.add(
            label,
            format!("{} {}: {}", fence.node, output::painted(&fence.state), fence.now),
        );
        if !fence.next.is_empty() {
            lines.add("", format!("  {}", fence.next));
        }
        label = "";
    }
    if status.holding > 0 {
        lines.add(
            "On hold",
            format!(
                "\x1b[31m{} nodes\x1b[0m hold still, see 'pvc cluster adopt --show'",
                status.holding
            ),
        );
    }
    lines.add("Primary node", &status.primary_node);
    lines.add("PVC version", &status.pvc_version);
    lines.add("Upstream IP", &status.upstream_ip);
    lines
}

fn details(status: &ClusterStatus, lines: &mut Lines) {
    let faults = &status.detail.faults;
    if !faults.is_empty() {
        let acknowledged = faults.iter().filter(|fault| fault.is_acknowledged()).count();
        lines.add(
            "Faults",
            format!(
                "{} ({acknowledged} acknowledged), see 'pvc fault list'",
                faults.len()
            ),
        );
    }
    lines.gap();
    lines.add("Nodes", counts(&status.nodes));
    lines.add("VMs", counts(&status.vms));
    // What PVC does not manage here it does not count either: a zero would look like a loss.
    if status.networks > 0 {
        lines.add("Networks", status.networks);
    }
    if status.osds.get("total").is_some_and(|total| *total > 0) {
        lines.add("OSDs", counts(&status.osds));
        lines.add("Pools", status.pools);
        lines.add("Volumes", status.volumes);
        lines.add("Snapshots", status.snapshots);
    }
    lines.gap();
    let memory = &status.resources.memory;
    lines.add(
        "Memory",
        format!(
            "{} of {} used ({}%), {} allocated, {} provisioned",
            output::mebibytes(memory.used),
            output::mebibytes(memory.total),
            memory.utilization,
            output::mebibytes(memory.allocated),
            output::mebibytes(memory.provisioned),
        ),
    );
    let cpu = &status.resources.cpu;
    lines.add(
        "CPU",
        format!(
            "load {:.2} on {} CPUs ({}%), {} vCPUs allocated",
            cpu.load, cpu.total, cpu.utilization, cpu.allocated
        ),
    );
}

/// The total, then each state with its number.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let total = counts.get("total").copied().unwrap_or(0);
    let parts: Vec<String> = counts
        .iter()
        .filter(|(word, _)| *word != "total")
        .map(|(word, count)| {
            let words: Vec<String> = word.split(',').map(output::painted).collect();
            format!("{count} {}", words.join(","))
        })
        .collect();
    if parts.is_empty() {
        total.to_string()
    } else {
        format!("{total} ({})", parts.join(", "))
    }
}
