//! What travels between `pvcapid` and its clients: the shapes of the HTTP API, shared by daemon and command line.
//!
//! Field names and meanings are those of PVC 1.0.3, since its clients and dashboards read them; what we add stands
//! beside them and is marked as an addition. Unknown fields are ignored when reading, so that an older client can talk
//! to a newer daemon.
//!
//! * [`message`] - replies that say something, errors among them.
//! * [`status`] - the cluster as a whole.
//! * [`node`] - nodes.
//! * [`vm`] - guests.
//! * [`fence`] - fences.
//! * [`fault`] - faults.
//! * [`health`] - whether the daemon is well.
//! * [`access`] - who may use the API, and what was done through it.
//! * [`network`] - virtual networks and SR-IOV functions.
//! * [`storage`] - the storage cluster.
//! * [`task`] - long work that a node does.
pub mod access;
pub mod fault;
pub mod fence;
pub mod health;
pub mod message;
pub mod network;
pub mod node;
pub mod status;
pub mod storage;
pub mod task;
pub mod vm;

/// Where every route begins.
pub const PREFIX: &str = "/api/v1";

/// The port on which the API listens if nothing else is said.
pub const DEFAULT_PORT: u16 = 7370;

/// The header that carries an API token.
pub const API_KEY_HEADER: &str = "X-Api-Key";

/// The header that carries a request's identity, in replies and in the daemon's log.
pub const REQUEST_ID_HEADER: &str = "X-Request-Id";
