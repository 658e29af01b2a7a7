//! `pvc cluster adopt`.

use std::time::Duration;

use pvc_api::status::{Adoption, NodeHold};

use crate::Session;
use crate::args::ClusterCommand;
use crate::client::typed;
use crate::confirm::{Answer, confirm};
use crate::error::Result;
use crate::output::{self, Format};
use crate::wait::{self, Look};

const PATH: &str = "/status/adopt";
/// How long the nodes are waited for: each looks at its own guests only.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn run(command: &ClusterCommand, session: &Session) -> Result<()> {
    let ClusterCommand::Adopt {
        without,
        show,
        wait,
        yes,
        format,
    } = command
    else {
        return Ok(());
    };
    let value = session.client.get(PATH, &[])?;
    match format {
        Format::Json | Format::JsonPretty if *show => return output::json(&value, *format),
        Format::Json
        | Format::JsonPretty
        | Format::Pretty
        | Format::Short
        | Format::Long
        | Format::Raw
        | Format::JsonPrometheus => {}
    }
    let before: Adoption = typed(value)?;
    if *show {
        table(&before);
        return Ok(());
    }
    if !without.is_empty() {
        anstream::eprintln!(
            "Not waited for: {}. If one of them runs, its guests may run twice and destroy their volumes.",
            without.join(", ")
        );
    }
    let question = "Take what really runs on the nodes as the truth? What the store says of it is replaced.";
    match confirm(question, session.asking(*yes))? {
        Answer::Yes => {}
        Answer::No => return Ok(()),
    }
    let form: Vec<(&str, &str)> = without.iter().map(|node| ("without", node.as_str())).collect();
    let said = session.client.post(PATH, &form)?;
    if !*wait {
        session.say(&said);
        return Ok(());
    }
    let text = wait::until("The nodes", LIMIT, || {
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

fn table(adoption: &Adoption) {
    let mut table = output::table(&["Node", "Hold", ">Running", ">Adopted", "Why"]);
    for node in &adoption.nodes {
        table.add_row(vec![
            comfy_table::Cell::new(&node.node),
            output::state(&node.state),
            output::number(node.running.len()),
            output::number(node.adopted.len()),
            comfy_table::Cell::new(if node.reason.is_empty() { "-" } else { &node.reason }),
        ]);
    }
    output::print_table(table);
    for node in &adoption.nodes {
        for trouble in &node.trouble {
            output::line(format!("{}: \x1b[31m{trouble}\x1b[0m", node.node));
        }
    }
    if !adoption.ordered_by.is_empty() {
        output::line(format!("Last ordered by {}", adoption.ordered_by));
    }
}
