//! One thread that polls the loops of all agents, in an order drawn by chance from the seed.
//!
//! Loops belong to groups: all loops of one life of an agent are one, and are frozen, thawed and killed together.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::{BoxFuture, FutureExt as _};

use crate::rng::Rng;

/// How many polls there may be at one instant before the code is taken to be spinning.
const POLLS_PER_INSTANT: u32 = 20_000;

/// All loops of one life of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupState {
    Runs,
    Frozen,
    Dead,
}

struct Members {
    state: GroupState,
    /// Woken while frozen.
    parked: Vec<usize>,
}

struct Task {
    group: Group,
    work: BoxFuture<'static, ()>,
    waker: Waker,
    woken: Arc<TaskWaker>,
}

struct TaskWaker {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push(self.task);
        }
    }
}

type New = (Group, BoxFuture<'static, ()>);

/// Starts loops from within loops.
#[derive(Clone)]
pub(crate) struct Spawner {
    group: Group,
    new: Arc<Mutex<Vec<New>>>,
}

impl Spawner {
    /// Starts a loop of the same group.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        lock(&self.new).push((self.group, work.boxed()));
    }
}

/// Why the loops can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// They wake each other without any time passing.
    Spinning,
    /// The code under test panicked.
    Panicked(String),
}

/// The loops.
pub(crate) struct Executor {
    tasks: Vec<Option<Task>>,
    groups: Vec<Members>,
    ready: Arc<Mutex<Vec<usize>>>,
    new: Arc<Mutex<Vec<New>>>,
    polls_now: u32,
    pub(crate) polls: u64,
}

impl Executor {
    pub(crate) fn new() -> Executor {
        Executor {
            tasks: Vec::new(),
            groups: Vec::new(),
            ready: Arc::default(),
            new: Arc::default(),
            polls_now: 0,
            polls: 0,
        }
    }

    /// A new group, which runs.
    pub(crate) fn group(&mut self) -> Spawner {
        self.groups.push(Members {
            state: GroupState::Runs,
            parked: Vec::new(),
        });
        Spawner {
            group: Group(self.groups.len() - 1),
            new: Arc::clone(&self.new),
        }
    }

    pub(crate) fn freeze(&mut self, group: Group) {
        let members = &mut self.groups[group.0];
        if members.state == GroupState::Runs {
            members.state = GroupState::Frozen;
        }
    }

    pub(crate) fn thaw(&mut self, group: Group) {
        let members = &mut self.groups[group.0];
        if members.state == GroupState::Frozen {
            members.state = GroupState::Runs;
            lock(&self.ready).append(&mut members.parked);
        }
    }

    pub(crate) fn kill(&mut self, group: Group) {
        self.groups[group.0].state = GroupState::Dead;
        for task in &mut self.tasks {
            if task.as_ref().is_some_and(|task| task.group == group) {
                *task = None;
            }
        }
        lock(&self.new).retain(|(other, _)| *other != group);
    }

    pub(crate) fn is_alive(&self, group: Group) -> bool {
        self.groups[group.0].state != GroupState::Dead
    }

    /// Time has passed.
    pub(crate) fn new_instant(&mut self) {
        self.polls_now = 0;
    }

    /// Polls one loop that has something to do; `false` if none has.
    pub(crate) fn poll_one(&mut self, rng: &mut Rng) -> Result<bool, Stuck> {
        self.take_in_new();
        loop {
            let next = {
                let mut ready = lock(&self.ready);
                match ready.len() {
                    0 => return Ok(false),
                    1 => ready.swap_remove(0),
                    many => {
                        // By number first: in which order several were woken at once is not always the same.
                        ready.sort_unstable();
                        ready.swap_remove(rng.index(many))
                    }
                }
            };
            let Some(task) = self.tasks[next].as_mut() else {
                continue;
            };
            let members = &mut self.groups[task.group.0];
            match members.state {
                GroupState::Runs => {}
                GroupState::Frozen => {
                    members.parked.push(next);
                    continue;
                }
                GroupState::Dead => continue,
            }
            self.polls += 1;
            self.polls_now += 1;
            if self.polls_now > POLLS_PER_INSTANT {
                return Err(Stuck::Spinning);
            }
            task.woken.queued.store(false, Ordering::Relaxed);
            let waker = &task.waker;
            let work = &mut task.work;
            let polled = catch_unwind(AssertUnwindSafe(|| {
                work.poll_unpin(&mut Context::from_waker(waker))
            }));
            match polled {
                Ok(Poll::Ready(())) => self.tasks[next] = None,
                Ok(Poll::Pending) => {}
                Err(panic) => return Err(Stuck::Panicked(words(panic.as_ref()))),
            }
            return Ok(true);
        }
    }

    fn take_in_new(&mut self) {
        let new = std::mem::take(&mut *lock(&self.new));
        for (group, work) in new {
            if !self.is_alive(group) {
                continue;
            }
            let woken = Arc::new(TaskWaker {
                task: self.tasks.len(),
                queued: AtomicBool::new(true),
                ready: Arc::clone(&self.ready),
            });
            lock(&self.ready).push(self.tasks.len());
            self.tasks.push(Some(Task {
                group,
                work,
                waker: Waker::from(Arc::clone(&woken)),
                woken,
            }));
        }
    }
}

impl Spawner {
    pub(crate) fn group(&self) -> Group {
        self.group
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
