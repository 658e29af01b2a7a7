//! Reading a section of the file key by key, collecting every mistake on the way.
//!
//! A key that nobody asked for when its section is done is an unknown key. A value that cannot be used is recorded
//! and read as `None`, and reading goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Problem};
use super::tree::{Kind, Node};

/// A value that can stand behind a key.
pub(super) trait Value: Sized {
    /// What is expected, in words that follow "expected" or "is not".
    const EXPECTED: &'static str;

    /// Takes the text, or says which rule it breaks (empty if "is not ..." says it all).
    fn parse(text: &str) -> Result<Self, String>;

    /// What the administrator should know about a value that is good as such.
    fn remark(&self) -> Option<Problem> {
        None
    }
}

/// Where findings are collected.
#[derive(Debug, Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    pub(super) fn add(&self, path: impl Into<String>, line: Option<u64>, problem: Problem) {
        self.0.borrow_mut().push(Finding {
            path: path.into(),
            line,
            problem,
        });
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_inner()
    }
}

/// A value and where it stands, for findings that come up later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) path: String,
    pub(super) line: u64,
}

/// One section (a map) of the file while it is being read.
pub(super) struct Section<'a> {
    path: String,
    entries: BTreeMap<&'a str, &'a Node>,
    known: BTreeSet<&'static str>,
    findings: &'a Findings,
    /// A section that is not there: its required keys are not reported one by one.
    absent: bool,
}

impl<'a> Section<'a> {
    /// Reads the whole document.
    pub(super) fn root<T>(
        node: &'a Node,
        findings: &'a Findings,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        Section::of(String::new(), node, findings).done(read)
    }

    fn of(path: String, node: &'a Node, findings: &'a Findings) -> Section<'a> {
        let mut section = Section {
            path,
            entries: BTreeMap::new(),
            known: BTreeSet::new(),
            findings,
            absent: false,
        };
        match &node.kind {
            Kind::Map(entries) => {
                for (key, value) in entries {
                    if section.entries.insert(key, value).is_some() {
                        findings.add(section.path_of(key), Some(value.line), Problem::DuplicateKey);
                    }
                }
            }
            Kind::Empty | Kind::Text(_) | Kind::List(_) => {
                let problem = Problem::WrongKind {
                    expected: "a section with keys",
                    found: node.kind.name(),
                };
                findings.add(section.path.clone(), Some(node.line), problem);
                section.absent = true;
            }
        }
        section
    }

    fn done<T>(mut self, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let result = read(&mut self);
        for (key, node) in &self.entries {
            if !self.known.contains(key) {
                let similar = self.known.iter().copied().find(|known| is_similar(key, known));
                self.findings.add(
                    self.path_of(key),
                    Some(node.line),
                    Problem::UnknownKey { similar },
                );
            }
        }
        result
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The node behind a key; `None` if it is not there or empty (`key:`, `key: ~` and `key: ""` are alike).
    fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.insert(key);
        let is_empty =
            |kind: &Kind| matches!(kind, Kind::Empty) || matches!(kind, Kind::Text(text) if text.is_empty());
        self.entries
            .get(key)
            .copied()
            .filter(|node| !is_empty(&node.kind))
    }

    /// Whether a key has a value.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    fn missing(&self, key: &str, expected: &'static str) {
        if !self.absent {
            self.findings
                .add(self.path_of(key), None, Problem::Missing { expected });
        }
    }

    /// Records a problem of a key of this section, with the line of its value if it has one.
    pub(super) fn report(&self, key: &str, problem: Problem) {
        let line = self.entries.get(key).map(|node| node.line);
        self.findings.add(self.path_of(key), line, problem);
    }

    /// Where findings go.
    pub(super) fn findings(&self) -> &'a Findings {
        self.findings
    }

    /// A value that may be missing or empty.
    pub(super) fn optional<T: Value>(&mut self, key: &'static str) -> Option<T> {
        self.located(key).map(|located| located.value)
    }

    /// A value that may be missing or empty, with its place.
    pub(super) fn located<T: Value>(&mut self, key: &'static str) -> Option<Located<T>> {
        let node = self.take(key)?;
        let path = self.path_of(key);
        let value = parse(&path, node, self.findings)?;
        Some(Located {
            value,
            path,
            line: node.line,
        })
    }

    /// A value with a default. A bad value is recorded; the default then stands in for it while reading goes on.
    pub(super) fn or<T: Value>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A value that must be there.
    pub(super) fn required<T: Value>(&mut self, key: &'static str) -> Option<T> {
        self.required_located(key).map(|located| located.value)
    }

    /// A value that must be there, with its place.
    pub(super) fn required_located<T: Value>(&mut self, key: &'static str) -> Option<Located<T>> {
        if !self.has(key) {
            self.missing(key, T::EXPECTED);
            return None;
        }
        self.located(key)
    }

    /// The values of a list with their places; bad ones are recorded and left out. `None` if there is no list.
    pub(super) fn list<T: Value>(&mut self, key: &'static str) -> Option<Vec<Located<T>>> {
        let items = self.items(key)?;
        let path = self.path_of(key);
        let read = |(index, node): (usize, &'a Node)| {
            let path = format!("{path}[{index}]");
            let value = parse(&path, node, self.findings)?;
            Some(Located {
                value,
                path,
                line: node.line,
            })
        };
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// The values of a list that must be there and have at least one entry.
    pub(super) fn required_list<T: Value>(&mut self, key: &'static str) -> Option<Vec<Located<T>>> {
        if !self.has(key) {
            self.missing(key, "a list");
            return None;
        }
        let list = self.items(key)?;
        if list.is_empty() {
            self.report(key, Problem::EmptyList);
        }
        self.list(key)
    }

    /// Reads each section of a list of sections. One that gave nothing keeps its place.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'a>) -> Option<T>,
    ) -> Option<Vec<Option<T>>> {
        let items = self.items(key)?;
        let path = self.path_of(key);
        let read_one =
            |(index, node)| Section::of(format!("{path}[{index}]"), node, self.findings).done(&mut read);
        Some(items.iter().enumerate().map(read_one).collect())
    }

    /// Reads each section of a map from free names to sections. A section that gave nothing still has its name.
    pub(super) fn named_sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'a>) -> Option<T>,
    ) -> Option<BTreeMap<String, Option<T>>> {
        let node = self.take(key)?;
        let names = Section::of(self.path_of(key), node, self.findings);
        let read_one = |(name, node): (&&str, &&'a Node)| {
            let value = Section::of(names.path_of(name), node, self.findings).done(&mut read);
            ((*name).to_owned(), value)
        };
        Some(names.entries.iter().map(read_one).collect())
    }

    fn items(&mut self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.take(key)?;
        match &node.kind {
            Kind::List(items) => Some(items),
            Kind::Empty | Kind::Text(_) | Kind::Map(_) => {
                self.report(
                    key,
                    Problem::WrongKind {
                        expected: "a list",
                        found: node.kind.name(),
                    },
                );
                None
            }
        }
    }

    /// Reads a section that must be there.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        match self.take(key) {
            Some(node) => Section::of(self.path_of(key), node, self.findings).done(read),
            None => {
                self.missing(key, "a section");
                self.absent_section(key).done(read)
            }
        }
    }

    /// Reads a section whose keys all have defaults; without it they apply.
    pub(super) fn section_or_defaults<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        match self.take(key) {
            Some(node) => Section::of(self.path_of(key), node, self.findings).done(read),
            None => self.absent_section(key).done(read),
        }
    }

    /// Reads a section that may be missing or empty.
    pub(super) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key)?;
        Section::of(self.path_of(key), node, self.findings).done(read)
    }

    fn absent_section(&self, key: &str) -> Section<'a> {
        Section {
            path: self.path_of(key),
            entries: BTreeMap::new(),
            known: BTreeSet::new(),
            findings: self.findings,
            absent: true,
        }
    }

    /// A key that is taken without being used: a warning with the reason, if it has a value.
    pub(super) fn without_effect(&mut self, key: &'static str, why: &'static str) {
        if self.has(key) {
            self.report(key, Problem::WithoutEffect(why));
        }
    }
}

fn parse<T: Value>(path: &str, node: &Node, findings: &Findings) -> Option<T> {
    let Kind::Text(text) = &node.kind else {
        let problem = Problem::WrongKind {
            expected: T::EXPECTED,
            found: node.kind.name(),
        };
        findings.add(path, Some(node.line), problem);
        return None;
    };
    match T::parse(text) {
        Ok(value) => {
            if let Some(problem) = value.remark() {
                findings.add(path, Some(node.line), problem);
            }
            Some(value)
        }
        Err(reason) => {
            let problem = Problem::BadValue {
                value: text.clone(),
                expected: T::EXPECTED,
                reason,
            };
            findings.add(path, Some(node.line), problem);
            None
        }
    }
}

/// Whether one insertion, deletion, replacement or swap of neighbours, or two of them in a long key, tells them apart.
fn is_similar(typed: &str, known: &str) -> bool {
    let (typed, known): (Vec<char>, Vec<char>) =
        (typed.to_lowercase().chars().collect(), known.chars().collect());
    if typed.len() > 64 {
        return false;
    }
    let limit = if known.len() >= 8 { 2 } else { 1 };
    distance(&typed, &known) <= limit
}

/// The edit distance (swaps of neighbours count one), by rows of the usual table.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (row, &from) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut left = row + 1;
        let mut diagonal = row;
        let mut previous_b = None;
        for (column, (&to, &up)) in b.iter().zip(above.iter().skip(1)).enumerate() {
            let mut cost = (diagonal + usize::from(from != to)).min(up + 1).min(left + 1);
            if column > 0 && previous_a == Some(to) && previous_b == Some(from) {
                cost = cost.min(before.get(column - 1).map_or(usize::MAX, |swapped| swapped + 1));
            }
            diagonal = up;
            left = cost;
            previous_b = Some(to);
            current.push(cost);
        }
        previous_a = Some(from);
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_the_key_that_was_meant() {
        for (typed, known, similar) in [
            ("keepalive_intervall", "keepalive_interval", true),
            ("keepalive_interavl", "keepalive_interval", true),
            ("Name", "name", true),
            ("prot", "port", true),
            ("pot", "port", true),
            ("host", "port", false),
            ("", "port", false),
            ("keepalive", "keepalive_interval", false),
        ] {
            assert_eq!(is_similar(typed, known), similar, "{typed} for {known}");
        }
    }
}
