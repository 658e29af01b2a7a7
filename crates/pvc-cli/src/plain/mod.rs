//! Commands that are one request with what was typed as its parameters: no more is known of them here than how they are
//! typed and where they go. Those whose part of PVC has not arrived yet are among them: the API answers them with what is
//! missing and what to use in its place, so that the answer changes with the cluster and not with the client.
//!
//! A command that does more (looks first, shows a table of its own) has a module under [`crate::commands`].

mod network;
mod provisioner;
mod storage;
mod vm;

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use comfy_table::Cell;
use serde_json::Value;

use crate::client::{Method, segment};
use crate::confirm::{Answer, confirm};
use crate::connection;
use crate::editor::Draft;
use crate::error::{CliError, Result};
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::task;

/// A command and the request that it is.
#[derive(Debug)]
pub(crate) struct Plain {
    /// How it is called, without `pvc`.
    path: &'static str,
    command: Command,
    inputs: Vec<Input>,
    method: Method,
    /// `{NAME}` stands for the argument of that name.
    route: &'static str,
    question: Option<&'static str>,
    shows: Shows,
}

/// What was typed, and the parameter that it becomes.
#[derive(Debug)]
enum Input {
    /// Always this.
    Fixed(&'static str, &'static str),
    /// Its text, if it was given; each of them, if several were.
    Text(&'static str, &'static str),
    /// Each part between commas.
    Parts(&'static str, &'static str),
    /// `true`, if it was given.
    Flag(&'static str, &'static str),
    /// Nothing, if it was given: the parameter is emptied.
    Blank(&'static str, &'static str),
    /// The first word if the first option was given, the second if the second was; else the last, if any.
    Choice {
        options: [&'static str; 2],
        parameter: &'static str,
        words: [&'static str; 2],
        otherwise: Option<&'static str>,
    },
    /// The text in the file; or with `--editor` that at the pointer in the present reply, as the administrator leaves it.
    File(&'static str, &'static str, Option<&'static str>),
    /// A saved connection or a URL, with its token.
    Destination(&'static str),
}

/// What is shown of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// Its message, or the task that it began.
    Done,
    /// A table of what it lists.
    Rows,
    /// This field of the one thing that it holds.
    Field(&'static str),
}

/// A command at that path.
fn plain(path: &'static str, about: &'static str) -> Plain {
    let name = path.rsplit(' ').next().unwrap_or(path);
    Plain {
        path,
        command: Command::new(name).about(about),
        inputs: Vec::new(),
        method: Method::Get,
        route: "",
        question: None,
        shows: Shows::Done,
    }
}

impl Plain {
    fn with(mut self, arg: Arg, input: Option<Input>) -> Plain {
        self.command = self.command.arg(arg);
        self.inputs.extend(input);
        self
    }

    /// An argument that stands in the route.
    fn name(self, id: &'static str, help: &'static str) -> Plain {
        self.with(Arg::new(id).required(true).help(help), None)
    }

    /// An argument that becomes a parameter.
    fn argument(self, id: &'static str, parameter: &'static str, help: &'static str) -> Plain {
        self.with(
            Arg::new(id).required(true).help(help),
            Some(Input::Text(id, parameter)),
        )
    }

    /// The same, which may be left out.
    fn maybe(self, id: &'static str, parameter: &'static str, help: &'static str) -> Plain {
        self.with(Arg::new(id).help(help), Some(Input::Text(id, parameter)))
    }

    /// A file whose text becomes a parameter.
    fn file(self, id: &'static str, parameter: &'static str, help: &'static str) -> Plain {
        self.with(
            Arg::new(id).required(true).help(help),
            Some(Input::File(id, parameter, None)),
        )
    }

    /// The same; or the present text, from the field of that name, in an editor.
    fn file_or_editor(
        self,
        id: &'static str,
        parameter: &'static str,
        field: &'static str,
        help: &'static str,
    ) -> Plain {
        self.with(
            Arg::new(id).required_unless_present("editor").help(help),
            Some(Input::File(id, parameter, Some(field))),
        )
        .with(
            Arg::new("editor")
                .short('e')
                .long("editor")
                .action(ArgAction::SetTrue)
                .conflicts_with(id)
                .help("Edit the present text in $EDITOR"),
            None,
        )
    }

    /// An option with a value.
    fn option(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::Set);
        self.with(arg, Some(Input::Text(flags.1, parameter)))
    }

    /// The same, which has to be given.
    fn needed(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::Set).required(true);
        self.with(arg, Some(Input::Text(flags.1, parameter)))
    }

    /// The same, with a value if none is given.
    fn preset(
        self,
        flags: (char, &'static str),
        parameter: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Plain {
        let arg = option(flags, help).action(ArgAction::Set).default_value(value);
        self.with(arg, Some(Input::Text(flags.1, parameter)))
    }

    /// Limits the last option to these words.
    fn of(mut self, id: &'static str, words: &'static [&'static str]) -> Plain {
        self.command = self.command.mut_arg(id, |arg| arg.value_parser(words.to_vec()));
        self
    }

    /// An option that may be given several times.
    fn repeated(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::Append);
        self.with(arg, Some(Input::Text(flags.1, parameter)))
    }

    /// An option with a list separated by commas.
    fn parts(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::Set);
        self.with(arg, Some(Input::Parts(flags.1, parameter)))
    }

    /// An option that is there or not.
    fn flag(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::SetTrue);
        self.with(arg, Some(Input::Flag(flags.1, parameter)))
    }

    /// An option that is taken for the sake of PVC 1.0.3 and changes nothing.
    fn switch(self, flags: (char, &'static str), help: &'static str) -> Plain {
        self.with(option(flags, help).action(ArgAction::SetTrue), None)
    }

    /// An option that empties a parameter.
    fn blank(self, flags: (char, &'static str), parameter: &'static str, help: &'static str) -> Plain {
        let arg = option(flags, help).action(ArgAction::SetTrue);
        self.with(arg, Some(Input::Blank(flags.1, parameter)))
    }

    /// Two options, of which the last one given counts.
    fn either(
        self,
        one: ((char, &'static str), &'static str, &'static str),
        other: ((char, &'static str), &'static str, &'static str),
        parameter: &'static str,
        otherwise: Option<&'static str>,
    ) -> Plain {
        let (first, second) = (one.0.1, other.0.1);
        let arg = option(one.0, one.2)
            .action(ArgAction::SetTrue)
            .overrides_with(second);
        let opposite = option(other.0, other.2)
            .action(ArgAction::SetTrue)
            .overrides_with(first);
        let input = Input::Choice {
            options: [first, second],
            parameter,
            words: [one.1, other.1],
            otherwise,
        };
        self.with(arg, Some(input)).with(opposite, None)
    }

    /// A parameter that is always the same.
    fn fixed(mut self, parameter: &'static str, value: &'static str) -> Plain {
        self.inputs.push(Input::Fixed(parameter, value));
        self
    }

    /// Another cluster.
    fn destination(self, id: &'static str) -> Plain {
        let key = option(
            ('k', "destination-api-key"),
            "Its token, if a URL was given. Everybody on this machine can see it here: better save a connection",
        );
        self.with(
            Arg::new(id)
                .required(true)
                .help("The other cluster: a saved connection or a URL"),
            Some(Input::Destination(id)),
        )
        .with(key.action(ArgAction::Set), None)
        .option(
            ('p', "destination-pool"),
            "destination_storage_pool",
            "The pool there",
        )
    }

    /// Asks that before it is done.
    fn asks(mut self, question: &'static str) -> Plain {
        self.question = Some(question);
        self.with(
            option(('y', "yes"), "Ask nothing").action(ArgAction::SetTrue),
            None,
        )
    }

    /// Follows the task that it begins.
    fn waits(self) -> Plain {
        let wait = option(
            ('\0', "wait"),
            "Wait until it is done (this is so unless --no-wait is given)",
        );
        let no_wait = option(('\0', "no-wait"), "Do not wait");
        self.with(wait.action(ArgAction::SetTrue).overrides_with("no-wait"), None)
            .with(no_wait.action(ArgAction::SetTrue).overrides_with("wait"), None)
    }

    /// For cron: says nothing.
    fn cron(self) -> Plain {
        self.with(
            option(('\0', "cron"), "Say nothing and do not wait").action(ArgAction::SetTrue),
            None,
        )
    }

    fn post(self, route: &'static str) -> Plain {
        self.sends(Method::Post, route)
    }

    fn put(self, route: &'static str) -> Plain {
        self.sends(Method::Put, route)
    }

    fn delete(self, route: &'static str) -> Plain {
        self.sends(Method::Delete, route)
    }

    fn sends(mut self, method: Method, route: &'static str) -> Plain {
        self.method = method;
        self.route = route;
        self
    }

    /// Lists what is at the route, in these formats.
    fn lists(mut self, route: &'static str, known: &'static [&'static str]) -> Plain {
        self.route = route;
        self.shows = Shows::Rows;
        let format = option(('f', "format"), "How to show them")
            .action(ArgAction::Set)
            .default_value("pretty")
            .value_parser(formats(known));
        self.with(format, None)
    }

    /// Prints a field of what is at the route.
    fn prints(mut self, route: &'static str, field: &'static str) -> Plain {
        self.route = route;
        self.shows = Shows::Field(field);
        self
    }

    /// Does it.
    pub(crate) fn run(&self, matches: &ArgMatches, session: &Session) -> Result<()> {
        let route = self.filled(self.route, matches, segment);
        if let Some(question) = self.question {
            let question = self.filled(question, matches, str::to_owned);
            if confirm(&question, session.asking(matches.get_flag("yes")))? == Answer::No {
                return Ok(());
            }
        }
        let mut form: Vec<(&str, String)> = Vec::new();
        let mut draft = None;
        for input in &self.inputs {
            self.collect(input, matches, session, &route, &mut form, &mut draft)?;
        }
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let cron = matches!(matches.try_get_one::<bool>("cron"), Ok(Some(true)));
        match self.shows {
            Shows::Rows => {
                let format = matches
                    .get_one::<Format>("format")
                    .copied()
                    .unwrap_or(Format::Pretty);
                let value = session.client.list(&route, &form)?;
                output::print(&rows(&value, format)?);
                Ok(())
            }
            Shows::Field(field) => {
                let value = crate::client::only(session.client.get(&route, &form)?);
                output::line(value[field].as_str().unwrap_or_default().trim_end());
                Ok(())
            }
            Shows::Done => {
                let reply =
                    session
                        .client
                        .change(self.method, &route, &form)
                        .map_err(|error| match draft {
                            Some(draft) => Draft::keep(draft, error),
                            None => error,
                        })?;
                if cron {
                    return Ok(());
                }
                let wait = !matches!(matches.try_get_one::<bool>("no-wait"), Ok(Some(true)));
                task::finish(session, reply, wait)
            }
        }
    }

    /// `text` with each `{NAME}` replaced by that argument.
    fn filled(&self, text: &str, matches: &ArgMatches, shown: impl Fn(&str) -> String) -> String {
        let mut text = text.to_owned();
        for argument in self.command.get_positionals() {
            let id = argument.get_id().as_str();
            if let Ok(Some(value)) = matches.try_get_one::<String>(id) {
                text = text.replace(&format!("{{{id}}}"), &shown(value));
            }
        }
        text
    }

    fn collect(
        &self,
        input: &Input,
        matches: &ArgMatches,
        session: &Session,
        route: &str,
        form: &mut Vec<(&'static str, String)>,
        draft: &mut Option<Draft>,
    ) -> Result<()> {
        let text = |id: &str| matches.get_one::<String>(id).cloned();
        match input {
            Input::Fixed(parameter, value) => form.push((parameter, (*value).to_owned())),
            Input::Text(id, parameter) => {
                let values = matches.get_many::<String>(id).into_iter().flatten();
                form.extend(values.map(|value| (*parameter, value.clone())));
            }
            Input::Parts(id, parameter) => {
                let value = text(id).unwrap_or_default();
                let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                form.extend(parts.map(|part| (*parameter, part.to_owned())));
            }
            Input::Flag(id, parameter) => {
                if matches.get_flag(id) {
                    form.push((parameter, "true".to_owned()));
                }
            }
            Input::Blank(id, parameter) => {
                if matches.get_flag(id) {
                    form.push((parameter, String::new()));
                }
            }
            Input::Choice {
                options: [one, other],
                parameter,
                words,
                otherwise,
            } => {
                let word = match (matches.get_flag(one), matches.get_flag(other)) {
                    (true, _) => Some(words[0]),
                    (false, true) => Some(words[1]),
                    (false, false) => *otherwise,
                };
                form.extend(word.map(|word| (*parameter, word.to_owned())));
            }
            Input::File(id, parameter, field) => {
                let value = match (text(id), field) {
                    (Some(file), _) => read_file(Path::new(&file))?,
                    (None, Some(field)) => {
                        let present = crate::client::only(session.client.get(route, &[])?);
                        let editing = Draft::new("text", present[*field].as_str().unwrap_or_default())?;
                        let text = editing.edit();
                        match text {
                            Ok(text) => {
                                *draft = Some(editing);
                                text
                            }
                            Err(error) => return Err(editing.keep(error)),
                        }
                    }
                    (None, None) => return Ok(()),
                };
                form.push((parameter, value));
            }
            Input::Destination(id) => {
                let name = text(id).unwrap_or_default();
                let (url, key, verified) = destination(&name, text("destination-api-key"))?;
                form.push(("destination_api_uri", url));
                form.push(("destination_api_key", key));
                form.push(("destination_api_verify_ssl", verified.to_string()));
            }
        }
        Ok(())
    }
}

/// An option with these names; no short one for `\0`.
fn option((short, long): (char, &'static str), help: &'static str) -> Arg {
    let arg = Arg::new(long).long(long).help(help);
    if short == '\0' { arg } else { arg.short(short) }
}

fn read_file(file: &Path) -> Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| CliError::failure(format!("Can not read {}: {error}", file.display())))
}

/// URL, token and whether the certificate is checked, of a cluster that was named or given by its URL.
fn destination(name: &str, key: Option<String>) -> Result<(String, String, bool)> {
    if name.contains("http") {
        return Ok((name.to_owned(), key.unwrap_or_default(), true));
    }
    let found = connection::choose(Some(name), None, None)?;
    let key = key.or(found.api_key).unwrap_or_default();
    Ok((found.url, key, found.verification == connection::Verification::On))
}

/// A list in that format. The table has a column for each field that is a word or a number.
fn rows(value: &Value, format: Format) -> Result<String> {
    if format.is_json() {
        return output::json(value, format);
    }
    let rows: Vec<&Value> = match value {
        Value::Array(rows) => rows.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => vec![value],
    };
    if format == Format::Raw {
        return Ok(output::words(rows.iter().map(|row| word(&row["name"]))));
    }
    let Some(Value::Object(first)) = rows.first() else {
        return Ok("There are none\n".to_owned());
    };
    let columns: Vec<&String> = first
        .iter()
        .filter(|(_, value)| !value.is_array() && !value.is_object())
        .map(|(name, _)| name)
        .collect();
    let header: Vec<String> = columns.iter().map(|name| title(name)).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = output::table(&header);
    for row in &rows {
        table.add_row(columns.iter().map(|name| Cell::new(word(&row[name.as_str()]))));
    }
    Ok(output::render(table))
}

/// A field's name as the title of a column.
fn title(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Plain> {
    let mut all = vm::commands();
    all.extend(network::commands());
    all.extend(storage::commands());
    all.extend(provisioner::commands());
    all
}

/// Groups that have no module of their own.
const GROUPS: &[(&str, &str)] = &[
    ("snapshot", "Snapshots"),
    ("mirror", "Copies of virtual machines on another cluster"),
    ("backup", "Backups in files"),
    ("benchmark", "Benchmarks of the storage"),
    ("provisioner", "Making virtual machines from templates"),
    ("template", "Templates"),
    ("system", "CPUs, memory and placement"),
    ("network", "Networks"),
    ("vni", "The networks of a template"),
    ("storage", "Disks"),
    ("disk", "The disks of a template"),
    ("userdata", "Documents for cloud-init"),
    ("script", "Provisioning scripts"),
    ("ova", "OVA images"),
    (
        "profile",
        "Profiles: templates, documents and a script put together",
    ),
];

/// The tree of commands with these in it.
pub(crate) fn extend(mut root: Command, plains: &[Plain]) -> Command {
    for plain in plains {
        let path: Vec<&'static str> = plain.path.split(' ').collect();
        root = insert(root, &path, plain.command.clone());
    }
    root
}

fn insert(mut parent: Command, path: &[&'static str], leaf: Command) -> Command {
    match path {
        [] | [_] => parent.subcommand(leaf),
        [name, rest @ ..] => {
            let mut groups = parent.get_subcommands_mut();
            if let Some(group) = groups.find(|command| command.get_name() == *name) {
                *group = insert(std::mem::take(group), rest, leaf);
                drop(groups);
                return parent;
            }
            drop(groups);
            let about = GROUPS
                .iter()
                .find(|(group, _)| group == name)
                .map(|(_, about)| *about);
            let group = Command::new(*name)
                .about(about.unwrap_or_default())
                .subcommand_required(true)
                .arg_required_else_help(true);
            parent.subcommand(insert(group, rest, leaf))
        }
    }
}

/// The one that was called, with what was typed for it.
pub(crate) fn find<'a>(plains: &'a [Plain], matches: &'a ArgMatches) -> Option<(&'a Plain, &'a ArgMatches)> {
    let mut names = Vec::new();
    let mut at = matches;
    while let Some((name, below)) = at.subcommand() {
        names.push(name);
        at = below;
    }
    let path = names.join(" ");
    plains
        .iter()
        .find(|plain| plain.path == path)
        .map(|plain| (plain, at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a route or a question names has to be an argument of its command, else the braces themselves are sent.
    #[test]
    fn nothing_is_named_that_is_not_asked_for() {
        for plain in all() {
            let arguments: Vec<String> = plain
                .command
                .get_positionals()
                .map(|argument| format!("{{{}}}", argument.get_id()))
                .collect();
            for text in [Some(plain.route), plain.question].into_iter().flatten() {
                let mut left = text.to_owned();
                for argument in &arguments {
                    left = left.replace(argument, "");
                }
                assert!(!left.contains('{'), "{}: {text}", plain.path);
            }
            assert!(plain.route.starts_with('/'), "{}", plain.path);
        }
    }

    #[test]
    fn a_list_of_anything_is_a_table() {
        let list = json!([{"id": 1, "name": "a", "disk_size": null, "volumes": []}, {"id": 22, "name": "", "disk_size": 5}]);
        let text = rows(&list, Format::Pretty).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for title in ["Disk size", "Id", "Name"] {
            assert!(lines[0].contains(title), "{text}");
        }
        assert!(!lines[0].contains("Volumes"), "{text}");
        assert_eq!(rows(&list, Format::Raw).unwrap(), "a\n-\n");
        assert_eq!(rows(&json!([]), Format::Pretty).unwrap(), "There are none\n");
        assert_eq!(rows(&json!([]), Format::Json).unwrap(), "[]\n");
    }
}
