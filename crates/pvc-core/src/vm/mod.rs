//! Guests: what the node that runs one, or should, does next about it.
//!
//! The owner record is the guard: a process of a guest exists only on the node that has made itself owner, and the
//! owner is given up only when that process has been seen gone. `node` in the guest's record says where it *should*
//! run and guards nothing.

mod decide;
mod local;

pub use decide::{
    Calm, DestroyReason, NodeFitness, RestartHistory, ShutdownProgress, VmRecord, VmStep, VmView,
    next_vm_step,
};
pub use local::{DomainReading, DomainStatus, PauseReason, Presence};
