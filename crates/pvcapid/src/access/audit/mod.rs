//! The audit log: what was done through the API, by whom.
//!
//! A change and the note that somebody ordered it are one transaction ([`Audited`]), so no change is without its
//! trace, whatever happens to the daemon. Once the request is answered, its note and what came of it are carried to the
//! log's last page, beside the requests ([`Log`]). Requests that changed nothing have no note and go to the log alone.
//! What can not be carried there is written to the daemon's journal: nothing is lost silently.

mod log;
mod note;
mod query;
mod store;

pub(super) use log::Log;
pub(super) use note::{Note, identified};
pub(crate) use note::{answered, finished, named, parameters, shown_secrets, writes};
pub(crate) use query::{Query, query};
pub use store::Audited;
