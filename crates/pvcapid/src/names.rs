//! Which guest has which name, kept along with the mirror's views.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pvc_common::keys;
use pvc_common::mirror::{Branch, View};
use pvc_core::ids::{VmId, VmName};

/// Guests by name. Brought up to date with the view that a request reads when it asks, at the cost of what has changed.
#[derive(Debug, Default)]
pub(crate) struct NameIndex(Mutex<Option<Index>>);

#[derive(Debug)]
struct Index {
    /// The guests that it tells of.
    guests: Branch,
    ids: HashMap<String, VmId>,
    names: HashMap<VmId, String>,
}

impl NameIndex {
    /// The guest of that name in `view`.
    pub(crate) fn find(&self, view: &View, name: &str) -> Option<VmId> {
        let guests = view.branch(keys::domains().path());
        // Nothing is ever half done under this lock.
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| Index {
            guests: View::default().branch(keys::domains().path()),
            ids: HashMap::new(),
            names: HashMap::new(),
        });
        index.follow(guests);
        index.ids.get(name).copied()
    }
}

impl Index {
    fn follow(&mut self, guests: Branch) {
        for (id, guest) in guests.changed_since(&self.guests) {
            let Ok(id) = id.parse::<VmId>() else { continue };
            let name = keys::domain(id)
                .name()
                .decode(guest.znode())
                .ok()
                .flatten()
                .map(|name: pvc_common::store::Versioned<VmName>| name.value.to_string());
            if self.names.get(&id) == name.as_ref() {
                continue;
            }
            if let Some(before) = self.names.remove(&id)
                && self.ids.get(&before) == Some(&id)
            {
                self.ids.remove(&before);
            }
            if let Some(name) = name {
                self.ids.insert(name.clone(), id);
                self.names.insert(id, name);
            }
        }
        self.guests = guests;
    }
}
