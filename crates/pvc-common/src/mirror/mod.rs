//! A copy in memory of what readers of the store need, so that reading asks nobody.
//!
//! [`Mirror::start`] sets one recursive persistent watch for each mirrored subtree and keeps a copy of what is there;
//! [`Mirror::current`] hands out an immutable [`View`] of it. It never watches `/` or `/leases`: leases are renewed all
//! the time and are of no use from memory.
//!
//! How nothing is missed:
//!
//! * The watch is set first, then everything is read. What changes in between has been told by then, and is read again.
//! * A sign says where, never what: the znode is read, so a late sign finds the latest, and many signs cost one read.
//! * After a new connection or session everything is read again, and compared: unchanged parts stay shared. Until that is
//!   done the last view stands, and its age grows.
//! * All znodes are looked at again in a slow round (some each second), should a sign have been lost all the same.
//!
//! How old a view is: about once a second the store is asked, and when the answer and all signs before it are in the view,
//! it was up to date at the time of the question. A view older than its reader can bear is refused ([`Stale`]).
//!
//! [`Mirrored`] is a store whose commits return only when the mirror shows them, so that a reader sees what he wrote.

use std::future::Future;
use std::time::Duration;

use pvc_core::time::BootTime;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::store::Store;

mod entry;
mod keeper;
mod load;
mod mirrored;
mod view;

pub use mirrored::Mirrored;
pub use view::{Branch, View};

use keeper::Keeper;

/// What is mirrored.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// The paths of subtrees, each a child of the root. One that does not exist is watched for all the same.
    pub subtrees: &'static [&'static str],
    /// Which paths in there are left out, with all below: what is large, and seldom asked for.
    pub left_out: fn(&str) -> bool,
}

impl Scope {
    /// Everything that the API shows, and who may use it; but no leases, not what was done, and no texts that may have a
    /// hundred kilobytes for each guest or node: these are read from the store by whoever wants one.
    pub const API: Scope = Scope {
        subtrees: &[
            "/access",
            "/ceph",
            "/config",
            "/cmd",
            "/domains",
            "/faults",
            "/fences",
            "/flush_locks",
            "/logs",
            "/networks",
            "/nodes",
            "/schema",
            "/tasks",
        ],
        left_out: is_long_text,
    };

    /// Whether what is at `path` is mirrored.
    pub fn covers(&self, path: &str) -> bool {
        self.subtrees.iter().any(|subtree| is_at_or_below(path, subtree)) && !(self.left_out)(path)
    }
}

fn is_long_text(path: &str) -> bool {
    (path.starts_with("/domains/") && path.ends_with("/consolelog"))
        || (path.starts_with("/logs/") && path.ends_with("/messages"))
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A copy of some subtrees of the store, kept in the background until the last handle is gone.
#[derive(Debug, Clone)]
pub struct Mirror {
    scope: Scope,
    published: watch::Receiver<Published>,
}

#[derive(Debug, Default)]
struct Published {
    /// None until everything was read once.
    view: Option<View>,
    /// The latest moment of which the view is known to show all that had happened.
    confirmed: Option<BootTime>,
}

/// There is no view that is young enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The store was not read yet.
    #[error("the coordination store has not been read yet")]
    Loading,
    /// The store has been silent.
    #[error("the coordination store has not answered for {:.1} s", age.as_secs_f64())]
    Silent {
        /// For how long.
        age: Duration,
    },
}

impl Mirror {
    /// Mirrors what is in `scope` from now on. Must be called within a tokio runtime.
    pub fn start<S: Store, C: Clock>(store: S, clock: C, scope: Scope) -> Mirror {
        let (mirror, keeping) = Mirror::prepare(store, clock, scope);
        tokio::spawn(keeping);
        mirror
    }

    /// As [`Mirror::start`]; the mirror is kept as long as the second part is polled.
    pub fn prepare<S: Store, C: Clock>(
        store: S,
        clock: C,
        scope: Scope,
    ) -> (Mirror, impl Future<Output = ()> + Send + 'static) {
        let (publisher, published) = watch::channel(Published::default());
        let keeper = Keeper::new(store, clock, scope, publisher);
        let mirror = Mirror { scope, published };
        (mirror, keeper.run())
    }

    /// The latest view, however old; `None` before the first.
    pub fn latest(&self) -> Option<View> {
        self.published.borrow().view.clone()
    }

    /// The latest view, if all that had happened `max_age` before `now` is in it.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn current(&self, now: BootTime, max_age: Duration) -> Result<View, Stale> {
        let published = self.published.borrow();
        let (Some(view), Some(confirmed)) = (&published.view, published.confirmed) else {
            return Err(Stale::Loading);
        };
        let age = now.since(confirmed);
        if age > max_age {
            return Err(Stale::Silent { age });
        }
        Ok(view.clone())
    }

    /// How old the latest view is at most; `None` before the first. About a second while all is well, since the store is
    /// asked that often: what has changed shows much sooner.
    pub fn age(&self, now: BootTime) -> Option<Duration> {
        let published = self.published.borrow();
        published.confirmed.map(|confirmed| now.since(confirmed))
    }

    /// Returns the next view for which `condition` holds, which may be the latest; waits for ever if none comes.
    pub async fn wait_for(&self, mut condition: impl FnMut(&View) -> bool + Send) -> View {
        let mut published = self.published.clone();
        let view = published
            .wait_for(|published| published.view.as_ref().is_some_and(&mut condition))
            .await
            .ok()
            .and_then(|published| published.view.clone());
        match view {
            Some(view) => view,
            // The runtime is shutting down.
            None => std::future::pending().await,
        }
    }

    /// Waits until there is a view and something has changed since `number` (see [`View::number`]).
    pub async fn changed_since(&self, number: u64) -> View {
        self.wait_for(|view| view.number() > number).await
    }

    /// Whether what is at `path` is mirrored.
    pub fn covers(&self, path: &str) -> bool {
        self.scope.covers(path)
    }
}
