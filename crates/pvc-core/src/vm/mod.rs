//! Guests: what the node that runs one, or should, does next about it.
//!
//! The owner record is the guard: a process of a guest exists only on the node that has made itself owner, and the
//! owner is given up only when that process has been seen gone. `node` in the guest's record says where it *should*
//! run and guards nothing.

mod decide;
mod local;
mod migrate;

pub use decide::{
    Calm, DestroyReason, FenceEvidence, NodeFitness, RestartHistory, ShutdownProgress, VmRecord, VmStep,
    VmView, next_vm_step,
};
pub use local::{DomainReading, DomainStatus, Ending, PauseReason, Presence};
pub use migrate::{
    ACCEPT_WITHIN, ANSWER_WITHIN, COMPLETE_WITHIN, CallOff, CancelReason, JobReading, Move, Offer, Progress,
    ReceiveStep, ReceiveView, STALLED_AFTER, SendStep, SendView, SourceFate, SourceSide, TRIES,
    TRY_AGAIN_AFTER, TRY_WITHIN, TargetSide, TargetUnfit, TargetView, judge_target, names_me,
    next_receive_step, next_send_step, placement_before, source_side, target_side, wanted_move,
};
