//! The tree of commands, compared with that of PVC 1.0.3: scripts of administrators call them by these names.

use clap::{ArgAction, Command, CommandFactory};
use serde::Deserialize;

use crate::cli::{Cli, expand};
use crate::plain;

/// Facts about the client of PVC 1.0.3.
const COMMANDS: &str = include_str!("../tests/fixtures/commands-1.0.3.json");

#[derive(Debug, Deserialize)]
struct Known {
    path: String,
    kind: String,
    #[serde(default)]
    arguments: Vec<Argument>,
    #[serde(default)]
    options: Vec<Opt>,
    #[serde(default)]
    formats: Vec<String>,
    default_format: Option<String>,
    #[serde(default)]
    asks_confirmation: bool,
}

#[derive(Debug, Deserialize)]
struct Argument {
    name: String,
    required: bool,
    #[serde(default)]
    repeatable: bool,
}

#[derive(Debug, Deserialize)]
struct Opt {
    flags: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
    default: Option<serde_json::Value>,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    repeatable: bool,
    #[serde(default)]
    required: bool,
}

fn known() -> Vec<Known> {
    serde_json::from_str(COMMANDS).unwrap()
}

fn ours() -> Command {
    let mut root = plain::extend(Cli::command(), &plain::all());
    root.build();
    root
}

fn find<'a>(root: &'a Command, path: &str) -> Option<&'a Command> {
    path.split(' ')
        .skip(1)
        .try_fold(root, |command, name| command.find_subcommand(name))
}

/// What of a command of PVC 1.0.3 ours lacks.
fn missing(known: &Known, ours: &Command) -> Vec<String> {
    let mut missing = Vec::new();
    let positionals: Vec<_> = ours.get_positionals().collect();
    for (index, argument) in known.arguments.iter().enumerate() {
        let Some(arg) = positionals.get(index) else {
            missing.push(format!("argument {}", argument.name));
            continue;
        };
        let name = arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or_else(|| arg.get_id().to_string(), ToString::to_string);
        if !name.eq_ignore_ascii_case(&argument.name) {
            missing.push(format!("argument {} is called {name}", argument.name));
        }
        // An argument that is needed unless an option takes its place, as FILE and --editor, counts as optional.
        if arg.is_required_set() != argument.required {
            missing.push(format!("argument {} is required or not", argument.name));
        }
        if argument.repeatable && !matches!(arg.get_action(), ArgAction::Append) {
            missing.push(format!("argument {} can not be repeated", argument.name));
        }
    }
    for option in &known.options {
        for flag in &option.flags {
            // Options of two letters behind one dash are long ones for the parser.
            let words = known
                .path
                .split(' ')
                .skip(1)
                .map(str::to_owned)
                .chain([flag.clone()]);
            let flag = expand(words).pop().unwrap();
            if let Some(fault) = fault_of(option, &flag, ours) {
                missing.push(fault);
            }
        }
    }
    let formats: Vec<String> = ours
        .get_arguments()
        .find(|arg| arg.get_long() == Some("format") && arg.get_short() == Some('f'))
        .filter(|_| !known.formats.is_empty())
        .map(|arg| {
            let default = arg
                .get_default_values()
                .first()
                .map(|value| value.to_string_lossy());
            if default.as_deref() != known.default_format.as_deref() {
                missing.push(format!("default format {:?}", known.default_format));
            }
            arg.get_possible_values()
                .iter()
                .map(|value| value.get_name().to_owned())
                .collect()
        })
        .unwrap_or_default();
    missing.extend(
        known
            .formats
            .iter()
            .filter(|format| !formats.contains(format))
            .map(|format| format!("format {format}")),
    );
    missing
}

fn fault_of(option: &Opt, flag: &str, ours: &Command) -> Option<String> {
    if flag == "--version" {
        return None;
    }
    let arg = ours.get_arguments().find(|arg| {
        if let Some(long) = flag.strip_prefix("--") {
            arg.get_long() == Some(long)
                || arg
                    .get_visible_aliases()
                    .is_some_and(|aliases| aliases.contains(&long))
        } else {
            arg.get_short().is_some_and(|short| flag == format!("-{short}"))
        }
    });
    let Some(arg) = arg else {
        return Some(format!("option {flag}"));
    };
    let takes_value = arg.get_action().takes_values();
    if takes_value != (option.kind != "flag") {
        return Some(format!("option {flag} takes a value or not"));
    }
    if option.repeatable && !matches!(arg.get_action(), ArgAction::Append) {
        return Some(format!("option {flag} can not be repeated"));
    }
    if option.required != arg.is_required_set() {
        return Some(format!("option {flag} is required or not"));
    }
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    if let Some(choice) = option.choices.iter().find(|choice| !words.contains(choice)) {
        return Some(format!("option {flag} does not know {choice}"));
    }
    match &option.default {
        Some(serde_json::Value::String(wanted)) if takes_value && !wanted.is_empty() => {
            let default = arg
                .get_default_values()
                .first()
                .map(|value| value.to_string_lossy());
            (default.as_deref() != Some(wanted)).then(|| format!("option {flag} is {wanted} by default"))
        }
        Some(_) | None => None,
    }
}

/// `pvc vm meta` without --method leaves it as it is, where PVC 1.0.3 sets it to `none` unasked: a mistake that has
/// turned live migrations off.
const DIFFERENT: &[(&str, &str)] = &[
    ("pvc vm meta", "option -m is none by default"),
    ("pvc vm meta", "option --method is none by default"),
];

#[test]
fn every_command_of_the_reference_is_there_with_its_arguments_options_and_formats() {
    let ours = ours();
    let mut faults = Vec::new();
    for known in known() {
        let Some(command) = find(&ours, &known.path) else {
            faults.push(format!("{}: missing", known.path));
            continue;
        };
        if known.kind == "group" && known.path != "pvc" && !command.has_subcommands() {
            faults.push(format!("{}: is no group", known.path));
        }
        if known.asks_confirmation && !command.get_arguments().any(|arg| arg.get_long() == Some("yes")) {
            faults.push(format!("{}: has no --yes", known.path));
        }
        faults.extend(
            missing(&known, command)
                .into_iter()
                .filter(|fault| !DIFFERENT.contains(&(known.path.as_str(), fault.as_str())))
                .map(|fault| format!("{}: {fault}", known.path)),
        );
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// What is not explained can not be found in `--help`.
#[test]
fn every_command_argument_and_option_is_explained() {
    fn walk(command: &Command, path: &str, unexplained: &mut Vec<String>) {
        for arg in command.get_arguments().filter(|arg| arg.get_help().is_none()) {
            unexplained.push(format!("{path} {}", arg.get_id()));
        }
        for below in command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
        {
            let path = format!("{path} {}", below.get_name());
            if below.get_about().is_none_or(|about| about.to_string().is_empty()) {
                unexplained.push(path.clone());
            }
            walk(below, &path, unexplained);
        }
    }
    let mut unexplained = Vec::new();
    walk(&ours(), "pvc", &mut unexplained);
    unexplained.retain(|name| !name.ends_with(" version"));
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
}
