//! Which cluster a command talks to: named connections in a file, as PVC 1.0.3 keeps them, or a URL.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{env, fs};

use pvc_api::{DEFAULT_PORT, PREFIX};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::confirm;
use crate::error::{CliError, Exit, Result};

/// The connection that is used on a node if nothing else is said.
pub(crate) const LOCAL: &str = "local";
/// The configuration that the local connection is read from.
const LOCAL_FILE: &str = "/etc/pvc/pvc.conf";

/// The stored connections by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Stored(pub(crate) BTreeMap<String, Entry>);

/// A stored connection.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// Of this node: read from its configuration each time.
    Local {
        /// The configuration's path.
        cfgfile: PathBuf,
        /// What another version of the client keeps there.
        #[serde(flatten)]
        others: BTreeMap<String, Value>,
    },
    /// Of another cluster.
    Remote {
        /// In words.
        description: String,
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// `http` or `https`.
        scheme: String,
        /// Token; empty for none.
        #[serde(default)]
        api_key: Option<String>,
        /// What another version of the client keeps there.
        #[serde(flatten)]
        others: BTreeMap<String, Value>,
    },
    /// Something that this version does not understand. It is left as it is, and must not spoil the others.
    Unknown(Value),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::Local { cfgfile, .. } => write!(f, "Local({})", cfgfile.display()),
            Entry::Remote { host, port, .. } => write!(f, "Remote({host}:{port})"),
            Entry::Unknown(_) => write!(f, "Unknown"),
        }
    }
}

/// What is needed to talk to a cluster.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Its name, for people.
    pub(crate) name: String,
    /// In words.
    pub(crate) description: String,
    /// Everything before the routes.
    pub(crate) url: String,
    /// The token.
    pub(crate) api_key: Option<String>,
    /// Whether the certificate is checked.
    pub(crate) verification: Verification,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} {})", self.name, self.url)
    }
}

/// Whether a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Against the common certificate authorities.
    On,
    /// Not at all.
    Off,
}

/// Where the connections of somebody without a home are stored, as by PVC 1.0.3.
const HOMELESS: &str = "/tmp/pvc";

/// Where the connections are stored.
fn store_path() -> Result<PathBuf> {
    let named = env::var_os("PVC_CLIENT_DIR")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| {
            env::var_os("HOME")
                .filter(|path| !path.is_empty())
                .map(|home| PathBuf::from(home).join(".config/pvc"))
        });
    let directory = match named {
        Some(directory) => directory,
        None => {
            let directory = PathBuf::from(HOMELESS);
            refuse_of_others(&directory)?;
            directory
        }
    };
    Ok(directory.join("pvc.json"))
}

/// Refuses a directory that somebody else has made where everybody may: they could say there which cluster is talked to, and read
/// the tokens.
fn refuse_of_others(directory: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(directory) else {
        return Ok(());
    };
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(CliError::failure(format!(
        "{} is not a directory that you alone may write to: somebody else may have made it. Set HOME or PVC_CLIENT_DIR",
        directory.display()
    )))
}

/// The stored connections; on a node the local one is among them, stored or not.
pub(crate) fn load() -> Result<Stored> {
    let path = store_path()?;
    let mut stored = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| {
            CliError::failure(format!(
                "{} is not a list of connections: {error}. Repair or remove it",
                path.display()
            ))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Stored::default(),
        Err(error) => {
            return Err(CliError::failure(format!(
                "Can not read {}: {error}",
                path.display()
            )));
        }
    };
    let file = PathBuf::from(LOCAL_FILE);
    if !stored.0.contains_key(LOCAL) && file.exists() {
        let entry = Entry::Local {
            cfgfile: file,
            others: BTreeMap::new(),
        };
        stored.0.insert(LOCAL.to_owned(), entry);
    }
    Ok(stored)
}

/// Stores the connections, readable for their owner alone since tokens are among them.
pub(crate) fn save(stored: &Stored) -> Result<()> {
    let path = store_path()?;
    let failed =
        |error: std::io::Error| CliError::failure(format!("Can not write {}: {error}", path.display()));
    let mode = env::var("PVC_CLIENT_DB_PERMS")
        .ok()
        .and_then(|text| u32::from_str_radix(&text, 8).ok())
        .unwrap_or(0o600);
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        // Somebody may have made it since it was looked at.
        if directory == Path::new(HOMELESS) {
            refuse_of_others(directory)?;
        }
    }
    // Whole or not at all: a second command reading meanwhile must not see half of it.
    let temporary = path.with_extension("json.new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed)?;
    let text = serde_json::to_string_pretty(stored)
        .map_err(|error| CliError::failure(format!("Can not write the connections: {error}")))?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)
}

/// The connection that the command line asks for, or else the environment.
pub(crate) fn choose(
    name: Option<&str>,
    url: Option<&str>,
    api_key_file: Option<&Path>,
) -> Result<Connection> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    // An option beats a variable: what was typed just now is what is meant.
    let url = match (url, name) {
        (Some(url), _) => Some(url.to_owned()),
        (None, Some(_)) => None,
        (None, None) => variable("PVC_URL"),
    };
    if let Some(url) = url {
        return from_url(&url, api_key_file);
    }
    if api_key_file.is_some() {
        return Err(CliError::usage(
            "--api-key-file goes with --url; a connection has its own token",
        ));
    }
    let by_variable = variable("PVC_CONNECTION");
    let name = name.or(by_variable.as_deref());
    let stored = load()?;
    let name = name.unwrap_or(LOCAL);
    match stored.0.get(name) {
        Some(entry) => resolve(name, entry),
        None => Err(CliError::new(
            Exit::NotFound,
            if name == LOCAL {
                format!(
                    "No cluster to talk to: this is not a node ({LOCAL_FILE} does not exist). Name a connection \
                     with -c (see 'pvc connection list'), add one with 'pvc connection add', or give --url"
                )
            } else {
                format!("There is no connection named {name:?}; see 'pvc connection list'")
            },
        )),
    }
}

fn from_url(url: &str, api_key_file: Option<&Path>) -> Result<Connection> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(CliError::usage(format!(
            "--url must begin with http:// or https://, not {url:?}"
        )));
    }
    let base = url.trim_end_matches('/');
    let url = if base.ends_with(PREFIX) {
        base.to_owned()
    } else {
        format!("{base}{PREFIX}")
    };
    let api_key = match api_key_file {
        Some(file) => Some(read_api_key(file)?),
        None => env::var("PVC_API_KEY").ok().filter(|key| !key.is_empty()),
    };
    Ok(Connection {
        name: "(by URL)".to_owned(),
        description: String::new(),
        url,
        api_key,
        verification: verification(),
    })
}

/// A token from a file. It has no spaces, so those around it are not its own.
pub(crate) fn read_api_key(file: &Path) -> Result<String> {
    let text = if file == Path::new("-") && confirm::is_answered() {
        confirm::typed_secret("Token: ")?
    } else {
        read_secret(file, "token")?
    };
    Ok(text.trim().to_owned())
}

/// A new password from a file, without the end of its line: spaces may be a part of it. Whoever types it does so twice, since it is
/// not to be seen.
pub(crate) fn read_new_password(file: &Path) -> Result<String> {
    if file == Path::new("-") && confirm::is_answered() {
        let password = confirm::typed_secret("New password: ")?;
        if confirm::typed_secret("The same again: ")? != password {
            return Err(CliError::failure("The two are not the same; nothing was done"));
        }
        return Ok(password);
    }
    let text = read_secret(file, "password")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A secret from a file, or from standard input for `-`: never from the command line, where everybody on the machine
/// can read it.
fn read_secret(file: &Path, what: &str) -> Result<String> {
    if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        fs::read_to_string(file)
    }
    .map_err(|error| CliError::failure(format!("Can not read the {what} in {}: {error}", file.display())))
}

fn verification() -> Verification {
    match env::var("PVC_CLIENT_VERIFY_SSL") {
        Ok(text) if text != "True" => Verification::Off,
        Ok(_) | Err(_) => Verification::On,
    }
}

/// What a stored connection stands for.
pub(crate) fn resolve(name: &str, entry: &Entry) -> Result<Connection> {
    match entry {
        Entry::Local { cfgfile, .. } => local(name, cfgfile),
        Entry::Unknown(_) => Err(CliError::failure(format!(
            "The connection {name:?} in {} is not one that this version of pvc understands; add it again, or remove it",
            store_path()?.display()
        ))),
        Entry::Remote {
            description,
            host,
            port,
            scheme,
            api_key,
            others: _,
        } => Ok(Connection {
            name: name.to_owned(),
            description: description.clone(),
            url: format!("{scheme}://{}:{port}{PREFIX}", bracketed(host)),
            api_key: api_key.clone().filter(|key| !key.is_empty()),
            verification: verification(),
        }),
    }
}

/// An IPv6 address needs brackets in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn local(name: &str, file: &Path) -> Result<Connection> {
    let text = fs::read_to_string(file).map_err(|error| {
        CliError::failure(format!(
            "Can not read {}: {error}. It is needed for the connection to this node; name another with -c",
            file.display()
        ))
    })?;
    let config: NodeConfig = serde_saphyr::from_str(&text).map_err(|error| {
        // The error may quote the file, and with it a token.
        let line = error.location().map_or(0, |location| location.line());
        CliError::failure(format!(
            "{} can not be understood (line {line}); try 'pvcapid --check-config'",
            file.display()
        ))
    })?;
    let address = config
        .api
        .listen
        .address
        .or_else(|| config.cluster?.networks?.upstream?.ipv4?.floating_address)
        .unwrap_or_else(|| "127.0.0.1".to_owned());
    let host = match address.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        _ => address,
    };
    let scheme = if config.api.ssl.enabled { "https" } else { "http" };
    let port = config.api.listen.port.unwrap_or(DEFAULT_PORT);
    Ok(Connection {
        name: name.to_owned(),
        description: "this node".to_owned(),
        url: format!("{scheme}://{}:{port}{PREFIX}", bracketed(&host)),
        api_key: config
            .api
            .token
            .into_iter()
            .next()
            .map(|token| token.token)
            .filter(|_| config.api.authentication.enabled),
        // The certificate is made out to the cluster's name, not to an address.
        verification: Verification::Off,
    })
}

/// What of a node's configuration the command needs; the daemons read and check all of it.
#[derive(Deserialize)]
struct NodeConfig {
    api: ApiConfig,
    cluster: Option<ClusterConfig>,
}

#[derive(Deserialize)]
struct ClusterConfig {
    networks: Option<NetworksConfig>,
}

#[derive(Deserialize)]
struct NetworksConfig {
    upstream: Option<NetworkConfig>,
}

#[derive(Deserialize)]
struct NetworkConfig {
    ipv4: Option<AddressConfig>,
}

#[derive(Deserialize)]
struct AddressConfig {
    floating_address: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiConfig {
    listen: ListenConfig,
    authentication: AuthenticationConfig,
    token: Vec<TokenConfig>,
    ssl: SslConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenConfig {
    address: Option<String>,
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthenticationConfig {
    enabled: bool,
}

#[derive(Deserialize)]
struct TokenConfig {
    token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SslConfig {
    enabled: bool,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_store_of_the_reference_is_read_and_written_back_alike() {
        let text = r#"{"local":{"cfgfile":"/etc/pvc/pvc.conf"},"lab":{"description":"N/A","host":"10.0.0.250","port":7370,"scheme":"http","api_key":"secret"},"old":{"description":"d","host":"h","port":1,"scheme":"https","api_key":null}}"#;
        let stored: Stored = serde_json::from_str(text).unwrap();
        let back: serde_json::Value = serde_json::to_value(&stored).unwrap();
        assert_eq!(back, serde_json::from_str::<serde_json::Value>(text).unwrap());
        let lab = resolve("lab", &stored.0["lab"]).unwrap();
        assert_eq!(lab.url, "http://10.0.0.250:7370/api/v1");
        assert_eq!(lab.api_key.as_deref(), Some("secret"));
        assert!(!format!("{stored:?} {lab:?}").contains("secret"));
    }

    #[test]
    fn the_local_connection_is_read_from_the_node_s_configuration() {
        let directory = env::temp_dir().join(format!("pvc-cli-local-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("pvc.conf");
        fs::write(
            &file,
            "cluster:\n  name: c\napi:\n  listen:\n    address: 0.0.0.0\n    port: 7371\n  authentication:\n    enabled: yes\n  token:\n    - description: d\n      token: t0ken\n  ssl:\n    enabled: yes\n",
        )
        .unwrap();
        let local = local("local", &file).unwrap();
        assert_eq!(local.url, "https://127.0.0.1:7371/api/v1");
        assert_eq!(local.api_key.as_deref(), Some("t0ken"));
        assert_eq!(local.verification, Verification::Off);
        fs::remove_dir_all(&directory).unwrap();
    }

    /// A password that begins with a space is another one without it.
    #[test]
    fn a_password_loses_the_end_of_its_line_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        for (text, password) in [(" a b \n", " a b "), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            fs::write(&file, text).unwrap();
            assert_eq!(read_new_password(&file).unwrap(), password, "{text:?}");
        }
        fs::write(&file, " token\n").unwrap();
        assert_eq!(read_api_key(&file).unwrap(), "token");
    }

    /// Whoever makes /tmp/pvc first would say which cluster others talk to, and be told their tokens.
    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mine = directory.path().join("pvc");
        assert!(refuse_of_others(&mine).is_ok(), "there is none yet");
        fs::create_dir(&mine).unwrap();
        for (mode, is_mine) in [(0o700, true), (0o755, true), (0o777, false), (0o770, false)] {
            fs::set_permissions(&mine, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(refuse_of_others(&mine).is_ok(), is_mine, "{mode:o}");
        }
        fs::set_permissions(&mine, PermissionsExt::from_mode(0o700)).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&mine, &link).unwrap();
        assert!(refuse_of_others(&link).is_err());
    }

    #[test]
    fn a_url_may_have_the_prefix_or_not() {
        for url in [
            "http://h:1",
            "http://h:1/",
            "http://h:1/api/v1",
            "http://h:1/api/v1/",
        ] {
            assert_eq!(from_url(url, None).unwrap().url, "http://h:1/api/v1");
        }
        assert!(from_url("h:1", None).is_err());
        assert_eq!(bracketed("fd00::1"), "[fd00::1]");
    }
}
