//! The services that the daemons use: ZooKeeper, the task queue, PostgreSQL and Ceph.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::finding::Problem;
use super::section::Section;
use super::values::{FileName, Host, Port};
use crate::secret::Secret;

/// The `database` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// ZooKeeper's client port on every coordinator. Default 2181.
    pub zookeeper_port: u16,
    /// The task queue of PVC 1.0.3. Taken so that its files load; tasks are kept in ZooKeeper here.
    pub keydb: Option<KeyDb>,
    /// PostgreSQL, for the provisioner and for DNS.
    pub postgres: Option<Postgres>,
}

/// Where the task queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDb {
    /// Its host name or address.
    pub hostname: String,
    /// Its port.
    pub port: u16,
    /// The number of the database as a path (`/0`).
    pub path: String,
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Its host name or address; normally the floating address of the cluster network.
    pub hostname: String,
    /// Its port.
    pub port: u16,
    /// The provisioner's database.
    pub api: PostgresDatabase,
    /// The name server's database.
    pub dns: PostgresDatabase,
}

/// One database of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresDatabase {
    /// Its name.
    pub database: String,
    /// The user to log in as.
    pub username: String,
    /// That user's password.
    pub password: Secret,
}

/// The `ceph` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceph {
    /// Ceph's configuration file.
    pub config_file: PathBuf,
    /// The keyring that our commands use.
    pub keyring_file: PathBuf,
    /// The monitors' port, written into guests' disk definitions. Default 6789.
    pub monitor_port: u16,
    /// The monitors, written into guests' disk definitions. Default: each coordinator's name on the storage network.
    pub monitor_hosts: Vec<String>,
    /// libvirt's secret with the key of the user that guests' disks are opened as.
    pub secret_uuid: Option<Uuid>,
}

pub(super) fn read_database(section: &mut Section<'_>) -> Option<Database> {
    let zookeeper_port = section.section_or_defaults("zookeeper", |section| section.or("port", Port(2181)).0);
    let keydb = section.optional_section("keydb", |section| {
        let hostname = section.required::<Host>("hostname");
        let port = section.or("port", Port(6379)).0;
        let path = section.or("path", "/0".to_owned());
        Some(KeyDb {
            hostname: hostname?.0,
            port,
            path,
        })
    });
    let postgres = section.optional_section("postgres", |section| {
        let hostname = section.required::<Host>("hostname");
        let port = section.or("port", Port(5432)).0;
        let (api, dns) = section.section("credentials", |section| {
            (
                section.section("api", read_postgres_database),
                section.section("dns", read_postgres_database),
            )
        });
        Some(Postgres {
            hostname: hostname?.0,
            port,
            api: api?,
            dns: dns?,
        })
    });
    Some(Database {
        zookeeper_port,
        keydb,
        postgres,
    })
}

fn read_postgres_database(section: &mut Section<'_>) -> Option<PostgresDatabase> {
    let database = section.required::<String>("database");
    let username = section.required::<String>("username");
    let password = section.required::<Secret>("password");
    Some(PostgresDatabase {
        database: database?,
        username: username?,
        password: password?,
    })
}

/// What the `ceph` section needs from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct CephContext<'a> {
    pub(super) directory: &'a Path,
    pub(super) default_monitors: &'a [String],
    pub(super) storage_enabled: bool,
}

pub(super) fn read_ceph(section: &mut Section<'_>, context: CephContext<'_>) -> Option<Ceph> {
    let config_file = section.or("ceph_config_file", FileName("ceph.conf".to_owned())).0;
    let keyring_file = section
        .or(
            "ceph_keyring_file",
            FileName("ceph.client.admin.keyring".to_owned()),
        )
        .0;
    let monitor_port = section.or("monitor_port", Port(6789)).0;
    let monitor_hosts = match section.list::<Host>("monitor_hosts") {
        Some(hosts) => hosts.into_iter().map(|host| host.value.0).collect(),
        None => context.default_monitors.to_vec(),
    };
    let secret_uuid = section.optional::<Uuid>("secret_uuid");
    if context.storage_enabled && !section.has("secret_uuid") {
        section.report("secret_uuid", Problem::NoCephSecret);
    }
    Some(Ceph {
        config_file: context.directory.join(config_file),
        keyring_file: context.directory.join(keyring_file),
        monitor_port,
        monitor_hosts,
        secret_uuid,
    })
}
