//! Formats, tables, colours.
//!
//! Everything is written with colours; the streams take them out where nobody would see them (no terminal,
//! `NO_COLOR`).

use std::fmt::Display;
use std::io::{self, Write};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{CliError, Exit, Result};

/// What a shell says of a program that was ended by SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// How a command shows what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables or labelled lines.
    Pretty,
    /// The same, condensed.
    Short,
    /// The same, with more detail.
    Long,
    /// Names, one a line.
    Raw,
    /// JSON in one line.
    Json,
    /// JSON, indented.
    JsonPretty,
    /// Prometheus' list of targets.
    JsonPrometheus,
}

impl Format {
    /// Whether the reply is shown as the API sent it.
    pub(crate) fn is_json(self) -> bool {
        match self {
            Format::Json | Format::JsonPretty => true,
            Format::Pretty | Format::Short | Format::Long | Format::Raw | Format::JsonPrometheus => false,
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Format, String> {
        match text {
            "pretty" => Ok(Format::Pretty),
            "short" => Ok(Format::Short),
            "long" => Ok(Format::Long),
            "raw" => Ok(Format::Raw),
            "json" => Ok(Format::Json),
            "json-pretty" => Ok(Format::JsonPretty),
            "json-prometheus" => Ok(Format::JsonPrometheus),
            other => Err(format!("unknown format {other:?}")),
        }
    }
}

/// Takes the formats that a command knows.
pub(crate) fn formats(known: &'static [&'static str]) -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(known).try_map(|text| text.parse::<Format>())
}

/// Prints a line to standard output.
pub(crate) fn line(text: impl Display) {
    print(&format!("{text}\n"));
}

/// Prints `text` to standard output. Ends the program if nobody reads it any more, as in `pvc vm list | head`: with
/// the code that a shell gives to a program which a closed pipe has ended.
pub(crate) fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            anstream::eprintln!("\x1b[31mError:\x1b[0m Can not write the output: {error}");
            std::process::exit(Exit::Failure as i32);
        }
        std::process::exit(CLOSED_PIPE);
    }
}

/// `value` as JSON, with the end of its line.
pub(crate) fn json(value: &impl Serialize, format: Format) -> Result<String> {
    let text = if format == Format::JsonPretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let mut text =
        text.map_err(|error| CliError::failure(format!("The reply can not be written as JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// Words, one a line.
pub(crate) fn words<T: Display>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| format!("{word}\n")).collect()
}

/// A truth for people.
pub(crate) fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// `text`, or a dash where there is none.
pub(crate) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A table without lines, with that header. A title that begins with `>` is flush right, as numbers are.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Wrapped to the terminal's width where there is one; whole lines for programs.
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.enforce_styling();
    table.set_header(
        header
            .iter()
            .map(|title| match title.strip_prefix('>') {
                Some(title) => number(title).add_attribute(Attribute::Bold),
                None => Cell::new(title).add_attribute(Attribute::Bold),
            })
            .collect::<Vec<_>>(),
    );
    table
}

/// The text of a table.
pub(crate) fn render(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|row| format!("{}\n", trimmed(&row))).collect()
}

/// Without the spaces at its end, which a colour may enclose.
fn trimmed(row: &str) -> String {
    const RESET: &str = "\x1b[0m";
    match row.trim_end().strip_suffix(RESET) {
        Some(inside) => format!("{}{RESET}", inside.trim_end()),
        None => row.trim_end().to_owned(),
    }
}

/// A cell with a number: flush right.
pub(crate) fn number(value: impl Display) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A cell with a word that says how something is.
pub(crate) fn state(word: &str) -> Cell {
    match colour_of(word) {
        Some(colour) => Cell::new(word).fg(colour),
        None => Cell::new(word),
    }
}

/// A cell with the state of a guest, for which to be stopped is no fault.
pub(crate) fn vm_state(word: &str) -> Cell {
    if word == "stop" {
        Cell::new(word).fg(Color::DarkBlue)
    } else {
        state(word)
    }
}

/// Green is well, yellow is on the way, red wants a person.
fn colour_of(word: &str) -> Option<Color> {
    match word {
        "run" | "primary" | "ready" | "start" | "up" | "in" | "works" | "success" => Some(Color::DarkGreen),
        "init" | "shutdown" | "takeover" | "relinquish" | "flush" | "unflush" | "restart" | "migrate"
        | "migrate-live" | "unmigrate" | "provision" | "import" | "restore" | "delete" => {
            Some(Color::DarkYellow)
        }
        "new" | "held" | "adopting" | "adopted" | "unverified" | "proven" | "recovering" | "ordered"
        | "barring" | "pending" | "running" => Some(Color::DarkYellow),
        "stop" | "dead" | "fenced" | "fence-flush" | "fail" | "down" | "suspected" | "proving" | "broken"
        | "failed" | "failure" | "out" => Some(Color::DarkRed),
        "secondary" | "client" | "mirror" | "disable" | "flushed" => Some(Color::DarkBlue),
        _ => None,
    }
}

/// The same word for a labelled line.
pub(crate) fn painted(word: &str) -> String {
    let code = match colour_of(word) {
        Some(Color::DarkGreen) => "32",
        Some(Color::DarkYellow) => "33",
        Some(Color::DarkRed) => "31",
        Some(Color::DarkBlue) => "34",
        Some(_) | None => return word.to_owned(),
    };
    format!("\x1b[{code}m{word}\x1b[0m")
}

/// A health figure, coloured by how good it is.
pub(crate) fn health(health: &pvc_api::node::Health) -> (String, Option<Color>) {
    match health {
        pvc_api::node::Health::Percent(percent) => {
            let colour = match percent {
                91..=u8::MAX => Color::DarkGreen,
                51..=90 => Color::DarkYellow,
                0..=50 => Color::DarkRed,
            };
            (format!("{percent}%"), Some(colour))
        }
        pvc_api::node::Health::Unknown(text) => (text.clone(), None),
    }
}

/// A health figure as a cell.
pub(crate) fn health_cell(value: &pvc_api::node::Health) -> Cell {
    let (text, colour) = health(value);
    let cell = number(text);
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// A health figure for a labelled line.
pub(crate) fn health_text(value: &pvc_api::node::Health) -> String {
    let (text, colour) = health(value);
    match colour {
        Some(Color::DarkGreen) => format!("\x1b[32m{text}\x1b[0m"),
        Some(Color::DarkYellow) => format!("\x1b[33m{text}\x1b[0m"),
        Some(_) => format!("\x1b[31m{text}\x1b[0m"),
        None => text,
    }
}

/// What something takes from the health. What takes nothing is told for information: "-0%" would look like a mistake.
pub(crate) fn taken(points: impl Into<i64>) -> String {
    match points.into() {
        0 => "info".to_owned(),
        points => format!("-{points}%"),
    }
}

/// Labelled lines, their values aligned.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<(String, String)>);

impl Lines {
    /// One more line. A value of several lines is put below itself.
    pub(crate) fn add(&mut self, label: &str, value: impl Display) -> &mut Lines {
        self.0.push((label.to_owned(), value.to_string()));
        self
    }

    /// An empty line.
    pub(crate) fn gap(&mut self) -> &mut Lines {
        self.0.push((String::new(), String::new()));
        self
    }

    /// Their text.
    pub(crate) fn render(&self) -> String {
        let width = self
            .0
            .iter()
            .map(|(label, _)| label.chars().count())
            .max()
            .unwrap_or(0)
            + 1;
        let mut text = String::new();
        let mut add = |row: &str| {
            text.push_str(row.trim_end());
            text.push('\n');
        };
        for (label, value) in &self.0 {
            let mut rows = value.lines();
            let first = rows.next().unwrap_or_default();
            if label.is_empty() {
                add(&format!("{:<width$} {first}", ""));
            } else {
                // Padding beside the colour, which has no width.
                let gap = width - label.chars().count() - 1;
                add(&format!("\x1b[1m{label}:\x1b[0m{:gap$} {first}", ""));
            }
            for row in rows {
                add(&format!("{:<width$} {row}", ""));
            }
        }
        text
    }
}

/// Bytes in the largest unit that leaves at least one digit before the point.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, &["B", "K", "M", "G", "T", "P"])
}

/// MiB in the largest unit that leaves at least one digit before the point.
pub(crate) fn mebibytes(count: u64) -> String {
    scaled(count, &["M", "G", "T", "P"])
}

/// Up to four digits in the smallest unit, then one decimal.
fn scaled(count: u64, units: &[&str]) -> String {
    let mut whole = count;
    let mut tenths = 0;
    let mut unit = 0;
    while whole > 9999 && unit + 1 < units.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if tenths == 0 {
        format!("{whole}{}", units[unit])
    } else {
        format!("{whole}.{tenths}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_where_their_words_do() {
        assert_eq!(trimmed("a  b  "), "a  b");
        assert_eq!(trimmed("a  \x1b[1mb  \x1b[0m "), "a  \x1b[1mb\x1b[0m");
        let mut table = table(&["Name", "State"]);
        table.add_row(vec!["web1", "start"]);
        assert!(
            render(table)
                .lines()
                .next()
                .is_some_and(|header| header.ends_with("State\x1b[0m"))
        );
    }

    #[test]
    fn sizes_are_short_and_true() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(9999), "9999B");
        assert_eq!(bytes(10_240), "10K");
        assert_eq!(bytes(15_872), "15.5K");
        assert_eq!(mebibytes(512), "512M");
        assert_eq!(mebibytes(131_072), "128G");
    }
}
