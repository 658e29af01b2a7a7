//! What both implementations refuse before they try.

use super::{Op, StoreError, Txn};

/// The most bytes that one request may carry. ZooKeeper drops the connection of a client that sends a request over
/// 1 MiB, which would look like an unknown outcome.
const MAX_REQUEST_BYTES: usize = 1_000_000;

/// Room for the paths and headers of one operation, beside its data.
const OP_OVERHEAD: usize = 128;

/// Refuses what ZooKeeper would, and what it would take for something else.
pub(super) fn check_txn(txn: &Txn) -> Result<(), StoreError> {
    let mut bytes = 0;
    for op in &txn.ops {
        let (path, data, version) = match op {
            Op::Check { path, version } => (path, 0, Some(*version)),
            Op::Guard { path } => (path, 0, None),
            Op::Create { path, data } => (path, data.len(), None),
            Op::Set { path, data, version } => (path, data.len(), *version),
            Op::Delete { path, version } => (path, 0, *version),
        };
        check_path(path)?;
        // To ZooKeeper a negative version means "any": a check that always holds.
        if version.is_some_and(|version| version.0 < 0) {
            return Err(refused(format!("{path}: a version is never negative")));
        }
        if path == "/" && matches!(op, Op::Create { .. } | Op::Delete { .. }) {
            return Err(refused("the root can be neither created nor deleted".to_owned()));
        }
        bytes += path.len() + data + OP_OVERHEAD;
    }
    check_bytes(bytes)
}

/// Refuses a multi-read that is too large to be sent, or that asks for what is not a path.
pub(super) fn check_paths(paths: &[String]) -> Result<(), StoreError> {
    paths.iter().try_for_each(|path| check_path(path))?;
    check_bytes(paths.iter().map(|path| path.len() + OP_OVERHEAD).sum())
}

/// Refuses a request of that size if it is too large.
pub(super) fn check_bytes(bytes: usize) -> Result<(), StoreError> {
    if bytes > MAX_REQUEST_BYTES {
        return Err(refused(format!(
            "a request of {bytes} bytes is larger than {MAX_REQUEST_BYTES}"
        )));
    }
    Ok(())
}

/// Refuses what is not a path.
pub(super) fn check_path(path: &str) -> Result<(), StoreError> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(refused(format!("{path:?} does not begin with a slash")));
    };
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(char::is_control);
    if !rest.is_empty() && rest.split('/').any(bad) {
        return Err(refused(format!("{path:?} is not a path")));
    }
    Ok(())
}

/// Where the parent of `path` is; the root is its own.
pub(super) fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((parent, _)) => parent,
    }
}

fn refused(reason: String) -> StoreError {
    StoreError::Refused { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ZnodeVersion;

    #[test]
    fn what_zookeeper_would_misunderstand_is_refused() {
        for bad in ["", "a", "/a/", "//a", "/a/../b", "/a/./b", "/a\n"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        for good in ["/", "/a", "/a/b c"] {
            assert_eq!(check_path(good), Ok(()), "{good:?}");
        }
        // Version -1 would pass whatever the version is.
        assert!(check_txn(&Txn::new().check_path("/a", ZnodeVersion(-1))).is_err());
        assert!(check_txn(&Txn::new().create_path("/", "")).is_err());
        assert!(check_txn(&Txn::new().create_path("/a", vec![0; 1_100_000])).is_err());
        assert_eq!(check_txn(&Txn::new().create_path("/a", vec![0; 900_000])), Ok(()));
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/a/b"), "/a");
        assert_eq!(parent("/a"), "/");
        assert_eq!(parent("/"), "/");
    }
}
