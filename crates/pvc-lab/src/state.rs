//! Where the lab keeps its files, what it remembers in `lab.json`, and the lock that keeps labs apart.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::topology::NodeId;

/// Version of the format of `lab.json`.
const FORMAT: u32 = 1;
/// One lab on a machine, whatever its folder: they would share names of namespaces and cgroups.
const LOCK: &str = "/run/pvc-lab.lock";

/// The folder that holds everything of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// `PVC_LAB_DIR`, or /var/lib/pvc-lab.
    pub(crate) fn of_environment() -> Folder {
        let root = std::env::var_os("PVC_LAB_DIR").filter(|value| !value.is_empty());
        Folder {
            root: root.map_or_else(|| PathBuf::from("/var/lib/pvc-lab"), PathBuf::from),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Downloaded packages, kept so that a second base tree is quick.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Everything of the running cluster; removed by `down`.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    pub(crate) fn node(&self, node: NodeId) -> PathBuf {
        self.cluster().join(node.to_string())
    }

    /// Mounted read-only in every node at /usr/lib/pvc-lab: our daemons and the lab's scripts.
    pub(crate) fn share(&self) -> PathBuf {
        self.cluster().join("share")
    }

    /// Programs the lab needs for itself while it runs: forwarder, BMCs and their way back to us.
    pub(crate) fn tools(&self) -> PathBuf {
        self.cluster().join("tools")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.cluster().join("lab.json")
    }
}

/// How far `up` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `up` is at work, or was ended before it was through.
    Building,
    /// Everything that was asked for is there.
    Ready,
}

/// What the lab remembers between two commands. Processes are not in here: they are found through their cgroups, so
/// that nothing can be remembered wrongly.
#[derive(Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    pub format: u32,
    /// How far `up` came.
    pub phase: Phase,
    /// The base tree under all nodes.
    pub base: PathBuf,
    /// The nodes, coordinators first.
    pub nodes: Vec<NodeId>,
    /// Whether there is a Ceph cluster.
    pub storage: Storage,
    /// What runs guests.
    pub accelerator: Accelerator,
    /// Id of the Ceph cluster.
    pub ceph_fsid: String,
    /// Id of libvirt's secret with the key of `client.libvirt`.
    pub secret_uuid: String,
    /// The API as this machine sees it, for example `http://127.0.0.1:7370`.
    pub api_url: String,
    /// The port on the loopback interface that leads to the API.
    pub api_port: u16,
    /// Token for the API.
    pub api_token: String,
    /// Signs the cookies of browser sessions.
    pub api_secret: String,
    /// Whether our daemons are on the nodes.
    pub daemons: Installed,
    /// Password of every BMC; the user is `admin`.
    pub bmc_password: String,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("nodes", &self.nodes)
            .field("storage", &self.storage)
            .field("api_url", &self.api_url)
            .finish_non_exhaustive()
    }
}

/// Whether the lab has replicated storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Ceph on the coordinators.
    Ceph,
    /// None: quicker, for tests of what needs no guests.
    None,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Installed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// What runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's own emulation: slower, but it works inside virtual machines.
    Tcg,
}

impl State {
    /// A lab that is about to be built, with fresh secrets.
    pub(crate) fn new(base: PathBuf, nodes: Vec<NodeId>, storage: Storage) -> Result<State> {
        Ok(State {
            format: FORMAT,
            phase: Phase::Building,
            base,
            nodes,
            storage,
            accelerator: Accelerator::Tcg,
            ceph_fsid: random_uuid()?,
            secret_uuid: random_uuid()?,
            api_url: String::new(),
            api_port: 0,
            api_token: random_hex(32)?,
            api_secret: random_hex(32)?,
            daemons: Installed::No,
            // IPMI 2.0 cuts passwords at 20 characters.
            bmc_password: random_hex(8)?,
        })
    }

    /// The state of the lab in this folder, or none if there is no lab.
    pub(crate) fn read(folder: &Folder) -> Result<Option<State>> {
        let file = folder.state_file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let state: State = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is damaged; `cargo xtask lab down` removes the lab",
                file.display()
            )
        })?;
        if state.format != FORMAT {
            bail!("this lab was made by another version; `cargo xtask lab down` removes it");
        }
        Ok(Some(state))
    }

    pub(crate) fn write(&self, folder: &Folder) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot encode the state")?;
        write_file(&folder.state_file(), 0o600, text)
    }

    /// The coordinators among the nodes.
    pub fn coordinators(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied().filter(|node| node.is_coordinator())
    }
}

/// Held while the lab is changed as a whole.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take() -> Result<Lock> {
        match lock_file(Path::new(LOCK), FlockOperation::NonBlockingLockExclusive)? {
            Some(file) => Ok(Lock { _file: file }),
            None => bail!("another `lab up` or `lab down` is at work (it holds {LOCK})"),
        }
    }

    /// Held while one node is switched on or off; waits for whoever holds it.
    pub(crate) fn of_node(folder: &Folder, node: NodeId) -> Result<Lock> {
        let path = folder.node(node).join("power.lock");
        match lock_file(&path, FlockOperation::LockExclusive)? {
            Some(file) => Ok(Lock { _file: file }),
            None => bail!("cannot lock {}", path.display()),
        }
    }
}

fn lock_file(path: &Path, operation: FlockOperation) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Writes a file whole or not at all, with its folders; the mode holds from the first byte.
pub(crate) fn write_file(path: &Path, mode: u32, content: impl AsRef<[u8]>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content.as_ref())?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// `bytes` random bytes, written in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    Ok(random(bytes)?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A random UUID (version 4).
pub(crate) fn random_uuid() -> Result<String> {
    let mut bytes = random(16)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

pub(crate) fn random(bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut buffer))
        .context("cannot read /dev/urandom")?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_uuids_have_their_version_and_differ() {
        let (one, two) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]));
    }

    // The state holds the token of an administrator.
    #[test]
    fn secrets_are_not_shown() {
        let state = State::new("/base".into(), NodeId::first(3), Storage::Ceph).unwrap();
        let shown = format!("{state:?}");
        assert!(
            !shown.contains(&state.api_token) && !shown.contains(&state.bmc_password),
            "{shown}"
        );
    }
}
