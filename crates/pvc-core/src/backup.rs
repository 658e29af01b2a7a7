//! Backups of the store: what is in one, and what putting it back changes.
//!
//! A backup holds what administrators have ordered and what describes the cluster. It holds nothing of what is so only at
//! a moment and that others act on: leases, owners, fences, orders that are being carried out. Whoever puts such things back
//! would tell the agents that yesterday's owners are today's.
//!
//! * [`part`] says of each path what it is to a backup.
//! * [`Backup::parse`] reads and checks a whole one.
//! * [`plan`] compares it with what is there and says what to write.

mod document;
mod paths;
mod plan;

pub use document::{Backup, Flaw, InvalidBackup};
pub use paths::{Part, ROOTS, holds_definition, part};
pub use plan::{Change, ChangeGroup, InTheWay, Stored, plan};
