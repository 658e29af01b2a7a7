//! Builds and drives a real PVC cluster of systemd nodes on one machine.
//!
//! A node is a systemd-nspawn container that boots Debian from one shared base tree (an overlay for each node), in a
//! network namespace of its own. Cables lead from it to the *switch*, a namespace with a bridge for each of the host
//! networks upstream, cluster and storage. On the nodes run ZooKeeper, Ceph, libvirt and our daemons. The nodes can be
//! switched off, frozen and cut off, through this library or through a BMC of their own.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use pvc_lab::{Lab, Network};
//!
//! let lab = Lab::attach()?;                       // or Lab::up(&Options::default(), &mut Lines::new())
//! let hv2 = lab.node("hv2")?;
//! println!("{}", hv2.exec(&["uname", "-n"])?.ok()?);
//! hv2.freeze()?;                                  // every process stops where it stands
//! hv2.thaw()?;
//! hv2.kill()?;                                    // power loss
//! hv2.power_on()?;                                // back when systemd has started everything
//! lab.partition("hv2", Network::Cluster)?;
//! lab.wait_for("hv3 to lead", Duration::from_secs(10), || {
//!     Ok(lab.zookeeper_leader()?.is_some_and(|node| node.name() == "hv3"))
//! })?;
//! lab.heal()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is under one folder (`/var/lib/pvc-lab`, or what `PVC_LAB_DIR` says); there is never more than one lab on a
//! machine. The machine's own network namespace gets no address and no route of the lab. What processes there are is
//! read from cgroups, never remembered. Names and addresses are fixed: see [`topology`].

#![expect(
    clippy::disallowed_methods,
    reason = "a tool, not a daemon: it has no clock seam, and process.rs is its command runner"
)]

mod base;
mod bmc;
pub mod ceph;
mod cgroup;
mod config;
mod deploy;
pub mod forward;
pub mod guest;
mod host;
mod lab;
mod libvirt;
mod network;
mod node;
pub mod packages;
mod process;
mod progress;
mod service;
mod state;
pub mod topology;
mod up;
mod zookeeper;

pub use deploy::{Daemons, PAUSE_FOLDER};
pub use lab::{Begun, DEMO, Lab, Options, Site};
pub use network::Carrier;
pub use node::{Changed, Node, Power};
pub use process::{Background, Output, wait_for};
pub use progress::{Lines, Progress, Quiet};
pub use state::{Accelerator, Installed, Phase, State, Storage};
pub use topology::{Network, NodeId};
pub use zookeeper::{Mode as ZookeeperMode, mode as zookeeper_mode};
