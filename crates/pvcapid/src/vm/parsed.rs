//! Guests' XML as it was read, kept until it changes.
//!
//! Statistics of a guest that runs change every few seconds, its XML nearly never; to read the XML is most of the work of
//! showing it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pvc_common::keys;
use pvc_common::mirror::{Branch, View};
use pvc_core::guest_xml::{self, GuestXml};
use pvc_core::ids::VmId;

/// How many guests more than there are may be kept before those that were removed are looked for.
const REMOVED_AT_MOST: usize = 100;

/// What a guest's XML says, or why it can not be read.
pub(crate) type Read = Result<GuestXml, String>;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Parsed(Mutex<HashMap<VmId, Kept>>);

#[derive(Debug)]
struct Kept {
    xml: Branch,
    read: Arc<Read>,
}

impl Parsed {
    /// What that guest's XML says in `view`.
    pub(crate) fn of(&self, view: &View, id: VmId) -> Arc<Read> {
        let keys = keys::domain(id);
        let xml = view.branch(keys.xml().path());
        if let Some(kept) = self.lock().get(&id)
            && kept.xml.is_same(&xml)
        {
            return Arc::clone(&kept.read);
        }
        let read = guest_xml::parse(&view.shown(&keys.xml(), String::new()));
        let read = Arc::new(read.map_err(|error| error.to_string()));
        let mut all = self.lock();
        all.insert(
            id,
            Kept {
                xml,
                read: Arc::clone(&read),
            },
        );
        if all.len() > view.branch(keys::domains().path()).count() + REMOVED_AT_MOST {
            all.retain(|id, _| view.znode(keys::domain(*id).path()).is_some());
        }
        read
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, Kept>> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
