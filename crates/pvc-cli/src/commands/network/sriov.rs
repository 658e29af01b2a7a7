//! `pvc network sriov`.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::network::{SriovPf, SriovVf};

use crate::client::{only, segment, typed};
use crate::error::Result;
use crate::output::{self, Format, Lines, formats, or_dash};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum SriovCommand {
    /// Cards
    #[command(subcommand)]
    Pf(PfCommand),
    /// Functions of cards
    #[command(subcommand)]
    Vf(VfCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PfCommand {
    /// List the cards of a node
    List(Cards),
}

#[derive(Debug, Subcommand)]
pub(crate) enum VfCommand {
    /// List the functions of a node's cards
    List(Functions),
    /// Show a function
    Info(Info),
}

#[derive(Debug, Args)]
pub(crate) struct Cards {
    /// The node
    node: String,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Functions {
    /// The node
    node: String,
    /// Only those of this card
    pf: Option<String>,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The node
    node: String,
    /// The function
    vf: String,
    /// How to show it
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
    format: Format,
}

pub(super) fn run(command: &SriovCommand, session: &Session) -> Result<()> {
    match command {
        SriovCommand::Pf(PfCommand::List(command)) => command.run(session),
        SriovCommand::Vf(VfCommand::List(command)) => command.run(session),
        SriovCommand::Vf(VfCommand::Info(command)) => command.run(session),
    }
}

impl Cards {
    fn run(&self, session: &Session) -> Result<()> {
        let value = session
            .client
            .get(&format!("/sriov/pf/{}", segment(&self.node)), &[])?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let cards: Vec<SriovPf> = typed(value)?;
        let mut table = output::table(&["Card", ">MTU", "Functions"]);
        for card in &cards {
            table.add_row(vec![
                Cell::new(&card.phy),
                output::number(&card.mtu),
                Cell::new(or_dash(&card.vfs.join(", "))),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}

impl Functions {
    fn run(&self, session: &Session) -> Result<()> {
        let query: Vec<(&str, &str)> = self.pf.iter().map(|pf| ("pf", pf.as_str())).collect();
        let value = session
            .client
            .get(&format!("/sriov/vf/{}", segment(&self.node)), &query)?;
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let functions: Vec<SriovVf> = typed(value)?;
        let mut table = output::table(&["Function", "Card", ">MTU", "MAC", "VLAN", "Link", "Used by"]);
        for function in &functions {
            table.add_row(vec![
                Cell::new(&function.phy),
                Cell::new(&function.pf),
                output::number(&function.mtu),
                Cell::new(&function.mac),
                Cell::new(or_dash(&function.config.vlan_id)),
                Cell::new(or_dash(&function.config.link_state)),
                Cell::new(or_dash(&function.usage.domain)),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}

impl Info {
    fn run(&self, session: &Session) -> Result<()> {
        let route = format!("/sriov/vf/{}/{}", segment(&self.node), segment(&self.vf));
        let value = only(session.client.get(&route, &[])?);
        if self.format.is_json() {
            output::print(&output::json(&value, self.format)?);
            return Ok(());
        }
        let function: SriovVf = typed(value)?;
        let (config, pci) = (&function.config, &function.pci);
        let mut lines = Lines::default();
        lines.add("Function", &function.phy);
        lines.add("Card", &function.pf);
        lines.add("MTU", &function.mtu);
        lines.add("MAC", &function.mac);
        lines.add(
            "PCI",
            format!("{}:{}:{}.{}", pci.domain, pci.bus, pci.slot, pci.function),
        );
        lines.add("Used by", or_dash(&function.usage.domain));
        lines.gap();
        lines.add("VLAN", format!("{}, QoS {}", config.vlan_id, config.vlan_qos));
        lines.add(
            "Rate limit",
            format!("{} to {} Mbit/s", config.tx_rate_min, config.tx_rate_max),
        );
        lines.add("Link", &config.link_state);
        lines.add("Spoof check", &config.spoof_check);
        lines.add("Trust", &config.trust);
        lines.add("Query RSS", &config.query_rss);
        output::print(&lines.render());
        Ok(())
    }
}
