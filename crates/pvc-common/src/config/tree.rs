//! A YAML document as it was written: texts, lists and maps, each with its line.
//!
//! Scalars stay texts, since only the reader of a key knows whether `0123` is a number or a password, and whether `no`
//! is a choice or an answer. Typed deserialization would stop at the first bad value; the tree lets the reader find
//! all of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

/// One node of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it stands, counted from 1.
    pub(super) line: u64,
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `key:` without a value, or `~`.
    Empty,
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may be there twice.
    Map(Vec<(String, Node)>),
}

impl Kind {
    /// The kind in words.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Empty => "nothing",
            Kind::Text(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a section",
        }
    }
}

/// A document that is no YAML at all.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

/// Reads one document.
///
/// # Errors
/// Only for text that is not YAML (or that exceeds the parser's budget for nesting and aliases): then nothing of it
/// can be trusted.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A snippet in an error could show the line with a password.
        with_snippet: false,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(raw.value.into_node(raw.referenced, text)),
        Err(error) => Err(SyntaxError {
            line: error
                .location()
                .map(|location| location.line())
                .filter(|line| *line > 0),
            message: error.to_string(),
        }),
    }
}

/// A node as the parser hands it over.
enum Raw {
    Empty,
    /// A quoted text, or an unquoted one that looks like nothing else.
    Text(String),
    /// An unquoted text that looks like a number or a boolean, rewritten by the parser: the original is cut out of the
    /// document.
    Guessed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(String, Spanned<Raw>)>),
}

impl Raw {
    fn into_node(self, at: serde_saphyr::Location, document: &str) -> Node {
        let kind = match self {
            Raw::Empty => Kind::Empty,
            Raw::Text(text) => Kind::Text(text),
            Raw::Guessed(fallback) => Kind::Text(cut(document, at).unwrap_or(fallback)),
            Raw::List(items) => Kind::List(
                items
                    .into_iter()
                    .map(|item| item.value.into_node(item.referenced, document))
                    .collect(),
            ),
            Raw::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, value.value.into_node(value.referenced, document)))
                    .collect(),
            ),
        };
        Node {
            line: at.line(),
            kind,
        }
    }
}

/// The plain scalar that stands there in the document; `None` when the place is unknown or holds something else (an
/// alias, a tag).
fn cut(document: &str, at: serde_saphyr::Location) -> Option<String> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let text = document.get(start..start.checked_add(length)?)?.trim();
    let plain = !text.is_empty() && !text.starts_with(['*', '!', '&', '"', '\'']);
    plain.then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Guessed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(document: &str, key: &str) -> String {
        let Kind::Map(entries) = parse(document).unwrap().kind else {
            panic!("no map")
        };
        match entries.into_iter().find(|(name, _)| name == key).unwrap().1.kind {
            Kind::Text(text) => text,
            kind @ (Kind::Empty | Kind::List(_) | Kind::Map(_)) => panic!("{key} is {}", kind.name()),
        }
    }

    // A password that looks like a number must arrive as it was written, or the BMC refuses it.
    #[test]
    fn scalars_keep_their_spelling() {
        let cases = [
            "0123",
            "1_000",
            "1e3",
            "1.10",
            "0x1F",
            "0o17",
            "yes",
            "Off",
            "TRUE",
            "+5",
            "-0",
            "10.0.0.1",
            "99999999999999999999999999999999999999999999",
            "12:30:45",
            "2026-11-22",
            "1.0.3",
            ".5",
            "fd00::1",
            "a: b",
        ];
        for case in cases {
            let (plain, quoted) = (format!("x: {case} # comment\ny: 1"), format!("x: \"{case}\""));
            if case != "a: b" {
                assert_eq!(text_of(&plain, "x"), case, "plain");
            }
            assert_eq!(text_of(&quoted, "x"), case, "quoted");
            assert_eq!(text_of(&format!("{{x: '{case}'}}"), "x"), case, "in braces");
        }
        assert_eq!(
            text_of("ä: ö\nx: 010\n", "x"),
            "010",
            "after multi-byte characters"
        );
        assert_eq!(text_of("a: &n 010\nx: *n\n", "x"), "010", "by alias");
    }

    #[test]
    fn lines_are_those_of_the_values() {
        let node = parse("a:\n  - x\n  - b: 2\n    c:\nb: ~\n").unwrap();
        let line = |line, kind| Node { line, kind };
        let text = |at, text: &str| line(at, Kind::Text(text.to_owned()));
        let inner = Kind::Map(vec![
            ("b".to_owned(), text(3, "2")),
            ("c".to_owned(), line(4, Kind::Empty)),
        ]);
        let list = Kind::List(vec![text(2, "x"), line(3, inner)]);
        let expected = Kind::Map(vec![
            ("a".to_owned(), line(2, list)),
            ("b".to_owned(), line(5, Kind::Empty)),
        ]);
        assert_eq!(node.kind, expected);
    }

    #[test]
    fn a_key_may_come_twice_and_is_handed_on() {
        let Kind::Map(entries) = parse("a: 1\na: 2\n").unwrap().kind else {
            panic!("no map")
        };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_line_and_without_its_text() {
        let error = parse("a: 1\npassword: \"hunter2\n").unwrap_err();
        assert!(error.line.is_some());
        assert!(!error.message.contains("hunter2"), "{}", error.message);
        assert_eq!(parse("").unwrap().kind, Kind::Empty);
    }
}
