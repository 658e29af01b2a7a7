//! Who may use the API, what for, and what they did.
//!
//! * `guard` - what every request passes: who asks, and may he?
//! * `operations` - what each route needs, as declared beside its handler.
//! * `presented` - what a request shows of who sent it; `identify` - who that is; `login` - how a session begins and ends.
//! * `caller` - who asks.
//! * `configured`, `token`, `user`, `session` - who is let in: tokens of the configuration, tokens and users that were
//!   made while the cluster ran, browsers that have logged in.
//! * `record` - what is known of them; `digest`, `password` - how they are checked; `uses` - when they were last used.
//! * `audit` - what was done.
//! * `containers` - where all that is in the store.

pub(crate) mod audit;
mod caller;
mod configured;
mod containers;
mod digest;
mod guard;
mod identify;
pub(crate) mod login;
mod operations;
mod password;
mod presented;
mod record;
mod session;
pub(crate) mod token;
pub(crate) mod user;
mod uses;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pvc_common::store::Store;
use pvc_core::access::FailureLimit;

pub use audit::Audited;
pub use caller::{Caller, Who};
pub use configured::{AuthPolicy, KnownToken};
pub use digest::TokenDigest;
pub(crate) use guard::guard;
pub(crate) use identify::{Known, is_known};
pub(crate) use operations::Operations;
pub(crate) use presented::Presented;

pub(crate) use session::COOKIE as SESSION_COOKIE;

/// What the daemon keeps in memory of those who use it.
#[derive(Debug)]
pub(crate) struct Access {
    failures: Mutex<FailureLimit>,
    hasher: password::Hasher,
    uses: Arc<uses::LastUses>,
    audit: audit::Log,
}

impl Access {
    /// Nothing is known yet.
    pub(crate) fn new() -> Access {
        Access {
            failures: Mutex::default(),
            hasher: password::Hasher::default(),
            uses: Arc::default(),
            audit: audit::Log::new(),
        }
    }

    /// Begins to write beside the requests: the audit log, and when tokens were last used. Needs a runtime. Ends by
    /// itself once this is dropped.
    pub(crate) fn start<S: Store>(&self, store: S) {
        self.audit.start(store, Arc::clone(&self.uses));
    }

    /// Waits until what was done is written, for a short time.
    pub(crate) async fn finish(&self) {
        self.audit.finish().await;
    }

    fn failures(&self) -> MutexGuard<'_, FailureLimit> {
        // Nothing is ever half done under this lock.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
