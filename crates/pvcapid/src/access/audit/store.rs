//! The store as handlers see it: the first write of each request carries the note that it was ordered, and a check that
//! what it named is still called so.

use std::future::Future;

use pvc_common::keys;
use pvc_common::store::{Applied, Op, SessionState, Store, StoreError, Txn, Znode};

use super::super::containers;
use super::note::{self, Due, Note};

/// A store whose writes are noted in the audit log, in the same transaction.
#[derive(Debug, Clone)]
pub struct Audited<S>(S);

impl<S> Audited<S> {
    /// That store, noted.
    pub fn new(store: S) -> Audited<S> {
        Audited(store)
    }
}

impl<S: Store> Audited<S> {
    async fn commit_noted(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        let changes = txn.ops.iter().any(|op| match op {
            Op::Create { .. } | Op::Set { .. } | Op::Delete { .. } => true,
            Op::Check { .. } | Op::Guard { .. } => false,
        });
        if !changes {
            return self.0.commit(txn).await;
        }
        note::writing();
        let outcome = match Note::due() {
            Some(due) => self.commit_due(due, txn).await,
            None => self.0.commit(txn).await,
        };
        if outcome.as_ref().is_err_and(is_surely_not_written) {
            note::not_written();
        }
        outcome
    }

    async fn commit_due(&self, due: Due, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        let Due {
            note,
            name,
            request,
            named,
        } = due;
        // Before all others, since these may delete what is checked.
        let checks = usize::from(named.is_some());
        let before = named.map(|(path, version)| Op::Check { path, version });
        let caller = txn.ops.len();
        let own = checks + caller;
        let noted = Txn {
            ops: before.into_iter().chain(txn.ops).collect(),
        }
        .create(&keys::audit_note(&name), &request);
        let outcome = match self.0.commit(noted.clone()).await {
            Err(StoreError::NoNode { index, .. }) if index == own => {
                containers::ensure(&self.0).await?;
                self.0.commit(noted).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(applied) => {
                note.stands();
                Ok(applied.into_iter().skip(checks).take(caller).collect())
            }
            Err(error) => {
                if is_surely_not_written(&error) {
                    note.stands_not(&name);
                }
                Err(at_callers_place(error, checks))
            }
        }
    }
}

/// Whether nothing of the transaction was written, nor will be.
fn is_surely_not_written(error: &StoreError) -> bool {
    match error {
        StoreError::Unknown { .. } => false,
        StoreError::NoNode { .. }
        | StoreError::NodeExists { .. }
        | StoreError::BadVersion { .. }
        | StoreError::NotEmpty { .. }
        | StoreError::LockLost { .. }
        | StoreError::Unavailable { .. }
        | StoreError::SessionExpired
        | StoreError::Refused { .. } => true,
    }
}

/// The error with the place that the caller knows. What fails before all of its own operations failed at its beginning.
fn at_callers_place(mut error: StoreError, before: usize) -> StoreError {
    match &mut error {
        StoreError::NoNode { index, .. }
        | StoreError::NodeExists { index, .. }
        | StoreError::BadVersion { index, .. }
        | StoreError::NotEmpty { index, .. } => *index = index.saturating_sub(before),
        StoreError::LockLost { .. }
        | StoreError::Unknown { .. }
        | StoreError::Unavailable { .. }
        | StoreError::SessionExpired
        | StoreError::Refused { .. } => {}
    }
    error
}

impl<S: Store> Store for Audited<S> {
    type Watch = S::Watch;

    fn session(&self) -> SessionState {
        self.0.session()
    }

    fn read(&self, path: &str) -> impl Future<Output = Result<Option<Znode>, StoreError>> + Send {
        self.0.read(path)
    }

    fn read_many(
        &self,
        paths: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Znode>>, StoreError>> + Send {
        self.0.read_many(paths)
    }

    fn children(&self, path: &str) -> impl Future<Output = Result<Option<Vec<String>>, StoreError>> + Send {
        self.0.children(path)
    }

    async fn commit(&self, txn: Txn) -> Result<Vec<Applied>, StoreError> {
        self.commit_noted(txn).await
    }

    fn create_ephemeral_sequential(
        &self,
        prefix: &str,
        data: &[u8],
    ) -> impl Future<Output = Result<String, StoreError>> + Send {
        self.0.create_ephemeral_sequential(prefix, data)
    }

    fn withdraw_ephemeral(&self, prefix: &str) {
        self.0.withdraw_ephemeral(prefix);
    }

    fn watch_tree(&self, path: &str) -> Self::Watch {
        self.0.watch_tree(path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pvc_api::message::ErrorCode;
    use pvc_common::keys::Key;
    use pvc_common::keys::values::Maintenance;
    use pvc_common::store::memory::MemoryServer;
    use pvc_common::store::{StoreExt, ZnodeVersion};
    use pvc_core::access::AuditRequest;
    use pvc_core::ids::NodeName;

    use super::*;
    use crate::access::AuthPolicy;
    use crate::app::{App, Settings, Waits};
    use crate::error::ApiError;

    fn note() -> Note {
        Note::new(AuditRequest {
            request_id: "abc".to_owned(),
            at: 100,
            node: "hv1".to_owned(),
            who: "user ann".to_owned(),
            role: None,
            from: "192.0.2.7".to_owned(),
            operation: "set_maintenance".to_owned(),
            method: "POST".to_owned(),
            target: "/api/v1/status".to_owned(),
            parameters: "state=true".to_owned(),
        })
    }

    fn key() -> Key<Maintenance> {
        keys::config().maintenance()
    }

    // A daemon that dies right after a change must leave a trace of who ordered it, and none of what did not happen.
    #[tokio::test]
    async fn the_first_change_of_a_request_and_its_note_are_one_transaction() {
        let inner = MemoryServer::new().client();
        let store = Audited::new(inner.clone());
        let seed = Txn::new()
            .create_path("/config", "")
            .create(&key(), &Maintenance::Off);
        // Outside of a request nothing is noted, nor where nothing is changed.
        store.commit(seed).await.unwrap();
        let notes = async || inner.children_as(&keys::audit_notes()).await.unwrap();
        let set = |version| Txn::new().set(&key(), &Maintenance::On, ZnodeVersion(version));
        note()
            .scope(async {
                store
                    .commit(Txn::new().check(&key(), ZnodeVersion(0)))
                    .await
                    .unwrap();
                assert!(notes().await.is_empty());
                // Its place is made on the way, and errors name the places that the caller knows.
                let error = store.commit(set(7)).await.unwrap_err();
                assert!(
                    matches!(error, StoreError::BadVersion { index: 0, .. }),
                    "{error:?}"
                );
                assert!(notes().await.is_empty());
                assert_eq!(store.commit(set(0)).await.unwrap().len(), 1);
                assert_eq!(store.commit(set(1)).await.unwrap().len(), 1);
            })
            .await;
        assert_eq!(notes().await, ["abc-0"]);
        let noted = inner.require(&keys::audit_note("abc-0")).await.unwrap();
        assert_eq!(noted.value.who, "user ann");
        let changed = inner.require(&key()).await.unwrap();
        assert_eq!(changed.version, ZnodeVersion(2));
    }

    // The mirror by which a guest was found may be behind: another may have its name by now.
    #[tokio::test]
    async fn what_was_named_must_still_be_called_so() {
        let inner = MemoryServer::new().client();
        let store = Audited::new(inner.clone());
        let named_key = keys::config().cluster_name();
        let seed = Txn::new()
            .create(&named_key, &"web".to_owned())
            .create(&key(), &Maintenance::Off);
        store.commit(seed).await.unwrap();
        let set = |version| Txn::new().set(&key(), &Maintenance::On, ZnodeVersion(version));
        note()
            .scope(async {
                super::super::named(&named_key, ZnodeVersion(0));
                let renamed = Txn::new().set(&named_key, &"other".to_owned(), ZnodeVersion(0));
                inner.commit(renamed).await.unwrap();
                let error = store.commit(set(0)).await.unwrap_err();
                assert!(
                    matches!(error, StoreError::BadVersion { index: 0, .. }),
                    "{error:?}"
                );
                super::super::named(&named_key, ZnodeVersion(1));
                // The caller's places are its own.
                let error = store.commit(set(7)).await.unwrap_err();
                assert!(
                    matches!(error, StoreError::BadVersion { index: 0, .. }),
                    "{error:?}"
                );
                let txn = set(0).delete(&key(), None).delete(&named_key, None);
                assert_eq!(store.commit(txn).await.unwrap().len(), 3);
                assert_eq!(super::super::writes(), 1);
            })
            .await;
    }

    // "Nothing was changed" must not be said of what may have been.
    #[tokio::test]
    async fn a_request_that_takes_too_long_says_whether_it_may_have_changed_something() {
        let settings = Settings {
            auth: AuthPolicy::Open,
            waits: Waits::for_shutdown_timeout(Duration::from_secs(1)),
            max_age: Duration::from_secs(5),
            node: NodeName::new("hv1").unwrap(),
            tls: false,
            metrics: false,
        };
        let app = App::new(MemoryServer::new().client(), settings);
        let code = async |work: Txn| {
            let work = async {
                app.store.commit(work).await?;
                std::future::pending::<Result<(), ApiError>>().await
            };
            note().scope(app.promptly(work)).await.unwrap_err().code
        };
        let (looked, wrote) = tokio::join!(code(Txn::new()), code(Txn::new().create_path("/config", "")));
        assert_eq!(looked, ErrorCode::StoreUnavailable);
        assert_eq!(wrote, ErrorCode::OutcomeUnknown);
    }

    #[tokio::test]
    async fn a_note_carries_the_zxid_of_its_change() {
        let inner = MemoryServer::new().client();
        let store = Audited::new(inner.clone());
        let create = Txn::new().create_path("/config", "");
        note().scope(store.commit(create)).await.unwrap();
        let change = inner.read("/config").await.unwrap().unwrap().modified;
        let note = inner.require(&keys::audit_note("abc-0")).await.unwrap();
        assert_eq!(note.modified, change);
    }
}
