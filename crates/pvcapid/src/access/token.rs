//! Tokens that are made while the cluster runs.
//!
//! A token's text is `pvc_NAME_SECRET`, the secret 256 random bits in hexadecimal digits. It is shown once, to whom
//! makes it; the store holds a digest.

use pvc_api::access::{CreatedToken, Token, TokenSource};
use pvc_common::keys;
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::access::{Role, TokenRecord, TokenUse, hex, is_over};
use pvc_core::ids::AccountName;

use super::digest::{self, Purpose};
use super::{AuthPolicy, Caller, Who, containers};
use crate::app::App;
use crate::error::ApiError;
use crate::snapshot::children_of;

/// What the text of every such token begins with, so that people and scanners of secrets know one when they see it.
const PREFIX: &str = "pvc_";

/// Hexadecimal digits of the secret.
const SECRET_DIGITS: usize = 64;

/// Tokens that a cluster may have: far more than there are programs, and few enough to be listed.
const MOST: usize = 1000;

/// How often a removal is tried again after somebody noted a use meanwhile.
const TRIES: usize = 8;

/// Whose token that is, by its text.
pub(super) fn name_in(text: &[u8]) -> Option<AccountName> {
    let text = std::str::from_utf8(text).ok()?.strip_prefix(PREFIX)?;
    let (name, secret) = text.rsplit_once('_')?;
    (secret.len() == SECRET_DIGITS).then(|| AccountName::new(name).ok())?
}

/// Who holds that record's token, if `text` is it.
pub(super) fn holder(
    name: AccountName,
    record: Option<&TokenRecord>,
    text: &[u8],
    now: u64,
) -> Option<Caller> {
    let record = record?;
    let given = digest::stored(Purpose::Token, text);
    (digest::same(&record.digest, &given) && !is_over(record.expires_at, now)).then_some(Caller {
        who: Who::Token { name },
        role: record.role,
    })
}

/// What a new token is to be.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) name: AccountName,
    pub(crate) role: Role,
    pub(crate) description: String,
    /// In how many seconds it expires; never if none is given.
    pub(crate) expires_in: Option<u64>,
}

/// Makes a token. The reply is the only place where its text ever stands.
pub(crate) async fn create<S: Store>(
    app: &App<S>,
    new: NewToken,
    by: &Caller,
) -> Result<CreatedToken, ApiError> {
    let NewToken {
        name,
        role,
        description,
        expires_in,
    } = new;
    let count = app
        .store
        .children(keys::tokens().path())
        .await?
        .map_or(0, |names| names.len());
    if count >= MOST {
        return Err(ApiError::conflict(format!(
            "There are {MOST} tokens already: remove some that nobody uses"
        )));
    }
    let text = format!(
        "{PREFIX}{name}_{}",
        hex(&digest::random::<{ SECRET_DIGITS / 2 }>()?)
    );
    let now = app.clock_seconds();
    let record = TokenRecord {
        role,
        digest: digest::stored(Purpose::Token, text.as_bytes()),
        description,
        created_at: now,
        created_by: by.to_string(),
        expires_at: expires_in.map(|seconds| now.saturating_add(seconds)),
    };
    let key = keys::token(&name);
    let txn = Txn::new()
        .create(&key, &record)
        .create(&keys::token_use(&name), &None);
    match containers::commit(&app.store, txn).await {
        Ok(()) => {}
        Err(StoreError::NodeExists { .. }) => {
            return Err(ApiError::conflict(format!(
                "There is a token named {name} already: remove it first, or take another name"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(token = %name, %role, %by, "token made");
    Ok(CreatedToken {
        message: format!("Token {name} with the role {role} is made; this is the only time that it is shown"),
        name: name.to_string(),
        role: role.to_string(),
        token: text,
        expires_at: record.expires_at,
    })
}

/// Every token: those of the configuration, then the others by name.
pub(crate) async fn list<S: Store>(app: &App<S>) -> Result<Vec<Token>, ApiError> {
    let now = app.clock_seconds();
    let mut tokens = match &app.settings.auth {
        AuthPolicy::Open => Vec::new(),
        AuthPolicy::Tokens(tokens) => tokens
            .iter()
            .map(|token| Token {
                name: None,
                source: TokenSource::Configuration,
                role: token.role.to_string(),
                description: token.description.clone(),
                created_at: None,
                created_by: None,
                expires_at: None,
                expired: false,
                last_used_at: None,
                last_used_from: None,
            })
            .collect(),
    };
    let names: Vec<AccountName> = children_of(&app.store, &keys::tokens()).await?;
    let records: Vec<_> = names.iter().map(keys::token).collect();
    let uses: Vec<_> = names.iter().map(keys::token_use).collect();
    let records = app.store.get_many(&records).await?;
    let uses = app.store.get_many(&uses).await?;
    for ((name, record), used) in names.into_iter().zip(records).zip(uses) {
        // One that was removed since it was listed is none.
        let Some(record) = record.map(|found| found.value) else {
            continue;
        };
        let stored: Option<TokenUse> = used.and_then(|found| found.value);
        let used = app.access.uses.latest(&name, stored);
        tokens.push(Token {
            name: Some(name.to_string()),
            source: TokenSource::Created,
            role: record.role.to_string(),
            description: record.description,
            created_at: Some(record.created_at),
            created_by: Some(record.created_by),
            expires_at: record.expires_at,
            expired: is_over(record.expires_at, now),
            last_used_at: used.as_ref().map(|used| used.at),
            last_used_from: used.map(|used| used.from),
        });
    }
    Ok(tokens)
}

/// Removes a token: it lets nobody in any more, nor do the sessions that were opened with it.
pub(crate) async fn remove<S: Store>(app: &App<S>, name: &AccountName) -> Result<String, ApiError> {
    let key = keys::token(name);
    for _ in 0..TRIES {
        let Some(found) = app.store.get(&key).await? else {
            return Err(unknown(name));
        };
        let txn = Txn::new()
            .delete(&keys::token_use(name), None)
            .delete(&key, Some(found.version));
        match app.store.commit(txn).await {
            Ok(_) => {
                tracing::info!(token = %name, "token removed");
                return Ok(format!("Token {name} is removed"));
            }
            // Somebody else removed it or made it anew.
            Err(StoreError::NoNode { .. } | StoreError::BadVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::busy(&format!("Token {name}")))
}

fn unknown(name: &AccountName) -> ApiError {
    ApiError::not_found(format!(
        "There is no token named {name} (those of the configuration are removed there)"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(text: &str, expires_at: Option<u64>) -> TokenRecord {
        TokenRecord {
            role: Role::Operator,
            digest: digest::stored(Purpose::Token, text.as_bytes()),
            description: String::new(),
            created_at: 0,
            created_by: String::new(),
            expires_at,
        }
    }

    #[test]
    fn only_the_whole_token_opens_and_only_until_it_expires() {
        let text = format!("pvc_my_app_{}", "5a".repeat(32));
        let name = name_in(text.as_bytes()).unwrap();
        assert_eq!(name.as_str(), "my_app");
        let opens = |record: &TokenRecord, text: &str, now| {
            holder(name.clone(), Some(record), text.as_bytes(), now).is_some()
        };
        let known = record(&text, Some(100));
        assert!(opens(&known, &text, 99));
        assert!(!opens(&known, &text, 100));
        assert!(!opens(&known, &text.replace("5a5a", "5a5b"), 0));
        assert!(!opens(&record(&text.replace("my_app", "other"), None), &text, 0));
        assert!(holder(name, None, text.as_bytes(), 0).is_none());
        for bad in [
            "",
            "pvc_",
            "pvc_x",
            "pvc__",
            "x_a_b",
            &text[1..],
            &text[..text.len() - 1],
        ] {
            assert_eq!(name_in(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        // A name in a token becomes a path in the store.
        #[test]
        fn no_text_names_a_path(text in any::<Vec<u8>>(), name in ".{0,20}") {
            let _ = name_in(&text);
            let crafted = format!("pvc_{name}_{}", "0".repeat(SECRET_DIGITS));
            if let Some(found) = name_in(crafted.as_bytes()) {
                prop_assert!(!found.as_str().contains('/'));
                prop_assert_eq!(found.as_str(), name);
            }
        }
    }
}
