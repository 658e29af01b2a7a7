//! The switch: a network namespace with one bridge for each host network, and a cable from each to every node.
//!
//! The machine's own namespace gets no address and no route of the lab.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Run, run};
use crate::topology::{Network, NodeId, PREFIX_V4, PREFIX_V6};

/// Name of the namespace.
const SWITCH: &str = "pvc-lab";
/// Where `ip netns` keeps it.
pub(crate) const SWITCH_PATH: &str = "/run/netns/pvc-lab";
/// Name of the namespace from which tests look at Ceph: a place of its own, so that the switch stays without an address
/// in the storage network.
const LOOKOUT: &str = "pvc-lab-eye";
/// The device in it.
const LOOKOUT_DEVICE: &str = "eth-st";
/// The nft table that holds all partitions; without it everything is connected.
const PARTITION: &str = "pvc_lab_partition";

/// Whether the switch is there; after a reboot of the machine it is not.
pub(crate) fn exists() -> bool {
    // A reboot or a crash may leave the file behind without a namespace in it.
    Path::new(SWITCH_PATH).exists() && in_switch(&["true"]).ok().is_ok()
}

/// A program inside the switch's network.
pub(crate) fn in_switch<S: AsRef<str>>(argv: &[S]) -> Run {
    run(&switch_argv(argv))
}

/// The words that run a program inside the switch's network.
pub(crate) fn switch_argv<S: AsRef<str>>(argv: &[S]) -> Vec<String> {
    let mut all = vec![
        "nsenter".to_owned(),
        format!("--net={SWITCH_PATH}"),
        "--".to_owned(),
    ];
    all.extend(argv.iter().map(|word| word.as_ref().to_owned()));
    all
}

/// Makes the switch with the addresses that live in it: the upstream gateway and the BMCs.
pub(crate) fn create(nodes: &[NodeId]) -> Result<()> {
    remove()?;
    run(&["ip", "netns", "add", SWITCH]).ok()?;
    ip_batch(&switch_commands(nodes)).context("cannot set up the switch")?;
    create_lookout().context("cannot set up the place from which tests look at Ceph")
}

/// A namespace with a cable into the storage network and nothing else.
fn create_lookout() -> Result<()> {
    let port = format!("{}-eye", Network::Storage.switch_bridge());
    run(&["ip", "netns", "add", LOOKOUT]).ok()?;
    ip_batch(&format!(
        "link add {port} type veth peer name {LOOKOUT_DEVICE} netns {LOOKOUT}\n\
         link set {port} addrgenmode none master {} up\n",
        Network::Storage.switch_bridge()
    ))?;
    let text = format!(
        "link set lo up\naddr add {}/{PREFIX_V4} dev {LOOKOUT_DEVICE}\nlink set {LOOKOUT_DEVICE} up\n",
        Network::Storage.gateway_v4()
    );
    run(&["ip", "-netns", LOOKOUT, "-batch", "-"]).input(text).ok()?;
    Ok(())
}

/// The words that run a program where tests look at Ceph from: it reaches the storage network and nothing else.
pub(crate) fn lookout_argv<S: AsRef<str>>(argv: &[S]) -> Vec<String> {
    let mut all = ["ip", "netns", "exec", LOOKOUT].map(str::to_owned).to_vec();
    all.extend(argv.iter().map(|word| word.as_ref().to_owned()));
    all
}

fn switch_commands(nodes: &[NodeId]) -> String {
    let mut text = String::from("link set lo up\n");
    for network in Network::ALL {
        let bridge = network.switch_bridge();
        // No link-local address: the switch is to be seen on the upstream network only.
        writeln!(text, "link add {bridge} type bridge stp_state 0 mcast_snooping 0").ok();
        writeln!(text, "link set {bridge} addrgenmode none").ok();
        writeln!(text, "link set {bridge} up").ok();
    }
    let (upstream, bridge) = (Network::Upstream, Network::Upstream.switch_bridge());
    writeln!(
        text,
        "addr add {}/{PREFIX_V4} dev {bridge}",
        upstream.gateway_v4()
    )
    .ok();
    writeln!(
        text,
        "addr add {}/{PREFIX_V6} dev {bridge} nodad",
        upstream.gateway_v6()
    )
    .ok();
    for node in nodes {
        writeln!(text, "addr add {}/{PREFIX_V4} dev {bridge}", node.bmc_address()).ok();
    }
    text
}

/// Removes the switch and all that hangs on it.
pub(crate) fn remove() -> Result<()> {
    for name in [SWITCH, LOOKOUT] {
        if Path::new("/run/netns").join(name).exists() {
            run(&["ip", "netns", "delete", name]).ok()?;
        }
    }
    Ok(())
}

/// Plugs the three cables into a node whose first process is `leader`.
pub(crate) fn plug(node: NodeId, leader: u32) -> Result<()> {
    let mut text = String::new();
    for network in Network::ALL {
        let port = network.switch_port(node);
        // The kernel removes the cable of a killed node a moment after its last process.
        in_switch(&["ip", "link", "delete", &port]).output()?;
        writeln!(
            text,
            "link add {port} type veth peer name {} address {} netns {leader}",
            network.node_device(),
            network.mac(node)
        )
        .ok();
        writeln!(
            text,
            "link set {port} addrgenmode none master {} up",
            network.switch_bridge()
        )
        .ok();
    }
    ip_batch(&text).with_context(|| format!("cannot plug in {node}"))
}

/// Silently drops everything between a node and a network, in both directions, as a broken switch does. It holds over
/// power cycles of the node until [`heal`].
pub(crate) fn cut(node: NodeId, network: Network) -> Result<()> {
    nft(&cut_rules(node, network, "drop"))
}

/// Loses that many of 100 frames in each direction.
pub(crate) fn lose(node: NodeId, network: Network, percent: u8) -> Result<()> {
    nft(&cut_rules(
        node,
        network,
        &format!("numgen random mod 100 < {} drop", percent.min(100)),
    ))
}

fn cut_rules(node: NodeId, network: Network, verdict: &str) -> String {
    let port = network.switch_port(node);
    let mut text = format!("add table bridge {PARTITION}\n");
    // Frames to and from the switch's own addresses, the gateway and the BMCs, pass input and output.
    for hook in ["forward", "input", "output"] {
        writeln!(
            text,
            "add chain bridge {PARTITION} {hook} {{ type filter hook {hook} priority 0; policy accept; }}"
        )
        .ok();
    }
    for (hook, direction) in [
        ("forward", "iifname"),
        ("forward", "oifname"),
        ("input", "iifname"),
        ("output", "oifname"),
    ] {
        writeln!(
            text,
            "add rule bridge {PARTITION} {hook} {direction} \"{port}\" {verdict}"
        )
        .ok();
    }
    text
}

/// Pulls a node's cable (the node sees the carrier go), or plugs it in again.
pub(crate) fn set_carrier(node: NodeId, network: Network, carrier: Carrier) -> Result<()> {
    let state = match carrier {
        Carrier::Up => "up",
        Carrier::Down => "down",
    };
    in_switch(&["ip", "link", "set", &network.switch_port(node), state]).ok()?;
    Ok(())
}

/// Whether a cable is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Plugged in.
    Up,
    /// Pulled.
    Down,
}

/// Ends all cuts, losses and pulled cables.
pub(crate) fn heal(nodes: &[NodeId]) -> Result<()> {
    // Adding first makes deleting one that is not there no error.
    nft(&format!(
        "add table bridge {PARTITION}\ndelete table bridge {PARTITION}\n"
    ))?;
    for node in nodes {
        for network in Network::ALL {
            // A node that is off has no cable.
            in_switch(&["ip", "link", "set", &network.switch_port(*node), "up"]).output()?;
        }
    }
    Ok(())
}

/// The cuts in force, as nft shows them.
pub(crate) fn cuts() -> Result<Vec<String>> {
    let output = in_switch(&["nft", "list", "table", "bridge", PARTITION]).output()?;
    let rules = output
        .stdout
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("ifname"));
    Ok(rules.map(str::to_owned).collect())
}

fn nft(text: &str) -> Result<()> {
    in_switch(&["nft", "-f", "-"])
        .input(text)
        .within(Duration::from_secs(10))
        .ok()?;
    Ok(())
}

fn ip_batch(text: &str) -> Result<()> {
    in_switch(&["ip", "-batch", "-"]).input(text).ok()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_both_directions_and_the_switch_itself() {
        let rules = cut_rules("hv2".parse().unwrap(), Network::Cluster, "drop");
        for wanted in [
            "forward iifname \"cl-hv2\" drop",
            "forward oifname \"cl-hv2\" drop",
            "input iifname \"cl-hv2\" drop",
            "output oifname \"cl-hv2\" drop",
        ] {
            assert!(rules.contains(wanted), "{wanted} is missing in\n{rules}");
        }
    }

    // An address of the lab on another bridge of the switch would be a second way between the networks.
    #[test]
    fn only_the_upstream_bridge_has_addresses() {
        let commands = switch_commands(&NodeId::first(3));
        assert!(
            commands.contains("addr add 10.100.0.254/24 dev sw-up"),
            "{commands}"
        );
        assert!(
            commands.contains("addr add 10.100.0.103/24 dev sw-up"),
            "{commands}"
        );
        assert!(
            commands
                .lines()
                .filter(|line| line.starts_with("addr"))
                .all(|line| line.contains("dev sw-up"))
        );
    }
}
