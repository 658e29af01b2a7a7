//! What is kept in `/run/pvc` about our tenure, for the process that cleans up after an agent that was killed.
//!
//! `pvcnoded --drop-role` (ExecStopPost of the unit) takes the addresses off and then, with what stands here, says in
//! the store that nobody holds the role: on condition of the versions, so that it can only ever end our own tenure.

use std::io;
use std::path::{Path, PathBuf};

use pvc_core::ids::{Incarnation, ZnodeVersion};
use serde::{Deserialize, Serialize};

/// The tenure that the agent had last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenureNote {
    /// The record's version that named this node.
    pub record_version: i32,
    /// The life of the agent that took the role lease.
    pub incarnation: Incarnation,
}

impl TenureNote {
    /// The record's version.
    pub fn record(&self) -> ZnodeVersion {
        ZnodeVersion(self.record_version)
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct TenureFile {
    path: PathBuf,
}

impl TenureFile {
    /// The file in the runtime directory (`/run/pvc`), which goes with the boot.
    pub fn in_directory(runtime_directory: &Path) -> TenureFile {
        TenureFile {
            path: runtime_directory.join("tenure.json"),
        }
    }

    /// Notes a tenure; replaces the file as a whole.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn write(&self, note: &TenureNote) -> io::Result<()> {
        let next = self.path.with_extension("next");
        std::fs::write(&next, serde_json::to_vec(note)?)?;
        std::fs::rename(&next, &self.path)
    }

    /// The tenure noted, if any. A file that can't be read as one counts as none: nothing is done on a guess.
    pub fn read(&self) -> Option<TenureNote> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }

    /// The tenure has ended.
    pub fn clear(&self) {
        // Missing is as good as removed; anything else is found again when the next tenure is noted.
        let _ = std::fs::remove_file(&self.path);
    }
}
