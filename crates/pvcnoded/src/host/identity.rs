//! Who this host is, and which life of its agent this is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use pvc_core::ids::{BootId, Incarnation, InvalidId, MachineId};
use rustix::fs::{FlockOperation, flock};
use tracing::warn;

/// Names another file for the boot id: for nodes that share one kernel.
const BOOT_ID_VARIABLE: &str = "PVC_BOOT_ID_FILE";

/// Where the host says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The machine id, 32 hexadecimal digits.
    pub machine_id: PathBuf,
    /// The boot id, a UUID.
    pub boot_id: PathBuf,
    /// A directory that does not outlive the boot.
    pub runtime: PathBuf,
}

impl IdentityFiles {
    /// `/etc/machine-id`, the kernel's boot id (or the file that `PVC_BOOT_ID_FILE` names) and `/run/pvc`.
    pub fn from_environment() -> IdentityFiles {
        IdentityFiles {
            machine_id: "/etc/machine-id".into(),
            boot_id: std::env::var_os(BOOT_ID_VARIABLE)
                .map_or_else(|| "/proc/sys/kernel/random/boot_id".into(), PathBuf::from),
            runtime: "/run/pvc".into(),
        }
    }
}

/// Why a host could not say who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was tried, in words.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should. Guessing could give two lives one number.
    #[error("{} does not hold what it should", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
    /// Another agent of this host has begun its life and not ended it.
    #[error("another agent runs on this host (it holds {})", path.display())]
    AlreadyRunning {
        /// The lock file.
        path: PathBuf,
    },
}

/// A life of this host's agent that has begun. Dropping it (or the end of the process) ends it.
#[derive(Debug)]
pub struct Life {
    /// Its number and where it takes place.
    pub incarnation: Incarnation,
    _lock: File,
}

/// Begins a new life: checks that no other agent runs here, and raises the counter of this boot. The counter is on
/// disk before this returns, so a number is never used twice.
///
/// # Errors
/// [`IdentityError`]; no life has begun.
pub fn begin_life(files: &IdentityFiles) -> Result<Life, IdentityError> {
    let machine_id = read_id(&files.machine_id, MachineId::new)?;
    let boot_id = read_id(&files.boot_id, BootId::new)?;
    make_runtime_directory(files)?;
    let lock = lock(&files.runtime.join("agent.lock"))?;
    let path = files.runtime.join("incarnation");
    let last = last_life(&path, &boot_id)?;
    let counter = last.counter.saturating_add(1);
    // A boot has one machine id for as long as it lasts: under another, guests that run would be another machine's.
    let machine_id = match last.machine_id {
        Some(was) if was != machine_id => {
            warn!(%was, now = %machine_id, "the machine id was changed while this host runs; it counts from the next boot on");
            was
        }
        Some(_) | None => machine_id,
    };
    write_whole(&path, &format!("{boot_id} {counter} {machine_id}\n"))?;
    Ok(Life {
        incarnation: Incarnation {
            machine_id,
            boot_id,
            counter,
        },
        _lock: lock,
    })
}

fn make_runtime_directory(files: &IdentityFiles) -> Result<(), IdentityError> {
    fs::create_dir_all(&files.runtime).map_err(|source| IdentityError::File {
        action: "make the directory",
        path: files.runtime.clone(),
        source,
    })
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

fn read_id<T>(path: &Path, parse: fn(String) -> Result<T, InvalidId>) -> Result<T, IdentityError> {
    let text = read(path)?;
    parse(text.trim().to_owned()).map_err(|source| IdentityError::Content {
        path: path.to_owned(),
        source,
    })
}

/// Sees to it that the next life of this boot has a larger number than `used`, which stands in the store: the directory
/// that counts them was deleted.
///
/// # Errors
/// [`IdentityError`]; the next life may meet the same number again.
pub fn skip_used_lives(files: &IdentityFiles, life: &Incarnation, used: u64) -> Result<(), IdentityError> {
    let path = files.runtime.join("incarnation");
    write_whole(&path, &format!("{} {used} {}\n", life.boot_id, life.machine_id))
}

/// What is on record of the last life of this boot.
#[derive(Debug, Default)]
struct LastLife {
    /// Its number; 0 if there was none.
    counter: u64,
    /// The machine id that it had; none in the records of earlier releases.
    machine_id: Option<MachineId>,
}

fn last_life(path: &Path, boot_id: &BootId) -> Result<LastLife, IdentityError> {
    let text = match read(path) {
        Ok(text) => text,
        Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(LastLife::default());
        }
        Err(error) => return Err(error),
    };
    let mut words = text.split_whitespace();
    let boot = words.next();
    let counter = words.next().and_then(|counter| counter.parse().ok());
    let machine_id = words.next().map(|id| MachineId::new(id.to_owned())).transpose();
    match (boot, counter, machine_id) {
        (Some(boot), Some(counter), Ok(machine_id)) if boot == boot_id.as_str() => {
            Ok(LastLife { counter, machine_id })
        }
        // The directory outlived a reboot: the other boot id tells its lives apart from ours.
        (Some(_), Some(_), Ok(_)) => Ok(LastLife::default()),
        _ => Err(IdentityError::Content {
            path: path.to_owned(),
            source: InvalidId {
                kind: "incarnation",
                text,
                reason: "it must be a boot id, a number and a machine id",
            },
        }),
    }
}

/// Replaces the file in one step, so that a crash leaves the old or the new.
fn write_whole(path: &Path, text: &str) -> Result<(), IdentityError> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|source| IdentityError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
}

/// No agent runs on this host, and none can begin a life while this is kept.
#[derive(Debug)]
pub struct NoAgent {
    _lock: File,
}

/// Makes sure that no agent runs on this host, for as long as the answer is kept.
///
/// # Errors
/// [`IdentityError::AlreadyRunning`] when one does, another [`IdentityError`] when it can't be told.
pub fn without_agent(files: &IdentityFiles) -> Result<NoAgent, IdentityError> {
    make_runtime_directory(files)?;
    let _lock = lock(&files.runtime.join("agent.lock"))?;
    Ok(NoAgent { _lock })
}

fn lock(path: &Path) -> Result<File, IdentityError> {
    let failed = |source| IdentityError::File {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(IdentityError::AlreadyRunning {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef\n";
    const BOOT: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8\n";
    const NEXT_BOOT: &str = "7ba7b810-9dad-11d1-80b4-00c04fd430c8\n";

    fn host() -> (tempfile::TempDir, IdentityFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = IdentityFiles {
            machine_id: dir.path().join("machine-id"),
            boot_id: dir.path().join("boot_id"),
            runtime: dir.path().join("run/pvc"),
        };
        fs::write(&files.machine_id, MACHINE).unwrap();
        fs::write(&files.boot_id, BOOT).unwrap();
        (dir, files)
    }

    fn next(files: &IdentityFiles) -> Incarnation {
        begin_life(files).unwrap().incarnation
    }

    #[test]
    fn each_start_is_a_life_of_its_own_and_a_reboot_begins_anew() {
        let (_dir, files) = host();
        assert_eq!(next(&files).counter, 1);
        assert_eq!(next(&files).counter, 2);
        let old = next(&files);
        fs::write(&files.boot_id, NEXT_BOOT).unwrap();
        let new = next(&files);
        assert_eq!(new.counter, 1);
        assert!(new.same_machine(&old) && !new.same_boot(&old));
    }

    // Under another machine id the guests of this boot would be taken for those of another machine, and ended.
    #[test]
    fn a_machine_id_that_is_changed_counts_from_the_next_boot_on() {
        let (_dir, files) = host();
        let before = next(&files);
        fs::write(&files.machine_id, "ffffffffffffffffffffffffffffffff\n").unwrap();
        let changed = next(&files);
        assert!(changed.same_boot(&before));
        assert_eq!(changed.counter, 2);
        fs::write(&files.boot_id, NEXT_BOOT).unwrap();
        assert!(!next(&files).same_machine(&before));
    }

    // A record of an earlier release has no machine id; a directory that was deleted begins at 1.
    #[test]
    fn numbers_go_on_after_an_upgrade_and_past_those_in_the_store() {
        let (_dir, files) = host();
        next(&files);
        fs::write(files.runtime.join("incarnation"), format!("{} 7\n", BOOT.trim())).unwrap();
        assert_eq!(next(&files).counter, 8);
        fs::remove_file(files.runtime.join("incarnation")).unwrap();
        let life = next(&files);
        assert_eq!(life.counter, 1);
        skip_used_lives(&files, &life, 8).unwrap();
        assert_eq!(next(&files).counter, 9);
    }

    // Two agents on one host would renew one lease and both create guests.
    #[test]
    fn a_second_agent_is_refused_while_the_first_lives() {
        let (_dir, files) = host();
        let first = begin_life(&files).unwrap();
        assert!(matches!(
            begin_life(&files),
            Err(IdentityError::AlreadyRunning { .. })
        ));
        assert!(matches!(
            without_agent(&files),
            Err(IdentityError::AlreadyRunning { .. })
        ));
        drop(first);
        assert_eq!(next(&files).counter, 2);
    }

    // An agent that began to hold the role in the middle of `--drop-role` would have it released under its addresses.
    #[test]
    fn no_agent_begins_a_life_while_it_is_made_sure_that_none_runs() {
        // Also where the directory has been lost: addresses must come off all the same.
        let (_dir, files) = host();
        let nobody = without_agent(&files).unwrap();
        assert!(matches!(
            begin_life(&files),
            Err(IdentityError::AlreadyRunning { .. })
        ));
        drop(nobody);
        assert_eq!(next(&files).counter, 1);
    }

    #[test]
    fn what_can_not_be_read_is_never_guessed() {
        let (_dir, files) = host();
        next(&files);
        fs::write(files.runtime.join("incarnation"), "").unwrap();
        assert!(matches!(begin_life(&files), Err(IdentityError::Content { .. })));
        fs::remove_file(files.runtime.join("incarnation")).unwrap();
        fs::write(&files.machine_id, "uninitialized\n").unwrap();
        assert!(matches!(begin_life(&files), Err(IdentityError::Content { .. })));
        fs::remove_file(&files.boot_id).unwrap();
        fs::write(&files.machine_id, MACHINE).unwrap();
        assert!(matches!(begin_life(&files), Err(IdentityError::File { .. })));
    }
}
