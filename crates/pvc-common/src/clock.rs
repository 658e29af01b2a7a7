//! Time as a seam: elapsed time is `CLOCK_BOOTTIME`, the wall clock is for people to read.
//!
//! Rounds never ask the system for the time nor sleep by themselves, so that a test or the simulator can step them on
//! a virtual clock.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures::future::{Either, select};
use pvc_core::time::BootTime;

/// A source of time and the only way to wait for it.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, on this host's boot clock.
    fn now(&self) -> BootTime;

    /// Now, on the wall clock: to be shown or stored for people, never compared with another host's.
    fn wall(&self) -> SystemTime;

    /// Waits until `deadline`; returns at once if it has passed.
    fn sleep_until(&self, deadline: BootTime) -> impl Future<Output = ()> + Send;

    /// Waits for `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let deadline = self.now() + duration;
        self.sleep_until(deadline)
    }

    /// Runs `work` for at most `limit`; `None` if it did not end by then. The work is dropped in that case.
    fn timeout<F>(&self, limit: Duration, work: F) -> impl Future<Output = Option<F::Output>> + Send
    where
        F: Future + Send,
        F::Output: Send,
    {
        let deadline = self.now() + limit;
        async move {
            match select(pin!(work), pin!(self.sleep_until(deadline))).await {
                Either::Left((output, _)) => Some(output),
                Either::Right(((), _)) => None,
            }
        }
    }
}

/// The host's clocks. Needs a tokio runtime with its timer.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> BootTime {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        BootTime::from_duration(Duration::new(seconds, nanoseconds))
    }

    fn wall(&self) -> SystemTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the wall clock that the seam offers"
        )]
        SystemTime::now()
    }

    async fn sleep_until(&self, deadline: BootTime) {
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            // The runtime's timer stands still while the host is suspended: look again at least once a second.
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_and_not_before() {
        let clock = HostClock;
        let start = clock.now();
        assert_eq!(
            clock
                .timeout(Duration::from_millis(20), std::future::pending::<()>())
                .await,
            None
        );
        assert!(clock.now().since(start) >= Duration::from_millis(20));
        assert_eq!(clock.timeout(Duration::from_secs(60), async { 7 }).await, Some(7));
    }
}
