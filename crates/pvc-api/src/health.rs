//! Whether the daemon is well.

use serde::{Deserialize, Serialize};

/// Whether the daemon can show the cluster as it is now (`/healthz`, `/readyz`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// `alive`; or `ready`, `loading` before the store was read for the first time, `stale` while it is silent.
    pub status: String,
    /// How long ago the store was last known to be shown as it is, in seconds.
    pub age: Option<f64>,
}
