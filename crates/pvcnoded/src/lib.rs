//! The PVC node agent.
//!
//! * [`agent`]: where the agent is in its life, shared by its loops.
//! * [`node_lease`]: this agent is alive.
//! * [`role`]: this node's part in the primary role.
//! * [`vm`]: guests on this node.
//! * [`stats`]: figures of the node and its guests.
//! * [`host`]: the outside world, behind seams.
pub mod agent;
pub mod host;
pub mod node_lease;
pub mod role;
pub mod stats;
pub mod vm;
