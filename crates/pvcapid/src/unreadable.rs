//! What stands in the store and can not be read: words of a later release during an upgrade, or what a hand has left there.
//!
//! Such a guest or node is shown with what can be read of it and says in `store_error` what can not; it must not hide the
//! others. In the place of the word stands one that clients of PVC 1.0.3 know and that nobody takes for "all is well" nor for
//! "it may be switched off": `fail` for a guest; `init`, `client` and `flush` for a node. Whatever is ordered reads the store
//! itself and is refused with the key and its value (`store_corrupt`).

use std::fmt::Write as _;

use pvc_common::store::{ReadError, Versioned};

/// What could not be read of one thing.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(String);

impl Unreadable {
    /// What was read; `None` where it can not be.
    pub(crate) fn known<T>(&mut self, read: Result<T, ReadError>) -> Option<T> {
        read.map_err(|error| {
            let between = if self.0.is_empty() { "" } else { "; " };
            // Writing into a text can not fail.
            let _ = write!(self.0, "{between}{error}");
        })
        .ok()
    }

    /// The value, or `otherwise` where it can not be read; `None` where there is nothing.
    pub(crate) fn value<T>(
        &mut self,
        read: Result<Option<Versioned<T>>, ReadError>,
        otherwise: T,
    ) -> Option<T> {
        match self.known(read) {
            Some(found) => found.map(|found| found.value),
            None => Some(otherwise),
        }
    }

    /// What could not be read, in words; nothing if all could.
    pub(crate) fn text(self) -> Option<String> {
        (!self.0.is_empty()).then_some(self.0)
    }
}
