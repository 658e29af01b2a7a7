//! What the PVC daemons share.
//!
//! * [`store`]: the coordination store behind one trait, with two implementations (ZooKeeper and in memory).
//! * [`clock`]: the boot clock and waiting, behind one trait.
pub mod clock;
pub mod store;
