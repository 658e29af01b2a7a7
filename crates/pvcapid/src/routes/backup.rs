//! Backups of the store: making one, putting one back, and making the store anew.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::message::{ErrorReply, Message};
use pvc_common::schema;
use pvc_common::store::Store;
use pvc_core::backup::Backup;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::access::{Caller, audit};
use crate::app::App;
use crate::backup::{self, Existing, Secrets};
use crate::error::ApiError;
use crate::extract::{self, Params};

/// The largest backup that is taken, in bytes: ten times what 10,000 guests have.
const LARGEST: usize = 512 * 1024 * 1024;
/// How long one may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/backup").route(web::get().to(make::<S>)))
        .service(resource("/restore").route(web::post().to(restore::<S>)))
        .service(resource("/initialize").route(web::post().to(initialize::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(make, restore, initialize),
    tags((name = "backup", description = "Backups of the coordination store"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BackupParams {
    /// Whether passwords of BMCs and of guests' consoles are in it. Addition to PVC 1.0.3, whose backups always have them.
    #[serde(default, deserialize_with = "extract::optional_boolean")]
    #[param(value_type = Option<bool>)]
    secrets: Option<bool>,
}

/// A backup of what the store holds. What is so only at a moment (leases, owners, fences, orders under way) is never in it.
#[utoipa::path(
    get, path = "/backup", operation_id = "backup", tag = "backup", params(BackupParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "A JSON text that holds a JSON object of paths and values", body = String, content_type = "application/json"),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn make<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<BackupParams>,
) -> Result<impl Responder, ApiError> {
    let secrets = match params.secrets {
        Some(true) => Secrets::Included,
        Some(false) | None => Secrets::LeftOut,
    };
    let text = backup::make(&app.view()?, secrets)?;
    tracing::warn!(by = %Caller::of(&request), ?secrets, bytes = text.len(), "a backup of the store was made");
    if secrets == Secrets::Included {
        audit::shown_secrets(&app, &request, "backup").await;
    }
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RestoreParams {
    /// Any text: this puts the whole cluster back to what it was.
    #[serde(rename = "yes-i-really-mean-it")]
    confirmed: String,
    /// The backup, as `/backup` answered with. A body of type `application/json` is taken as well.
    #[serde(default)]
    #[param(required = true)]
    cluster_data: String,
}

/// Puts a backup back. It is checked whole before anything is written. Every agent that lives is on hold then, until what
/// really runs was adopted.
#[utoipa::path(
    post, path = "/restore", operation_id = "restore", tag = "backup", params(RestoreParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The store is as the backup has it", body = Message),
        (status = 400, description = "It is no backup that can be put back, or it was not confirmed", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 408, description = "The backup did not arrive in time", body = ErrorReply),
        (status = 409, description = "Something is in the way; the message says what", body = ErrorReply),
        (status = 413, description = "The backup is too large", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum; order it again", body = ErrorReply),
    )
)]
pub(crate) async fn restore<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<impl Responder, ApiError> {
    let body = extract::body(payload, LARGEST, ARRIVAL).await?;
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json"));
    let text =
        std::str::from_utf8(&body).map_err(|_| ApiError::invalid("cluster_data", "it is not UTF-8 text"))?;
    let params: RestoreParams = match is_json {
        true => extract::parse(request.query_string())?,
        false => extract::parse(&format!("{}&{text}", request.query_string()))?,
    };
    confirmed(&params.confirmed)?;
    let document = if is_json { text } else { &params.cluster_data };
    let backup = Backup::parse(document, schema::LATEST.0)
        .map_err(|error| ApiError::invalid("cluster_data", error))?;
    let by = Caller::of(&request).to_string();
    // Beside the request: one that is hung up on half-way must not leave the store half-way.
    let text = audit::finished(async move { backup::restore(&app, &backup, &by).await }).await?;
    Ok(message(text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InitializeParams {
    /// `True` erases what the store holds; anything else leaves it alone.
    #[serde(default)]
    overwrite: String,
    /// Any text.
    #[serde(rename = "yes-i-really-mean-it")]
    confirmed: String,
}

/// Makes the layout of the store. Refused if there is one, unless it is to be erased; an erasure is refused while an agent
/// renews its lease or a guest has an owner.
#[utoipa::path(
    post, path = "/initialize", operation_id = "initialize", tag = "backup", params(InitializeParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "The store is initialized", body = Message),
        (status = 400, description = "It was not confirmed", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 409, description = "There is a cluster, or it lives", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum; order it again", body = ErrorReply),
    )
)]
pub(crate) async fn initialize<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<InitializeParams>,
) -> Result<HttpResponse, ApiError> {
    confirmed(&params.confirmed)?;
    // Exactly this word, as in PVC 1.0.3: no other spelling erases a cluster by mistake.
    let existing = match params.overwrite.as_str() {
        "True" => Existing::Erase,
        _ => Existing::Refuse,
    };
    tracing::warn!(by = %Caller::of(&request), ?existing, "asked to initialize the store");
    let text = audit::finished(async move { backup::initialize(&app, existing).await }).await?;
    Ok(HttpResponse::Ok().json(Message { message: text }))
}

fn confirmed(text: &str) -> Result<(), ApiError> {
    if text.is_empty() {
        return Err(ApiError::invalid(
            "yes-i-really-mean-it",
            "it is required, with any text",
        ));
    }
    Ok(())
}
