//! Fences.

use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::fence::NodeFence;
use pvc_api::message::{ErrorReply, Message};
use pvc_common::store::Store;
use pvc_core::fence::ConfirmationKind;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::access::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Params;
use crate::reply::Shown;
use crate::{fence, node};

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/fence").route(web::get().to(list::<S>)))
        .service(resource("/fence/{node}").route(web::get().to(show::<S>)))
        .service(resource("/fence/{node}/confirm").route(web::post().to(confirm::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(list, show, confirm),
    tags((name = "fence", description = "Fences: nodes that are suspect or dead"))
)]
pub(crate) struct Document;

/// Every node and its fence: who is suspect, what proves it dead, what happens next.
#[utoipa::path(
    get, path = "/fence", operation_id = "list_fences", tag = "fence",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "One entry for each node", body = Vec<NodeFence>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let view = app.view()?;
    let body = app.list("fence", &view, || Ok(fence::list(&view)))?;
    Ok(body.answer(&request))
}

/// The fence of one node.
#[utoipa::path(
    get, path = "/fence/{node}", operation_id = "show_fence", tag = "fence",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "Its fence; in state `none` if it was never suspect", body = NodeFence),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    Ok(Shown(fence::one(&app.view()?, &name)?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConfirmParams {
    /// `proceed`: seek a proof although many nodes fell silent at once. `machine-is-off`: somebody has seen that the
    /// machine is off; this is taken for a proof of its death.
    #[serde(deserialize_with = "kind")]
    #[param(value_type = String)]
    kind: ConfirmationKind,
}

fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ConfirmationKind, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "proceed" => Ok(ConfirmationKind::Proceed),
        "machine-is-off" => Ok(ConfirmationKind::MachineIsOff),
        other => Err(serde::de::Error::custom(format_args!(
            "{other:?} must be one of proceed, machine-is-off"
        ))),
    }
}

/// Confirms something about an open fence, on the word of an administrator. If a machine runs that is said to be off, its
/// guests may run twice and destroy their volumes.
#[utoipa::path(
    post, path = "/fence/{node}/confirm", operation_id = "confirm_fence", tag = "fence",
    params(("node" = String, Path, description = "The node's name"), ConfirmParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Written down, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 409, description = "There is no open fence, it does not need this, or the node is alive", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn confirm<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
    request: HttpRequest,
    Params(params): Params<ConfirmParams>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let caller = Caller::of(&request);
    Ok(message(fence::confirm(&app, &name, params.kind, &caller).await?))
}
