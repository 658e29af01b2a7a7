//! The configuration file, `/etc/pvc/pvc.conf`.
//!
//! YAML with the keys of PVC 1.0.3, so that its files go on working. The text becomes a tree ([`tree`]); each section
//! is read from it key by key ([`section`]), which records every mistake with its dotted path and line and goes on; a
//! [`Config`] comes out only if there is no error. What is in a `Config` has been checked and has its own type: times
//! are durations, passwords are secrets, a node's own and the floating addresses are separate fields.
//!
//! [`load`] is for the daemons, [`check`] for their `--check-config`.

mod api;
mod cluster;
mod daemon;
mod fencing;
mod finding;
mod jobs;
mod migration;
mod network;
mod prefix;
mod section;
mod services;
mod tree;
mod values;
mod zoo_cfg;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pvc_core::ids::{InvalidId, NodeName};
use pvc_core::states::{DaemonMode, NodeSelector};

pub use api::{Api, ApiToken, Authentication, Tls};
pub use cluster::Cluster;
pub use daemon::{GuestNetworking, Logging, Paths, SriovDevice, Subsystems, Timers};
pub use fencing::{AfterPowerProof, Bmc, Fencing, WithoutPowerProof};
pub use finding::{Finding, Problem, Report, Severity};
pub use jobs::{AutoMount, Autobackup, Automirror, MirrorDestination, MirrorTransport};
pub use network::{Addresses, Network, NetworkKind, Networks, Selection, UpstreamProbeKind};
pub use prefix::Family;
pub use services::{Ceph, Database, KeyDb, Postgres, PostgresDatabase};

use crate::secret::Secret;
use section::{Findings, Section};

/// Where the file is unless `PVC_CONFIG_FILE` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/pvc/pvc.conf";
/// The variable that names another file.
pub const PATH_VARIABLE: &str = "PVC_CONFIG_FILE";
/// Names that the file had in older versions.
const OLDER_NAMES: [&str; 2] = ["pvcnoded.yaml", "pvcapid.yaml"];

/// A checked configuration, as seen from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// What this node is for: a coordinator if it is listed as one.
    pub mode: DaemonMode,
    /// Where files are.
    pub paths: Paths,
    /// What this node does.
    pub subsystems: Subsystems,
    /// Nodes and networks.
    pub cluster: Cluster,
    /// ZooKeeper and the databases.
    pub database: Database,
    /// How often, how long.
    pub timers: Timers,
    /// How dead nodes are dealt with.
    pub fencing: Fencing,
    /// How a target node is chosen for a guest that does not say. Default by free memory. Never
    /// [`NodeSelector::None`].
    pub target_selector: NodeSelector,
    /// What is logged.
    pub logging: Logging,
    /// How guests reach the outside; always there when networking is on.
    pub guest_networking: Option<GuestNetworking>,
    /// Ceph.
    pub ceph: Ceph,
    /// The API daemon.
    pub api: Api,
    /// Backups, if they are on.
    pub autobackup: Option<Autobackup>,
    /// Mirrors, if they are on.
    pub automirror: Option<Automirror>,
}

impl Config {
    /// Where ZooKeeper listens: `host:port` of each coordinator. Addresses of the cluster network where they follow
    /// from the nodes' names, so that a dead name server cannot keep a node from its lease; names otherwise.
    pub fn zookeeper_servers(&self) -> Vec<String> {
        let port = self.database.zookeeper_port;
        let server = |node: &NodeName| match self.cluster.networks.cluster.ipv4.address_of(node) {
            Some(address) => format!("{address}:{port}"),
            None => format!("{node}:{port}"),
        };
        self.cluster.coordinator_nodes.iter().map(server).collect()
    }

    /// Every password, key and token in it: what must not be shown anywhere, however it got there.
    pub fn secrets(&self) -> Vec<Secret> {
        let databases = self
            .database
            .postgres
            .iter()
            .flat_map(|postgres| [&postgres.api.password, &postgres.dns.password]);
        let tokens = match &self.api.authentication {
            Authentication::Open => &[],
            Authentication::Tokens(tokens) => tokens.as_slice(),
        };
        let mirrors = self
            .automirror
            .iter()
            .flat_map(|mirror| mirror.destinations.values());
        let bmc = self.fencing.bmc.iter().map(|bmc| &bmc.password);
        bmc.chain(databases)
            .chain(tokens.iter().map(|token| &token.token))
            .chain(&self.api.session_secret)
            .chain(mirrors.map(|destination| &destination.key))
            .cloned()
            .collect()
    }
}

/// A configuration and what an administrator should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, to be logged.
    pub warnings: Vec<Finding>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no configuration file {}{}", path.display(), older_hint(older))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Files of older versions that are there.
        older: Vec<PathBuf>,
    },
    /// It cannot be read.
    #[error("failed to read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It has errors.
    #[error("{0}")]
    Invalid(Report),
}

fn older_hint(older: &[PathBuf]) -> String {
    if older.is_empty() {
        return String::new();
    }
    let names: Vec<String> = older.iter().map(|path| path.display().to_string()).collect();
    format!(
        ". {} of an older version {} not read any more: carry its settings over to the new file, of which \
         /usr/share/doc/pvc/pvc.conf is a sample",
        names.join(" and "),
        if names.len() == 1 { "is" } else { "are" },
    )
}

/// Where this process finds its configuration: `PVC_CONFIG_FILE` or [`DEFAULT_PATH`].
pub fn path_from_environment() -> PathBuf {
    std::env::var_os(PATH_VARIABLE)
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| DEFAULT_PATH.into())
        .into()
}

/// This host as a node: the short host name.
///
/// # Errors
/// The host's name is not one that a node can have.
pub fn host_node_name() -> Result<NodeName, InvalidId> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    NodeName::new(short)
}

/// Reads the file as `node` sees it.
///
/// # Errors
/// All errors of the file at once, as a [`Report`]; or why it could not be read.
pub fn load(path: &Path, node: &NodeName) -> Result<Loaded, LoadError> {
    let text = read_file(path)?;
    let (config, mut findings) = parse(&text, node);
    findings.extend(check_permissions(path));
    match config {
        Some(config) => Ok(Loaded {
            config,
            warnings: findings,
        }),
        None => Err(LoadError::Invalid(Report::new(path, findings))),
    }
}

/// Checks the file as `node` would see it, and beside it what else decides whether the cluster can keep its promises
/// (ZooKeeper's own times). For `--check-config`: print the report, exit with its code.
///
/// # Errors
/// Why the file could not be read. What is wrong in it is in the report.
pub fn check(path: &Path, node: &NodeName) -> Result<Report, LoadError> {
    let text = read_file(path)?;
    let (_, mut findings) = parse(&text, node);
    findings.extend(check_permissions(path));
    // Not there on a hypervisor, which is no finding.
    if let Ok(text) = fs::read_to_string(zoo_cfg::PATH)
        && let Some(problem) = zoo_cfg::check(&text)
    {
        findings.push(Finding {
            path: zoo_cfg::PATH.to_owned(),
            line: None,
            problem,
        });
    }
    Ok(Report::new(path, findings))
}

fn read_file(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| {
        if source.kind() != io::ErrorKind::NotFound {
            return LoadError::Unreadable {
                path: path.to_owned(),
                source,
            };
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let older = OLDER_NAMES
            .iter()
            .map(|name| directory.join(name))
            .filter(|path| path.exists())
            .collect();
        LoadError::Missing {
            path: path.to_owned(),
            older,
        }
    })
}

fn check_permissions(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o004 != 0).then(|| Finding {
        path: String::new(),
        line: None,
        problem: Problem::WorldReadable { mode },
    })
}

/// Reads the text of a file as `node` sees it. The configuration is there if there is no error among the findings.
pub fn parse(text: &str, node: &NodeName) -> (Option<Config>, Vec<Finding>) {
    let findings = Findings::default();
    let config = match tree::parse(text) {
        Ok(root) => Section::root(&root, &findings, |root| read(root, node)),
        Err(error) => {
            findings.add("", error.line, Problem::Syntax(error.message));
            None
        }
    };
    let mut findings = findings.into_vec();
    findings.sort_by_key(|finding| finding.line.is_none().then_some(u64::MAX).or(finding.line));
    let has_error = findings
        .iter()
        .any(|finding| finding.problem.severity() == Severity::Error);
    (config.filter(|_| !has_error), findings)
}

fn read(root: &mut Section<'_>, node: &NodeName) -> Option<Config> {
    let paths = root.section_or_defaults("path", daemon::read_paths);
    let subsystems = root.section_or_defaults("subsystem", daemon::read_subsystems);
    let cluster = root.section("cluster", |section| cluster::read(section, node));
    let database = root.section_or_defaults("database", services::read_database);
    let timers = root.section_or_defaults("timer", daemon::read_timers);
    let fencing = root.section_or_defaults("fencing", |section| fencing::read(section, node.number()));
    let target_selector = root.section_or_defaults("migration", migration::read);
    let logging = root.section_or_defaults("logging", daemon::read_logging);
    let guest_networking = root.optional_section("guest_networking", daemon::read_guest_networking);
    if subsystems.networking && !root.has("guest_networking") {
        root.report(
            "guest_networking",
            Problem::NeededBecause {
                because: "subsystem.enable_networking is yes",
            },
        );
    }
    let default_monitors = cluster.as_ref().map(default_monitors).unwrap_or_default();
    let ceph = root.section_or_defaults("ceph", |section| {
        let context = services::CephContext {
            directory: &paths.ceph_directory,
            default_monitors: &default_monitors,
            storage_enabled: subsystems.storage,
        };
        services::read_ceph(section, context)
    });
    let upstream_floating = cluster
        .as_ref()
        .map(|cluster| IpAddr::from(cluster.networks.upstream.ipv4.floating_address));
    let api = root.section_or_defaults("api", |section| api::read(section, upstream_floating));
    // Whoever moves here from PVC 1.0.3 must not believe that backups are still made.
    root.without_effect(
        "autobackup",
        "this release makes no backups of guests; see to them by other means",
    );
    root.without_effect(
        "automirror",
        "this release does not mirror guests to other clusters",
    );
    let autobackup = root.optional_section("autobackup", jobs::read_autobackup);
    let automirror = root.optional_section("automirror", jobs::read_automirror);

    let cluster = cluster?;
    Some(Config {
        node: node.clone(),
        mode: cluster.mode_of(node),
        paths,
        subsystems,
        cluster,
        database: database?,
        timers,
        fencing: fencing?,
        target_selector,
        logging,
        guest_networking,
        ceph: ceph?,
        api: api?,
        autobackup,
        automirror,
    })
}

fn default_monitors(cluster: &Cluster) -> Vec<String> {
    let domain = &cluster.networks.storage.domain;
    cluster
        .coordinator_nodes
        .iter()
        .map(|node| format!("{node}.{domain}"))
        .collect()
}

#[cfg(test)]
mod tests;
