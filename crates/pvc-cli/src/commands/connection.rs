//! `pvc connection`.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use comfy_table::Cell;
use pvc_api::status::ClusterStatus;
use serde_json::json;

use crate::cli::Global;
use crate::client::{Client, typed};
use crate::confirm::{self, Answer, Asking};
use crate::connection::{self, Entry, LOCAL};
use crate::error::{Cause, CliError, Exit, Result};
use crate::output::{self, Format, formats};

/// How many clusters are asked at the same time: all, as far as anybody has clusters.
const AT_ONCE: usize = 64;
/// How long a cluster may take to say how it is. One that hangs must not hold up what is told of the others.
const DETAIL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// Save a connection
    Add {
        /// Its name
        name: String,
        /// In words
        #[arg(short, long, default_value = "N/A")]
        description: String,
        /// Host name or address
        #[arg(short, long)]
        address: String,
        /// Port
        #[arg(short, long, default_value_t = pvc_api::DEFAULT_PORT)]
        port: u16,
        /// The token. Everybody on this machine can see it here: better use --api-key-file or PVC_API_KEY
        #[arg(short = 'k', long)]
        api_key: Option<String>,
        /// Read the token from this file (- for standard input)
        #[arg(long, value_name = "FILE", conflicts_with = "api_key")]
        api_key_file: Option<PathBuf>,
        /// Use HTTPS
        #[arg(short, long)]
        ssl: bool,
        /// Use HTTP (this is so unless --ssl is given)
        #[arg(short = 'S', long, overrides_with = "ssl")]
        no_ssl: bool,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// Forget a connection
    Remove {
        /// Its name
        name: String,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
    /// List connections
    List {
        /// Show tokens
        #[arg(short = 'k', long)]
        show_keys: bool,
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty", "json-prometheus"]))]
        format: Format,
    },
    /// Show how the cluster behind each connection is
    Detail {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "json", "json-pretty"]))]
        format: Format,
    },
}

pub(crate) fn run(command: &ConnectionCommand, global: &Global) -> Result<()> {
    match command {
        ConnectionCommand::Add {
            name,
            description,
            address,
            port,
            api_key,
            api_key_file,
            ssl,
            no_ssl: _,
            yes,
        } => {
            let api_key = match (api_key, api_key_file) {
                (Some(key), _) => {
                    if !global.silent {
                        anstream::eprintln!(
                            "Warning: a token on the command line can be read by everybody on this machine; next time \
                             use --api-key-file or PVC_API_KEY"
                        );
                    }
                    Some(key.clone())
                }
                (None, Some(file)) => Some(connection::read_api_key(file)?),
                (None, None) => env::var("PVC_API_KEY").ok().filter(|key| !key.is_empty()),
            };
            let entry = Entry::Remote {
                description: description.clone(),
                host: address.clone(),
                port: *port,
                scheme: if *ssl { "https" } else { "http" }.to_owned(),
                api_key,
                others: BTreeMap::new(),
            };
            add(name, entry, global, *yes)
        }
        ConnectionCommand::Remove { name, yes } => {
            let mut stored = connection::load()?;
            let Some(entry) = stored.0.remove(name) else {
                return Err(CliError::new(
                    Exit::NotFound,
                    format!("There is no connection named {name:?}; see 'pvc connection list'"),
                ));
            };
            let question = format!("Forget connection {name}?{}", loss(&entry));
            if forgets(&question, global, *yes)? == Answer::No {
                return Ok(());
            }
            connection::save(&stored)?;
            say(global, &format!("Removed connection {name}"));
            Ok(())
        }
        ConnectionCommand::List { show_keys, format } => list(*show_keys, *format),
        ConnectionCommand::Detail { format } => detail(*format, global),
    }
}

fn say(global: &Global, text: &str) {
    if !global.silent {
        output::line(text);
    }
}

/// What is lost with an entry, for the question. A token can not be shown again by the cluster that made it.
fn loss(entry: &Entry) -> &'static str {
    match entry {
        Entry::Remote {
            api_key: Some(key), ..
        } if !key.is_empty() => " Its token is kept nowhere else.",
        Entry::Remote { .. } | Entry::Local { .. } | Entry::Unknown(_) => "",
    }
}

/// Asks before a connection is forgotten; but only where somebody is to answer: scripts for PVC 1.0.3 are not asked.
fn forgets(question: &str, global: &Global, yes: bool) -> Result<Answer> {
    if yes || global.r#unsafe || !confirm::is_answered() {
        return Ok(Answer::Yes);
    }
    confirm::confirm(question, Asking::Ask)
}

fn add(name: &str, entry: Entry, global: &Global, yes: bool) -> Result<()> {
    if name == LOCAL {
        return Err(CliError::usage(
            "The connection 'local' is that of the node itself; choose another name",
        ));
    }
    let mut stored = connection::load()?;
    let before = stored.0.insert(name.to_owned(), entry);
    if let Some(before) = &before {
        let question = format!("Replace connection {name}?{}", loss(before));
        if forgets(&question, global, yes)? == Answer::No {
            return Ok(());
        }
    }
    connection::save(&stored)?;
    let done = if before.is_some() { "Replaced" } else { "Added" };
    say(global, &format!("{done} connection {name}"));
    Ok(())
}

/// A token whose length and shape can be seen, but not its letters.
fn masked(key: &str) -> String {
    key.chars()
        .map(|c| if c.is_alphanumeric() { 'x' } else { c })
        .collect()
}

fn list(show_keys: bool, format: Format) -> Result<()> {
    let stored = connection::load()?;
    let shown = |key: Option<&str>| match key {
        None | Some("") => "N/A".to_owned(),
        Some(key) if show_keys => key.to_owned(),
        Some(key) => masked(key),
    };
    let mut rows = Vec::new();
    for (name, entry) in &stored.0 {
        // A connection that can not be used is shown all the same.
        let row = match connection::resolve(name, entry) {
            Ok(found) => json!({
                "name": name,
                "description": found.description,
                "address": host_of(&found.url),
                "port": port_of(&found.url),
                "scheme": found.url.split("://").next().unwrap_or_default(),
                "api_key": shown(found.api_key.as_deref()),
            }),
            Err(error) => json!({
                "name": name,
                "description": error.to_string(),
                "address": "N/A", "port": 0, "scheme": "N/A", "api_key": "N/A",
            }),
        };
        rows.push(row);
    }
    match format {
        Format::Json | Format::JsonPretty => output::print(&output::json(&rows, format)?),
        Format::Raw => output::print(&output::words(stored.0.keys())),
        Format::JsonPrometheus => {
            let targets: Vec<serde_json::Value> = rows
                .iter()
                .map(|row| {
                    let address = row["address"].as_str().unwrap_or_default();
                    json!({
                        "targets": [format!("{address}:{}", row["port"])],
                        "labels": {
                            "pvc_cluster_name": row["name"],
                            "pvc_cluster_description": row["description"],
                        },
                    })
                })
                .collect();
            output::print(&output::json(&targets, Format::JsonPretty)?);
        }
        Format::Pretty | Format::Short | Format::Long => {
            let mut table = output::table(&["Name", "Description", "Address", ">Port", "Scheme", "API key"]);
            for row in &rows {
                table.add_row(vec![
                    text(&row["name"]),
                    text(&row["description"]),
                    text(&row["address"]),
                    output::number(&row["port"]),
                    text(&row["scheme"]),
                    text(&row["api_key"]),
                ]);
            }
            output::print(&output::render(table));
        }
    }
    Ok(())
}

fn text(value: &serde_json::Value) -> Cell {
    Cell::new(value.as_str().unwrap_or_default())
}

/// `host:port` of a URL that this program made.
fn authority(url: &str) -> &str {
    url.split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default()
}

fn host_of(url: &str) -> &str {
    authority(url).rsplit_once(':').map_or("", |(host, _)| host)
}

fn port_of(url: &str) -> u16 {
    authority(url)
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(0)
}

/// The status of each cluster. All are asked at the same time: one that is out of reach must not hold up the others.
fn statuses<'a>(
    connections: &[(&'a String, &'a Entry)],
    debug: bool,
) -> Vec<(&'a String, Result<serde_json::Value>)> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = connections
            .iter()
            .map(|(name, entry)| {
                let ask = scope.spawn(move || {
                    let found = connection::resolve(name, entry)?;
                    Client::with_limit(found, debug, DETAIL_LIMIT)?.get_once("/status", &[])
                });
                (*name, ask)
            })
            .collect();
        asked
            .into_iter()
            .map(|(name, ask)| {
                let status = ask
                    .join()
                    .unwrap_or_else(|_| Err(CliError::failure("Asking this cluster has failed")));
                (name, status)
            })
            .collect()
    })
}

fn detail(format: Format, global: &Global) -> Result<()> {
    let stored = connection::load()?;
    let all: Vec<(&String, &Entry)> = stored.0.iter().collect();
    let mut found = Vec::new();
    for group in all.chunks(AT_ONCE) {
        found.extend(statuses(group, global.debug));
    }
    match format {
        Format::Json | Format::JsonPretty => {
            let rows: Vec<serde_json::Value> = found
                .into_iter()
                .map(|(name, status)| match status {
                    Ok(status) => json!({"name": name, "status": status}),
                    Err(error) => json!({"name": name, "error": error.to_string()}),
                })
                .collect();
            output::print(&output::json(&rows, format)?);
        }
        Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => {
            let mut table = output::table(&[
                "Name", "Cluster", ">Health", "Primary", "Version", ">Nodes", ">VMs",
            ]);
            for (name, status) in found {
                let status: Result<ClusterStatus> = status.and_then(typed);
                table.add_row(match status {
                    Ok(status) => vec![
                        Cell::new(name),
                        Cell::new(&status.cluster_name),
                        output::health_cell(&status.cluster_health.health),
                        Cell::new(&status.primary_node),
                        Cell::new(&status.pvc_version),
                        output::number(status.nodes.get("total").copied().unwrap_or(0)),
                        output::number(status.vms.get("total").copied().unwrap_or(0)),
                    ],
                    Err(error) => vec![
                        Cell::new(name),
                        Cell::new(match error.cause {
                            Cause::NotNow => "can not be reached".to_owned(),
                            Cause::Silent => "does not answer".to_owned(),
                            Cause::Other | Cause::Lost | Cause::Invalid | Cause::Busy => error.to_string(),
                        })
                        .fg(comfy_table::Color::DarkRed),
                    ],
                });
            }
            output::print(&output::render(table));
        }
    }
    Ok(())
}
