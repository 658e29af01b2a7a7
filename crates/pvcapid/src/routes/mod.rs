//! The routes: what a request carries in, which function answers it, and what goes out.
//!
//! Handlers are thin. The table in [`configure`] and the annotations are held together by a test that asks for each
//! documented route.

pub(crate) mod fault;
pub(crate) mod fence;
pub(crate) mod node;
pub(crate) mod root;
pub(crate) mod status;
pub(crate) mod vm;

use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::PREFIX;
use pvc_api::message::{ErrorCode, Message};
use pvc_common::store::Store;

use crate::error::ApiError;

/// Adds every route.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(
            web::scope(PREFIX)
                .service(resource("").route(web::get().to(root::index)))
                .service(resource("/").route(web::get().to(root::index)))
                .service(resource("/version").route(web::get().to(root::version)))
                .service(
                    resource("/status")
                        .route(web::get().to(status::show::<S>))
                        .route(web::post().to(status::set_maintenance::<S>)),
                )
                .service(resource("/status/primary_node").route(web::get().to(status::primary_node::<S>)))
                .service(
                    resource("/status/adopt")
                        .route(web::get().to(status::show_adoption::<S>))
                        .route(web::post().to(status::adopt::<S>)),
                )
                .service(resource("/node").route(web::get().to(node::list::<S>)))
                .service(resource("/node/{node}").route(web::get().to(node::show::<S>)))
                .service(resource("/node/{node}/daemon-state").route(web::get().to(node::daemon_state::<S>)))
                .service(
                    resource("/node/{node}/coordinator-state")
                        .route(web::get().to(node::coordinator_state::<S>))
                        .route(web::post().to(node::set_coordinator_state::<S>)),
                )
                .service(
                    resource("/node/{node}/domain-state")
                        .route(web::get().to(node::domain_state::<S>))
                        .route(web::post().to(node::set_domain_state::<S>)),
                )
                .service(
                    resource("/vm")
                        .route(web::get().to(vm::index::<S>))
                        .route(web::post().to(vm::create::<S>)),
                )
                .service(
                    resource("/vm/{vm}")
                        .route(web::get().to(vm::show::<S>))
                        .route(web::post().to(vm::create_named::<S>))
                        .route(web::put().to(vm::modify::<S>))
                        .route(web::delete().to(vm::remove::<S>)),
                )
                .service(
                    resource("/vm/{vm}/state")
                        .route(web::get().to(vm::state::<S>))
                        .route(web::post().to(vm::set_state::<S>)),
                )
                .service(
                    resource("/vm/{vm}/locks")
                        .route(web::get().to(vm::show_locks::<S>))
                        .route(web::post().to(vm::flush_locks::<S>)),
                )
                .service(
                    resource("/vm/{vm}/meta")
                        .route(web::get().to(vm::meta::<S>))
                        .route(web::post().to(vm::set_meta::<S>)),
                )
                .service(
                    resource("/vm/{vm}/node")
                        .route(web::get().to(vm::node::<S>))
                        .route(web::post().to(vm::move_to::<S>)),
                )
                .service(
                    resource("/faults")
                        .route(web::get().to(fault::list::<S>))
                        .route(web::put().to(fault::acknowledge_all::<S>))
                        .route(web::delete().to(fault::delete_all::<S>)),
                )
                .service(
                    resource("/faults/{fault_id}")
                        .route(web::get().to(fault::show::<S>))
                        .route(web::put().to(fault::acknowledge::<S>))
                        .route(web::delete().to(fault::delete::<S>)),
                )
                .service(resource("/fence").route(web::get().to(fence::list::<S>)))
                .service(resource("/fence/{node}").route(web::get().to(fence::show::<S>)))
                .service(resource("/fence/{node}/confirm").route(web::post().to(fence::confirm::<S>)))
                .default_service(web::to(no_route)),
        )
        .default_service(web::to(no_route));
}

fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(no_method))
}

async fn no_route(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found(format!(
        "There is no route {}; routes begin with {PREFIX}/",
        request.path()
    )))
}

async fn no_method(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{} is not possible on {}", request.method(), request.path()),
    ))
}

/// A reply in words.
fn message(text: impl Into<String>) -> impl Responder {
    web::Json(Message { message: text.into() })
}
