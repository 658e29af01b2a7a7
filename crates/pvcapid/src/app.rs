//! What every handler is given.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pvc_common::clock::{Clock, HostClock};
use pvc_common::mirror::{Mirror, Mirrored, Scope, View};
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use serde::Serialize;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};

use crate::access::{Access, Audited, AuthPolicy, audit};
use crate::error::ApiError;
use crate::events::Hub;
use crate::names::NameIndex;
use crate::reply::{self, Body, Replies};
use crate::vm::entries::Entries;
use pvc_api::message::ErrorCode;

/// How long a request that waits for nothing may take in all: a client is told within 2 s that the store has no
/// quorum, the time on the way included.
pub const REQUEST_LIMIT: Duration = Duration::from_millis(1800);

/// How long a list may take in all. The store's own limit for each call still ends it within 2 s when there is no
/// quorum; this one lets a list of many thousand guests come to its end.
pub const LIST_LIMIT: Duration = Duration::from_secs(15);

/// How long a definition waits for those before it.
const TURN_LIMIT: Duration = Duration::from_secs(15);

/// How many requests may wait for guests or nodes at a time. A waiting request costs some memory and one read a
/// second; beyond this the caller is told to poll.
const WAITERS: usize = 256;

/// How many more of those that waits for guests must not hold up: an administrator's word about a dead machine.
const URGENT_WAITERS: usize = 16;

/// What a daemon is told by its configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may use the API.
    pub auth: AuthPolicy,
    /// How long requests wait for guests.
    pub waits: Waits,
    /// How old what is shown may be. What has changed shows within milliseconds; the age grows when the store is silent.
    pub max_age: Duration,
    /// The node that the daemon runs on: by its clock is what the daemon records.
    pub node: NodeName,
    /// Whether the API speaks HTTPS, so that cookies must not go over plain HTTP.
    pub tls: bool,
    /// Whether metrics are served.
    pub metrics: bool,
}

/// How long requests wait for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For one that shuts down or restarts.
    pub shutdown: Duration,
    /// For one that is switched off.
    pub stop: Duration,
}

/// How much longer than a guest's shutdown may take is waited: its node has to notice, end the process and see it gone.
const MARGIN: Duration = Duration::from_secs(30);

impl Waits {
    /// The limits where a guest is ended that has not shut down after `vm_shutdown_timeout`.
    pub fn for_shutdown_timeout(vm_shutdown_timeout: Duration) -> Waits {
        Waits {
            shutdown: vm_shutdown_timeout.saturating_add(MARGIN),
            stop: Duration::from_secs(60),
        }
    }
}

/// What every handler is given.
#[derive(Debug)]
pub struct App<S: Store> {
    /// The coordination store. Reads go there, for what a write depends on. What a request changes is noted in the audit log,
    /// and a write returns when the mirror shows it.
    pub store: Audited<Mirrored<S, HostClock>>,
    /// Time.
    pub clock: HostClock,
    /// What the configuration says.
    pub settings: Settings,
    pub(crate) names: NameIndex,
    pub(crate) replies: Replies,
    pub(crate) entries: Entries,
    mirror: Mirror,
    pub(crate) access: Access,
    waiters: Semaphore,
    urgent_waiters: Semaphore,
    placings: tokio::sync::Mutex<()>,
    restores: tokio::sync::Mutex<()>,
    events: Hub,
}

impl<S: Store> App<S> {
    /// The application over that store, which is mirrored from now on. Must be called within a tokio runtime.
    pub fn new(store: S, settings: Settings) -> App<S> {
        let clock = HostClock;
        let mirror = Mirror::start(store.clone(), clock, Scope::API);
        App {
            store: Audited::new(Mirrored::new(store, mirror.clone(), clock)),
            clock,
            settings,
            events: Hub::start(mirror.clone()),
            mirror,
            names: NameIndex::default(),
            access: Access::new(),
            replies: Replies::new(),
            entries: Entries::default(),
            placings: tokio::sync::Mutex::new(()),
            restores: tokio::sync::Mutex::new(()),
            waiters: Semaphore::new(WAITERS),
            urgent_waiters: Semaphore::new(URGENT_WAITERS),
        }
    }

    /// The copy of the store that is shown from.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// What is shown: the store as it was a moment ago. Reading from it asks nobody.
    ///
    /// # Errors
    /// 503 when the store has been silent for longer than [`Settings::max_age`].
    pub fn view(&self) -> Result<View, ApiError> {
        Ok(self.mirror.current(self.clock.now(), self.settings.max_age)?)
    }

    /// The list `name`, made by `make` if anything has changed since it was last made.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn list<T: Serialize>(
        &self,
        name: &'static str,
        view: &View,
        make: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<Arc<Body>, ApiError> {
        let everything = view.branch("/");
        self.replies
            .list(name, &everything, self.clock_seconds(), || reply::json(&make()?))
    }

    /// Now, in seconds since 1970, for what is written for people.
    pub(crate) fn clock_seconds(&self) -> u64 {
        self.clock
            .wall()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    /// Carries out a request that waits for nothing, within [`REQUEST_LIMIT`].
    ///
    /// # Errors
    /// Those of the work, or 503 when it took too long: the store was silent then. Whether something may have been changed is
    /// told.
    pub async fn promptly<T: Send>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send,
    ) -> Result<T, ApiError> {
        self.within(REQUEST_LIMIT, work).await
    }

    /// Makes a list, within [`LIST_LIMIT`].
    ///
    /// # Errors
    /// Those of the work, or 503 when it took too long.
    pub async fn listing<T: Send>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send,
    ) -> Result<T, ApiError> {
        self.within(LIST_LIMIT, work).await
    }

    async fn within<T: Send>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ApiError>> + Send,
    ) -> Result<T, ApiError> {
        let before = audit::writes();
        self.clock.timeout(limit, work).await.unwrap_or_else(|| {
            Err(match audit::writes() == before {
                true => ApiError::store_silent(),
                false => ApiError::outcome_unknown(),
            })
        })
    }

    /// The turn to define, modify or move a guest; hold it meanwhile. Each looks at all guests or nodes and writes only if nobody
    /// was defined or placed there since, so those of one daemon take turns rather than spoil each other's work until their
    /// tries are used up. What is done through other daemons is kept apart by the store.
    ///
    /// # Errors
    /// 409 when so many came before that the turn did not come.
    pub(crate) async fn turn_to_place(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        self.clock
            .timeout(TURN_LIMIT, self.placings.lock())
            .await
            .ok_or_else(|| ApiError::busy("The list of VMs"))
    }

    /// The turn to put a backup back or to make the store anew; hold it meanwhile.
    ///
    /// # Errors
    /// 409 when somebody is at it already.
    pub(crate) fn turn_to_restore(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        self.restores
            .try_lock()
            .map_err(|_| ApiError::conflict("A backup is being put back, or the store made anew, already"))
    }

    /// What hands events to clients.
    pub(crate) fn events(&self) -> &Hub {
        &self.events
    }

    /// The right to wait; asked for before anything is ordered, and held while waiting.
    ///
    /// # Errors
    /// 503 when too many requests wait already.
    pub fn waiter(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.waiters.try_acquire().map_err(|_| too_many_wait(WAITERS))
    }

    /// As [`App::waiter`], for what must not be held up by those that wait for guests.
    ///
    /// # Errors
    /// 503 when too many such requests wait already.
    pub fn urgent_waiter(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.urgent_waiters
            .try_acquire()
            .map_err(|_| too_many_wait(URGENT_WAITERS))
    }
}

fn too_many_wait(limit: usize) -> ApiError {
    ApiError::new(
        ErrorCode::TooMany,
        format!(
            "{limit} requests wait already; try again later, or ask without waiting and look at the state"
        ),
    )
}
