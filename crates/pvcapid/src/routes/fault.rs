//! Faults.

use actix_web::{Responder, web};
use pvc_api::fault::Fault;
use pvc_api::message::{ErrorReply, Message};
use pvc_common::store::Store;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::fault::{self, SortKey};
use crate::reply::Shown;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/faults")
                .route(web::get().to(list::<S>))
                .route(web::put().to(acknowledge_all::<S>))
                .route(web::delete().to(delete_all::<S>)),
        )
        .service(
            resource("/faults/{fault_id}")
                .route(web::get().to(show::<S>))
                .route(web::put().to(acknowledge::<S>))
                .route(web::delete().to(delete::<S>)),
        );
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(list, acknowledge_all, delete_all, show, acknowledge, delete),
    tags((name = "fault", description = "What is wrong and wants a person"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// By what they are ordered: `first_reported`, `last_reported` (if not given), `acknowledged_at`, `status`,
    /// `health_delta`, `message`.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    sort_key: Option<SortKey>,
}

/// All faults.
#[utoipa::path(
    get, path = "/faults", operation_id = "list_faults", tag = "fault", params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The faults; an empty list if there is none", body = Vec<Fault>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<ListParams>,
) -> Result<impl Responder, ApiError> {
    let sort_key = params.sort_key.unwrap_or_default();
    Ok(Shown(fault::list(&app.view()?, sort_key)))
}

/// Acknowledges all faults: they lower the health no more.
#[utoipa::path(
    put, path = "/faults", operation_id = "acknowledge_faults", tag = "fault",
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Acknowledged", body = Message),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn acknowledge_all<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(message(app.listing(fault::acknowledge_all(&app)).await?))
}

/// Deletes all faults. Those that still last come back.
#[utoipa::path(
    delete, path = "/faults", operation_id = "delete_faults", tag = "fault",
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Deleted", body = Message),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn delete_all<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(message(app.listing(fault::delete_all(&app)).await?))
}

/// One fault, as a list of one.
#[utoipa::path(
    get, path = "/faults/{fault_id}", operation_id = "show_fault", tag = "fault",
    params(("fault_id" = String, Path, description = "The fault's id")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The fault as a list of one; an empty list if there is none", body = Vec<Fault>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "No fault can have that id", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let found = fault::one(&app.view()?, &id)?;
    Ok(Shown(Vec::from_iter(found)))
}

/// Acknowledges a fault: it lowers the health no more.
#[utoipa::path(
    put, path = "/faults/{fault_id}", operation_id = "acknowledge_fault", tag = "fault",
    params(("fault_id" = String, Path, description = "The fault's id")),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Acknowledged, or so already", body = Message),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such fault", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn acknowledge<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(message(app.promptly(fault::acknowledge(&app, &id)).await?))
}

/// Deletes a fault. It comes back if it still lasts.
#[utoipa::path(
    delete, path = "/faults/{fault_id}", operation_id = "delete_fault", tag = "fault",
    params(("fault_id" = String, Path, description = "The fault's id")),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Deleted", body = Message),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such fault", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn delete<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(message(app.promptly(fault::delete(&app, &id)).await?))
}
