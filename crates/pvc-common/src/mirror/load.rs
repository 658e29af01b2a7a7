//! Reading a whole subtree from the store, level by level.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::entry::{Entry, same_write};
use crate::store::{Scanned, Store, StoreError, Znode};

/// Znodes per request. Larger ones would take the store longer than its other clients should wait.
pub(super) const BATCH: usize = 400;
/// Requests under way at a time.
const AT_ONCE: usize = 4;

/// Names that many znodes have, kept once.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>>);

/// Longer names than the schema's own belong to one thing (a UUID) and are not kept.
const LONGEST_KEPT: usize = 32;
/// Names that are kept: more than the schema has.
const MOST_KEPT: usize = 1024;

impl Names {
    pub(super) fn keep(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let kept: Arc<str> = name.into();
        if name.len() <= LONGEST_KEPT && self.0.len() < MOST_KEPT {
            self.0.insert(Arc::clone(&kept));
        }
        kept
    }
}

/// Reads the znodes at `paths`, in their order.
pub(super) async fn read_all<S: Store>(
    store: &S,
    paths: Vec<String>,
) -> Result<Vec<(String, Option<Znode>)>, StoreError> {
    let batches: Vec<Vec<String>> = paths.chunks(BATCH).map(<[String]>::to_vec).collect();
    let read = stream::iter(batches)
        .map(|paths| async move {
            let znodes = store.read_many(&paths).await?;
            Ok::<_, StoreError>(paths.into_iter().zip(znodes).collect::<Vec<_>>())
        })
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

/// A znode that was read, with the places of its children in the list of all.
struct Loaded {
    name: Arc<str>,
    znode: Znode,
    children: Vec<usize>,
    before: Option<Arc<Entry>>,
}

/// What is still to be read.
struct Ahead {
    path: String,
    name: Arc<str>,
    parent: Option<usize>,
    before: Option<Arc<Entry>>,
}

/// Reads `path` and everything below it; `None` if there is no such znode. What is as it was in `before` stays shared with
/// it. Not of one moment: what changes meanwhile has to be read again afterwards.
pub(super) async fn load<S: Store>(
    store: &S,
    path: &str,
    before: Option<Arc<Entry>>,
    left_out: fn(&str) -> bool,
    names: &mut Names,
) -> Result<Option<Arc<Entry>>, StoreError> {
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut level = vec![Ahead {
        path: path.to_owned(),
        name: names.keep(path.rsplit('/').next().unwrap_or_default()),
        parent: None,
        before,
    }];
    while !level.is_empty() {
        let scanned = scan_level(store, &level).await?;
        let mut next = Vec::new();
        for (ahead, scanned) in level.into_iter().zip(scanned) {
            // One that is gone since its parent was read is left out.
            let Some(Scanned { mut znode, children }) = scanned else {
                continue;
            };
            znode.data.shrink_to_fit();
            let place = loaded.len();
            if let Some(parent) = ahead.parent.and_then(|parent| loaded.get_mut(parent)) {
                parent.children.push(place);
            }
            for child in children {
                let path = format!("{}/{child}", ahead.path);
                if left_out(&path) {
                    continue;
                }
                next.push(Ahead {
                    path,
                    before: ahead
                        .before
                        .as_ref()
                        .and_then(|before| before.child(&child))
                        .cloned(),
                    name: names.keep(&child),
                    parent: Some(place),
                });
            }
            loaded.push(Loaded {
                name: ahead.name,
                znode,
                children: Vec::new(),
                before: ahead.before,
            });
        }
        level = next;
    }
    Ok(assemble(loaded))
}

async fn scan_level<S: Store>(store: &S, level: &[Ahead]) -> Result<Vec<Option<Scanned>>, StoreError> {
    let batches: Vec<Vec<String>> = level
        .chunks(BATCH)
        .map(|batch| batch.iter().map(|ahead| ahead.path.clone()).collect())
        .collect();
    let scanned = stream::iter(batches)
        .map(|paths| async move { store.scan(&paths).await })
        .buffered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(scanned.into_iter().flatten().collect())
}

/// Puts together what was read. Children come later in the list than their parents, so it is taken from its end.
fn assemble(mut loaded: Vec<Loaded>) -> Option<Arc<Entry>> {
    let mut made: Vec<Option<(Arc<str>, Arc<Entry>)>> = Vec::new();
    made.resize_with(loaded.len(), || None);
    while let Some(last) = loaded.pop() {
        let children: Vec<(Arc<str>, Arc<Entry>)> = last
            .children
            .iter()
            .filter_map(|place| made.get_mut(*place).and_then(Option::take))
            .collect();
        let unchanged = last.before.filter(|before| {
            same_write(&before.znode, &last.znode)
                && before.children.len() == children.len()
                && before
                    .children
                    .iter()
                    .zip(&children)
                    .all(|((_, was), (_, is))| Arc::ptr_eq(was, is))
        });
        let entry = unchanged.unwrap_or_else(|| {
            Arc::new(Entry {
                znode: last.znode,
                children,
            })
        });
        if let Some(place) = made.get_mut(loaded.len()) {
            *place = Some((last.name, entry));
        }
    }
    made.into_iter().next().flatten().map(|(_, entry)| entry)
}
