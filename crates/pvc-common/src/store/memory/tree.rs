//! The tree of znodes: what ZooKeeper's servers keep, without sessions or faults.

use std::collections::{BTreeMap, BTreeSet};

use super::SessionNumber;
use crate::store::limits::parent;
use crate::store::{Applied, Op, StoreError, Txn, Znode, ZnodeVersion, Zxid};

/// All znodes by path. Clones are snapshots.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    znodes: BTreeMap<String, Node>,
    zxid: i64,
}

#[derive(Debug, Clone)]
struct Node {
    data: Vec<u8>,
    version: i32,
    modified: i64,
    /// Sequential children so far.
    sequence: u64,
    children: BTreeSet<String>,
    owner: Option<SessionNumber>,
}

/// What was changed, to be undone in reverse order.
type Undo = Vec<(String, Option<Node>)>;

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            znodes: BTreeMap::from([("/".to_owned(), Node::new(Vec::new(), 0, None))]),
            zxid: 0,
        }
    }

    pub(super) fn read(&self, path: &str) -> Option<Znode> {
        self.znodes.get(path).map(|node| Znode {
            data: node.data.clone(),
            version: ZnodeVersion(node.version),
            modified: Zxid(node.modified),
        })
    }

    pub(super) fn children(&self, path: &str) -> Option<Vec<String>> {
        self.znodes
            .get(path)
            .map(|node| node.children.iter().cloned().collect())
    }

    /// Applies all of `txn` or nothing.
    pub(super) fn apply(&mut self, txn: &Txn) -> Result<Vec<Applied>, StoreError> {
        let mut undo = Undo::new();
        self.zxid += 1;
        let mut applied = Vec::with_capacity(txn.ops.len());
        for (index, op) in txn.ops.iter().enumerate() {
            match self.apply_op(op, index, &mut undo) {
                Ok(done) => applied.push(done),
                Err(error) => {
                    for (path, before) in undo.into_iter().rev() {
                        match before {
                            Some(node) => self.znodes.insert(path, node),
                            None => self.znodes.remove(&path),
                        };
                    }
                    return Err(error);
                }
            }
        }
        Ok(applied)
    }

    fn apply_op(&mut self, op: &Op, index: usize, undo: &mut Undo) -> Result<Applied, StoreError> {
        match op {
            Op::Check { path, version } => {
                self.expect(path, Some(*version), index)?;
                Ok(Applied::Checked)
            }
            Op::Guard { path } => {
                self.expect(path, Some(ZnodeVersion(0)), index)
                    .map_err(|_| StoreError::LockLost { path: path.clone() })?;
                Ok(Applied::Checked)
            }
            Op::Create { path, data } => {
                self.create(path, data, None, index, undo)?;
                Ok(Applied::Created)
            }
            Op::Set { path, data, version } => {
                self.expect(path, *version, index)?;
                let zxid = self.zxid;
                let node = self.change(path, undo);
                let node = node.ok_or_else(|| no_node(path, index))?;
                node.data.clone_from(data);
                node.version += 1;
                node.modified = zxid;
                Ok(Applied::Set(ZnodeVersion(node.version)))
            }
            Op::Delete { path, version } => {
                let node = self.expect(path, *version, index)?;
                if !node.children.is_empty() {
                    return Err(StoreError::NotEmpty {
                        path: path.clone(),
                        index,
                    });
                }
                self.remove(path, undo);
                Ok(Applied::Deleted)
            }
        }
    }

    /// Creates an ephemeral znode at `prefix` and the next number; answers with its path.
    pub(super) fn create_sequential(
        &mut self,
        prefix: &str,
        data: &[u8],
        owner: SessionNumber,
    ) -> Result<String, StoreError> {
        let above = parent(prefix);
        let node = self.znodes.get_mut(above).ok_or_else(|| no_node(above, 0))?;
        let path = format!("{prefix}{:010}", node.sequence);
        node.sequence += 1;
        self.zxid += 1;
        self.create(&path, data, Some(owner), 0, &mut Undo::new())?;
        Ok(path)
    }

    /// Ends a session; answers with the paths of the ephemeral znodes that went with it.
    pub(super) fn end_session(&mut self, session: SessionNumber) -> Vec<String> {
        let gone: Vec<String> = self
            .znodes
            .iter()
            .filter(|(_, node)| node.owner == Some(session))
            .map(|(path, _)| path.clone())
            .collect();
        if !gone.is_empty() {
            self.zxid += 1;
        }
        for path in &gone {
            self.remove(path, &mut Undo::new());
        }
        gone
    }

    /// The ephemeral znodes of `session` whose path begins with `prefix`.
    pub(super) fn ephemerals(&self, session: SessionNumber, prefix: &str) -> Vec<String> {
        self.znodes
            .range(prefix.to_owned()..)
            .take_while(|(path, _)| path.starts_with(prefix))
            .filter(|(_, node)| node.owner == Some(session))
            .map(|(path, _)| path.clone())
            .collect()
    }

    fn expect(&self, path: &str, version: Option<ZnodeVersion>, index: usize) -> Result<&Node, StoreError> {
        let node = self.znodes.get(path).ok_or_else(|| no_node(path, index))?;
        match version {
            Some(version) if version.0 != node.version => Err(StoreError::BadVersion {
                path: path.to_owned(),
                index,
            }),
            Some(_) | None => Ok(node),
        }
    }

    fn create(
        &mut self,
        path: &str,
        data: &[u8],
        owner: Option<SessionNumber>,
        index: usize,
        undo: &mut Undo,
    ) -> Result<(), StoreError> {
        let (above, name) = (parent(path), path.rsplit('/').next().unwrap_or_default());
        if self.znodes.contains_key(path) {
            return Err(StoreError::NodeExists {
                path: path.to_owned(),
                index,
            });
        }
        let zxid = self.zxid;
        let node = self.change(above, undo).ok_or_else(|| no_node(above, index))?;
        if node.owner.is_some() {
            return Err(StoreError::Refused {
                reason: format!("{above} is ephemeral and cannot have children"),
            });
        }
        node.children.insert(name.to_owned());
        undo.push((path.to_owned(), None));
        self.znodes
            .insert(path.to_owned(), Node::new(data.to_vec(), zxid, owner));
        Ok(())
    }

    fn remove(&mut self, path: &str, undo: &mut Undo) {
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some(above) = self.change(parent(path), undo) {
            above.children.remove(name);
        }
        undo.push((path.to_owned(), self.znodes.remove(path)));
    }

    /// The znode at `path`, to be changed.
    fn change(&mut self, path: &str, undo: &mut Undo) -> Option<&mut Node> {
        let node = self.znodes.get_mut(path)?;
        undo.push((path.to_owned(), Some(node.clone())));
        Some(node)
    }
}

impl Node {
    fn new(data: Vec<u8>, zxid: i64, owner: Option<SessionNumber>) -> Node {
        Node {
            data,
            version: 0,
            modified: zxid,
            sequence: 0,
            children: BTreeSet::new(),
            owner,
        }
    }
}

fn no_node(path: &str, index: usize) -> StoreError {
    StoreError::NoNode {
        path: path.to_owned(),
        index,
    }
}
