//! What the PVC daemons share.
//!
//! * [`store`]: the coordination store behind one trait, with two implementations (ZooKeeper and in memory).
//! * [`clock`]: the boot clock and waiting, behind one trait.
//! * [`command`]: programs of the host, behind one trait, with deadlines.
//! * [`faults`]: what is wrong in the cluster, for administrators.
//! * [`lock`]: exclusive locks over the store.
//! * [`keys`]: the store's typed keys and how their values are written.
//! * [`schema`]: the store's layout, made, checked and migrated; the keys of new nodes and guests.
//! * [`config`]: the configuration file, checked.
//! * [`secret`]: texts that must not be shown.
//! * [`mirror`]: a copy of the store in memory, for reading.
//! * [`placement`]: what each node has to carry, and reserving memory on one.
//! * [`pause`]: points at which a test can hold a daemon.
//! * [`telemetry`]: logging that never makes anyone wait.
pub mod clock;
pub mod command;
pub mod config;
pub mod faults;
pub mod keys;
pub mod lock;
pub mod mirror;
pub mod pause;
pub mod placement;
pub mod schema;
pub mod secret;
pub mod store;
pub mod telemetry;
