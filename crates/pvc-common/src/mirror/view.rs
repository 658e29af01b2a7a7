//! What readers are given: one state of the mirrored subtrees, which never changes.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use super::entry::{self, Entry};
use crate::keys::{Container, Key, Value};
use crate::store::{ReadError, Versioned, Znode};

/// The mirrored subtrees as they were at about one moment. Cheap to clone; reading is synchronous and asks nobody.
///
/// Each znode is as the store had it. Changes that belong together are seen together nearly always, but not by promise: a
/// write that depends on what is read here names versions, as always, and an invariant over *several* znodes that no
/// version covers is decided from reads of the store itself.
#[derive(Clone)]
pub struct View {
    pub(super) root: Arc<Entry>,
    pub(super) number: u64,
}

impl View {
    /// Grows with each change; not the same on another daemon or after a restart.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The znode at `path`; `None` if there is none, or if it is not mirrored.
    pub fn znode(&self, path: &str) -> Option<&Znode> {
        entry::find(&self.root, path).map(|entry| &entry.znode)
    }

    /// The value at `key`; `None` if there is no such znode.
    ///
    /// # Errors
    /// [`ReadError::Value`].
    pub fn get<T: Value>(&self, key: &Key<T>) -> Result<Option<Versioned<T>>, ReadError> {
        key.decode(self.znode(key.path()))
    }

    /// The value at `key`, which must exist.
    ///
    /// # Errors
    /// [`ReadError::Missing`] or [`ReadError::Value`].
    pub fn require<T: Value>(&self, key: &Key<T>) -> Result<Versioned<T>, ReadError> {
        key.decode_required(self.znode(key.path()))
    }

    /// The value at `key`, or `otherwise` where there is none or it can not be read. Only for what is shown and decides
    /// nothing: one bad figure must not hide the rest of a list.
    pub fn shown<T: Value>(&self, key: &Key<T>, otherwise: T) -> T {
        match self.get(key) {
            Ok(Some(found)) => found.value,
            Ok(None) => otherwise,
            Err(error) => {
                tracing::debug!(%error, "a value can not be shown");
                otherwise
            }
        }
    }

    /// The children of `container`, sorted by their stored names; none if it does not exist. One whose name is not of the
    /// container's type is left out: a stray znode must not hide everything else.
    pub fn children<C: FromStr<Err: Display>>(&self, container: &Container<C>) -> Vec<C> {
        let Some(entry) = entry::find(&self.root, container.path()) else {
            return Vec::new();
        };
        let read = |(name, _): &(Arc<str>, Arc<Entry>)| match name.parse() {
            Ok(child) => Some(child),
            Err(error) => {
                tracing::debug!(path = container.path(), %name, %error, "a stray child is left out");
                None
            }
        };
        entry.children.iter().filter_map(read).collect()
    }

    /// What is at `path` and below it; everything for the root.
    pub fn branch(&self, path: &str) -> Branch {
        Branch(entry::find(&self.root, path).cloned())
    }
}

impl Default for View {
    /// A view of nothing, older than any other.
    fn default() -> View {
        View {
            root: Arc::new(Entry::root()),
            number: 0,
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// A part of a [`View`], kept to tell later whether it has changed. It may be empty.
#[derive(Clone)]
pub struct Branch(Option<Arc<Entry>>);

impl Branch {
    /// Whether nothing has changed between the two. Costs one comparison, however large they are.
    pub fn is_same(&self, other: &Branch) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The znode at its top.
    pub fn znode(&self) -> Option<&Znode> {
        self.0.as_ref().map(|entry| &entry.znode)
    }

    /// How many znodes are right below its top.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |entry| entry.children.len())
    }

    /// The names right below its top with what is there, sorted by name.
    pub fn children(&self) -> impl Iterator<Item = (&str, Branch)> {
        self.0
            .iter()
            .flat_map(|entry| &entry.children)
            .map(|(name, child)| (&**name, Branch(Some(Arc::clone(child)))))
    }

    /// The children that differ from those of `before`: their names, with what they are now.
    pub fn changed_since<'a>(&'a self, before: &'a Branch) -> Vec<(&'a str, Branch)> {
        if self.is_same(before) {
            return Vec::new();
        }
        let none: &[(Arc<str>, Arc<Entry>)] = &[];
        let mut old = before.0.as_ref().map_or(none, |entry| &entry.children);
        let mut new = self.0.as_ref().map_or(none, |entry| &entry.children);
        let mut changed = Vec::new();
        loop {
            match (old.split_first(), new.split_first()) {
                (None, None) => return changed,
                (Some(((gone, _), rest)), None) => {
                    changed.push((&**gone, Branch(None)));
                    old = rest;
                }
                (None, Some(((name, entry), rest))) => {
                    changed.push((&**name, Branch(Some(Arc::clone(entry)))));
                    new = rest;
                }
                (Some(((gone, was), old_rest)), Some(((name, is), new_rest))) => match gone.cmp(name) {
                    std::cmp::Ordering::Less => {
                        changed.push((&**gone, Branch(None)));
                        old = old_rest;
                    }
                    std::cmp::Ordering::Greater => {
                        changed.push((&**name, Branch(Some(Arc::clone(is)))));
                        new = new_rest;
                    }
                    std::cmp::Ordering::Equal => {
                        if !Arc::ptr_eq(was, is) {
                            changed.push((&**name, Branch(Some(Arc::clone(is)))));
                        }
                        (old, new) = (old_rest, new_rest);
                    }
                },
            }
        }
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Branch").field(&self.znode()).finish()
    }
}
