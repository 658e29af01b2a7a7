//! The commands, one module for each group: its arguments beside what it does.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod fault;
pub(crate) mod fence;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod storage;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod vm;
