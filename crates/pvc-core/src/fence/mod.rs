//! Fencing: making sure that a silent node is dead, and proving it, before anything of it runs elsewhere.
//!
//! * [`silence`]: for how long a node has not renewed its lease, in the observer's own rounds.
//! * [`suspicion`]: who is suspect, and the brakes on it.
//! * [`quorum`]: what a power-off would leave of the coordinators.
//! * [`step`]: what a fencer does next.
//! * [`proof`]: the facts that prove a boot of a machine dead. Nothing else makes a [`Proof`].
//! * [`recovery`]: what becomes of each guest of a dead node.
//! * [`record`]: what the cluster knows of a fence, in the store, for whoever carries it on and for administrators.

pub mod proof;
pub mod quorum;
pub mod record;
pub mod recovery;
pub mod silence;
pub mod step;
pub mod suspicion;

pub use proof::{Proof, ProofKind};
pub use quorum::{CoordinatorLife, QuorumAtStake, quorum_at_stake};
pub use record::{
    Confirmation, ConfirmationKind, FenceEvent, FencePhase, FenceRecord, PowerTrack, RestartTrack,
    StorageTrack,
};
pub use recovery::{GuestFate, GuestRecords, guest_fate, is_left_by_stop};
pub use silence::{LeaseLook, SeenLease, SilenceJudge};
pub use step::{
    AbandonReason, FencePolicy, FenceStep, FenceView, Means, ORDER_OUTLIVED, RESTART_ORDERS, RecoveryPolicy,
    WaitReason, is_replaced, next_fence_step,
};
pub use suspicion::{BrakeOn, Standing, SuspicionJudge, SuspicionSettings};
