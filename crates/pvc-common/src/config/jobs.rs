//! Work that comes round: backups and mirrors of guests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pvc_core::ids::{PoolName, TagName};

use super::finding::Problem;
use super::section::Section;
use super::values::{Count, Host, Port};
use crate::secret::Secret;

/// The `autobackup` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autobackup {
    /// Where backups go, on the primary.
    pub root_path: PathBuf,
    /// Appended to the root, so that clusters can share it; may be empty.
    pub root_suffix: String,
    /// Guests with one of these tags are backed up.
    pub tags: Vec<TagName>,
    /// Every n-th backup is a full one.
    pub full_interval: u32,
    /// How many full backups are kept, each with its incremental ones.
    pub full_retention: u32,
    /// Commands around the job, if it mounts its directory itself.
    pub auto_mount: Option<AutoMount>,
}

/// Commands around the backup job. `{backup_root_path}` in them stands for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoMount {
    /// Run before.
    pub mount_commands: Vec<String>,
    /// Run after.
    pub unmount_commands: Vec<String>,
}

/// The `automirror` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Automirror {
    /// Other clusters, by name.
    pub destinations: BTreeMap<String, MirrorDestination>,
    /// Where a guest goes whose tag names no destination: one of `destinations`.
    pub default_destination: String,
    /// Guests with one of these tags are mirrored; `tag:destination` on a guest picks a destination.
    pub tags: Vec<TagName>,
    /// How many of its snapshots are kept on both sides.
    pub keep_snapshots: u32,
}

/// Another cluster that takes mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorDestination {
    /// Its API's host name or address.
    pub address: String,
    /// Its API's port.
    pub port: u16,
    /// The path before its API's routes.
    pub prefix: String,
    /// A key of its API.
    pub key: Secret,
    /// How to speak to it.
    pub transport: MirrorTransport,
    /// The pool there.
    pub pool: PoolName,
}

/// How to speak to another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorTransport {
    /// HTTP.
    Plain,
    /// HTTPS, its certificate not checked.
    TlsUnverified,
    /// HTTPS.
    Tls,
}

pub(super) fn read_autobackup(section: &mut Section<'_>) -> Option<Autobackup> {
    let root_path = section.required::<PathBuf>("backup_root_path");
    let root_suffix = section.or("backup_root_suffix", String::new());
    let tags = read_tags(section, "backup_tags");
    let (full_interval, full_retention) = section.section("backup_schedule", |section| {
        (
            section.required::<Count>("full_interval"),
            section.required::<Count>("full_retention"),
        )
    });
    let auto_mount = section.section_or_defaults("auto_mount", |section| {
        let enabled = section.or("enabled", false);
        let mount = read_commands(section, "mount_cmds", enabled);
        let unmount = read_commands(section, "unmount_cmds", enabled);
        enabled.then_some(AutoMount {
            mount_commands: mount,
            unmount_commands: unmount,
        })
    });
    Some(Autobackup {
        root_path: root_path?,
        root_suffix,
        tags: tags?,
        full_interval: full_interval?.0,
        full_retention: full_retention?.0,
        auto_mount,
    })
}

fn read_tags(section: &mut Section<'_>, key: &'static str) -> Option<Vec<TagName>> {
    Some(
        section
            .required_list::<TagName>(key)?
            .into_iter()
            .map(|tag| tag.value)
            .collect(),
    )
}

fn read_commands(section: &mut Section<'_>, key: &'static str, needed: bool) -> Vec<String> {
    let commands = section.list::<String>(key);
    if needed && !section.has(key) {
        section.report(
            key,
            Problem::NeededBecause {
                because: "autobackup.auto_mount.enabled is yes",
            },
        );
    }
    commands
        .unwrap_or_default()
        .into_iter()
        .map(|command| command.value)
        .collect()
}

pub(super) fn read_automirror(section: &mut Section<'_>) -> Option<Automirror> {
    let destinations = section.named_sections("destinations", read_destination);
    let default_destination = section.required::<String>("default_destination");
    let tags = read_tags(section, "mirror_tags");
    let keep_snapshots = section.required::<Count>("keep_snapshots");
    if destinations.is_none() && !section.has("destinations") {
        section.report(
            "destinations",
            Problem::Missing {
                expected: "a section",
            },
        );
    }
    let (destinations, default_destination) = (destinations?, default_destination?);
    if !destinations.contains_key(&default_destination) {
        section.report(
            "default_destination",
            Problem::NoSuchDestination(default_destination.clone()),
        );
    }
    let usable = |(name, destination): (String, Option<MirrorDestination>)| Some((name, destination?));
    let destinations = destinations.into_iter().filter_map(usable).collect();
    Some(Automirror {
        destinations,
        default_destination,
        tags: tags?,
        keep_snapshots: keep_snapshots?.0,
    })
}

fn read_destination(section: &mut Section<'_>) -> Option<MirrorDestination> {
    let address = section.required::<Host>("address");
    let port = section.or("port", Port(7370)).0;
    let prefix = section.or("prefix", "/api/v1".to_owned());
    let key = section.required::<Secret>("key");
    let ssl = section.required::<bool>("ssl");
    let verify_ssl = section.or("verify_ssl", true);
    let pool = section.required::<PoolName>("pool");
    let transport = match (ssl?, verify_ssl) {
        (false, _) => MirrorTransport::Plain,
        (true, false) => MirrorTransport::TlsUnverified,
        (true, true) => MirrorTransport::Tls,
    };
    Some(MirrorDestination {
        address: address?.0,
        port,
        prefix,
        key: key?,
        transport,
        pool: pool?,
    })
}
