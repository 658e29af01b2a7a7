//! The cluster as a whole.

use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::message::{ErrorReply, Message};
use pvc_api::status::{Adoption, ClusterStatus, PrimaryNode};
use pvc_common::keys::values::Maintenance;
use pvc_common::store::Store;
use pvc_core::ids::NodeName;
use pvc_core::records::PrimaryRecord;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::access::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::reply::Shown;
use crate::{adopt, node, status};

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/status")
                .route(web::get().to(show::<S>))
                .route(web::post().to(set_maintenance::<S>)),
        )
        .service(resource("/status/primary_node").route(web::get().to(primary_node::<S>)))
        .service(
            resource("/status/adopt")
                .route(web::get().to(show_adoption::<S>))
                .route(web::post().to(adopt::<S>)),
        );
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(show, set_maintenance, primary_node, show_adoption, adopt),
    tags((name = "status", description = "The cluster as a whole"))
)]
pub(crate) struct Document;

/// The state of the cluster.
#[utoipa::path(
    get, path = "/status", operation_id = "status", tag = "status",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The state of the cluster", body = ClusterStatus),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let view = app.view()?;
    let body = app.list("status", &view, || status::read(&view))?;
    Ok(body.answer(&request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MaintenanceParams {
    /// `true` switches maintenance on, `false` off.
    #[serde(deserialize_with = "extract::boolean")]
    state: bool,
}

/// Switches maintenance on or off. Under maintenance no node is fenced.
#[utoipa::path(
    post, path = "/status", operation_id = "set_maintenance", tag = "status", params(MaintenanceParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Done, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn set_maintenance<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<MaintenanceParams>,
) -> Result<impl Responder, ApiError> {
    let wanted = if params.state {
        Maintenance::On
    } else {
        Maintenance::Off
    };
    let text = app.promptly(status::set_maintenance(&app.store, wanted)).await?;
    Ok(message(text))
}

/// Which node has or takes the primary role. Answered without a token.
#[utoipa::path(
    get, path = "/status/primary_node", operation_id = "primary_node", tag = "status", security(()),
    responses(
        (status = 200, description = "The node", body = PrimaryNode),
        (status = 204, description = "No node has the primary role now"),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn primary_node<S: Store>(app: web::Data<App<S>>) -> Result<HttpResponse, ApiError> {
    Ok(match node::primary(&app.view()?)? {
        PrimaryRecord::Node(node) => HttpResponse::Ok().json(PrimaryNode {
            primary_node: node.to_string(),
        }),
        PrimaryRecord::None => HttpResponse::NoContent().finish(),
    })
}

/// Which nodes hold still since the coordination store may tell of the past, as after it was restored from a backup.
#[utoipa::path(
    get, path = "/status/adopt", operation_id = "show_adoption", tag = "status",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "All nodes", body = Adoption),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show_adoption<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(Shown(adopt::show(&app.view()?)?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AdoptParams {
    /// Nodes that are off and are not waited for: separated by commas, or given several times. If one of them runs,
    /// its guests may run twice.
    #[serde(default)]
    without: Vec<String>,
}

/// Orders that what really runs on the nodes is taken as the truth, which ends their hold.
#[utoipa::path(
    post, path = "/status/adopt", operation_id = "adopt", tag = "status", params(AdoptParams),
    security(("token" = ["admin"])),
    responses(
        (status = 200, description = "Ordered, or so already", body = Message),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 409, description = "No node is on hold, or one that is said to be off is not", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn adopt<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<AdoptParams>,
) -> Result<impl Responder, ApiError> {
    let without = params
        .without
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| NodeName::new(name).map_err(|error| ApiError::invalid("without", error)))
        .collect::<Result<Vec<_>, _>>()?;
    let caller = Caller::of(&request);
    Ok(message(adopt::order(&app, without, &caller).await?))
}
