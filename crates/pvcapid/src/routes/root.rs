//! What this is, and which version.

use std::sync::OnceLock;

use actix_web::{HttpResponse, Responder, web};
use pvc_api::message::{ErrorCode, ErrorReply, Message};
use pvc_api::status::Version;
use utoipa::OpenApi;

use super::{message, resource};
use crate::error::ApiError;

/// Adds these routes.
pub(crate) fn configure(services: &mut web::ServiceConfig) {
    services
        .service(resource("").route(web::get().to(index)))
        .service(resource("/").route(web::get().to(index)))
        .service(resource("/version").route(web::get().to(version)))
        .service(resource("/openapi.json").route(web::get().to(openapi)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(index, version, openapi),
    tags((name = "root", description = "What this is"))
)]
pub(crate) struct Document;

/// The version of the interface.
const API_VERSION: &str = "1.0";

/// What this is.
#[utoipa::path(
    get, path = "/", operation_id = "index", tag = "root", security(()),
    responses((status = 200, description = "The name and version of the interface", body = Message))
)]
pub(crate) async fn index() -> impl Responder {
    // Other clusters look for "PVC API" in it before they send guests here.
    message(format!("PVC API version {API_VERSION}"))
}

/// The version of the daemon. Addition to PVC 1.0.3.
#[utoipa::path(
    get, path = "/version", operation_id = "version", tag = "root",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The versions of interface and daemon", body = Version),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
    )
)]
pub(crate) async fn version() -> impl Responder {
    web::Json(Version {
        api_version: API_VERSION.to_owned(),
        pvc_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The description of the API for programs: OpenAPI 3.1. Addition to PVC 1.0.3.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "root",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The description", body = serde_json::Value, content_type = "application/json"),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
    )
)]
pub(crate) async fn openapi() -> Result<HttpResponse, ApiError> {
    /// It is the same for as long as the daemon runs.
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = match DOCUMENT.get() {
        Some(text) => text,
        None => {
            let text =
                crate::openapi().map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
            DOCUMENT.get_or_init(|| text)
        }
    };
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(text.as_str()))
}
