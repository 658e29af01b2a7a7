//! A backup as a document: a JSON object of paths and values, as PVC 1.0.3 makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::paths::{Part, part};
use crate::ids::{NodeName, VmId, VmName};
use crate::states::{DaemonMode, VmState};

/// The most paths that a backup may have: 10,000 guests have some 300,000.
const LARGEST_COUNT: usize = 2_000_000;

/// The largest value: what ZooKeeper takes in one request, less the room for its path.
const LARGEST_VALUE: usize = 900_000;

/// How many flaws are told at a time.
const FLAWS_TOLD: usize = 20;

/// A backup whose every path and value was found to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub(super) values: BTreeMap<String, String>,
    ignored: usize,
}

/// What is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where.
    pub path: String,
    /// What.
    pub reason: String,
}

/// A document that is not a backup which can be put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackup {
    /// It is not a JSON object of texts.
    #[error("it is not a JSON object whose values are texts: {0}")]
    Shape(String),
    /// It is of another layout.
    #[error("it is of schema {found}, and this release puts back those of schema {wanted}")]
    Schema {
        /// What it is of; empty if it does not say.
        found: String,
        /// What this release has.
        wanted: u32,
    },
    /// Some of its paths or values do not fit.
    #[error("{count} of its values can not be put back: {}", list(flaws))]
    Flaws {
        /// How many.
        count: usize,
        /// The first of them.
        flaws: Vec<Flaw>,
    },
}

fn list(flaws: &[Flaw]) -> String {
    let texts: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
    texts.join("; ")
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl Backup {
    /// Reads a backup of schema `schema`. `text` is the object, or a JSON text that holds it, as PVC 1.0.3 answers with.
    /// What is never in a backup is passed over.
    ///
    /// # Errors
    /// [`InvalidBackup`]. Nothing of a backup with a flaw is put back.
    pub fn parse(text: &str, schema: u32) -> Result<Backup, InvalidBackup> {
        let shape = |error: serde_json::Error| InvalidBackup::Shape(error.to_string());
        let inner: String;
        let text = if text.trim_start().starts_with('"') {
            inner = serde_json::from_str(text).map_err(shape)?;
            &inner
        } else {
            text
        };
        let all: BTreeMap<String, String> = serde_json::from_str(text).map_err(shape)?;
        if all.len() > LARGEST_COUNT {
            return Err(InvalidBackup::Shape(format!(
                "it has {} paths, and {LARGEST_COUNT} are the most that is taken",
                all.len()
            )));
        }
        let found = all.get("/schema/version").map(String::as_str).unwrap_or_default();
        if found.parse() != Ok(schema) {
            return Err(InvalidBackup::Schema {
                found: found.to_owned(),
                wanted: schema,
            });
        }
        let mut flaws = Flaws::default();
        let mut values = BTreeMap::new();
        let mut ignored = 0;
        for (path, value) in all {
            if let Err(reason) = check_path(&path) {
                flaws.add(&path, reason);
            } else if part(&path) == Part::LeftOut {
                ignored += 1;
            } else if value.len() > LARGEST_VALUE {
                flaws.add(
                    &path,
                    format!("it has {} bytes, and {LARGEST_VALUE} are the most", value.len()),
                );
            } else {
                values.insert(path, value);
            }
        }
        let backup = Backup { values, ignored };
        backup.check(&mut flaws);
        match flaws.count {
            0 => Ok(backup),
            count => Err(InvalidBackup::Flaws {
                count,
                flaws: flaws.told,
            }),
        }
    }

    /// How many of its paths were passed over, since they are never put back.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The value at `path`, if it is in there.
    pub fn value(&self, path: &str) -> Option<&str> {
        self.values.get(path).map(String::as_str)
    }

    /// Its nodes.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.names("/nodes/")
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// Its guests.
    pub fn guests(&self) -> Vec<VmId> {
        self.names("/domains/")
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// The names right below a path that ends with a slash.
    fn names<'a>(&'a self, below: &'a str) -> impl Iterator<Item = &'a str> {
        self.values
            .range(below.to_owned()..)
            .map_while(move |(path, _)| path.strip_prefix(below))
            .filter(|name| !name.contains('/'))
    }

    fn check(&self, flaws: &mut Flaws) {
        for path in self.values.keys() {
            match path.rsplit_once('/') {
                Some((parent, _)) if parent.is_empty() || self.values.contains_key(parent) => {}
                // The roots are made by whoever makes the layout.
                Some((parent, _)) if parent.matches('/').count() == 1 => {}
                Some(_) | None => flaws.add(path, "what is above it is missing".to_owned()),
            }
        }
        let mut nodes = BTreeSet::new();
        for name in self.names("/nodes/") {
            let path = format!("/nodes/{name}");
            match NodeName::new(name) {
                Ok(node) => nodes.extend([node]),
                Err(error) => flaws.add(&path, error.to_string()),
            }
            let _: Option<DaemonMode> = self.needs(&format!("{path}/daemonmode"), flaws);
        }
        let mut names = BTreeMap::new();
        for id in self.names("/domains/") {
            let path = format!("/domains/{id}");
            if let Err(error) = id.parse::<VmId>() {
                flaws.add(&path, error.to_string());
            }
            if let Some(name) = self.needs::<VmName>(&path, flaws)
                && let Some(other) = names.insert(name, id)
            {
                flaws.add(&path, format!("it has the name of {other}"));
            }
            let _: Option<String> = self.needs(&format!("{path}/xml"), flaws);
            let _: Option<VmState> = self.needs(&format!("{path}/state"), flaws);
            let home = format!("{path}/node");
            if let Some(node) = self.needs::<NodeName>(&home, flaws)
                && !nodes.contains(&node)
            {
                flaws.add(&home, format!("there is no node {node} in the backup"));
            }
        }
        for vni in self.names("/networks/") {
            if let Err(error) = vni.parse::<u32>() {
                flaws.add(&format!("/networks/{vni}"), error.to_string());
            }
        }
    }

    /// The value at `path`, which must be there and of that type.
    fn needs<T: std::str::FromStr<Err: fmt::Display>>(&self, path: &str, flaws: &mut Flaws) -> Option<T> {
        match self.values.get(path).map(|value| value.parse()) {
            Some(Ok(value)) => Some(value),
            Some(Err(error)) => {
                flaws.add(path, error.to_string());
                None
            }
            None => {
                flaws.add(path, "it is missing".to_owned());
                None
            }
        }
    }
}

#[derive(Debug, Default)]
struct Flaws {
    count: usize,
    told: Vec<Flaw>,
}

impl Flaws {
    fn add(&mut self, path: &str, reason: String) {
        self.count += 1;
        if self.told.len() < FLAWS_TOLD {
            self.told.push(Flaw {
                path: path.chars().take(200).collect(),
                reason,
            });
        }
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(char::is_control);
    match path.strip_prefix('/') {
        Some("") => Ok(()),
        Some(rest) if !rest.split('/').any(bad) => Ok(()),
        Some(_) | None => Err("it is not a path".to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::backup) const VM: &str = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a01";

    /// A small whole backup.
    pub(in crate::backup) fn sample() -> serde_json::Value {
        json!({
            "/schema": "", "/schema/version": "16", "/config": "test", "/config/maintenance": "false",
            "/nodes": "", "/nodes/hv1": "coordinator", "/nodes/hv1/daemonmode": "coordinator",
            "/nodes/hv1/daemonstate": "run", "/domains": "", format!("/domains/{VM}"): "web",
            format!("/domains/{VM}/xml"): "<domain/>", format!("/domains/{VM}/state"): "start",
            format!("/domains/{VM}/node"): "hv1", "/networks": "", "/networks/100": "web",
        })
    }

    fn with(changes: &[(&str, Option<serde_json::Value>)]) -> Result<Backup, InvalidBackup> {
        let mut document = sample();
        let object = document.as_object_mut().unwrap();
        for (path, value) in changes {
            match value {
                Some(value) => object.insert((*path).to_owned(), value.clone()),
                None => object.remove(*path),
            };
        }
        Backup::parse(&document.to_string(), 16)
    }

    #[test]
    fn a_backup_is_read_in_both_of_its_forms() {
        let text = sample().to_string();
        let backup = Backup::parse(&text, 16).unwrap();
        assert_eq!(backup.nodes(), [NodeName::new("hv1").unwrap()]);
        assert_eq!(backup.guests(), [VM.parse().unwrap()]);
        // As PVC 1.0.3 answers: a text that holds the object.
        let quoted = serde_json::to_string(&text).unwrap();
        assert_eq!(Backup::parse(&quoted, 16).unwrap(), backup);
    }

    #[test]
    fn what_is_never_put_back_is_passed_over() {
        let owner = format!("/domains/{VM}/owner");
        let backup = with(&[
            (&owner, Some(json!("somebody"))),
            ("/leases/nodes/hv1", Some(json!("x"))),
        ])
        .unwrap();
        assert_eq!(backup.ignored(), 2);
        assert_eq!(
            backup,
            Backup {
                ignored: 2,
                ..with(&[]).unwrap()
            }
        );
    }

    #[test]
    fn nothing_of_a_backup_with_a_flaw_is_taken() {
        let at = |relative: &str| format!("/domains/{VM}{relative}");
        for (path, value, flaw) in [
            ("/nodes/a b".to_owned(), Some(json!("coordinator")), "a b"),
            ("/nodes/hv1/daemonmode".to_owned(), None, "it is missing"),
            ("/nodes/hv1/daemonmode".to_owned(), Some(json!("boss")), "boss"),
            (at(""), Some(json!("")), "VM name"),
            (at("/xml"), None, "it is missing"),
            (at("/state"), Some(json!("running")), "running"),
            (at("/node"), Some(json!("hv9")), "no node hv9"),
            (at("/a/b"), Some(json!("")), "above it"),
            ("/domains/web".to_owned(), Some(json!("web2")), "UUID"),
            ("/networks/web".to_owned(), Some(json!("web")), "invalid digit"),
            ("/networks/../config".to_owned(), Some(json!("")), "not a path"),
            ("networks".to_owned(), Some(json!("")), "not a path"),
            (
                "/config".to_owned(),
                Some(json!("x".repeat(900_001))),
                "900001 bytes",
            ),
        ] {
            let error = with(&[(&path, value)]).unwrap_err();
            assert!(matches!(error, InvalidBackup::Flaws { .. }), "{path}: {error}");
            assert!(error.to_string().contains(flaw), "{path}: {error}");
        }
        for document in ["", "[]", "{\"/a\":1}", "\"{\\\"\"", "null"] {
            let error = Backup::parse(document, 16).unwrap_err();
            assert!(matches!(error, InvalidBackup::Shape(_)), "{document}: {error}");
        }
        for version in [None, Some(json!("15")), Some(json!("17")), Some(json!("x"))] {
            let error = with(&[("/schema/version", version)]).unwrap_err();
            assert!(
                matches!(error, InvalidBackup::Schema { wanted: 16, .. }),
                "{error}"
            );
        }
    }
}
