//! The copy itself: a tree of znodes in which versions of the whole share what did not change.
//!
//! A change copies the way from the root to what changed and nothing else, so two trees tell by comparing pointers which
//! of their parts are the same.

use std::sync::Arc;

use crate::store::{Znode, ZnodeVersion, Zxid};

/// A znode with all below it. Never changes once it is in a published view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) znode: Znode,
    /// Sorted by name.
    pub(super) children: Vec<(Arc<str>, Arc<Entry>)>,
}

impl Entry {
    /// The root above all mirrored subtrees, which is itself not mirrored.
    pub(super) fn root() -> Entry {
        Entry {
            znode: Znode {
                data: Vec::new(),
                version: ZnodeVersion(0),
                modified: Zxid(0),
            },
            children: Vec::new(),
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|(child, _)| (**child).cmp(name))
    }

    /// The child of that name.
    pub(super) fn child(&self, name: &str) -> Option<&Arc<Entry>> {
        let place = self.place(name).ok()?;
        self.children.get(place).map(|(_, child)| child)
    }
}

/// Whether both are the very same write of a znode. A znode that was deleted and created again begins at version 0 again,
/// by another write.
pub(super) fn same_write(one: &Znode, other: &Znode) -> bool {
    one.version == other.version && one.modified == other.modified
}

/// The names on the way to `path`.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// What is at `path`, seen from `root`.
pub(super) fn find<'a>(root: &'a Arc<Entry>, path: &str) -> Option<&'a Arc<Entry>> {
    names(path).try_fold(root, |entry, name| entry.child(name))
}

/// What became of an attempt to put something into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there now.
    Done,
    /// It was there already.
    AlreadySo,
    /// There is nothing to put it below.
    NoParent,
}

/// Puts a znode at `path` and leaves what is below it.
pub(super) fn put(root: &mut Arc<Entry>, path: &str, name: Arc<str>, znode: Znode) -> Put {
    let entry = match find(root, path) {
        Some(known) if same_write(&known.znode, &znode) => return Put::AlreadySo,
        Some(known) => Entry {
            znode,
            children: known.children.clone(),
        },
        None => Entry {
            znode,
            children: Vec::new(),
        },
    };
    graft(root, path, name, Arc::new(entry))
}

/// Puts `entry` with all below it at `path`, in the place of what was there.
pub(super) fn graft(root: &mut Arc<Entry>, path: &str, name: Arc<str>, entry: Arc<Entry>) -> Put {
    if find(root, path).is_some_and(|known| Arc::ptr_eq(known, &entry)) {
        return Put::AlreadySo;
    }
    let Some(above) = above(root, path) else {
        return Put::NoParent;
    };
    match above.place(&name) {
        Ok(place) => {
            if let Some((_, known)) = above.children.get_mut(place) {
                *known = entry;
            }
        }
        Err(place) => above.children.insert(place, (name, entry)),
    }
    Put::Done
}

/// Takes what is at `path` and below it away; says whether there was something.
pub(super) fn remove(root: &mut Arc<Entry>, path: &str) -> bool {
    if find(root, path).is_none() {
        return false;
    }
    let Some(above) = above(root, path) else {
        return false;
    };
    let Some(Ok(place)) = names(path).last().map(|name| above.place(name)) else {
        return false;
    };
    above.children.remove(place);
    true
}

/// The entry above `path`, to be changed: what it shares with other trees is copied up to there.
fn above<'a>(root: &'a mut Arc<Entry>, path: &str) -> Option<&'a mut Entry> {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    // Nothing is copied for an attempt that leads nowhere.
    find(root, above)?;
    names(above).try_fold(Arc::make_mut(root), |entry, name| {
        let place = entry.place(name).ok()?;
        entry
            .children
            .get_mut(place)
            .map(|(_, child)| Arc::make_mut(child))
    })
}

/// Paths in depth-first order, as many as `most`, beginning with the first that comes after `after` (all of them after the
/// empty text).
pub(super) fn paths_after(root: &Arc<Entry>, after: &str, most: usize) -> Vec<String> {
    let way: Vec<&str> = names(after).collect();
    let mut paths = Vec::new();
    collect(root, "", &way, most, &mut paths);
    paths
}

fn collect(entry: &Entry, path: &str, after: &[&str], most: usize, paths: &mut Vec<String>) {
    let begin = match after.first() {
        Some(name) => entry.children.partition_point(|(child, _)| **child < **name),
        None => 0,
    };
    for (name, child) in entry.children.iter().skip(begin) {
        if paths.len() >= most {
            return;
        }
        let below = format!("{path}/{name}");
        let passed = match after.split_first() {
            Some((first, rest)) if **name == **first => Some(rest),
            Some(_) | None => None,
        };
        if passed.is_none() {
            paths.push(below.clone());
        }
        collect(child, &below, passed.unwrap_or_default(), most, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn znode(text: &str, modified: i64) -> Znode {
        Znode {
            data: text.into(),
            version: ZnodeVersion(0),
            modified: Zxid(modified),
        }
    }

    fn put_at(root: &mut Arc<Entry>, path: &str, text: &str, modified: i64) -> Put {
        let name = path.rsplit('/').next().unwrap();
        put(root, path, name.into(), znode(text, modified))
    }

    fn count(root: &Arc<Entry>) -> usize {
        paths_after(root, "", usize::MAX).len()
    }

    fn tree() -> Arc<Entry> {
        let mut root = Arc::new(Entry::root());
        for path in ["/a", "/a/1", "/a/1/x", "/a/2", "/b", "/b/3"] {
            assert_eq!(put_at(&mut root, path, path, 1), Put::Done);
        }
        root
    }

    #[test]
    fn a_change_leaves_earlier_trees_and_other_branches_alone() {
        let before = tree();
        let mut root = Arc::clone(&before);
        assert_eq!(put_at(&mut root, "/a/1", "new", 2), Put::Done);
        assert_eq!(find(&before, "/a/1").unwrap().znode.data, b"/a/1");
        assert_eq!(find(&root, "/a/1").unwrap().znode.data, b"new");
        assert_eq!(
            find(&root, "/a/1/x").unwrap().znode.data,
            b"/a/1/x",
            "kept what is below"
        );
        for (path, shared) in [
            ("/a", false),
            ("/a/1", false),
            ("/a/1/x", true),
            ("/a/2", true),
            ("/b", true),
        ] {
            let same = Arc::ptr_eq(find(&before, path).unwrap(), find(&root, path).unwrap());
            assert_eq!(same, shared, "{path}");
        }
        assert!(remove(&mut root, "/a"));
        assert!(find(&root, "/a/1/x").is_none() && find(&before, "/a/1/x").is_some());
        assert_eq!((count(&root), count(&before)), (2, 6));
    }

    #[test]
    fn what_changes_nothing_copies_nothing() {
        let before = tree();
        let mut root = Arc::clone(&before);
        assert_eq!(put_at(&mut root, "/a/1", "/a/1", 1), Put::AlreadySo);
        assert_eq!(put_at(&mut root, "/c/1", "", 1), Put::NoParent);
        assert!(!remove(&mut root, "/a/9"));
        assert!(Arc::ptr_eq(&before, &root));
    }

    #[test]
    fn paths_are_walked_in_pieces() {
        let root = tree();
        let all = ["/a", "/a/1", "/a/1/x", "/a/2", "/b", "/b/3"];
        assert_eq!(paths_after(&root, "", 100), all);
        let (mut walked, mut after) = (Vec::new(), String::new());
        loop {
            let piece = paths_after(&root, &after, 2);
            let Some(last) = piece.last() else { break };
            after = last.clone();
            walked.extend(piece);
        }
        assert_eq!(walked, all);
        // Where it stopped may be gone by then.
        assert_eq!(paths_after(&root, "/a/1/y", 1), ["/a/2"]);
    }
}
