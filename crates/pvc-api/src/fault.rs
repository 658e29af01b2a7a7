//! Faults: what is wrong in the cluster and wants a person.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// What it is and where: the same for as long as it lasts.
    pub id: String,
    /// When it was last seen: `YYYY-MM-DD HH:MM:SS`, local time of the node that saw it.
    pub last_reported: String,
    /// When it was first seen.
    pub first_reported: String,
    /// When it was acknowledged; empty if it was not.
    pub acknowledged_at: String,
    /// `new` or `ack`.
    pub status: String,
    /// By how many points it lowers the cluster's health.
    pub health_delta: u32,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Fault {
    /// Whether somebody has acknowledged it: it lowers the health no more.
    pub fn is_acknowledged(&self) -> bool {
        self.status == "ack"
    }
}
