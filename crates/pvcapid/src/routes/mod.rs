//! The routes: what a request carries in, which function answers it, and what goes out.
//!
//! Handlers are thin. Each module names its resources (`configure`) and describes them (`Document`); a test that asks
//! for each documented route holds the two together.

pub(crate) mod access;
pub(crate) mod backup;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod fence;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod root;
pub(crate) mod status;
pub(crate) mod storage;
pub(crate) mod task;
pub(crate) mod vm;
pub(crate) mod vm_parts;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::PREFIX;
use pvc_api::message::Message;
use pvc_api::vm::Task;
use pvc_common::store::Store;
use utoipa::OpenApi;

use crate::access::audit;
use crate::error::ApiError;

/// Adds every route. A module of routes has a `configure` and a `Document`, and is named here and in [`document`].
/// The annotation of each handler declares which role it needs, `security(("token" = ["operator"]))`, or that it needs
/// none, `security(())`; one that declares nothing is closed.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .configure(health::configure::<S>)
        .service(
            web::scope(PREFIX)
                .configure(root::configure)
                .configure(status::configure::<S>)
                .configure(node::configure::<S>)
                .configure(vm::configure::<S>)
                .configure(vm_parts::configure::<S>)
                .configure(fault::configure::<S>)
                .configure(fence::configure::<S>)
                .configure(access::configure::<S>)
                .configure(network::configure::<S>)
                .configure(storage::configure::<S>)
                .configure(task::configure::<S>)
                .configure(event::configure::<S>)
                .configure(backup::configure::<S>)
                .configure(metrics::configure::<S>)
                .default_service(web::to(no_route)),
        )
        .default_service(web::to(no_route));
}

/// The description of every route, in the order in which tags are shown.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    [
        root::Document::openapi(),
        status::Document::openapi(),
        node::Document::openapi(),
        vm::Document::openapi(),
        vm_parts::Document::openapi(),
        fault::Document::openapi(),
        fence::Document::openapi(),
        access::Document::openapi(),
        network::Document::openapi(),
        storage::Document::openapi(),
        task::Document::openapi(),
        event::Document::openapi(),
        backup::Document::openapi(),
        metrics::Document::openapi(),
    ]
    .into_iter()
    .fold(
        utoipa::openapi::OpenApi::default(),
        utoipa::openapi::OpenApi::merge_from,
    )
}

fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(no_method))
}

async fn no_route(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::no_route(request.method(), request.path()))
}

async fn no_method(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::no_method(request.method(), request.path(), None))
}

/// Begun by order of a request: the reply says where it shows.
fn begun(task: Task) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((LOCATION, format!("{PREFIX}/tasks/{}", task.task_id)))
        .json(task)
}

/// A reply in words.
fn message(text: impl Into<String>) -> impl Responder {
    let message = text.into();
    audit::answered(&message);
    web::Json(Message { message })
}
