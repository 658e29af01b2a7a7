//! Types, states and pure decisions of PVC.
//!
//! Nothing in this crate reads a clock, a file, a socket or the environment: time is an argument and the outside
//! world arrives as a view. So the daemons, the simulator and the tests run the very same decisions.
//!
//! * [`access`]: who may use the API, and what was done through it.
//! * [`backup`]: what is in a backup of the store, and what putting it back changes.
//! * [`bmc`]: whose a node's BMC is, and what its word is good for.
//! * [`cluster_faults`]: what is wrong with the cluster as a whole.
//! * [`device_order`]: attaching devices to guests that run, and detaching them.
//! * [`diff`]: the difference between two texts.
//! * [`drain`]: emptying a node and filling it again.
//! * [`fence`]: proving a silent node dead.
//! * [`guest_xml`]: a guest as its libvirt XML describes it.
//! * [`hold`]: holding still while the store may tell of the past.
//! * [`ids`]: names and identities; each type validates in its one constructor.
//! * [`states`]: the words that nodes, coordinators and guests use in the store, exactly as PVC 1.0.3 writes them.
//! * [`lease`]: how long a holder may act and when a silent one may be replaced.
//! * [`placement`]: choosing a node for a guest.
//! * [`protection`]: the safeguards of the protocol by name.
//! * [`records`]: the JSON values of the coordination protocol (leases, owners).
//! * [`role`]: the primary role: who may hold the floating addresses.
//! * [`size`]: sizes as Ceph and PVC write them for people.
//! * [`upstream`]: whether a node reaches the upstream network.
//! * [`storage_loss`]: what a node does that has lost the storage network alone.
//! * [`time`]: the host's boot clock as a value.
pub mod access;
pub mod backup;
pub mod bmc;
pub mod cluster_faults;
pub mod device_order;
pub mod diff;
pub mod drain;
pub mod fence;
pub mod guest_xml;
pub mod hold;
pub mod ids;
pub mod lease;
pub mod lock_flush;
pub mod placement;
pub mod protection;
pub mod records;
pub mod role;
pub mod size;
pub mod states;
pub mod storage_loss;
pub mod time;
pub mod upstream;
pub mod vm;
pub mod volume_use;
