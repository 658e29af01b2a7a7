//! What this agent has seen of the store, on this host's disk.
//!
//! An old file is harmless (a little less is noticed), a torn one is as good as none, so the file is replaced as a
//! whole, and synced only where it counts: when a hold begins or ends, when guests come or go, and once a minute.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use pvc_core::hold::StoreMemory;
use pvc_core::records::{InvalidRecord, Record as _};

/// Whether a write must outlast a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must.
    Synced,
    /// The next one comes soon.
    Soon,
}

/// Why what was seen before can't be read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file can't be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} does not hold what it should", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidRecord,
    },
}

/// The file.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// The file in the state directory (`/var/lib/pvc`), which outlasts reboots.
    pub fn in_directory(state_directory: &Path) -> MemoryFile {
        MemoryFile {
            path: state_directory.join("store-memory.json"),
        }
    }

    /// What was seen; `None` on a host that has never seen a store.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn read(&self) -> Result<Option<StoreMemory>, MemoryError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(MemoryError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        StoreMemory::decode(&bytes)
            .map(Some)
            .map_err(|source| MemoryError::Content {
                path: self.path.clone(),
                source,
            })
    }

    /// Replaces the file. Blocks on the disk.
    ///
    /// # Errors
    /// When it can't be written; the old one is there still.
    pub fn write(&self, memory: &StoreMemory, durability: Durability) -> io::Result<()> {
        let next = self.path.with_extension("next");
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create(&next)?;
        file.write_all(&memory.encode())?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&next, &self.path)?;
        if durability == Durability::Synced
            && let Some(directory) = self.path.parent()
        {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}
