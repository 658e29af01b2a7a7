//! A storage cluster that is reached or not, as the test says.

use std::sync::{Arc, Mutex};

use pvc_core::storage_loss::StorageLook;

use super::locked;
use crate::host::reach::StorageReach;

/// One node's way to the storage cluster; clones are the same.
#[derive(Debug, Clone)]
pub struct FakeReach {
    shows: Arc<Mutex<StorageLook>>,
}

impl FakeReach {
    /// One that is open.
    pub fn new() -> FakeReach {
        FakeReach {
            shows: Arc::new(Mutex::new(StorageLook::Reached)),
        }
    }

    /// From now on every look shows this.
    pub fn show(&self, look: StorageLook) {
        *locked(&self.shows) = look;
    }
}

impl Default for FakeReach {
    fn default() -> FakeReach {
        FakeReach::new()
    }
}

impl StorageReach for FakeReach {
    async fn look(&self) -> StorageLook {
        locked(&self.shows).clone()
    }
}
