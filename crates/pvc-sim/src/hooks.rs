//! What stands between an agent and the outside world: how long a call takes, and what was ordered to happen at it.
//!
//! Every call of an agent through a seam passes here before it is carried out and after it. A call is carried out when
//! it passes, not when it was decided: an agent that was ordered to be paused at it does what it decided long ago.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pvc_common::clock::Clock as _;
use pvc_common::store::{Op, Txn};
use pvcnoded::host::fake::VirtualClock;

use crate::coverage::Coverage;
use crate::rng::Rng;
use crate::run::Logging;

/// What is done at a call that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// The agent stands still for so long, then the call goes on.
    Pause(Duration),
    /// The agent is killed before the call is carried out.
    Kill,
    /// The agent is killed once the call is carried out, before it sees the answer.
    KillAfter,
    /// The host loses power before the call is carried out.
    PowerLoss,
    /// The server ends the agent's sessions; the call is carried out in a new one.
    Expire,
    /// The call fails and does nothing.
    Fail,
}

/// Something that happens at an agent's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Of the agent on this host.
    pub host: usize,
    /// The name of the call, or `write:` and the beginning of a path that it writes.
    pub call: String,
    /// At how many of these: 1 is the next one.
    pub count: u32,
    /// What happens.
    pub what: Ordered,
}

/// What an agent's call asks of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    Freeze { host: usize, duration: Duration },
    Kill { host: usize },
    PowerLoss { host: usize },
    Expire { host: usize },
    Switched { host: usize },
}

/// Whether a call is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Go,
    Fail,
}

/// Shared by the world and all seams.
#[derive(Clone)]
pub(crate) struct Hooks {
    pub(crate) clock: VirtualClock,
    inner: Arc<Mutex<Inner>>,
    demanded: Arc<AtomicBool>,
    calm: bool,
}

pub(crate) struct Inner {
    pub(crate) rng: Rng,
    orders: Vec<Order>,
    demands: Vec<Demand>,
    breaches: Vec<String>,
    log: Option<Vec<String>>,
    pub(crate) coverage: Coverage,
}

impl Hooks {
    pub(crate) fn new(clock: VirtualClock, seed: u64, logging: Logging) -> Hooks {
        Hooks {
            clock,
            inner: Arc::new(Mutex::new(Inner {
                rng: match logging {
                    Logging::Calm => Rng::always_least(),
                    Logging::On | Logging::Off => Rng::new(seed),
                },
                orders: Vec::new(),
                demands: Vec::new(),
                breaches: Vec::new(),
                log: (logging != Logging::Off).then(Vec::new),
                coverage: Coverage::default(),
            })),
            demanded: Arc::default(),
            calm: logging == Logging::Calm,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is left to chance.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm
    }

    /// An invariant does not hold.
    pub(crate) fn breach(&self, text: String) {
        self.say(|| format!("BREACH {text}"));
        self.lock().breaches.push(text);
    }

    pub(crate) fn first_breach(&self) -> Option<String> {
        self.lock().breaches.first().cloned()
    }

    /// A line of the log, if one is kept.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log {
            let at = self.clock.world_now().since(crate::START);
            let time = if self.calm {
                // What is kept must not change with every millisecond.
                format!("{:>6}.{}", at.as_secs(), at.subsec_millis() / 100)
            } else {
                format!("{:>6}.{:03}", at.as_secs(), at.subsec_millis())
            };
            log.push(format!("{time} {}", line()));
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lock().log.clone().unwrap_or_default()
    }

    pub(crate) fn order(&self, order: Order) {
        self.lock().orders.push(order);
    }

    pub(crate) fn clear_orders(&self) {
        self.lock().orders.clear();
    }

    pub(crate) fn demand(&self, demand: Demand) {
        self.lock().demands.push(demand);
        self.demanded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn demands(&self) -> Vec<Demand> {
        if !self.demanded.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().demands)
    }
}

/// One host's way through the hooks.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) hooks: Hooks,
    pub(crate) host: usize,
    pub(crate) clock: VirtualClock,
    slow: Arc<Mutex<Duration>>,
}

impl Gate {
    pub(crate) fn new(hooks: Hooks, host: usize, clock: VirtualClock) -> Gate {
        Gate {
            hooks,
            host,
            clock,
            slow: Arc::default(),
        }
    }

    /// Every call to the store takes that much longer, each way.
    pub(crate) fn set_slow(&self, slow: Duration) {
        *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = slow;
    }

    /// A call to the store, on its way there or back. Half of them take no time.
    pub(crate) async fn store_way(&self) {
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let way = {
            let mut inner = self.hooks.lock();
            if self.hooks.calm || inner.rng.chance(50) {
                Duration::ZERO
            } else {
                Duration::from_micros(inner.rng.between(50, 3000))
            }
        };
        let way = way + slow;
        if !way.is_zero() {
            self.clock.sleep(way).await;
        }
    }

    /// Before a call is carried out that takes between `low` and `high` milliseconds.
    pub(crate) async fn before(&self, call: &str, low: u64, high: u64) -> Pass {
        let pass = self.orders(call, None).await;
        if high > 0 {
            let took = self.hooks.lock().rng.between(low * 1000, high * 1000);
            self.clock.sleep(Duration::from_micros(took)).await;
        }
        pass
    }

    /// What was ordered to happen before this call.
    pub(crate) async fn orders(&self, call: &str, txn: Option<&Txn>) -> Pass {
        match self.due(call, txn, false) {
            None => Pass::Go,
            Some(Ordered::Fail) => Pass::Fail,
            Some(what) => {
                self.act(what).await;
                Pass::Go
            }
        }
    }

    /// What was ordered to happen after this call.
    pub(crate) async fn after(&self, call: &str, txn: Option<&Txn>) {
        if let Some(what) = self.due(call, txn, true) {
            self.act(what).await;
        }
    }

    fn due(&self, call: &str, txn: Option<&Txn>, after: bool) -> Option<Ordered> {
        let mut inner = self.hooks.lock();
        if inner.orders.is_empty() {
            return None;
        }
        let host = self.host;
        let matching = |order: &Order| {
            order.host == host
                && (order.what == Ordered::KillAfter) == after
                && match (order.call.strip_prefix("write:"), txn) {
                    (Some(path), Some(txn)) => txn.ops.iter().any(|op| match op {
                        Op::Create { path: written, .. }
                        | Op::Set { path: written, .. }
                        | Op::Delete { path: written, .. } => written.starts_with(path),
                        Op::Check { .. } | Op::Guard { .. } => false,
                    }),
                    (Some(_), None) => false,
                    (None, _) => order.call == call,
                }
        };
        for order in inner.orders.iter_mut().filter(|order| matching(order)) {
            order.count = order.count.saturating_sub(1);
        }
        let place = inner
            .orders
            .iter()
            .position(|order| order.count == 0 && matching(order))?;
        Some(inner.orders.remove(place).what)
    }

    async fn act(&self, what: Ordered) {
        let host = self.host;
        match what {
            Ordered::Pause(duration) => {
                self.hooks.demand(Demand::Freeze { host, duration });
                StepBack { done: false }.await;
            }
            Ordered::Kill | Ordered::KillAfter => {
                self.hooks.demand(Demand::Kill { host });
                std::future::pending::<()>().await;
            }
            Ordered::PowerLoss => {
                self.hooks.demand(Demand::PowerLoss { host });
                std::future::pending::<()>().await;
            }
            Ordered::Expire => {
                self.hooks.demand(Demand::Expire { host });
                self.clock.sleep(Duration::from_millis(400)).await;
            }
            Ordered::Fail => {}
        }
    }
}

/// Lets the executor come in between once.
struct StepBack {
    done: bool,
}

impl Future for StepBack {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.done, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
