//! The cluster as a whole.

use actix_web::{HttpResponse, Responder, web};
use pvc_api::message::{ErrorReply, Message};
use pvc_api::status::{ClusterStatus, PrimaryNode};
use pvc_common::keys::values::Maintenance;
use pvc_common::store::Store;
use pvc_core::records::PrimaryRecord;
use serde::Deserialize;
use utoipa::IntoParams;

use super::message;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::{node, status};

/// The state of the cluster.
#[utoipa::path(
    get, path = "/status", operation_id = "status", tag = "status",
    responses(
        (status = 200, description = "The state of the cluster", body = ClusterStatus),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    let status = app.listing(status::read(&app.store)).await?;
    Ok(web::Json(status))
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
    Ok(match app.promptly(node::primary(&app.store)).await? {
        PrimaryRecord::Node(node) => HttpResponse::Ok().json(PrimaryNode {
            primary_node: node.to_string(),
        }),
        PrimaryRecord::None => HttpResponse::NoContent().finish(),
    })
}
