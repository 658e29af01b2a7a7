//! Records of accounts, as the mirror shows them: who asks is found without asking the store.

use std::time::Duration;

use pvc_common::clock::Clock;
use pvc_common::keys::{Key, Value};
use pvc_common::store::Store;

use crate::app::App;
use crate::error::ApiError;

/// For how long a record counts for who only looks while the store does not answer: who is logged in must not be thrown out
/// when ZooKeeper elects a leader.
const KEPT: Duration = Duration::from_secs(60);

/// How old the mirror may be to tell that there is no record. It is told once a second that it is up to date.
const FRESH: Duration = Duration::from_secs(2);

/// What is done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Something is shown to its holder.
    Reading,
    /// Its holder changes something.
    Changing,
}

/// The record at `key`, if there is one.
///
/// # Errors
/// 503 when what is known is too old to tell. That there is none is told of the present alone: what was made a moment ago
/// may be missing in what is older. Nor may somebody change anything by a record that may have been removed long since.
pub(super) fn record<S: Store, T: Value>(
    app: &App<S>,
    key: &Key<T>,
    reason: For,
) -> Result<Option<T>, ApiError> {
    let now = app.clock.now();
    let known = match reason {
        For::Reading => app.mirror().current(now, KEPT)?,
        For::Changing => app.view()?,
    };
    match known.get(key)? {
        Some(found) => Ok(Some(found.value)),
        None => Ok(app
            .mirror()
            .current(now, FRESH)?
            .get(key)?
            .map(|found| found.value)),
    }
}

#[cfg(test)]
mod tests {
    use pvc_common::keys;
    use pvc_common::store::Txn;
    use pvc_common::store::memory::MemoryServer;
    use pvc_core::access::{Digest, Role, TokenRecord};
    use pvc_core::ids::{AccountName, NodeName};

    use super::*;
    use crate::access::AuthPolicy;
    use crate::app::{Settings, Waits};

    #[tokio::test]
    async fn a_record_counts_on_while_the_store_is_silent() {
        let server = MemoryServer::new();
        let (store, other) = (server.client(), server.client());
        let settings = Settings {
            auth: AuthPolicy::Open,
            waits: Waits::for_shutdown_timeout(Duration::from_secs(1)),
            // Over as soon as the store is silent.
            max_age: Duration::ZERO,
            node: NodeName::new("hv1").unwrap(),
            tls: false,
            metrics: false,
        };
        let token = TokenRecord {
            role: Role::Viewer,
            digest: Digest::new([7; 32]),
            description: String::new(),
            created_at: 1,
            created_by: String::new(),
            expires_at: None,
        };
        let key = keys::token(&AccountName::new("grafana").unwrap());
        let seed = Txn::new()
            .create_path("/access", "")
            .create_path("/access/tokens", "")
            .create(&key, &token);
        other.commit(seed).await.unwrap();
        let app = App::new(store.clone(), settings);
        let shown = app.mirror().wait_for(|view| view.znode(key.path()).is_some());
        app.clock.timeout(Duration::from_secs(20), shown).await.unwrap();
        store.disconnect();
        assert_eq!(record(&app, &key, For::Reading).unwrap(), Some(token));
        assert!(
            record(&app, &key, For::Changing).is_err(),
            "it may have been removed since"
        );
        let unknown = keys::token(&AccountName::new("other").unwrap());
        let unknown = || record(&app, &unknown, For::Reading);
        let waited = async {
            while unknown().is_ok() {
                app.clock.sleep(Duration::from_millis(50)).await;
            }
        };
        // It may have been made since.
        app.clock.timeout(Duration::from_secs(20), waited).await.unwrap();
    }
}
