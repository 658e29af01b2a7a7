//! Logging in and out: how a browser gets its session.

use actix_web::cookie::Cookie;
use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::access::Account;
use pvc_core::ids::AccountName;

use super::identify::{failed, identify, may_try, unauthorized};
use super::presented::Presented;
use super::record::{For, record};
use super::session::{self, LoggedIn};
use super::{AuthPolicy, Caller, TokenDigest, Who, audit, token};
use crate::app::App;
use crate::error::ApiError;

/// What somebody logs in with.
#[derive(Debug)]
pub(crate) enum Credential {
    /// A token, as in PVC 1.0.3.
    Token(String),
    /// A user's password.
    Password {
        /// The user.
        user: String,
        /// His password.
        password: String,
    },
}

/// A session that has begun or ended: what is said of it, and what the browser is given.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: String,
    pub(crate) cookie: Cookie<'static>,
}

/// Opens a session for who shows a good credential.
pub(crate) async fn log_in<S: Store>(
    app: &App<S>,
    presented: &Presented,
    credential: Credential,
) -> Result<Answer, ApiError> {
    // A page of another site that logs its reader in as somebody else would see what he then does.
    if presented.names_its_page() {
        presented.check_page()?;
    }
    may_try(app, presented)?;
    let (guess, known) = match credential {
        Credential::Token(text) => {
            let guess = TokenDigest::of(text.as_bytes()).guess();
            (guess, by_token(app, &text)?)
        }
        Credential::Password { user, password } => {
            let guess = TokenDigest::of(format!("{user}\0{password}").as_bytes()).guess();
            (guess, by_password(app, &user, password).await?)
        }
    };
    let Some(known) = known else {
        failed(app, presented, guess);
        return Err(unauthorized(
            "The token, or the user's name or password, is wrong",
        ));
    };
    audit::identified(&known.caller);
    let secret = session::open(app, &known, presented.address.clone()).await?;
    Ok(Answer {
        message: format!(
            "Logged in as {} with the role {}",
            known.caller, known.caller.role
        ),
        cookie: session::cookie(secret, app.settings.tls),
    })
}

/// Ends the session of the request, if it has one.
pub(crate) async fn log_out<S: Store>(app: &App<S>, presented: &Presented) -> Result<Answer, ApiError> {
    if let Some(secret) = &presented.session {
        presented.check_page()?;
        if let Some((caller, _)) = session::holder(app, secret, For::Changing)? {
            audit::identified(&caller);
        }
        session::close(app, secret).await?;
    }
    Ok(Answer {
        message: "Logged out".to_owned(),
        cookie: session::no_cookie(app.settings.tls),
    })
}

/// Who sends that request, and when his session ends if he has one.
pub(crate) fn whoami<S: Store>(
    app: &App<S>,
    presented: &Presented,
) -> Result<(Caller, Option<u64>), ApiError> {
    let caller = identify(app, presented)?;
    let session = match &presented.session {
        Some(secret) if presented.token.is_none() => session::holder(app, secret, For::Reading)?,
        Some(_) | None => None,
    };
    Ok((caller, session.map(|(_, expires_at)| expires_at)))
}

fn by_token<S: Store>(app: &App<S>, text: &str) -> Result<Option<LoggedIn>, ApiError> {
    if let Some(name) = token::name_in(text.as_bytes()) {
        let record = record(app, &keys::token(&name), For::Changing)?;
        let now = app.clock_seconds();
        let holder = token::holder(name.clone(), record.as_ref(), text.as_bytes(), now);
        if let (Some(caller), Some(record)) = (holder, record) {
            app.access.uses.note(&name, now, String::new());
            return Ok(Some(LoggedIn {
                account: Account::Token { name },
                caller,
                credential: record.digest.as_bytes().to_vec(),
                expires_at: record.expires_at,
            }));
        }
    }
    let digest = TokenDigest::of(text.as_bytes());
    Ok(app.settings.auth.holder(&digest).map(|caller| LoggedIn {
        account: Account::Configured,
        caller,
        credential: digest.as_bytes().to_vec(),
        expires_at: None,
    }))
}

async fn by_password<S: Store>(
    app: &App<S>,
    user: &str,
    password: String,
) -> Result<Option<LoggedIn>, ApiError> {
    let name = AccountName::new(user).ok();
    let record = match &name {
        Some(name) => record(app, &keys::user(name), For::Changing)?,
        None => None,
    };
    let hash = record.as_ref().map(|record| &record.password);
    let good = app.access.hasher.check(hash, password).await?;
    Ok(match (name, record) {
        (Some(name), Some(record)) if good => Some(LoggedIn {
            account: Account::User { name: name.clone() },
            caller: Caller {
                who: Who::User { name },
                role: record.role,
            },
            credential: record.password.hash.as_bytes().to_vec(),
            expires_at: None,
        }),
        _ => None,
    })
}

/// Whether nobody has to log in.
pub(crate) fn is_needless<S: Store>(app: &App<S>) -> bool {
    matches!(app.settings.auth, AuthPolicy::Open)
}
