//! The API over a store in memory, asked through real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod accounts;
mod audit;
mod backup;
mod client;
mod defects;
mod define;
mod document;
mod drains;
mod events;
mod faults;
mod fence;
mod hostile;
mod list;
mod memory;
mod metrics;
mod moves;
mod networks;
mod nodes;
mod parts;
mod secrets;
mod settings;
mod states;
mod status;
mod storage;
mod tasks;
mod unavailable;
mod unreadable;
