//! Which guests a call about their devices is under way for.
//!
//! A call that was given up by its caller goes on in its thread, and may attach a volume at any later time. Until it has
//! returned the guest is neither let run nor looked at as if that were over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pvc_core::ids::VmId;

use crate::host::HypervisorError;

/// The guests. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub(super) struct Plugging {
    vms: Arc<Mutex<BTreeSet<VmId>>>,
}

/// A call under way, until it is dropped: by the thread that made it, or with the call if no thread has come to it.
#[derive(Debug)]
pub(super) struct UnderWay {
    plugging: Plugging,
    vm: VmId,
}

impl Plugging {
    /// Notes a call. There is one at a time for each guest.
    pub(super) fn begin(&self, vm: VmId) -> Result<UnderWay, HypervisorError> {
        if self.lock().insert(vm) {
            Ok(UnderWay {
                plugging: self.clone(),
                vm,
            })
        } else {
            Err(under_way())
        }
    }

    /// Whether no call is under way for that guest.
    pub(super) fn must_be_over(&self, vm: VmId) -> Result<(), HypervisorError> {
        if self.lock().contains(&vm) {
            Err(under_way())
        } else {
            Ok(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<VmId>> {
        // Nothing is ever half done under this lock.
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.plugging.lock().remove(&self.vm);
    }
}

fn under_way() -> HypervisorError {
    HypervisorError::Unavailable {
        reason: "an earlier call on its devices has not returned".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A guest that is let run while libvirt may still attach a volume has a Ceph client that no fence knows of.
    #[test]
    fn a_call_that_was_given_up_counts_until_its_thread_returns() {
        let plugging = Plugging::default();
        let vm = VmId::new(uuid::Uuid::from_u128(7));
        let other = VmId::new(uuid::Uuid::from_u128(8));
        let call = plugging.begin(vm).unwrap();
        assert!(plugging.begin(vm).is_err());
        assert!(plugging.must_be_over(vm).is_err());
        assert!(plugging.must_be_over(other).is_ok());
        drop(call);
        assert!(plugging.must_be_over(vm).is_ok());
        assert!(plugging.begin(vm).is_ok());
    }
}
