//! `pvc cluster adopt`.

use clap::Args;
use pvc_api::status::{Adoption, NodeHold};

use crate::client::typed;
use crate::confirm::{Answer, confirm};
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::wait::{self, Look};

const PATH: &str = "/status/adopt";
/// How long the nodes are waited for, in seconds: each looks at its own guests only.
const LIMIT: u64 = 600;

#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// A node that is off and is not waited for; may be given several times
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
    /// Only show which nodes hold still
    #[arg(long, conflicts_with = "without")]
    show: bool,
    /// Wait until no node holds still any more
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = LIMIT)]
    timeout: u64,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
    /// How to show the nodes
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
    format: Format,
}

impl Adopt {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        if !self.show {
            return order(
                session,
                &self.without,
                self.wait.then_some(self.timeout),
                self.yes,
            );
        }
        let value = session.client.get(PATH, &[])?;
        let text = if self.format.is_json() {
            output::json(&value, self.format)?
        } else {
            table(&typed(value)?)
        };
        output::print(&text);
        Ok(())
    }
}

fn order(session: &Session, without: &[String], wait: Option<u64>, yes: bool) -> Result<()> {
    if !without.is_empty() {
        anstream::eprintln!(
            "Not waited for: {}. If one of them runs, its guests may run twice and destroy their volumes.",
            without.join(", ")
        );
    }
    let question = "Take what really runs on the nodes as the truth? What the store says of it is replaced.";
    match confirm(question, session.asking(yes))? {
        Answer::Yes => {}
        Answer::No => return Ok(()),
    }
    let form: Vec<(&str, &str)> = without.iter().map(|node| ("without", node.as_str())).collect();
    let said = session.client.post(PATH, &form)?;
    let Some(limit) = wait else {
        session.say(&said);
        return Ok(());
    };
    let text = wait::until(session, "The nodes", limit, || {
        let seen: Adoption = typed(session.client.get_once(PATH, &[])?)?;
        let holding: Vec<String> = seen
            .nodes
            .iter()
            .filter(|node| holds(node) && !without.contains(&node.node))
            .map(|node| format!("{} ({})", node.node, node.reason))
            .collect();
        Ok(if holding.is_empty() {
            Look::Done("No node holds still any more".to_owned())
        } else {
            Look::Waiting(holding.join(", "))
        })
    })?;
    session.say(&text);
    Ok(())
}

fn holds(node: &NodeHold) -> bool {
    matches!(node.state.as_str(), "held" | "adopting" | "adopted")
}

fn table(adoption: &Adoption) -> String {
    let mut table = output::table(&["Node", "Hold", ">Running", ">Adopted", "Why"]);
    for node in &adoption.nodes {
        table.add_row(vec![
            comfy_table::Cell::new(&node.node),
            output::state(&node.state),
            output::number(node.running.len()),
            output::number(node.adopted.len()),
            comfy_table::Cell::new(output::or_dash(&node.reason)),
        ]);
    }
    let mut text = output::render(table);
    for node in &adoption.nodes {
        for trouble in &node.trouble {
            text.push_str(&format!("{}: \x1b[31m{trouble}\x1b[0m\n", node.node));
        }
    }
    if !adoption.ordered_by.is_empty() {
        text.push_str(&format!("Last ordered by {}\n", adoption.ordered_by));
    }
    text
}
