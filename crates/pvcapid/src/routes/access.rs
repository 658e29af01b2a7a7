//! Who may use the API, and what was done through it. Additions to PVC 1.0.3, but for logging in and out.

use actix_web::http::header::{CACHE_CONTROL, LOCATION};
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::PREFIX;
use pvc_api::access::{AuditRecord, CreatedToken, Session, Token, User};
use pvc_api::message::{ErrorReply, Message};
use pvc_common::store::Store;
use pvc_core::access::{AuditFilter, Role};
use pvc_core::ids::AccountName;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::access::audit::{self, Query};
use crate::access::login::{self, Answer, Credential};
use crate::access::token::{self, NewToken};
use crate::access::{Caller, Presented, user};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};

/// Entries of the audit log that are shown if nobody says how many, and the most.
const AUDIT_LIMIT: usize = 100;
const MOST_AUDIT_LIMIT: usize = 20_000;

/// The longest description of a token, in characters.
const DESCRIPTION: usize = 200;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/login").route(web::post().to(log_in::<S>)))
        .service(resource("/logout").route(web::post().to(log_out::<S>)))
        .service(resource("/session").route(web::get().to(session::<S>)))
        .service(
            resource("/token")
                .route(web::get().to(list_tokens::<S>))
                .route(web::post().to(create_token::<S>)),
        )
        .service(resource("/token/{token}").route(web::delete().to(remove_token::<S>)))
        .service(
            resource("/user")
                .route(web::get().to(list_users::<S>))
                .route(web::post().to(create_user::<S>)),
        )
        .service(
            resource("/user/{user}")
                .route(web::put().to(modify_user::<S>))
                .route(web::delete().to(remove_user::<S>)),
        )
        .service(resource("/audit").route(web::get().to(audit_log::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(
        log_in,
        log_out,
        session,
        list_tokens,
        create_token,
        remove_token,
        list_users,
        create_user,
        modify_user,
        remove_user,
        audit_log
    ),
    tags((name = "access", description = "Who may use the API, and what was done through it"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LoginParams {
    /// A token; or give `username` and `password`.
    token: Option<String>,
    /// A user's name. Addition to PVC 1.0.3.
    username: Option<String>,
    /// His password. Addition to PVC 1.0.3.
    password: Option<String>,
}

/// Opens a session: the reply sets a cookie, which stands for the token from then on. Send the parameters in the body:
/// what stands in a URL stands in logs. Changes by a session must come from a page of the API (`Origin`) or carry the
/// header `X-Requested-With`.
#[utoipa::path(
    post, path = "/login", operation_id = "log_in", tag = "access", params(LoginParams), security(()),
    responses(
        (status = 200, description = "Logged in; the cookie is set", body = Message),
        (status = 302, description = "Authentication is off: there is nothing to log in to"),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "The token, or the name or password, is wrong", body = ErrorReply),
        (status = 403, description = "A page of another site has sent this", body = ErrorReply),
        (status = 429, description = "This address has failed to log in too often", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn log_in<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<LoginParams>,
) -> Result<HttpResponse, ApiError> {
    if login::is_needless(&app) {
        return Ok(to_root());
    }
    let credential = match params {
        LoginParams {
            token: Some(token),
            username: None,
            password: None,
        } => Credential::Token(token),
        LoginParams {
            token: None,
            username: Some(user),
            password: Some(password),
        } => Credential::Password { user, password },
        LoginParams {
            token: None,
            username: Some(_),
            password: None,
        } => return Err(ApiError::invalid("password", "it is required with 'username'")),
        LoginParams { .. } => {
            return Err(ApiError::invalid(
                "token",
                "give either this, or 'username' and 'password'",
            ));
        }
    };
    let presented = Presented::of(&request);
    // A guess counts also if its sender does not wait for the answer.
    let answer = audit::finished(async move { login::log_in(&app, &presented, credential).await });
    Ok(with_cookie(answer.await?))
}

/// Ends the session of the cookie. Without one nothing happens.
#[utoipa::path(
    post, path = "/logout", operation_id = "log_out", tag = "access", security(()),
    responses(
        (status = 200, description = "Logged out; the cookie is taken back", body = Message),
        (status = 302, description = "Authentication is off: there is nothing to log out of"),
        (status = 403, description = "A page of another site has sent this", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn log_out<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    if login::is_needless(&app) {
        return Ok(to_root());
    }
    let presented = Presented::of(&request);
    let answer = app.promptly(login::log_out(&app, &presented)).await?;
    Ok(with_cookie(answer))
}

/// As PVC 1.0.3 answers where authentication is off.
fn to_root() -> HttpResponse {
    HttpResponse::Found()
        .insert_header((LOCATION, format!("{PREFIX}/")))
        .finish()
}

fn with_cookie(answer: Answer) -> HttpResponse {
    crate::access::audit::answered(&answer.message);
    HttpResponse::Ok()
        .cookie(answer.cookie)
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Message {
            message: answer.message,
        })
}

/// Who sends this request, and what he may do.
#[utoipa::path(
    get, path = "/session", operation_id = "session", tag = "access", security(("token" = ["viewer"])),
    responses((status = 200, description = "Who sends this request", body = Session))
)]
pub(crate) async fn session<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<impl Responder, ApiError> {
    let presented = Presented::of(&request);
    let (caller, expires_at) = login::whoami(&app, &presented)?;
    Ok(web::Json(Session {
        who: caller.to_string(),
        role: caller.role.to_string(),
        expires_at,
    }))
}

/// All tokens. None is shown by its text.
#[utoipa::path(
    get, path = "/token", operation_id = "list_tokens", tag = "access", security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The tokens; those of the configuration first", body = Vec<Token>),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list_tokens<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(web::Json(app.promptly(token::list(&app)).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TokenParams {
    /// The token's name.
    name: String,
    /// What its holder may do: `viewer`, `operator` or `admin`.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    role: Role,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// In how many seconds it expires; never if this is not given.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u64>)]
    expires_in: Option<u64>,
}

/// Makes a token. Its text is in this reply and nowhere else.
#[utoipa::path(
    post, path = "/token", operation_id = "create_token", tag = "access", params(TokenParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The token", body = CreatedToken),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 409, description = "There is a token of that name", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn create_token<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<TokenParams>,
) -> Result<HttpResponse, ApiError> {
    if params.description.chars().count() > DESCRIPTION {
        return Err(ApiError::invalid(
            "description",
            format!("it must have at most {DESCRIPTION} characters"),
        ));
    }
    if params.expires_in == Some(0) {
        return Err(ApiError::invalid("expires_in", "it must be at least 1 second"));
    }
    let new = NewToken {
        name: AccountName::new(params.name).map_err(|error| ApiError::invalid("name", error))?,
        role: params.role,
        description: params.description,
        expires_in: params.expires_in,
    };
    let caller = Caller::of(&request);
    let created = app.promptly(token::create(&app, new, &caller)).await?;
    crate::access::audit::answered(&created.message);
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(created))
}

/// Removes a token. It lets nobody in from now on; on other nodes some milliseconds later.
#[utoipa::path(
    delete, path = "/token/{token}", operation_id = "remove_token", tag = "access",
    params(("token" = String, Path, description = "The token's name")), security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Removed", body = Message),
        (status = 404, description = "There is no such token", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn remove_token<S: Store>(
    app: web::Data<App<S>>,
    token: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = known_name(&token, "token")?;
    Ok(message(app.promptly(token::remove(&app, &name)).await?))
}

/// All users.
#[utoipa::path(
    get, path = "/user", operation_id = "list_users", tag = "access", security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The users", body = Vec<User>),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list_users<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(web::Json(app.promptly(user::list(&app)).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserParams {
    /// The user's name.
    username: String,
    /// What he may do: `viewer`, `operator` or `admin`.
    #[serde(deserialize_with = "extract::word")]
    #[param(value_type = String)]
    role: Role,
    /// His password: 10 to 256 characters. Send it in the body.
    password: String,
}

/// Adds a user, who logs in with a password.
#[utoipa::path(
    post, path = "/user", operation_id = "create_user", tag = "access", params(UserParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Added", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 409, description = "There is a user of that name", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn create_user<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<UserParams>,
) -> Result<impl Responder, ApiError> {
    let name = AccountName::new(params.username).map_err(|error| ApiError::invalid("username", error))?;
    let caller = Caller::of(&request);
    let work = user::create(&app, &name, params.role, params.password, &caller);
    Ok(message(app.promptly(work).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModifyUserParams {
    /// What he may do from now on.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    role: Option<Role>,
    /// His new password, which ends his sessions. Send it in the body.
    password: Option<String>,
}

/// Changes a user's role or password. What is not given stays as it is.
#[utoipa::path(
    put, path = "/user/{user}", operation_id = "modify_user", tag = "access",
    params(("user" = String, Path, description = "The user's name"), ModifyUserParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Changed, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 404, description = "There is no such user", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn modify_user<S: Store>(
    app: web::Data<App<S>>,
    user: web::Path<String>,
    Params(params): Params<ModifyUserParams>,
) -> Result<impl Responder, ApiError> {
    let name = known_name(&user, "user")?;
    if params.role.is_none() && params.password.is_none() {
        return Err(ApiError::invalid("role", "give this or 'password'"));
    }
    let work = user::modify(&app, &name, params.role, params.password);
    Ok(message(app.promptly(work).await?))
}

/// Removes a user, which ends his sessions.
#[utoipa::path(
    delete, path = "/user/{user}", operation_id = "remove_user", tag = "access",
    params(("user" = String, Path, description = "The user's name")), security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Removed", body = Message),
        (status = 404, description = "There is no such user", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn remove_user<S: Store>(
    app: web::Data<App<S>>,
    user: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = known_name(&user, "user")?;
    Ok(message(app.promptly(user::remove(&app, &name)).await?))
}

/// A name that can be one; no other is that of anything.
fn known_name(name: &str, kind: &str) -> Result<AccountName, ApiError> {
    AccountName::new(name).map_err(|_| ApiError::not_found(format!("There is no {kind} named {name:?}")))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParams {
    /// At most so many entries; 100 if this is not given.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<usize>)]
    limit: Option<usize>,
    /// Only what was done by those of whose name this is a part.
    who: Option<String>,
    /// Only what this is a part of the operation, the path or the parameters of.
    what: Option<String>,
    /// Only that request.
    request_id: Option<String>,
    /// Only from then on, in seconds since 1970.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u64>)]
    since: Option<u64>,
    /// Only before then, in seconds since 1970.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u64>)]
    until: Option<u64>,
    /// `true` for failures alone, `false` for what succeeded alone.
    #[serde(default, deserialize_with = "extract::optional_boolean")]
    failed: Option<bool>,
}

/// What was done through the API: every request that may change something, the latest first. Some ten thousand are
/// kept.
#[utoipa::path(
    get, path = "/audit", operation_id = "audit_log", tag = "access", params(AuditParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The entries; an empty list if nothing fits", body = Vec<AuditRecord>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn audit_log<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<AuditParams>,
) -> Result<impl Responder, ApiError> {
    let limit = params.limit.unwrap_or(AUDIT_LIMIT);
    if !(1..=MOST_AUDIT_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(
            "limit",
            format!("it must be 1 to {MOST_AUDIT_LIMIT}"),
        ));
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let query = Query {
        limit,
        filter: AuditFilter {
            who: given(params.who),
            what: given(params.what),
            request_id: given(params.request_id),
            since: params.since,
            until: params.until,
            failed: params.failed,
        },
    };
    Ok(web::Json(app.listing(audit::query(&app, &query)).await?))
}
