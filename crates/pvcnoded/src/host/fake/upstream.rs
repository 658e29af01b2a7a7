//! An upstream network that is as the test says.

use std::sync::{Arc, Mutex};

use pvc_core::upstream::UpstreamLook;

use super::locked;
use crate::host::upstream::UpstreamProbe;

/// One node's upstream network; clones are the same.
#[derive(Debug, Clone)]
pub struct FakeUpstream {
    shows: Arc<Mutex<UpstreamLook>>,
}

impl FakeUpstream {
    /// One that is reached.
    pub fn new() -> FakeUpstream {
        FakeUpstream {
            shows: Arc::new(Mutex::new(UpstreamLook::Reached)),
        }
    }

    /// From now on every look shows this.
    pub fn show(&self, look: UpstreamLook) {
        *locked(&self.shows) = look;
    }
}

impl Default for FakeUpstream {
    fn default() -> FakeUpstream {
        FakeUpstream::new()
    }
}

impl UpstreamProbe for FakeUpstream {
    async fn look(&self) -> UpstreamLook {
        locked(&self.shows).clone()
    }
}
