//! Fakes of the seams, for the tests of this crate and for the simulator. They behave: they remember, take virtual
//! time, fail on order, and keep a journal of what was done to them.

pub mod clock;
pub mod hypervisor;
pub mod meddled;
pub mod network;
mod osds;
pub mod power;
pub mod reach;
pub mod storage;
pub mod task;
pub mod upstream;
pub mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use clock::VirtualClock;
pub use hypervisor::FakeHypervisor;
pub use meddled::MeddledStore;
pub use network::FakeNetwork;
pub use power::{FakeBmc, FakePower};
pub use reach::FakeReach;
pub use storage::{FakeCeph, FakeStorage};
pub use task::{FakeTask, TaskControl};
pub use upstream::FakeUpstream;
pub use wire::{FakeWire, MigrationPhase, MigrationTiming};

/// Locks `mutex` even if a test panicked while it held it: the fake's state is then still the best there is.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
