//! A simulated cluster, to hunt for schedules that run a guest twice or give two primaries.
//!
//! The loops are the agents' own (leases, primary role, guests, fencing), over the in-memory store and the fakes of the
//! seams, on a virtual clock, polled by one thread in an order that a seed decides. The same schedule gives the same
//! run, on every machine.
//!
//! * [`schedule`]: what is done to a cluster, as text.
//! * [`random`]: schedules from a seed.
//! * [`run`]: runs one, looks at the invariants after every step, shrinks one that fails.
//! * [`scenario`]: schedules written by hand, with the log that is expected.
//! * [`coverage`]: what the schedules reached.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a tool for tests: it stops at what it does not understand, and asks about few of many states"
)]

mod agent;
mod apply;
pub mod coverage;
mod executor;
mod hooks;
#[cfg(feature = "mutations")]
pub mod mutations;
pub mod random;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod schedule;
mod seams;
mod truth;
mod world;

pub use hooks::Ordered;

use std::net::IpAddr;
use std::time::Duration;

use pvc_core::ids::{BootId, Incarnation, MachineId, NodeName, VmId};
use pvc_core::time::BootTime;
use uuid::Uuid;

/// What the world's clock shows at the beginning.
const START: BootTime = BootTime::from_duration(Duration::from_secs(1000));

fn node_name(host: usize) -> NodeName {
    NodeName::new(format!("hv{}", host + 1)).expect("a valid name")
}

fn vm_id(guest: usize) -> VmId {
    VmId::new(Uuid::from_u128(guest as u128 + 1))
}

fn guest_name(vm: VmId) -> String {
    let text = vm.to_string();
    let number = text.rsplit('-').next().unwrap_or_default();
    let number = u64::from_str_radix(number, 16).unwrap_or(0);
    format!("g{number}")
}

/// This life of the agent on that boot of this host.
fn incarnation(host: usize, boot: u64, life: u64) -> Incarnation {
    Incarnation {
        machine_id: MachineId::new(format!("{:032x}", host + 1)).expect("a valid machine id"),
        boot_id: BootId::new(format!("6ba7b810-9dad-11d1-80b4-{:04x}{boot:08x}", host + 1))
            .expect("a valid boot id"),
        counter: life,
    }
}

/// At which its BMC answers.
fn bmc_name(host: usize) -> String {
    format!("bmc-hv{}", host + 1)
}

/// The GUID that the machine and its BMC have.
fn machine_guid(host: usize) -> String {
    format!("31303043-534d-2500-90d8-7a5{:09x}", host + 1)
}

fn cluster_ip(host: usize) -> IpAddr {
    IpAddr::from([10, 101, 0, u8::try_from(host + 1).unwrap_or(u8::MAX)])
}

fn storage_ip(host: usize) -> IpAddr {
    IpAddr::from([10, 102, 0, u8::try_from(host + 1).unwrap_or(u8::MAX)])
}
