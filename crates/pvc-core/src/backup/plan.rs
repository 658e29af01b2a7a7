//! What putting a backup back changes.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Backup;
use super::paths::{Part, holds_definition, part};
use crate::guest_xml::secrets;
use crate::ids::{VmId, ZnodeVersion};
use crate::states::{DaemonState, VmState};

/// What stands in the store at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes.
    pub value: Vec<u8>,
    /// Their version.
    pub version: ZnodeVersion,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There is nothing yet.
    Create {
        /// Where.
        path: String,
        /// What.
        value: Vec<u8>,
    },
    /// There is something else.
    Set {
        /// Where.
        path: String,
        /// What.
        value: Vec<u8>,
        /// The version that it has now.
        version: ZnodeVersion,
    },
    /// There is something that the backup does not have.
    Delete {
        /// Where.
        path: String,
        /// The version that it has now.
        version: ZnodeVersion,
    },
}

impl Change {
    /// Where.
    pub fn path(&self) -> &str {
        match self {
            Change::Create { path, .. } | Change::Set { path, .. } | Change::Delete { path, .. } => path,
        }
    }

    /// Its size in a request, without overhead.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Create { path, value } | Change::Set { path, value, .. } => path.len() + value.len(),
            Change::Delete { path, .. } => path.len(),
        }
    }
}

/// Changes of one thing (a guest, a node, a network), which should be made together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeGroup {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
}

/// A guest that the backup does not have and of which a process may exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} guests that are not in the backup are owned by a node and may run ({first} is one): \
     stop and remove them first"
)]
pub struct InTheWay {
    /// How many.
    pub count: usize,
    /// One of them.
    pub first: VmId,
}

/// What to write so that the store is as the backup has it. `defaults` are the keys that must exist afterwards, with what
/// they hold if neither the store nor the backup has them. `stored` is everything below the [roots](super::ROOTS).
///
/// Nodes are never removed: one that is there is a fact. Guests, networks, pools and so on that the backup does not have
/// are.
///
/// A definition whose passwords were left out of the backup gets those that the guest has now, or `unknown_secret` where
/// there are none: something that nobody knows, so that no console stands open.
///
/// # Errors
/// [`InTheWay`]: removing the record of a guest that may run would leave it to itself.
pub fn plan(
    backup: &Backup,
    defaults: &BTreeMap<String, Vec<u8>>,
    stored: &BTreeMap<String, Stored>,
    unknown_secret: &str,
) -> Result<Vec<ChangeGroup>, InTheWay> {
    let mut groups: BTreeMap<&str, Vec<Change>> = BTreeMap::new();
    let removed = removed(backup, defaults, stored);
    refuse_running(&removed, stored)?;
    // The deepest first.
    for path in removed.into_iter().rev() {
        if let Some(found) = stored.get(path) {
            groups.entry(group(path)).or_default().push(Change::Delete {
                path: path.to_owned(),
                version: found.version,
            });
        }
    }
    let wanted = backup.values.iter().map(|(path, value)| (path, value.as_bytes()));
    let missing = defaults
        .iter()
        .filter(|(path, _)| !backup.values.contains_key(*path) && !stored.contains_key(*path))
        .map(|(path, value)| (path, value.as_slice()));
    // Parents sort before what is below them.
    let all: BTreeMap<&String, &[u8]> = wanted.chain(missing).collect();
    for (path, value) in all {
        let change = match (stored.get(path), part(path)) {
            (None, _) => Change::Create {
                path: path.clone(),
                value: put_back(path, value, None, unknown_secret),
            },
            (Some(found), Part::Kept | Part::Secret) => {
                let value = put_back(path, value, Some(&found.value), unknown_secret);
                if found.value == value {
                    continue;
                }
                Change::Set {
                    path: path.clone(),
                    value,
                    version: found.version,
                }
            }
            (Some(_), Part::Reported | Part::LeftOut) => continue,
        };
        groups.entry(group(path)).or_default().push(change);
    }
    Ok(groups
        .into_values()
        .map(|changes| ChangeGroup { changes })
        .collect())
}

/// What is there and must go, parents before what is below them.
fn removed<'a>(
    backup: &Backup,
    defaults: &BTreeMap<String, Vec<u8>>,
    stored: &'a BTreeMap<String, Stored>,
) -> BTreeSet<&'a str> {
    let mut removed: BTreeSet<&str> = BTreeSet::new();
    // Sorted, so that what is above has been decided on before.
    for path in stored.keys() {
        let (parent, _) = path.rsplit_once('/').unwrap_or_default();
        let removable = ["/domains/", "/networks/", "/ceph/"]
            .iter()
            .any(|root| path.starts_with(root));
        let unwanted =
            part(path) == Part::Kept && !backup.values.contains_key(path) && !defaults.contains_key(path);
        if removed.contains(parent) || (removable && unwanted) {
            removed.insert(path);
        }
    }
    removed
}

fn refuse_running(removed: &BTreeSet<&str>, stored: &BTreeMap<String, Stored>) -> Result<(), InTheWay> {
    let owned = removed.iter().filter_map(|path| {
        let id = path.strip_prefix("/domains/")?.parse::<VmId>().ok()?;
        let is_filled = |key: &str| {
            stored
                .get(&format!("{path}/{key}"))
                .is_some_and(|found| !found.value.is_empty())
        };
        (is_filled("owner") || is_filled("incoming")).then_some(id)
    });
    let owned: Vec<VmId> = owned.collect();
    match owned.first() {
        None => Ok(()),
        Some(first) => Err(InTheWay {
            count: owned.len(),
            first: *first,
        }),
    }
}

/// The thing that a path belongs to: its first two parts.
fn group(path: &str) -> &str {
    path.match_indices('/')
        .nth(2)
        .map_or(path, |(end, _)| path.get(..end).unwrap_or(path))
}

/// What is written in place of a value that was true only at the time of the backup, or that lacks its secrets.
fn put_back(path: &str, value: &[u8], present: Option<&[u8]>, unknown_secret: &str) -> Vec<u8> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    if holds_definition(path) {
        let present = present.and_then(|present| std::str::from_utf8(present).ok());
        return secrets::unmask_or(text, present, unknown_secret)
            .into_owned()
            .into_bytes();
    }
    if path.starts_with("/nodes/") && path.ends_with("/daemonstate") {
        // Its agent says otherwise as soon as it runs.
        return DaemonState::Stop.to_string().into_bytes();
    }
    if path.starts_with("/domains/")
        && path.ends_with("/state")
        && let Ok(state) = text.parse::<VmState>()
    {
        return match state {
            // Nobody is under way any more.
            VmState::Migrate | VmState::MigrateLive | VmState::Unmigrate => VmState::Start,
            VmState::Start
            | VmState::Restart
            | VmState::Shutdown
            | VmState::Stop
            | VmState::Disable
            | VmState::Fail
            | VmState::Provision
            | VmState::Import
            | VmState::Restore
            | VmState::Mirror
            | VmState::Delete => state,
        }
        .to_string()
        .into_bytes();
    }
    value.to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::{VM, sample};
    use super::*;

    fn backup() -> Backup {
        Backup::parse(&sample().to_string(), 16).unwrap()
    }

    fn stored(values: &[(&str, &str)]) -> BTreeMap<String, Stored> {
        values
            .iter()
            .enumerate()
            .map(|(index, (path, value))| {
                let stored = Stored {
                    value: value.as_bytes().to_vec(),
                    version: ZnodeVersion(i32::try_from(index).unwrap()),
                };
                ((*path).to_owned(), stored)
            })
            .collect()
    }

    fn changes(defaults: &[(&str, &str)], there: &[(&str, &str)]) -> Result<Vec<String>, InTheWay> {
        let defaults = defaults
            .iter()
            .map(|(path, value)| ((*path).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let groups = plan(&backup(), &defaults, &stored(there), "nobody knows")?;
        Ok(groups
            .iter()
            .flat_map(|group| &group.changes)
            .map(|change| match change {
                Change::Create { path, value } => {
                    format!("+{path}={}", String::from_utf8_lossy(value))
                }
                Change::Set { path, value, .. } => {
                    format!("={path}={}", String::from_utf8_lossy(value))
                }
                Change::Delete { path, .. } => format!("-{path}"),
            })
            .collect())
    }

    // A console whose password became the mask, or none, would be open to whoever reads this.
    #[test]
    fn passwords_that_a_backup_lacks_are_kept_or_become_unknown() {
        let path = format!("/domains/{VM}/xml");
        let xml = |password: &str| {
            format!("<domain><devices><graphics type='vnc' passwd='{password}'/></devices></domain>")
        };
        let mut document = sample();
        document[&path] = xml(secrets::MASK).into();
        let backup = Backup::parse(&document.to_string(), 16).unwrap();
        let written = |there: &[(&str, &str)]| -> Vec<Change> {
            let groups = plan(&backup, &BTreeMap::new(), &stored(there), "nobody knows").unwrap();
            let changes = groups.into_iter().flat_map(|group| group.changes);
            changes.filter(|change| change.path() == path).collect()
        };
        let value = |changes: &[Change]| match changes {
            [Change::Create { value, .. } | Change::Set { value, .. }] => {
                String::from_utf8(value.clone()).unwrap()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(value(&written(&[])), xml("nobody knows"));
        assert_eq!(value(&written(&[(&path, "<domain/>")])), xml("nobody knows"));
        assert_eq!(
            written(&[(&path, &xml("mine"))]),
            [],
            "it has the one that it had"
        );
    }

    /// The store that the sample was taken of.
    fn same() -> Vec<(String, String)> {
        sample()
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, value)| (path.clone(), value.as_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn an_empty_store_gets_everything_parents_first() {
        let made = changes(&[("/leases", ""), ("/domains", "")], &[]).unwrap();
        assert_eq!(made.len(), same().len() + 1);
        assert!(made.contains(&"+/leases=".to_owned()));
        // Nobody's agent runs because a backup says so.
        assert!(made.contains(&"+/nodes/hv1/daemonstate=stop".to_owned()));
        for change in &made {
            let path = change.trim_start_matches('+').split('=').next().unwrap();
            let (parent, _) = path.rsplit_once('/').unwrap();
            let index = |path: &str| {
                made.iter()
                    .position(|made| made.starts_with(&format!("+{path}=")))
            };
            assert!(parent.is_empty() || index(parent) < index(path), "{path}");
        }
    }

    #[test]
    fn what_is_so_already_is_left_alone_and_so_is_what_agents_report() {
        let same = same();
        let mut there: Vec<(&str, &str)> = same.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(changes(&[], &there).unwrap(), Vec::<String>::new());
        for entry in &mut there {
            if entry.0 == "/nodes/hv1/daemonstate" {
                entry.1 = "shutdown";
            }
            if entry.0 == "/config/maintenance" {
                entry.1 = "true";
            }
        }
        there.push(("/nodes/hv2", "hypervisor"));
        there.push(("/nodes/hv2/daemonmode", "hypervisor"));
        assert_eq!(
            changes(&[], &there).unwrap(),
            ["=/config/maintenance=false"],
            "nodes are never removed"
        );
    }

    #[test]
    fn what_the_backup_does_not_have_goes_unless_it_may_run() {
        let same = same();
        let other = "5d0e8c58-1d2b-4a30-9d6c-0f7d3f6f6a02";
        let paths = [
            format!("/domains/{other}"),
            format!("/domains/{other}/owner"),
            format!("/domains/{other}/xml"),
            format!("/domains/{VM}/tags/old"),
            format!("/domains/{VM}/owner"),
        ];
        let mut there: Vec<(&str, &str)> = same.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        there.extend([
            (paths[0].as_str(), "gone"),
            (&paths[1], ""),
            (&paths[2], "<domain/>"),
            (&paths[3], "old"),
            // Whose process runs is no matter of a backup.
            (&paths[4], "hv1"),
            ("/networks/100/dhcp4_leases", ""),
            ("/networks/7", "old"),
            ("/ceph/pools", ""),
        ]);
        assert_eq!(
            changes(&[("/ceph/pools", "")], &there).unwrap(),
            [
                format!("-{}", paths[3]),
                format!("-{}", paths[2]),
                format!("-{}", paths[1]),
                format!("-{}", paths[0]),
                "-/networks/100/dhcp4_leases".to_owned(),
                "-/networks/7".to_owned(),
            ]
        );
        for entry in &mut there {
            if entry.0 == paths[1] {
                entry.1 = "hv2";
            }
        }
        assert_eq!(
            changes(&[], &there),
            Err(InTheWay {
                count: 1,
                first: other.parse().unwrap()
            })
        );
    }

    #[test]
    fn a_migration_is_not_put_back() {
        let state = format!("/domains/{VM}/state");
        assert_eq!(put_back(&state, b"migrate-live", None, ""), b"start");
        assert_eq!(put_back(&state, b"stop", None, ""), b"stop");
        assert_eq!(put_back("/domains/x/xml", b"migrate", None, ""), b"migrate");
    }
}
