//! Virtual networks and SR-IOV functions.

use actix_web::{Responder, web};
use pvc_api::message::ErrorReply;
use pvc_api::network::{Acl, DhcpLease, Network, SriovPf, SriovVf};
use pvc_common::keys::Direction;
use pvc_common::store::Store;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::resource;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::filter::NameFilter;
use crate::network::{self, LeaseKind};
use crate::reply::Shown;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/network").route(web::get().to(list::<S>)))
        .service(resource("/network/{vni}").route(web::get().to(show::<S>)))
        .service(resource("/network/{vni}/lease").route(web::get().to(leases::<S>)))
        .service(resource("/network/{vni}/lease/{mac}").route(web::get().to(lease::<S>)))
        .service(resource("/network/{vni}/acl").route(web::get().to(acls::<S>)))
        .service(resource("/network/{vni}/acl/{description}").route(web::get().to(acl::<S>)))
        .service(resource("/sriov").route(web::get().to(sriov)))
        .service(resource("/sriov/pf").route(web::get().to(pfs::<S>)))
        .service(resource("/sriov/pf/{node}").route(web::get().to(pfs_of_node::<S>)))
        .service(resource("/sriov/vf").route(web::get().to(vfs::<S>)))
        .service(resource("/sriov/vf/{node}").route(web::get().to(vfs_of_node::<S>)))
        .service(resource("/sriov/vf/{node}/{vf}").route(web::get().to(vf::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(list, show, leases, lease, acls, acl, sriov, pfs, pfs_of_node, vfs, vfs_of_node, vf),
    tags((name = "network", description = "Virtual networks and SR-IOV functions"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A regular expression over numbers and descriptions; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeaseParams {
    /// A regular expression over MAC addresses, addresses and names.
    limit: Option<String>,
    /// Only addresses that are kept for one MAC address.
    #[serde(default, rename = "static", deserialize_with = "extract::optional_boolean")]
    #[param(value_type = Option<bool>)]
    reserved: Option<bool>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AclParams {
    /// A regular expression over descriptions.
    limit: Option<String>,
    /// Only rules for this direction: `in` or `out`.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    direction: Option<Direction>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PfParams {
    /// The node.
    node: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VfParams {
    /// The node.
    node: String,
    /// Only those of this physical function.
    pf: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VfOfNodeParams {
    /// Only those of this physical function.
    pf: Option<String>,
}

/// The networks that fit.
#[utoipa::path(
    get, path = "/network", operation_id = "list_networks", tag = "network",
    params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The networks; an empty list if there is none", body = Vec<Network>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<ListParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    Ok(Shown(network::list(&app.view()?, limit.as_ref())?))
}

/// One network, as a list of one.
#[utoipa::path(
    get, path = "/network/{vni}", operation_id = "show_network", tag = "network",
    params(("vni" = String, Path, description = "The network's number or description")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The network, as a list of one", body = Vec<Network>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such network", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn show<S: Store>(
    app: web::Data<App<S>>,
    vni: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown([network::one(&app.view()?, &vni)?]))
}

/// The addresses that a network has given out, and those it keeps for one MAC address.
#[utoipa::path(
    get, path = "/network/{vni}/lease", operation_id = "list_leases", tag = "network",
    params(("vni" = String, Path, description = "The network's number or description"), LeaseParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The addresses; an empty list if there is none", body = Vec<DhcpLease>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such network", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn leases<S: Store>(
    app: web::Data<App<S>>,
    vni: web::Path<String>,
    Params(params): Params<LeaseParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    let kind = match params.reserved {
        Some(true) => LeaseKind::Reservations,
        Some(false) | None => LeaseKind::All,
    };
    let found = network::leases(&app.view()?, &vni, kind, limit.as_ref())?;
    Ok(Shown(found))
}

/// The addresses of one MAC address.
#[utoipa::path(
    get, path = "/network/{vni}/lease/{mac}", operation_id = "show_lease", tag = "network",
    params(("vni" = String, Path, description = "The network's number or description"),
        ("mac" = String, Path, description = "The MAC address")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The addresses", body = Vec<DhcpLease>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such network, or it has no address for this MAC address", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn lease<S: Store>(
    app: web::Data<App<S>>,
    path: web::Path<(String, String)>,
) -> Result<impl Responder, ApiError> {
    let (vni, mac) = path.into_inner();
    Ok(Shown(network::lease(&app.view()?, &vni, &mac)?))
}

/// The firewall rules of a network, in their order.
#[utoipa::path(
    get, path = "/network/{vni}/acl", operation_id = "list_acls", tag = "network",
    params(("vni" = String, Path, description = "The network's number or description"), AclParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The rules; an empty list if there is none", body = Vec<Acl>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such network", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn acls<S: Store>(
    app: web::Data<App<S>>,
    vni: web::Path<String>,
    Params(params): Params<AclParams>,
) -> Result<impl Responder, ApiError> {
    let limit = NameFilter::parse(params.limit.as_deref())?;
    let found = network::rules(&app.view()?, &vni, params.direction, limit.as_ref())?;
    Ok(Shown(found))
}

/// The firewall rules of a network that have this description: one for each direction at most.
#[utoipa::path(
    get, path = "/network/{vni}/acl/{description}", operation_id = "show_acl", tag = "network",
    params(("vni" = String, Path, description = "The network's number or description"),
        ("description" = String, Path, description = "The rule's description")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The rules", body = Vec<Acl>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such network or rule", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn acl<S: Store>(
    app: web::Data<App<S>>,
    path: web::Path<(String, String)>,
) -> Result<impl Responder, ApiError> {
    let (vni, description) = path.into_inner();
    Ok(Shown(network::rule(&app.view()?, &vni, &description)?))
}

/// Nothing: here for completeness, as in PVC 1.0.3.
#[utoipa::path(
    get, path = "/sriov", operation_id = "sriov", tag = "network",
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "`null`"),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
    )
)]
pub(crate) async fn sriov() -> impl Responder {
    web::Json(())
}

/// The physical SR-IOV functions of a node.
#[utoipa::path(
    get, path = "/sriov/pf", operation_id = "list_sriov_pfs", tag = "network",
    params(PfParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The functions; an empty list if there is none", body = Vec<SriovPf>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn pfs<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<PfParams>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown(network::sriov_pfs(&app.view()?, &params.node)?))
}

/// The physical SR-IOV functions of a node.
#[utoipa::path(
    get, path = "/sriov/pf/{node}", operation_id = "node_sriov_pfs", tag = "network",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The functions; an empty list if there is none", body = Vec<SriovPf>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn pfs_of_node<S: Store>(
    app: web::Data<App<S>>,
    node: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    Ok(Shown(network::sriov_pfs(&app.view()?, &node)?))
}

/// The virtual SR-IOV functions of a node.
#[utoipa::path(
    get, path = "/sriov/vf", operation_id = "list_sriov_vfs", tag = "network",
    params(VfParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The functions; an empty list if there is none", body = Vec<SriovVf>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn vfs<S: Store>(
    app: web::Data<App<S>>,
    Params(params): Params<VfParams>,
) -> Result<impl Responder, ApiError> {
    let found = network::sriov_vfs(&app.view()?, &params.node, params.pf.as_deref())?;
    Ok(Shown(found))
}

/// The virtual SR-IOV functions of a node.
#[utoipa::path(
    get, path = "/sriov/vf/{node}", operation_id = "node_sriov_vfs", tag = "network",
    params(("node" = String, Path, description = "The node's name"), VfOfNodeParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The functions; an empty list if there is none", body = Vec<SriovVf>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn vfs_of_node<S: Store>(
    app: web::Data<App<S>>,
    node: web::Path<String>,
    Params(params): Params<VfOfNodeParams>,
) -> Result<impl Responder, ApiError> {
    let found = network::sriov_vfs(&app.view()?, &node, params.pf.as_deref())?;
    Ok(Shown(found))
}

/// One virtual SR-IOV function, as a list of one.
#[utoipa::path(
    get, path = "/sriov/vf/{node}/{vf}", operation_id = "show_sriov_vf", tag = "network",
    params(("node" = String, Path, description = "The node's name"),
        ("vf" = String, Path, description = "The function's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The function, as a list of one", body = Vec<SriovVf>),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node or function", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn vf<S: Store>(
    app: web::Data<App<S>>,
    path: web::Path<(String, String)>,
) -> Result<impl Responder, ApiError> {
    let (node, vf) = path.into_inner();
    Ok(Shown([network::sriov_vf(&app.view()?, &node, &vf)?]))
}
