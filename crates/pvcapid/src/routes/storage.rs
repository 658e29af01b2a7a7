//! The storage cluster.

use actix_web::{Responder, web};
use pvc_api::message::ErrorReply;
use pvc_api::storage::{CephText, Osd, OsdState, Pool, Snapshot, Volume};
use pvc_common::store::Store;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::resource;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Params;
use crate::filter::NameFilter;
use crate::reply::Shown;
use crate::storage::{self, SnapshotFilter, Text};

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/storage").route(web::get().to(storage)))
        .service(resource("/storage/ceph").route(web::get().to(ceph)))
        .service(resource("/storage/ceph/status").route(web::get().to(status::<S>)))
        .service(resource("/storage/ceph/utilization").route(web::get().to(utilization::<S>)))
        .service(resource("/storage/ceph/osd").route(web::get().to(osds::<S>)))
        .service(resource("/storage/ceph/osd/{osdid}").route(web::get().to(osd::<S>)))
        .service(resource("/storage/ceph/osd/{osdid}/state").route(web::get().to(osd_state::<S>)))
        .service(resource("/storage/ceph/pool").route(web::get().to(pools::<S>)))
        .service(resource("/storage/ceph/pool/{pool}").route(web::get().to(pool::<S>)))
        .service(resource("/storage/ceph/volume").route(web::get().to(volumes::<S>)))
        .service(resource("/storage/ceph/volume/{pool}/{volume}").route(web::get().to(volume::<S>)))
        .service(resource("/storage/ceph/snapshot").route(web::get().to(snapshots::<S>)))
        .service(
            resource("/storage/ceph/snapshot/{pool}/{volume}/{snapshot}").route(web::get().to(snapshot::<S>)),
        );
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(storage, ceph, status, utilization, osds, osd, osd_state, pools, pool, volumes, volume, snapshots, snapshot),
    tags((name = "storage", description = "The storage cluster"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A regular expression over names; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VolumeParams {
    /// A regular expression over names; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
    /// Only volumes of this pool.
    pool: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SnapshotParams {
    /// Only snapshots in this pool.
    pool: Option<String>,
    /// Only snapshots of this volume.
    volume: Option<String>,
    /// A regular expression over names; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
}

/// Nothing: here for completeness, as in PVC 1.0.3.
#[utoipa::path(
    get, path = "/storage", operation_id = "storage", tag = "storage",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "`null`"),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
    )
)]
pub(crate) async fn storage() -> impl Responder {
    web::Json(())
}

/// Nothing: here for completeness, as in PVC 1.0.3.
#[utoipa::path(
    get, path = "/storage/ceph", operation_id = "ceph", tag = "storage",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "`null`"),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
    )
)]
pub(crate) async fn ceph() -> impl Responder {
    web::Json(())
}

/// The status of the storage cluster, as Ceph prints it.
#[utoipa::path(
    get, path = "/storage/ceph/status", operation_id = "ceph_status", tag = "storage",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The text", body = CephText),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn status<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(Shown(storage::text(&app.view()?, Text::Status)))
}

/// The utilization of the storage cluster, as Ceph prints it.
#[utoipa::path(
    get, path = "/storage/ceph/utilization", operation_id = "ceph_utilization", tag = "storage",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The text", body = CephText),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn utilization<S: Store>(app: web::Data<App<S>>) -> Result<impl Responder, ApiError> {
    Ok(Shown(storage::text(&app.view()?, Text::Utilization)))
}

/// The OSDs that fit.
#[utoipa::path(
    get, path = "/storage/ceph/osd", operation_id = "list_osds", tag = "storage",
    params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The OSDs; an empty list if there is none", body = Vec<Osd>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn osds<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<ListParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    Ok(Shown(storage::osds(&app.view()?, limit.as_ref())?))
}

/// One OSD, as a list of one.
#[utoipa::path(
    get, path = "/storage/ceph/osd/{osdid}", operation_id = "show_osd", tag = "storage",
    params(("osdid" = String, Path, description = "The OSD's number")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The OSD, as a list of one", body = Vec<Osd>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such OSD", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn osd<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown([storage::osd(&app.view()?, &id)?]))
}

/// Whether an OSD takes part.
#[utoipa::path(
    get, path = "/storage/ceph/osd/{osdid}/state", operation_id = "osd_state", tag = "storage",
    params(("osdid" = String, Path, description = "The OSD's number")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "Its state", body = OsdState),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such OSD", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn osd_state<S: Store>(
    app: web::Data<App<S>>,
    id: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let osd = storage::osd(&app.view()?, &id)?;
    Ok(Shown(storage::osd_state(&osd)))
}

/// The pools that fit.
#[utoipa::path(
    get, path = "/storage/ceph/pool", operation_id = "list_pools", tag = "storage",
    params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The pools; an empty list if there is none", body = Vec<Pool>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn pools<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<ListParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    Ok(Shown(storage::pools(&app.view()?, limit.as_ref())?))
}

/// One pool, as a list of one.
#[utoipa::path(
    get, path = "/storage/ceph/pool/{pool}", operation_id = "show_pool", tag = "storage",
    params(("pool" = String, Path, description = "The pool's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The pool, as a list of one", body = Vec<Pool>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such pool", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn pool<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown([storage::pool(&app.view()?, &name)?]))
}

/// The volumes that fit.
#[utoipa::path(
    get, path = "/storage/ceph/volume", operation_id = "list_volumes", tag = "storage",
    params(VolumeParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The volumes; an empty list if there is none", body = Vec<Volume>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn volumes<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<VolumeParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    let pool = params.pool.as_deref().filter(|pool| !pool.is_empty());
    let found = storage::volumes(&app.view()?, pool, limit.as_ref())?;
    Ok(Shown(found))
}

/// One volume, as a list of one.
#[utoipa::path(
    get, path = "/storage/ceph/volume/{pool}/{volume}", operation_id = "show_volume", tag = "storage",
    params(("pool" = String, Path, description = "The pool's name"),
        ("volume" = String, Path, description = "The volume's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The volume, as a list of one", body = Vec<Volume>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such volume", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn volume<S: Store>(
    app: web::Data<App<S>>,
    path: web::Path<(String, String)>,
) -> Result<impl Responder, ApiError> {
    let (pool, volume) = path.into_inner();
    Ok(Shown([storage::volume(&app.view()?, &pool, &volume)?]))
}

/// The snapshots of volumes that fit.
#[utoipa::path(
    get, path = "/storage/ceph/snapshot", operation_id = "list_snapshots", tag = "storage",
    params(SnapshotParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The snapshots; an empty list if there is none", body = Vec<Snapshot>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn snapshots<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<SnapshotParams>,
) -> Result<impl Responder, ApiError> {
    let filter = SnapshotFilter {
        pool: params.pool.filter(|pool| !pool.is_empty()),
        volume: params.volume.filter(|volume| !volume.is_empty()),
        name: NameFilter::parse(params.limit.as_deref())?,
    };
    Ok(Shown(storage::snapshots(&app.view()?, &filter)?))
}

/// One snapshot of a volume, as a list of one.
#[utoipa::path(
    get, path = "/storage/ceph/snapshot/{pool}/{volume}/{snapshot}", operation_id = "show_snapshot", tag = "storage",
    params(("pool" = String, Path, description = "The pool's name"),
        ("volume" = String, Path, description = "The volume's name"),
        ("snapshot" = String, Path, description = "The snapshot's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The snapshot, as a list of one", body = Vec<Snapshot>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such snapshot", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn snapshot<S: Store>(
    app: web::Data<App<S>>,
    path: web::Path<(String, String, String)>,
) -> Result<impl Responder, ApiError> {
    let (pool, volume, snapshot) = path.into_inner();
    let found = storage::snapshot(&app.view()?, &pool, &volume, &snapshot)?;
    Ok(Shown([found]))
}
