//! `pvc api`: any request to the API, for scripts.

use std::io::{BufRead, BufReader};
use std::path::Path;

use clap::Args;
use pvc_api::PREFIX;
use serde_json::Value;

use crate::client::{Content, Method};
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format, formats};
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct Api {
    /// How it is asked for
    #[arg(ignore_case = true)]
    method: Method,
    /// The route, with /api/v1 or without
    path: String,
    /// Parameters; KEY=@FILE takes the text in a file, KEY=@- that of standard input
    #[arg(value_name = "KEY=VALUE", value_parser = parse_parameter)]
    parameters: Vec<(String, String)>,
    /// Send this JSON as the body, and the parameters in the query; @FILE takes the text in a file, @- or - that of standard
    /// input
    #[arg(long, value_name = "JSON")]
    json: Option<String>,
    /// How to show the reply: as it was sent, or indented
    #[arg(short, long, default_value = "json", value_parser = formats(&["json", "json-pretty"]))]
    format: Format,
}

impl Api {
    pub(crate) fn run(&self, session: &Session) -> Result<()> {
        let mut parameters = Vec::new();
        for (name, value) in &self.parameters {
            parameters.push((name.as_str(), resolved(name, value)?));
        }
        let parameters: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let path = route(&self.path);
        if self.method == Method::Get && path == "/events" {
            return stream(session, &parameters);
        }
        let json = self.json.as_deref().map(body).transpose()?;
        if json.is_some() && matches!(self.method, Method::Get | Method::Delete) {
            return Err(CliError::usage(
                "--json goes with POST and PUT alone: what is read or removed has no body",
            ));
        }
        let content = Content {
            params: &parameters,
            json: json.as_deref(),
        };
        let reply = session.client.send(self.method, &path, content)?;
        // Of a refusal as well: its code and its request's identity are for the script, the line beside it for people.
        self.print(&reply.text)?;
        match session.client.refusal(self.method, &path, content, &reply) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn print(&self, text: &str) -> Result<()> {
        if self.format == Format::JsonPretty
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            output::print(&output::json(&value, self.format)?);
        } else if !text.is_empty() {
            output::line(text.trim_end_matches('\n'));
        }
        Ok(())
    }
}

/// Prints events as they come, for as long as the API sends them.
fn stream(session: &Session, query: &[(&str, &str)]) -> Result<()> {
    let Some(events) = session.client.events(query)? else {
        return Err(CliError::failure("This cluster has no stream of events"));
    };
    for line in BufReader::new(events).lines() {
        let line = line.map_err(|error| {
            CliError::new(
                Exit::Unreachable,
                format!("The stream of events was lost: {error}"),
            )
        })?;
        output::line(line);
    }
    Err(CliError::new(
        Exit::Unreachable,
        "The API has ended the stream of events",
    ))
}

/// The body that is meant: the text itself, or what is in the file that it names.
fn body(text: &str) -> Result<String> {
    resolved("--json", if text == "-" { "@-" } else { text })
}

fn parse_parameter(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

/// The value itself, or what is in the file that it names.
fn resolved(name: &str, value: &str) -> Result<String> {
    let Some(file) = value.strip_prefix('@') else {
        return Ok(value.to_owned());
    };
    if file == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(Path::new(file))
    }
    .map_err(|error| CliError::failure(format!("Can not read {file:?} for {name}: {error}")))
}

/// The route below the prefix.
fn route(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let below = path
        .strip_prefix(PREFIX.trim_start_matches('/'))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    format!("/{}", below.unwrap_or(path).trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_written_in_any_way() {
        for path in ["/api/v1/node", "api/v1/node", "/node", "node"] {
            assert_eq!(route(path), "/node");
        }
    }

    #[test]
    fn parameters_have_a_name() {
        assert_eq!(parse_parameter("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_parameter("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_parameter("a").is_err());
        assert!(parse_parameter("=b").is_err());
    }
}
