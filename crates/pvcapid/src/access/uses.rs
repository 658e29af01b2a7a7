//! When tokens were last used. Noted in memory by each request, and written now and then beside the requests.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pvc_common::keys;
use pvc_common::store::{Store, StoreError, Txn};
use pvc_core::access::TokenUse;
use pvc_core::ids::AccountName;

/// A use is not written again if the last one that was written is younger, in seconds: a token that is used a thousand
/// times a second is written once a minute.
const GRAIN_SECONDS: u64 = 60;

#[derive(Debug)]
struct Noted {
    used: TokenUse,
    /// When the use was that was last written.
    written_at: Option<u64>,
}

/// The last uses of tokens through this daemon. As many as there are tokens: only a good one is noted.
#[derive(Debug, Default)]
pub(super) struct LastUses(Mutex<HashMap<AccountName, Noted>>);

impl LastUses {
    /// Notes a use.
    pub(super) fn note(&self, name: &AccountName, at: u64, from: String) {
        let used = TokenUse { at, from };
        let mut uses = self.lock();
        match uses.get_mut(name) {
            Some(noted) => noted.used = used,
            None => {
                uses.insert(
                    name.clone(),
                    Noted {
                        used,
                        written_at: None,
                    },
                );
            }
        }
    }

    /// The later of what is known here and of what is stored.
    pub(super) fn latest(&self, name: &AccountName, stored: Option<TokenUse>) -> Option<TokenUse> {
        let here = self.lock().get(name).map(|noted| noted.used.clone());
        match (here, stored) {
            (Some(here), Some(stored)) if stored.at > here.at => Some(stored),
            (Some(here), _) => Some(here),
            (None, stored) => stored,
        }
    }

    /// Writes what is worth it. What could not be written is tried the next time.
    pub(super) async fn write<S: Store>(&self, store: &S) {
        for (name, used) in self.due() {
            let at = used.at;
            // Blind: the last word is as good as any other daemon's.
            let txn = Txn::new().overwrite(&keys::token_use(&name), &Some(used));
            match store.commit(txn).await {
                Ok(_) => {
                    if let Some(noted) = self.lock().get_mut(&name) {
                        noted.written_at = Some(at);
                    }
                }
                // It was removed meanwhile.
                Err(StoreError::NoNode { .. }) => {
                    self.lock().remove(&name);
                }
                Err(error) => {
                    tracing::debug!(token = %name, %error, "the last use of a token could not be written");
                    return;
                }
            }
        }
    }

    fn due(&self) -> Vec<(AccountName, TokenUse)> {
        self.lock()
            .iter()
            .filter(|(_, noted)| {
                noted
                    .written_at
                    .is_none_or(|written| noted.used.at >= written.saturating_add(GRAIN_SECONDS))
            })
            .map(|(name, noted)| (name.clone(), noted.used.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountName, Noted>> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_due_once_a_minute() {
        let uses = LastUses::default();
        let name = AccountName::new("grafana").unwrap();
        let written = |at| {
            if let Some(noted) = uses.lock().get_mut(&name) {
                noted.written_at = Some(at);
            }
        };
        assert!(uses.due().is_empty());
        uses.note(&name, 100, "192.0.2.7".to_owned());
        assert_eq!(uses.due().len(), 1);
        written(100);
        uses.note(&name, 159, "192.0.2.7".to_owned());
        assert!(uses.due().is_empty());
        uses.note(&name, 160, "192.0.2.8".to_owned());
        assert_eq!(uses.due()[0].1.from, "192.0.2.8");
        let elsewhere = TokenUse {
            at: 500,
            from: "192.0.2.9".to_owned(),
        };
        assert_eq!(uses.latest(&name, Some(elsewhere)).unwrap().at, 500);
        assert_eq!(uses.latest(&name, None).unwrap().at, 160);
    }
}
