//! Completion in a shell: of commands and options, and of the names of what the cluster has.
//!
//! The shell runs `pvc` for each press of the key, with what was typed. So nothing here may take long or say anything: where
//! no names can be had in time, there are none.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use serde_json::Value;

use crate::cli::Cli;
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::{connection, plain};

/// By this variable the shell asks: `_PVC_COMPLETE=bash pvc -- pvc vm in`. With `bash_source` it asks for the script which makes
/// it ask, as programs like PVC 1.0.3's client are asked.
const VARIABLE: &str = "_PVC_COMPLETE";
/// How long names may take. Somebody waits for the key that was pressed.
const LIMIT: Duration = Duration::from_secs(1);

/// Answers the shell, if it asks.
pub(crate) fn answers() -> bool {
    let Some(asked) = std::env::var_os(VARIABLE).filter(|asked| !asked.is_empty()) else {
        return false;
    };
    let asked = asked.to_string_lossy();
    let text = match asked.strip_suffix("_source") {
        Some(shell) => script(shell).unwrap_or_default(),
        None => candidates(&asked, std::env::args_os().collect()).unwrap_or_default(),
    };
    // A shell that does not read any more wants nothing any more.
    let _ = std::io::stdout().write_all(&text);
    true
}

/// The script that makes a shell ask.
pub(crate) fn script(shell: &str) -> Result<Vec<u8>> {
    let shells = Shells::builtins();
    let Some(found) = shells.completer(shell) else {
        return Err(CliError::usage(format!("There is no completion for {shell:?}")));
    };
    let mut script = Vec::new();
    found
        .write_registration(VARIABLE, "pvc", "pvc", "pvc", &mut script)
        .map_err(|error| CliError::failure(format!("Can not write the script: {error}")))?;
    Ok(script)
}

/// What may stand where the shell's cursor is, as that shell wants it.
fn candidates(shell: &str, args: Vec<OsString>) -> Option<Vec<u8>> {
    let shells = Shells::builtins();
    let shell = shells.completer(shell)?;
    let begin = args.iter().position(|arg| arg == "--")? + 1;
    let typed: Vec<OsString> = args.into_iter().skip(begin).collect();
    let mut command = named(plain::extend(Cli::command(), &plain::all()), None, &typed);
    command.build();
    let mut text = Vec::new();
    let directory = std::env::current_dir().ok();
    shell
        .write_complete(&mut command, typed, directory.as_deref(), &mut text)
        .ok()?;
    Some(text)
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vm,
    Node,
    Network,
    Tag,
    Connection,
}

impl Kind {
    /// What an argument of that name takes, in a command of that group.
    fn of(group: Option<&str>, arg: &Arg) -> Option<Kind> {
        match (group, arg.get_id().as_str().to_ascii_lowercase().as_str()) {
            (_, "domain") => Some(Kind::Vm),
            (_, "node" | "target" | "without") => Some(Kind::Node),
            (_, "vni" | "net") => Some(Kind::Network),
            (Some("vm"), "tag") => Some(Kind::Tag),
            (None, "connection") | (Some("connection"), "name") => Some(Kind::Connection),
            _ => None,
        }
    }
}

/// The tree of commands, in which arguments that name something know what there is.
fn named(command: Command, group: Option<&str>, typed: &[OsString]) -> Command {
    let command = command.mut_args(|arg| match Kind::of(group, &arg) {
        Some(kind) => {
            let typed = typed.to_vec();
            arg.add(ArgValueCompleter::new(move |begun: &OsStr| {
                names(kind, &typed, begun)
            }))
        }
        None => arg,
    });
    command.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        named(sub, Some(group.unwrap_or(&name)), typed)
    })
}

/// The names that begin like that; none if they can not be had in time.
fn names(kind: Kind, typed: &[OsString], begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str().map(str::to_owned) else {
        return Vec::new();
    };
    let typed = typed.to_vec();
    let (sender, found) = channel();
    let wanted = begun.clone();
    std::thread::spawn(move || {
        let _ = sender.send(found_names(kind, &typed, &wanted).unwrap_or_default());
    });
    let found = found.recv_timeout(LIMIT).unwrap_or_default();
    found
        .into_iter()
        .filter(|name| name.starts_with(&begun))
        .map(CompletionCandidate::new)
        .collect()
}

fn found_names(kind: Kind, typed: &[OsString], begun: &str) -> Result<BTreeSet<String>> {
    let of = |value: &Value| -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    };
    let (path, field) = match kind {
        Kind::Connection => return Ok(connection::load()?.0.into_keys().collect()),
        Kind::Vm => ("/vm", "name"),
        Kind::Node => ("/node", "name"),
        Kind::Network => ("/network", "vni"),
        Kind::Tag => ("/vm", "tags"),
    };
    let connection = connection::choose(
        option(typed, &["-c", "--connection"]).as_deref(),
        option(typed, &["--url"]).as_deref(),
        None,
    )?;
    // Names have no letters that mean something to a regular expression, but for these two.
    let limit = format!("^{}", begun.replace('.', "\\.").replace('-', "\\-"));
    let query: &[(&str, &str)] = match kind {
        Kind::Vm | Kind::Node if !begun.is_empty() => &[("limit", &limit)],
        Kind::Vm | Kind::Node | Kind::Network | Kind::Tag | Kind::Connection => &[],
    };
    let list = Client::with_limit(connection, false, LIMIT)?.get_once(path, query)?;
    let things = list.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(match kind {
        Kind::Tag => things
            .iter()
            .filter_map(|thing| thing[field].as_array())
            .flatten()
            .filter_map(|tag| of(&tag["name"]))
            .collect(),
        Kind::Vm | Kind::Node | Kind::Network | Kind::Connection => {
            things.iter().filter_map(|thing| of(&thing[field])).collect()
        }
    })
}

/// The value of an option of `pvc` itself, as far as it was typed.
fn option(typed: &[OsString], names: &[&str]) -> Option<String> {
    let mut words = typed.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        for name in names {
            if word == *name {
                return words.next().map(str::to_owned);
            }
            if let Some(value) = word.strip_prefix(name)
                && (!name.starts_with("--") || value.starts_with('='))
            {
                return Some(value.trim_start_matches('=').to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_that_is_meant_is_asked() {
        let typed = |words: &str| -> Vec<OsString> { words.split(' ').map(OsString::from).collect() };
        let names = &["-c", "--connection"];
        assert_eq!(
            option(&typed("pvc -c lab vm info"), names).as_deref(),
            Some("lab")
        );
        assert_eq!(option(&typed("pvc -clab vm"), names).as_deref(), Some("lab"));
        assert_eq!(
            option(&typed("pvc --connection=lab vm"), names).as_deref(),
            Some("lab")
        );
        assert_eq!(option(&typed("pvc vm info"), names), None);
        assert_eq!(
            option(&typed("pvc --url http://h vm"), &["--url"]).as_deref(),
            Some("http://h")
        );
    }
}
