//! Fencing: making sure that a silent node is dead, and proving it, before anything of it runs elsewhere.
//!
//! * [`record`]: what the cluster knows of a fence, in the store, for whoever carries it on and for administrators.
//! * [`proof`]: the facts that prove a boot of a machine dead. Nothing else makes a [`Proof`](proof::Proof).

pub mod proof;
pub mod record;

pub use proof::{Proof, ProofKind};
pub use record::{
    Confirmation, ConfirmationKind, FenceEvent, FencePhase, FenceRecord, PowerTrack, RestartTrack,
    StorageTrack,
};
