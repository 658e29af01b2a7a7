//! `pvc network`: what there is. Changes are among [`crate::plain`].

mod sriov;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::network::{Acl, DhcpLease, Network};

use crate::client::{only, segment, typed};
use crate::error::Result;
use crate::output::{self, Format, Lines, formats, or_dash};
use crate::session::Session;
use crate::watch;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List virtual networks
    List(List),
    /// Show a virtual network
    Info(Info),
    /// Addresses that are given out
    #[command(subcommand)]
    Dhcp(DhcpCommand),
    /// Rules of the firewall
    #[command(subcommand)]
    Acl(AclCommand),
    /// Network cards that are parted by hardware
    #[command(subcommand)]
    Sriov(sriov::SriovCommand),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only networks whose number or name matches this regular expression
    limit: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
    /// Show it again whenever something changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Its number or name
    vni: String,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "long", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DhcpCommand {
    /// List leases and reservations
    List(Leases),
}

#[derive(Debug, Args)]
pub(crate) struct Leases {
    /// The network's number or name
    net: String,
    /// Only those whose MAC or IP address or host name matches this regular expression
    limit: Option<String>,
    /// Only reservations
    #[arg(short, long)]
    r#static: bool,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AclCommand {
    /// List rules in their order
    List(Acls),
}

#[derive(Debug, Args)]
pub(crate) struct Acls {
    /// The network's number or name
    net: String,
    /// Only rules whose name matches this regular expression
    limit: Option<String>,
    /// Only for what comes in
    #[arg(long, overrides_with = "out")]
    r#in: bool,
    /// Only for what goes out
    #[arg(long, overrides_with = "in")]
    out: bool,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

pub(crate) fn run(command: &NetworkCommand, session: &Session) -> Result<()> {
    match command {
        NetworkCommand::List(command) => {
            watch::show(session, command.watch, command.format, || command.text(session))
        }
        NetworkCommand::Info(command) => command.run(session),
        NetworkCommand::Dhcp(DhcpCommand::List(command)) => command.run(session),
        NetworkCommand::Acl(AclCommand::List(command)) => command.run(session),
        NetworkCommand::Sriov(command) => sriov::run(command, session),
    }
}

/// The route of a network.
fn path(net: &str) -> String {
    format!("/network/{}", segment(net))
}

/// What the store has instead of nothing.
fn or_none(text: &str) -> &str {
    if text == "None" { "-" } else { or_dash(text) }
}

fn yes_no(flag: &str) -> &'static str {
    output::yes_no(flag == "True")
}

impl List {
    fn text(&self, session: &Session) -> Result<String> {
        let query: Vec<(&str, &str)> = self.limit.iter().map(|limit| ("limit", limit.as_str())).collect();
        let value = session.client.list("/network", &query)?;
        if self.format.is_json() {
            return output::json(&value, self.format);
        }
        let networks: Vec<Network> = typed(value)?;
        if self.format == Format::Raw {
            return Ok(output::words(networks.iter().map(|network| network.vni)));
        }
        if networks.is_empty() {
            return Ok("There are no networks\n".to_owned());
        }
        let mut table = output::table(&[
            ">VNI", "Name", "Type", ">MTU", "Domain", "IPv4", "DHCP", "IPv6", "DHCPv6",
        ]);
        for network in &networks {
            table.add_row(vec![
                output::number(network.vni),
                Cell::new(&network.description),
                Cell::new(&network.kind),
                output::number(or_dash(&network.mtu)),
                Cell::new(or_none(&network.domain)),
                Cell::new(or_none(&network.ip4.network)),
                Cell::new(yes_no(&network.ip4.dhcp_flag)),
                Cell::new(or_none(&network.ip6.network)),
                Cell::new(yes_no(&network.ip6.dhcp_flag)),
            ]);
        }
        Ok(output::render(table))
    }
}

impl Info {
    fn run(&self, session: &Session) -> Result<()> {
        let value = only(session.client.get(&path(&self.vni), &[])?);
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let network: Network = typed(value)?;
        let mut lines = Lines::default();
        lines.add("VNI", network.vni);
        lines.add("Name", &network.description);
        lines.add("Type", &network.kind);
        lines.add("MTU", or_dash(&network.mtu));
        // A bridged network ends at its VLAN: the rest is not PVC's.
        if network.kind == "managed" || self.format == Format::Long {
            lines.add("Domain", or_none(&network.domain));
            lines.add("DNS servers", or_dash(&network.name_servers.join(", ")));
            lines.gap();
            lines.add("IPv4 network", or_none(&network.ip4.network));
            lines.add("IPv4 gateway", or_none(&network.ip4.gateway));
            let range = format!("{} to {}", network.ip4.dhcp_start, network.ip4.dhcp_end);
            lines.add(
                "DHCP",
                match network.ip4.dhcp_flag.as_str() {
                    "True" => range.as_str(),
                    _ => "no",
                },
            );
            lines.add("IPv6 network", or_none(&network.ip6.network));
            lines.add("IPv6 gateway", or_none(&network.ip6.gateway));
            lines.add("DHCPv6", yes_no(&network.ip6.dhcp_flag));
        }
        output::print(&lines.render());
        Ok(())
    }
}

impl Leases {
    fn run(&self, session: &Session) -> Result<()> {
        let mut query: Vec<(&str, &str)> = self.limit.iter().map(|limit| ("limit", limit.as_str())).collect();
        if self.r#static {
            query.push(("static", "true"));
        }
        let value = of_network(session, &self.net, "lease", &query)?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let leases: Vec<DhcpLease> = typed(value)?;
        if self.format == Format::Raw {
            output::print(&output::words(leases.iter().map(|lease| &lease.mac_address)));
            return Ok(());
        }
        if leases.is_empty() {
            output::line(format!("Network {} has no leases", self.net));
            return Ok(());
        }
        let mut table = output::table(&["Host", "IP address", "MAC address", "Until"]);
        for lease in &leases {
            let until = match lease.timestamp.parse() {
                Ok(seconds) => crate::time::moment(seconds),
                Err(_) => lease.timestamp.clone(),
            };
            table.add_row(vec![
                Cell::new(or_dash(&lease.hostname)),
                Cell::new(&lease.ip4_address),
                Cell::new(&lease.mac_address),
                Cell::new(until),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}

impl Acls {
    fn run(&self, session: &Session) -> Result<()> {
        let mut query: Vec<(&str, &str)> = self.limit.iter().map(|limit| ("limit", limit.as_str())).collect();
        if self.r#in {
            query.push(("direction", "in"));
        } else if self.out {
            query.push(("direction", "out"));
        }
        let value = of_network(session, &self.net, "acl", &query)?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let acls: Vec<Acl> = typed(value)?;
        if self.format == Format::Raw {
            output::print(&output::words(acls.iter().map(|acl| &acl.description)));
            return Ok(());
        }
        if acls.is_empty() {
            output::line(format!("Network {} has no rules", self.net));
            return Ok(());
        }
        let mut table = output::table(&["Direction", ">Order", "Name", "Rule"]);
        for acl in &acls {
            table.add_row(vec![
                Cell::new(&acl.direction),
                output::number(acl.order),
                Cell::new(&acl.description),
                Cell::new(&acl.rule),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}

/// A list that belongs to a network. The API answers 404 for an empty one as for an unknown network: which of the two it
/// is, only the network itself tells.
fn of_network(session: &Session, net: &str, what: &str, query: &[(&str, &str)]) -> Result<serde_json::Value> {
    let route = format!("{}/{what}", path(net));
    match session.client.get(&route, query) {
        Err(error) if error.exit == crate::error::Exit::NotFound && query.is_empty() => {
            session.client.get(&path(net), &[])?;
            Ok(serde_json::Value::Array(Vec::new()))
        }
        result => result,
    }
}
