//! Who sent a request: by the token in its header, or by the session of its cookie.

use std::time::Duration;

use pvc_api::API_KEY_HEADER;
use pvc_api::message::ErrorCode;
use pvc_common::clock::{Clock, HostClock};
use pvc_common::keys;
use pvc_common::store::Store;
use pvc_core::access::{Guess, Role};

use super::presented::Presented;
use super::record::{For, record};
use super::{AuthPolicy, Caller, TokenDigest, session, token};
use crate::app::App;
use crate::error::ApiError;

/// Who sent that request.
///
/// # Errors
/// 401 for nobody known, 403 for a change that another site's page may have sent, 429 for who guesses, 503 when the
/// store that knows him does not answer.
pub(super) fn identify<S: Store>(app: &App<S>, presented: &Presented) -> Result<Caller, ApiError> {
    if let AuthPolicy::Open = app.settings.auth {
        return Ok(Caller::anybody(Role::Admin));
    }
    if let Some(token) = &presented.token {
        return by_token(app, presented, token);
    }
    if let Some(secret) = &presented.session {
        let Some((caller, _)) = session::holder(app, secret, reason(presented))? else {
            return Err(unauthorized("The session is over: log in again"));
        };
        if presented.changes {
            presented.check_page()?;
        }
        return Ok(caller);
    }
    Err(unauthorized(&format!(
        "Authentication is required: send a token of this cluster in the header {API_KEY_HEADER}, or log in"
    )))
}

/// Whether somebody is known to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
    /// The store that would know him is silent.
    Perhaps,
}

/// Whether who sent that request would be let in now as well.
pub(crate) fn is_known<S: Store>(app: &App<S>, presented: &Presented) -> Known {
    // Without a look at how many guesses came from his address: others make them.
    let known = match (&app.settings.auth, &presented.token, &presented.session) {
        (AuthPolicy::Open, _, _) => Ok(true),
        (AuthPolicy::Tokens(_), Some(text), _) => holder_of_made(app, presented, text)
            .map(|made| made.is_some() || app.settings.auth.holder(&TokenDigest::of(text)).is_some()),
        (AuthPolicy::Tokens(_), None, Some(secret)) => {
            session::holder(app, secret, reason(presented)).map(|holder| holder.is_some())
        }
        (AuthPolicy::Tokens(_), None, None) => Ok(false),
    };
    match known {
        Ok(true) => Known::Yes,
        Ok(false) => Known::No,
        Err(_) => Known::Perhaps,
    }
}

fn reason(presented: &Presented) -> For {
    match presented.changes {
        true => For::Changing,
        false => For::Reading,
    }
}

/// Who holds the token that was made while the cluster runs and has this text.
fn holder_of_made<S: Store>(
    app: &App<S>,
    presented: &Presented,
    text: &[u8],
) -> Result<Option<Caller>, ApiError> {
    let Some(name) = token::name_in(text) else {
        return Ok(None);
    };
    let record = record(app, &keys::token(&name), reason(presented))?;
    let now = app.clock_seconds();
    let holder = token::holder(name.clone(), record.as_ref(), text, now);
    if holder.is_some() {
        app.access.uses.note(&name, now, presented.address.clone());
    }
    Ok(holder)
}

/// The holder of that token. Where many were wrong, only one with 256 random bits is looked at: it can not be guessed, and
/// programs behind the address of someone who guesses go on working.
fn by_token<S: Store>(app: &App<S>, presented: &Presented, text: &[u8]) -> Result<Caller, ApiError> {
    if let Some(caller) = holder_of_made(app, presented, text)? {
        return Ok(caller);
    }
    may_try(app, presented)?;
    let digest = TokenDigest::of(text);
    if let Some(caller) = app.settings.auth.holder(&digest) {
        return Ok(caller);
    }
    failed(app, presented, digest.guess());
    Err(unauthorized(&format!(
        "The token in {API_KEY_HEADER} is not one that this cluster knows, or it has expired"
    )))
}

pub(super) fn unauthorized(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, message)
}

/// Whether a token or password of that request may be looked at.
///
/// # Errors
/// 429.
pub(super) fn may_try<S: Store>(app: &App<S>, presented: &Presented) -> Result<(), ApiError> {
    match presented.source {
        Some(source) => app
            .access
            .failures()
            .check(source, HostClock.now())
            .map_err(too_many_failures),
        None => Ok(()),
    }
}

/// Counts a wrong token or password.
pub(super) fn failed<S: Store>(app: &App<S>, presented: &Presented, guess: Guess) {
    if let Some(source) = presented.source {
        app.access.failures().fail(source, guess, HostClock.now());
    }
}

fn too_many_failures(wait: Duration) -> ApiError {
    // Rounded up: who comes back at that time is let try.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiError {
        retry_after_seconds: Some(seconds),
        ..ApiError::new(
            ErrorCode::TooManyFailures,
            format!(
                "This address has sent too many wrong tokens or passwords; it may try again in {seconds} s"
            ),
        )
    }
}
