//! What changes, told as it happens.
//!
//! Events are the differences between successive views of the mirror: whoever changed something, by whatever way, it is
//! told. They are kept for a while, so that a client that was cut off goes on where it was; what it can not be told any more
//! it is told to look up (`reset`).
//!
//! * `diff` - the events between two views. Pure.
//! * `ring` - the recent ones.
//! * [`Hub`] - hands them to clients.

mod diff;
mod ring;

pub(crate) use diff::{Event, Kind};
pub(crate) use ring::{EventId, Numbered};

use std::sync::{Arc, Mutex, PoisonError};

use pvc_common::mirror::Mirror;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use diff::diff;
use ring::Ring;

/// Clients at a time: each costs a connection and some memory.
pub(crate) const MOST_CLIENTS: usize = 64;

/// Events that a client may be behind before it is cut off. It comes again, and is told what it missed.
const MOST_BEHIND: usize = 1024;

/// Hands events to clients.
#[derive(Debug, Clone)]
pub(crate) struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Numbered>>,
    clients: Arc<Semaphore>,
}

/// What a client is given.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// What it has missed; `None` if that can not be told any more.
    pub(crate) missed: Option<Vec<Arc<Numbered>>>,
    /// The last event before those that are to come.
    pub(crate) last: EventId,
    /// Those that are to come.
    pub(crate) live: broadcast::Receiver<Arc<Numbered>>,
    /// Its place among the clients, as long as it is told.
    _place: OwnedSemaphorePermit,
}

impl Hub {
    /// Tells what changes in `mirror` from now on. Must be called within a tokio runtime.
    pub(crate) fn start(mirror: Mirror) -> Hub {
        let (live, _) = broadcast::channel(MOST_BEHIND);
        let hub = Hub(Arc::new(Shared {
            ring: Mutex::new(Ring::new(uuid::Uuid::new_v4())),
            live,
            clients: Arc::new(Semaphore::new(MOST_CLIENTS)),
        }));
        let weak = Arc::downgrade(&hub.0);
        tokio::spawn(async move {
            let mut before = mirror.wait_for(|_| true).await;
            loop {
                let now = mirror.changed_since(before.number()).await;
                // Ends with the last handle, or at the first change after it.
                let Some(shared) = weak.upgrade() else { return };
                let events = diff(&before, &now);
                shared.tell(events);
                before = now;
            }
        });
        hub
    }

    /// A place among the clients, from where `after` says or from now; `None` when there are too many.
    pub(crate) fn subscribe(&self, after: Option<EventId>) -> Option<Subscription> {
        let place = Arc::clone(&self.0.clients).try_acquire_owned().ok()?;
        let ring = self.0.lock();
        // Under the lock: nothing is told between what was missed and what is to come.
        let live = self.0.live.subscribe();
        Some(Subscription {
            missed: match after {
                Some(after) => ring.after(after),
                None => Some(Vec::new()),
            },
            last: ring.last(),
            live,
            _place: place,
        })
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> usize {
        MOST_CLIENTS - self.0.clients.available_permits()
    }
}

impl Shared {
    fn tell(&self, events: Vec<Event>) {
        let mut ring = self.lock();
        for event in events {
            let numbered = ring.push(event);
            // Nobody may be listening.
            let _ = self.live.send(numbered);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing is ever half done under this lock.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
