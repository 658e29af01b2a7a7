//! Holding still while the store may tell of the past, and going on when an administrator says what is true.
//!
//! [`HoldKeeper`] keeps what this agent has seen of the store on this host's disk ([`MemoryFile`]) and compares before
//! it registers and all the time afterwards. A store that is behind puts the agent on hold: [`crate::agent::Hold`],
//! which everything that starts, ends, claims or fences asks. The rules are in [`pvc_core::hold`].

mod adopt;
mod earlier_release;
mod keeper;
mod memory_file;
#[cfg(test)]
mod tests;

pub use earlier_release::adopt_earlier_release;
pub use keeper::{HoldKeeper, HoldParts};
pub use memory_file::{Durability, MemoryFile};
