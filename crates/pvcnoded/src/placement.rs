//! Placing guests from the node agent: what the drain and the fencer share.
//!
//! The choice itself is [`pvc_core::placement::place`]; reading what each node has to carry and reserving on one is
//! [`pvc_common::placement`], which the API daemon uses too.

pub use pvc_common::placement::{Choice, Places, Unplaced, read_candidates};
