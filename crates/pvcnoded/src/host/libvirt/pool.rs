//! A few plain threads for calls that block, with a bounded queue and a limit on each wait.
//!
//! A call on a libvirtd that is frozen does not come back until the connection is given up, so it must not be made on
//! a thread that anything else needs.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use pvc_common::clock::{Clock, HostClock};
use tokio::sync::oneshot;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Too many calls wait already; this one was not made.
    Busy,
    /// It did not end in time. It may have been made, or still be under way.
    TimedOut,
    /// The threads have ended.
    Closed,
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the pool is dropped and their calls have come back.
#[derive(Debug)]
pub(super) struct Pool {
    queue: SyncSender<Job>,
}

impl Pool {
    /// Starts `threads` threads, with room for `waiting` calls before them.
    pub(super) fn start(name: &str, threads: usize, waiting: usize) -> io::Result<Pool> {
        let (queue, jobs) = sync_channel::<Job>(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    while let Some(job) = next(&jobs) {
                        job()
                    }
                })?;
        }
        Ok(Pool { queue })
    }

    /// Makes a call on one of the threads and waits for it for at most `limit`.
    ///
    /// # Cancellation
    /// A call whose caller has given up before it began is not made.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (answer, waiting) = oneshot::channel();
        let job = Box::new(move || {
            if !answer.is_closed() {
                // Nobody waits any more: fine.
                let _ = answer.send(work());
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => NoAnswer::Busy,
            TrySendError::Disconnected(_) => NoAnswer::Closed,
        })?;
        match HostClock.timeout(limit, waiting).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) => Err(NoAnswer::Closed),
            None => Err(NoAnswer::TimedOut),
        }
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    // The agent must go on when libvirtd is frozen: every caller gets its answer in time, and what was given up
    // before it began (the creation of a guest!) never happens later.
    #[tokio::test]
    async fn a_frozen_call_holds_up_nobody_and_what_was_given_up_is_not_done() {
        let pool = Pool::start("test", 1, 2).unwrap();
        let (thaw, frozen) = channel::<()>();
        assert_eq!(
            pool.call(SHORT, move || frozen.recv()).await.err(),
            Some(NoAnswer::TimedOut)
        );
        let done = Arc::new(AtomicBool::new(false));
        for expected in [NoAnswer::TimedOut, NoAnswer::TimedOut, NoAnswer::Busy] {
            let done = Arc::clone(&done);
            let outcome = pool.call(SHORT, move || done.store(true, Ordering::SeqCst)).await;
            assert_eq!(outcome, Err(expected));
        }
        thaw.send(()).unwrap();
        // The queue is full until the thread gets to it.
        let answer = loop {
            match pool.call(LONG, || 7).await {
                Err(NoAnswer::Busy) => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        assert_eq!(answer, Ok(7));
        assert!(!done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn calls_run_side_by_side() {
        let pool = Pool::start("test", 2, 2).unwrap();
        let one = Arc::new(std::sync::Barrier::new(2));
        let two = Arc::clone(&one);
        let both = futures::future::join(
            pool.call(LONG, move || one.wait().is_leader()),
            pool.call(LONG, move || two.wait().is_leader()),
        );
        let (first, second) = both.await;
        assert!(first.unwrap() ^ second.unwrap());
    }
}
