//! Who may use the API, and what was done through it: the records that the store holds, and the decisions.
//!
//! * [`Role`]: what a caller may do.
//! * [`FailureLimit`]: how often a source address may fail to log in.
//! * [`TokenRecord`], [`UserRecord`], [`SessionRecord`]: who is let in.
//! * [`AuditEntry`]: what was done.

mod account;
mod audit;
mod limit;
mod role;

pub use account::{
    Account, Digest, InvalidDigest, PasswordHash, SessionRecord, TokenRecord, TokenUse, UserRecord, hex,
    is_over, unhex,
};
pub use audit::{AuditEntry, AuditFilter, AuditPage, AuditRequest, PAGE_ENTRIES, PAGES};
pub use limit::{FailureLimit, Guess, Source};
pub use role::Role;
