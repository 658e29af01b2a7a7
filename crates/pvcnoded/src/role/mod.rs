//! The primary role on this node: observe the store, ask the machine, carry its step out.
//!
//! [`pvc_core::role::RoleMachine`] decides; [`RoleKeeper`] makes no choices of its own. Two things here are for
//! safety, and both are about time:
//!
//! * While a call to the store is under way the clock is still looked at every tick, and the addresses come off when
//!   the right ends or the loop stood still, whether or not the store has answered.
//! * The lifetime of an address is reckoned in the same synchronous call that sets it, from the moment the last
//!   acknowledged renewal was *sent*.

mod keeper;
mod tenure_file;

pub use keeper::{RoleKeeper, RoleParts, RoleServices};
pub use tenure_file::{TenureFile, TenureNote};
