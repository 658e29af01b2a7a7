//! `pvc node`.

use std::time::Duration;

use pvc_api::node::{Node, NodeCoordinatorState};
use pvc_api::status::PrimaryNode;
use pvc_core::states::CoordinatorState;

use crate::Session;
use crate::args::NodeCommand;
use crate::client::{only, segment, typed};
use crate::drain::{self, Order};
use crate::error::{CliError, Exit, Result};
use crate::fence;
use crate::output::{self, Format, Lines};
use crate::wait::{self, Look};

/// How long a change of the primary role is waited for. It takes seconds; a named node that can not take it gives
/// way to others after 10.
const ROLE_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(command: &NodeCommand, session: &Session) -> Result<()> {
    match command {
        NodeCommand::List {
            limit,
            daemon_state,
            coordinator_state,
            domain_state,
            format,
        } => {
            let query: Vec<(&str, &str)> = [
                ("limit", limit),
                ("daemon_state", daemon_state),
                ("coordinator_state", coordinator_state),
                ("domain_state", domain_state),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect();
            list(session, &query, *format)
        }
        NodeCommand::Info { node, format } => info(session, &named_or_here(node.as_deref())?, *format),
        NodeCommand::Primary { node, wait } => role(
            session,
            &named_or_here(node.as_deref())?,
            CoordinatorState::Primary,
            *wait,
        ),
        NodeCommand::Secondary { node, wait } => role(
            session,
            &named_or_here(node.as_deref())?,
            CoordinatorState::Secondary,
            *wait,
        ),
        NodeCommand::Flush { node, wait } => {
            drain::run(session, &named_or_here(node.as_deref())?, Order::Flush, *wait)
        }
        NodeCommand::Ready { node, wait } => {
            drain::run(session, &named_or_here(node.as_deref())?, Order::Ready, *wait)
        }
        NodeCommand::IsPrimary { node } => is_primary(session, &named_or_here(node.as_deref())?),
    }
}

/// The node that was named, or the one that this command runs on.
fn named_or_here(node: Option<&str>) -> Result<String> {
    if let Some(node) = node {
        return Ok(node.to_owned());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| {
        CliError::failure(format!("Can not read this host's name ({error}); name a node"))
    })?;
    let name = name.trim();
    Ok(name.split('.').next().unwrap_or(name).to_owned())
}

fn list(session: &Session, query: &[(&str, &str)], format: Format) -> Result<()> {
    let value = session.client.list("/node", query)?;
    match format {
        Format::Json | Format::JsonPretty => return output::json(&value, format),
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {}
    }
    let nodes: Vec<Node> = typed(value)?;
    if format == Format::Raw {
        for node in &nodes {
            output::line(&node.name);
        }
        return Ok(());
    }
    let mut table = output::table(&[
        "Node",
        ">Health",
        "Daemon",
        "Coordinator",
        "Domains",
        "Fence",
        "BMC",
        ">VMs",
        ">CPUs",
        ">vCPUs",
        ">Load",
        ">Memory",
        ">Used",
        ">Free",
        ">Allocated",
        ">Provisioned",
        "Version",
    ]);
    for node in &nodes {
        let memory = &node.memory;
        table.add_row(vec![
            comfy_table::Cell::new(&node.name),
            output::health_cell(&node.health),
            output::state(node.daemon_state.as_str()),
            output::state(node.coordinator_state.as_str()),
            output::state(node.domain_state.as_str()),
            output::state(if node.fence_open { &node.fence } else { "-" }),
            output::state(fence::bmc_word(node.bmc.as_ref())),
            output::number(node.domains_count),
            output::number(node.vcpu.total),
            output::number(node.vcpu.allocated),
            output::number(format!("{:.2}", node.load)),
            output::number(output::mebibytes(memory.total)),
            output::number(output::mebibytes(memory.used)),
            output::number(output::mebibytes(memory.free)),
            output::number(output::mebibytes(memory.allocated)),
            output::number(output::mebibytes(memory.provisioned)),
            comfy_table::Cell::new(&node.pvc_version),
        ]);
    }
    output::print_table(table);
    Ok(())
}

fn info(session: &Session, name: &str, format: Format) -> Result<()> {
    let value = session.client.get(&format!("/node/{}", segment(name)), &[])?;
    let value = only(value);
    match format {
        Format::Json | Format::JsonPretty => return output::json(&value, format),
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {}
    }
    let node: Node = typed(value)?;
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
    if format == Format::Long {
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
    lines.print();
    Ok(())
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn role(session: &Session, name: &str, wanted: CoordinatorState, wait: bool) -> Result<()> {
    let path = format!("/node/{}/coordinator-state", segment(name));
    let said = session
        .client
        .post_repeatable(&path, &[("state", wanted.as_str())])?;
    if !wait {
        session.say(&said);
        return Ok(());
    }
    let text = wait::until(&format!("Node {name} is to become {wanted}"), ROLE_LIMIT, || {
        let seen: NodeCoordinatorState = typed(session.client.get_once(&path, &[])?)?;
        Ok(if seen.coordinator_state == wanted {
            Look::Done(format!("Node {name} is {wanted}"))
        } else {
            Look::Waiting(seen.coordinator_state.to_string())
        })
    })?;
    session.say(&text);
    Ok(())
}

fn is_primary(session: &Session, name: &str) -> Result<()> {
    let value = session.client.get("/status/primary_node", &[])?;
    let primary: Option<PrimaryNode> = if value.is_null() {
        None
    } else {
        Some(typed(value)?)
    };
    match primary {
        Some(primary) if primary.primary_node == name => Ok(()),
        // No words: the exit code is the answer.
        Some(_) | None => Err(CliError::new(Exit::Failure, "")),
    }
}
