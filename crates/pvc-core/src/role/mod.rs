//! The primary role: who may hold the floating addresses, and what each coordinator does next about it.
//!
//! Two znodes decide. The *record* (`/config/primary_node`) says who should be primary; the *role lease*
//! (`/leases/primary`) says who may hold the addresses now. The record follows the lease's silence alone.
//!
//! ```text
//!               record names me, lease released or silent for C
//!    Standby ──────────────────────────────────────────────────▶ Holding(BringUp)
//!       ▲                                                            │ what was started answers
//!       │ lease released by us                                       ▼
//!    Lapsed ◀────────────────────────────────────────────────── Holding(Primary)
//!               addresses taken off: hand-over, record lost, right ended, ...
//! ```
//!
//! [`RoleMachine::next`] decides and does nothing; the agent carries the [`Step`] out and reports what came of it to
//! one of the other methods. Everything here takes time as an argument.

mod machine;
mod peers;
mod view;

pub use machine::{Phase, RoleMachine, Stage, Tenure};
pub use view::{
    Because, DropReason, Eligibility, Observation, OwnUpstream, Peer, RoleTiming, Step, VacateReason,
};
