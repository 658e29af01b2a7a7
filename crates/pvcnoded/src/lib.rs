//! The PVC node agent.
//!
//! * [`agent`]: where the agent is in its life, shared by its loops.
//! * [`bmc`]: tests this node's own BMC.
//! * [`cluster_faults`]: the primary tells what is wrong with the cluster as a whole.
//! * [`daemon`]: the process: threads, loops, start and stop.
//! * [`registration`]: this life takes its place in the store.
//! * [`node_lease`]: this agent is alive.
//! * [`fence`]: nodes that have died are proven dead, and their guests run elsewhere.
//! * [`placement`]: a node for a guest.
//! * [`drain`]: this node is emptied and filled again.
//! * [`console`]: the last lines of guests' consoles, for people.
//! * [`node_log`]: the last lines of this agent's log, for people.
//! * [`lock_flush`]: locks of a stopped guest's volumes are removed, as an administrator orders.
//! * [`health`]: health checks of this node.
//! * [`heartbeat`]: what is measured here, for people.
//! * [`measures`]: what the agent measures of itself.
//! * [`role`]: this node's part in the primary role.
//! * [`storage_loss`]: whether a node with guests reaches its storage.
//! * [`upstream`]: whether this node reaches the upstream network.
//! * `definition`: a guest's definition as it is stored, with the list of its volumes.
//! * [`vm`]: guests on this node.
//! * [`stats`]: figures of the node and its guests.
//! * [`hold`]: holding still while the store may tell of the past.
//! * [`host`]: the outside world, behind seams.
pub mod agent;
pub mod bmc;
pub mod cluster_faults;
pub mod console;
pub mod daemon;
mod definition;
pub mod drain;
pub mod fence;
pub mod health;
pub mod heartbeat;
pub mod hold;
pub mod host;
pub mod lock_flush;
pub mod measures;
pub mod node_lease;
pub mod node_log;
pub mod placement;
pub mod registration;
pub mod role;
pub mod stats;
pub mod storage_loss;
pub mod upstream;
pub mod vm;
