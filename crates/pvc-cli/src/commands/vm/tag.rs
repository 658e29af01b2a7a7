//! `pvc vm tag`.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use pvc_api::vm::VmTag;
use serde::Deserialize;

use super::path;
use crate::client::typed;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Show the tags of a virtual machine
    Get(Get),
    /// Add a tag
    Add(Add),
    /// Remove a tag
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Name or UUID
    domain: String,
    /// How to show them
    #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name or UUID
    domain: String,
    /// The tag
    tag: String,
    /// Keep it from being removed
    #[arg(short, long)]
    protected: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or UUID
    domain: String,
    /// The tag
    tag: String,
}

#[derive(Debug, Deserialize)]
struct Tags {
    name: String,
    tags: Vec<VmTag>,
}

pub(crate) fn run(command: &TagCommand, session: &Session) -> Result<()> {
    match command {
        TagCommand::Get(command) => command.run(session),
        TagCommand::Add(Add {
            domain,
            tag,
            protected,
        }) => {
            let protected = if *protected { "true" } else { "false" };
            change(
                session,
                domain,
                &[("action", "add"), ("tag", tag), ("protected", protected)],
            )
        }
        TagCommand::Remove(Remove { domain, tag }) => {
            change(session, domain, &[("action", "remove"), ("tag", tag)])
        }
    }
}

fn route(domain: &str) -> String {
    format!("{}/tags", path(domain))
}

fn change(session: &Session, domain: &str, form: &[(&str, &str)]) -> Result<()> {
    session.say(&session.client.post(&route(domain), form)?);
    Ok(())
}

impl Get {
    fn run(&self, session: &Session) -> Result<()> {
        let value = session.client.get(&route(&self.domain), &[])?;
        if self.format.is_json() {
            output::print(&output::json(&value["tags"], self.format)?);
            return Ok(());
        }
        let Tags { name, tags } = typed(value)?;
        if self.format == Format::Raw {
            output::print(&output::words(tags.iter().map(|tag| &tag.name)));
            return Ok(());
        }
        if tags.is_empty() {
            output::line(format!("VM {name} has no tags"));
            return Ok(());
        }
        let mut table = output::table(&["Tag", "Type", "Protected"]);
        for tag in &tags {
            table.add_row(vec![
                Cell::new(&tag.name),
                Cell::new(&tag.kind),
                Cell::new(output::yes_no(tag.protected)),
            ]);
        }
        output::print(&output::render(table));
        Ok(())
    }
}
