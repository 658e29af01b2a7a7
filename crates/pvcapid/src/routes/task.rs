//! Tasks.

use actix_web::{Responder, web};
use pvc_api::message::ErrorReply;
use pvc_api::task::{TaskStatus, Tasks};
use pvc_common::store::Store;
use utoipa::OpenApi;

use super::resource;
use crate::app::App;
use crate::error::ApiError;
use crate::reply::Shown;
use crate::task;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/tasks").route(web::get().to(list::<S>)))
        .service(resource("/tasks/{task_id}").route(web::get().to(show::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(list, show),
    tags((name = "task", description = "Long work that a node does"))
)]
pub(crate) struct Document;

/// All tasks on record, by node.
#[utoipa::path(
    get, path = "/tasks", operation_id = "list_tasks", tag = "task",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The tasks", body = Tasks),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(Shown(task::list(&app.view()?)))
}

/// How far a task is.
#[utoipa::path(
    get, path = "/tasks/{task_id}", operation_id = "show_task", tag = "task",
    params(("task_id" = String, Path, description = "The task's identity, as the reply that began it gave it")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "How far it is", body = TaskStatus),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such task on record", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown(task::one(&app.view()?, &id)?))
}
