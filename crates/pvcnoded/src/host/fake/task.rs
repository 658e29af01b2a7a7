//! An agent's loop that can be frozen and killed, as a process can.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _, join_all};

/// Freezes and kills a [`FakeTask`]; clones are of the same task.
#[derive(Debug, Clone, Default)]
pub struct TaskControl {
    frozen: Arc<AtomicBool>,
    killed: Arc<AtomicBool>,
}

impl TaskControl {
    /// It stands still until thawed, wherever it is.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
    }

    /// It never goes on.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }
}

/// A loop that is polled only while it is neither frozen nor killed.
pub struct FakeTask {
    control: TaskControl,
    work: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for FakeTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeTask")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl FakeTask {
    /// `work`, under `control`.
    pub fn new(control: TaskControl, work: impl Future<Output = ()> + Send + 'static) -> FakeTask {
        FakeTask {
            control,
            work: Box::pin(work),
        }
    }
}

impl Future for &mut FakeTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.control.killed.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        if self.control.frozen.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.work.as_mut().poll(context)
    }
}

/// Runs all of `tasks` and never ends: when all of them have been killed, the time goes on without them.
pub fn run_all<'a>(tasks: impl IntoIterator<Item = &'a mut FakeTask>) -> impl Future<Output = ()> + 'a {
    join_all(tasks).then(|_| std::future::pending())
}
