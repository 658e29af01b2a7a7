//! Metrics, in the text format of Prometheus. Answered without a token, as in PVC 1.0.3; `subsystem.enable_prometheus`
//! switches them off.

use std::sync::Arc;

use actix_web::http::header::{HeaderValue, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use pvc_api::message::ErrorReply;
use pvc_common::store::Store;
use utoipa::OpenApi;

use super::resource;
use crate::app::App;
use crate::error::ApiError;
use crate::metrics::{self, CONTENT_TYPE, Instruments, Text};
use crate::reply;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/metrics").route(web::get().to(all::<S>)))
        .service(resource("/metrics/health").route(web::get().to(health::<S>)))
        .service(resource("/metrics/resource").route(web::get().to(resources::<S>)))
        .service(resource("/metrics/ceph").route(web::get().to(ceph::<S>)))
        .service(resource("/metrics/zookeeper").route(web::get().to(zookeeper::<S>)))
        .service(resource("/metrics/daemon").route(web::get().to(daemon::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(all, health, resources, ceph, zookeeper, daemon),
    tags((name = "metrics", description = "Metrics for Prometheus"))
)]
pub(crate) struct Document;

fn text(request: &HttpRequest, text: Arc<Text>) -> HttpResponse {
    texts(request, &[text])
}

fn texts(request: &HttpRequest, texts: &[Arc<Text>]) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type(CONTENT_TYPE)
        .insert_header((VARY, HeaderValue::from_static("Accept-Encoding")));
    reply::send_texts(request, &mut response, texts)
}

/// Whether metrics are served at all.
fn enabled<S: Store>(app: &App<S>) -> Result<(), ApiError> {
    if app.settings.metrics {
        Ok(())
    } else {
        Err(ApiError::not_found(
            "Metrics are switched off: see subsystem.enable_prometheus in /etc/pvc/pvc.conf",
        ))
    }
}

/// Everything that the routes below `/metrics` tell. Ceph's and ZooKeeper's part is left out while they do not answer; `pvc_metrics_source_up` says so.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "metrics", security(()),
    responses(
        (status = 200, description = "All metrics", body = String, content_type = "text/plain"),
        (status = 404, description = "Metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn all<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    instruments: web::Data<Instruments>,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::all(&app, &instruments).await?;
    Ok(texts(&request, &found))
}

/// Counts and health.
#[utoipa::path(
    get, path = "/metrics/health", operation_id = "metrics_health", tag = "metrics", security(()),
    responses(
        (status = 200, description = "Counts and health", body = String, content_type = "text/plain"),
        (status = 404, description = "Metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn health<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::health(&app).await?;
    Ok(text(&request, found))
}

/// Figures of nodes, guests, OSDs and pools.
#[utoipa::path(
    get, path = "/metrics/resource", operation_id = "metrics_resource", tag = "metrics", security(()),
    responses(
        (status = 200, description = "The figures", body = String, content_type = "text/plain"),
        (status = 404, description = "Metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn resources<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::resource(&app).await?;
    Ok(text(&request, found))
}

/// What Ceph's active manager tells.
#[utoipa::path(
    get, path = "/metrics/ceph", operation_id = "metrics_ceph", tag = "metrics", security(()),
    responses(
        (status = 200, description = "Ceph's metrics", body = String, content_type = "text/plain"),
        (status = 404, description = "Nobody answers who could tell, or metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn ceph<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::ceph(&app).await?;
    Ok(text(&request, found))
}

/// What the primary's ZooKeeper tells.
#[utoipa::path(
    get, path = "/metrics/zookeeper", operation_id = "metrics_zookeeper", tag = "metrics", security(()),
    responses(
        (status = 200, description = "ZooKeeper's metrics", body = String, content_type = "text/plain"),
        (status = 404, description = "Nobody answers who could tell, or metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn zookeeper<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::zookeeper(&app).await?;
    Ok(text(&request, found))
}

/// What the daemons measure of themselves: this API daemon, and the nodes' agents as far as they tell. Addition to PVC 1.0.3.
#[utoipa::path(
    get, path = "/metrics/daemon", operation_id = "metrics_daemon", tag = "metrics", security(()),
    responses(
        (status = 200, description = "The figures", body = String, content_type = "text/plain"),
        (status = 404, description = "Metrics are switched off", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn daemon<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    instruments: web::Data<Instruments>,
) -> Result<HttpResponse, ApiError> {
    enabled(&app)?;
    let found = metrics::daemon(&app, &instruments);
    Ok(text(&request, Arc::new(Text::new(found))))
}
