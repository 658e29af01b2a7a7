//! Sessions of browsers.
//!
//! Who logs in gets a cookie with 256 random bits. The store holds their digest, so a session is good on every node and
//! survives a move of the primary role, and whoever reads the store can not take one over. A session ends with its
//! time, by logging out, and with what was logged in with: a changed password, a removed token.

use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::cookie::{Cookie, SameSite};
use pvc_common::keys::{self, Key};
use pvc_common::store::{Store, StoreError, StoreExt, Txn};
use pvc_core::access::{Account, Digest, SessionRecord, hex, is_over};

use super::digest::{self, Purpose};
use super::record::{For, record};
use super::{AuthPolicy, Caller, Who, containers};
use crate::app::App;
use crate::error::ApiError;

/// The cookie's name.
pub(crate) const COOKIE: &str = "pvc_session";

/// How long a session lasts, in seconds: a working day.
const LASTS_SECONDS: u64 = 12 * 3600;

/// Sessions beyond which those that are over are removed when somebody logs in.
const TIDY: usize = 100;

/// Sessions that may be open. A log-in beyond it is refused: it would take someone a thousand good log-ins.
const MOST: usize = 1000;

/// Who logs in, and with what.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) account: Account,
    pub(super) caller: Caller,
    /// What tells this credential from a later one of the same account.
    pub(super) credential: Vec<u8>,
    /// When what was logged in with expires.
    pub(super) expires_at: Option<u64>,
}

/// Opens a session. Answers with what its cookie holds.
pub(super) async fn open<S: Store>(app: &App<S>, who: &LoggedIn, from: String) -> Result<String, ApiError> {
    make_room(app).await?;
    let secret = hex(&digest::random::<32>()?);
    let now = app.clock_seconds();
    let lasts_until = now.saturating_add(LASTS_SECONDS);
    let record = SessionRecord {
        account: who.account.clone(),
        credential: credential(&secret, &who.credential),
        created_at: now,
        expires_at: who.expires_at.map_or(lasts_until, |at| at.min(lasts_until)),
        from,
    };
    let key = keys::session(&digest::stored(Purpose::Session, secret.as_bytes()));
    containers::commit(&app.store, Txn::new().create(&key, &record)).await?;
    Ok(secret)
}

/// Ends the session of that cookie. None there is success.
pub(super) async fn close<S: Store>(app: &App<S>, secret: &str) -> Result<(), ApiError> {
    let key = key_of(secret);
    // Whoever sends what never was a session must not make the store write.
    if record(app, &key, For::Changing)?.is_none() {
        return Ok(());
    }
    match app.store.commit(Txn::new().delete(&key, None)).await {
        Ok(_) | Err(StoreError::NoNode { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn key_of(secret: &str) -> Key<SessionRecord> {
    keys::session(&digest::stored(Purpose::Session, secret.as_bytes()))
}

/// Whose session the cookie with `secret` is, if it still is one.
pub(super) fn holder<S: Store>(
    app: &App<S>,
    secret: &str,
    reason: For,
) -> Result<Option<(Caller, u64)>, ApiError> {
    let Some(session) = record(app, &key_of(secret), reason)? else {
        return Ok(None);
    };
    let now = app.clock_seconds();
    if is_over(Some(session.expires_at), now) {
        return Ok(None);
    }
    let good = |current: &[u8]| digest::same(&session.credential, &credential(secret, current));
    let caller = match session.account {
        Account::User { name } => record(app, &keys::user(&name), reason)?
            .filter(|user| good(user.password.hash.as_bytes()))
            .map(|user| Caller {
                who: Who::User { name },
                role: user.role,
            }),
        Account::Token { name } => record(app, &keys::token(&name), reason)?
            .filter(|token| good(token.digest.as_bytes()) && !is_over(token.expires_at, now))
            .map(|token| Caller {
                who: Who::Token { name },
                role: token.role,
            }),
        Account::Configured => match &app.settings.auth {
            AuthPolicy::Open => None,
            AuthPolicy::Tokens(tokens) => tokens
                .iter()
                .find(|token| good(token.digest.as_bytes()))
                .map(super::KnownToken::holder),
        },
    };
    Ok(caller.map(|caller| (caller, session.expires_at)))
}

/// Ties a session to what was logged in with. Keyed by what the cookie holds: what is stored tells nothing of a token
/// of the configuration that could be guessed.
fn credential(secret: &str, current: &[u8]) -> Digest {
    digest::stored(Purpose::Credential, &[secret.as_bytes(), current].concat())
}

async fn make_room<S: Store>(app: &App<S>) -> Result<(), ApiError> {
    let ids = app
        .store
        .children(keys::sessions().path())
        .await?
        .unwrap_or_default();
    if ids.len() < TIDY {
        return Ok(());
    }
    let now = app.clock_seconds();
    let sessions: Vec<_> = ids
        .into_iter()
        .filter_map(|id| Digest::try_from(id).ok())
        .map(|id| keys::session(&id))
        .collect();
    let records = app.store.get_many(&sessions).await?;
    let over: Vec<_> = sessions
        .iter()
        .zip(&records)
        .filter(|(_, record)| {
            record
                .as_ref()
                .is_some_and(|record| is_over(Some(record.value.expires_at), now))
        })
        .map(|(key, _)| key)
        .collect();
    if sessions.len() - over.len() >= MOST {
        return Err(ApiError::conflict(format!(
            "There are {MOST} sessions; log out of some, or use a token"
        )));
    }
    for key in over {
        match app.store.commit(Txn::new().delete(key, None)).await {
            Ok(_) | Err(StoreError::NoNode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The cookie of a session. Scripts do not see it, and other sites' pages do not send it.
pub(super) fn cookie(secret: String, secure: bool) -> Cookie<'static> {
    let seconds = i64::try_from(LASTS_SECONDS).unwrap_or(i64::MAX);
    Cookie::build(COOKIE, secret)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(secure)
        .max_age(CookieDuration::seconds(seconds))
        .finish()
}

/// What makes a browser forget the cookie.
pub(super) fn no_cookie(secure: bool) -> Cookie<'static> {
    let mut cookie = cookie(String::new(), secure);
    cookie.make_removal();
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let text = cookie("abc".to_owned(), true).to_string();
        for part in [
            "pvc_session=abc",
            "HttpOnly",
            "SameSite=Strict",
            "Secure",
            "Path=/",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!cookie("abc".to_owned(), false).to_string().contains("Secure"));
        assert!(no_cookie(true).to_string().contains("Max-Age=0"));
    }
}
