//! What a watch has seen and nobody has asked for yet.
//!
//! Both implementations of the store note paths here; a reader takes them all at once, so that a burst of changes costs
//! a slow reader nothing but one set of paths.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Seen, Watch};

/// Paths that are kept for a slow reader. Beyond that looking everywhere is cheaper than looking at each.
const MOST_PATHS: usize = 10_000;

/// A watch and what notes changes for it. `before` is what went unseen until now: of a watch that is still to be set
/// nothing, since setting it is to be noted.
pub(super) fn channel(before: Seen) -> (HintSender, HintWatch) {
    let (wake, woken) = watch::channel(0);
    let seen = Arc::new(Mutex::new(before));
    let sender = HintSender {
        wake,
        seen: Arc::clone(&seen),
    };
    (sender, HintWatch { woken, seen })
}

/// Notes what has changed.
#[derive(Debug)]
pub(super) struct HintSender {
    wake: watch::Sender<u64>,
    seen: Arc<Mutex<Seen>>,
}

impl HintSender {
    /// The znode at `path` was created, written or deleted.
    pub(super) fn path(&self, path: &str) {
        let mut seen = lock(&self.seen);
        if let Seen::Paths(paths) = &mut *seen {
            if paths.len() >= MOST_PATHS {
                *seen = Seen::Anything;
            } else if !paths.contains(path) {
                paths.insert(path.to_owned());
            }
        }
        drop(seen);
        self.wake();
    }

    /// Anything may have changed.
    pub(super) fn anything(&self) {
        *lock(&self.seen) = Seen::Anything;
        self.wake();
    }

    fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }

    /// Returns when nobody looks any more.
    pub(super) async fn closed(&self) {
        self.wake.closed().await;
    }

    /// Whether nobody looks any more.
    pub(super) fn is_closed(&self) -> bool {
        self.wake.is_closed()
    }
}

/// The watch of both implementations.
#[derive(Debug)]
pub struct HintWatch {
    woken: watch::Receiver<u64>,
    seen: Arc<Mutex<Seen>>,
}

impl HintWatch {
    fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }

    async fn woken(&mut self) {
        if self.woken.changed().await.is_err() {
            // The runtime is shutting down, or the server in memory is gone: nothing will ever change.
            std::future::pending::<()>().await;
        }
    }
}

impl Watch for HintWatch {
    async fn changed(&mut self) {
        self.woken().await;
        self.take();
    }

    async fn changes(&mut self) -> Seen {
        loop {
            // Looked at before the wait: what was noted while nobody waited has woken nobody.
            self.woken.mark_unchanged();
            let seen = self.take();
            if !seen.is_empty() {
                return seen;
            }
            self.woken().await;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Nothing is ever half done under this lock.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::FutureExt;

    use super::*;

    fn paths(paths: &[&str]) -> Seen {
        Seen::Paths(
            paths
                .iter()
                .map(|path| (*path).to_owned())
                .collect::<BTreeSet<_>>(),
        )
    }

    #[tokio::test]
    async fn changes_are_told_once_and_together() {
        let (sender, mut watch) = channel(Seen::Anything);
        assert_eq!(
            watch.changes().await,
            Seen::Anything,
            "what was before went unseen"
        );
        assert_eq!(watch.changes().now_or_never(), None);
        for path in ["/a", "/b", "/a"] {
            sender.path(path);
        }
        assert_eq!(watch.changes().await, paths(&["/a", "/b"]));
        assert_eq!(watch.changes().now_or_never(), None);
        sender.path("/a");
        sender.anything();
        sender.path("/b");
        assert_eq!(watch.changes().await, Seen::Anything);
    }

    // A mirror that is slow must not make its daemon grow without end.
    #[tokio::test]
    async fn a_slow_reader_is_told_to_look_everywhere() {
        let (sender, mut watch) = channel(Seen::Anything);
        watch.changes().await;
        for number in 0..=MOST_PATHS {
            sender.path(&format!("/{number}"));
        }
        assert_eq!(watch.changes().await, Seen::Anything);
    }
}
