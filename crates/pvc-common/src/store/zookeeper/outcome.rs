//! What the library's errors mean for a caller: whether something was, or may have been, written.

use std::time::Duration;

use zookeeper_client as zk;

use crate::store::limits::parent;
use crate::store::{Applied, Op, StoreError, Txn, ZnodeVersion};

pub(super) fn not_connected() -> StoreError {
    StoreError::Unavailable {
        reason: "not connected".to_owned(),
    }
}

pub(super) fn too_late_to_read(deadline: Duration) -> StoreError {
    StoreError::Unavailable {
        reason: format!("no answer within {deadline:?}"),
    }
}

pub(super) fn too_late_to_write(deadline: Duration) -> StoreError {
    StoreError::Unknown {
        reason: format!("no answer within {deadline:?}"),
    }
}

pub(super) fn refused(error: &zk::Error) -> StoreError {
    StoreError::Refused {
        reason: error.to_string(),
    }
}

/// Whether a read failed for want of a connection only.
pub(super) fn read_may_be_repeated(error: &zk::Error) -> bool {
    matches!(meaning(error), Meaning::ConnectionFailed)
}

/// The outcome of a read.
pub(super) fn of_read(error: &zk::Error) -> StoreError {
    match meaning(error) {
        Meaning::Refused => refused(error),
        Meaning::SessionEnded => StoreError::SessionExpired,
        Meaning::NotDone | Meaning::ConnectionFailed => StoreError::Unavailable {
            reason: error.to_string(),
        },
    }
}

/// The outcome of a write that failed as a whole.
pub(super) fn of_write(error: &zk::Error) -> StoreError {
    match meaning(error) {
        Meaning::Refused => refused(error),
        Meaning::SessionEnded => StoreError::SessionExpired,
        Meaning::NotDone => StoreError::Unavailable {
            reason: error.to_string(),
        },
        Meaning::ConnectionFailed => StoreError::Unknown {
            reason: error.to_string(),
        },
    }
}

/// The outcome of a transaction that failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
pub(super) fn of_commit(txn: &Txn, error: zk::MultiWriteError) -> StoreError {
    let (index, source) = match error {
        zk::MultiWriteError::RequestFailed { source } => return of_write(&source),
        zk::MultiWriteError::OperationFailed { index, source } => (index, source),
    };
    let Some(op) = txn.ops.get(index) else {
        return StoreError::Unknown {
            reason: format!("an answer about operation {index}, which was not sent: {source}"),
        };
    };
    if let Op::Guard { path } = op
        && matches!(source, zk::Error::NoNode | zk::Error::BadVersion)
    {
        return StoreError::LockLost { path: path.clone() };
    }
    let path = path(op).to_owned();
    match source {
        zk::Error::NoNode => StoreError::NoNode {
            // A creation fails so for want of its parent.
            path: if matches!(op, Op::Create { .. }) {
                parent(&path).to_owned()
            } else {
                path
            },
            index,
        },
        zk::Error::NodeExists => StoreError::NodeExists { path, index },
        zk::Error::BadVersion => StoreError::BadVersion { path, index },
        zk::Error::NotEmpty => StoreError::NotEmpty { path, index },
        // An answer about an operation is a server's: whatever it says, nothing was written.
        other => StoreError::Refused {
            reason: format!("{path}: {other}"),
        },
    }
}

/// What a committed transaction left behind.
pub(super) fn applied(txn: &Txn, results: Vec<zk::MultiWriteResult>) -> Result<Vec<Applied>, StoreError> {
    if results.len() != txn.ops.len() {
        return Err(StoreError::Unknown {
            reason: format!("{} answers to {} operations", results.len(), txn.ops.len()),
        });
    }
    results
        .into_iter()
        .map(|result| match result {
            zk::MultiWriteResult::Check => Ok(Applied::Checked),
            zk::MultiWriteResult::Create { .. } => Ok(Applied::Created),
            zk::MultiWriteResult::Delete => Ok(Applied::Deleted),
            zk::MultiWriteResult::SetData { stat } => Ok(Applied::Set(ZnodeVersion(stat.version))),
            // The library may add results; none of our operations has another.
            other => Err(StoreError::Unknown {
                reason: format!("an answer that is not known here: {other:?}"),
            }),
        })
        .collect()
}

fn path(op: &Op) -> &str {
    match op {
        Op::Check { path, .. }
        | Op::Guard { path }
        | Op::Create { path, .. }
        | Op::Set { path, .. }
        | Op::Delete { path, .. } => path,
    }
}

enum Meaning {
    /// A server, or the library before sending, said no to this request.
    Refused,
    /// The session is over; a request of an ended session is not applied.
    SessionEnded,
    /// Not applied, and worth another try.
    NotDone,
    /// It may or may not have reached a server.
    ConnectionFailed,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
fn meaning(error: &zk::Error) -> Meaning {
    match error {
        zk::Error::BadArguments(_)
        | zk::Error::NoNode
        | zk::Error::NoAuth
        | zk::Error::BadVersion
        | zk::Error::NoChildrenForEphemerals
        | zk::Error::NodeExists
        | zk::Error::NotEmpty
        | zk::Error::InvalidAcl
        | zk::Error::QuotaExceeded
        | zk::Error::MarshallingError
        | zk::Error::Unimplemented
        | zk::Error::ReconfigDisabled
        | zk::Error::RuntimeInconsistent => Meaning::Refused,
        zk::Error::SessionExpired => Meaning::SessionEnded,
        zk::Error::SessionMoved | zk::Error::NotReadOnly | zk::Error::Throttled | zk::Error::AuthFailed => {
            Meaning::NotDone
        }
        // Lost connections come as `ConnectionLoss` or as the socket's own error. Whatever else the library has or
        // will have is treated like them: for a write that is the cautious reading.
        _ => Meaning::ConnectionFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_have_been_applied_is_never_called_failed() {
        for error in [
            zk::Error::ConnectionLoss,
            zk::Error::Timeout,
            zk::Error::ClientClosed,
        ] {
            assert!(matches!(of_write(&error), StoreError::Unknown { .. }), "{error}");
            assert!(
                matches!(of_read(&error), StoreError::Unavailable { .. }),
                "{error}"
            );
            assert!(read_may_be_repeated(&error));
        }
        assert_eq!(of_write(&zk::Error::SessionExpired), StoreError::SessionExpired);
        assert!(matches!(
            of_write(&zk::Error::Throttled),
            StoreError::Unavailable { .. }
        ));
        assert!(matches!(of_write(&zk::Error::NoAuth), StoreError::Refused { .. }));
    }
}
