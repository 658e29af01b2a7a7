//! The PVC node agent.
pub mod host;
