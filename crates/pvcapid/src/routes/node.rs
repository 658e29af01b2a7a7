//! Nodes.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, Responder, web};
use pvc_api::message::{ErrorReply, Message};
use pvc_api::node::{Node, NodeCoordinatorState, NodeDaemonState, NodeDomainState, NodeLog};
use pvc_common::store::Store;
use pvc_core::states::{CoordinatorState, DaemonState, DomainState};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{message, resource};
use crate::app::App;
use crate::drain::{self, Order};
use crate::error::ApiError;
use crate::extract::{self, Params};
use crate::filter::NameFilter;
use crate::node::{self, NodeFilter};
use crate::reply::{self, Shown};
use crate::vm::state::Reply;

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services
        .service(resource("/node").route(web::get().to(list::<S>)))
        .service(resource("/node/{node}").route(web::get().to(show::<S>)))
        .service(resource("/node/{node}/daemon-state").route(web::get().to(daemon_state::<S>)))
        .service(
            resource("/node/{node}/coordinator-state")
                .route(web::get().to(coordinator_state::<S>))
                .route(web::post().to(set_coordinator_state::<S>)),
        )
        .service(resource("/node/{node}/log").route(web::get().to(log::<S>)))
        .service(
            resource("/node/{node}/domain-state")
                .route(web::get().to(domain_state::<S>))
                .route(web::post().to(set_domain_state::<S>)),
        );
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(list, show, daemon_state, coordinator_state, set_coordinator_state, domain_state, set_domain_state, log),
    tags((name = "node", description = "Nodes"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A regular expression over names; it matches anywhere unless it begins with `^` or ends with `$`.
    limit: Option<String>,
    /// Only nodes whose agent is in this state.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    daemon_state: Option<DaemonState>,
    /// Only nodes with this part in the primary role.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    coordinator_state: Option<CoordinatorState>,
    /// Only nodes in this domain state.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<String>)]
    domain_state: Option<DomainState>,
}

/// The nodes that fit everything that is asked for.
#[utoipa::path(
    get, path = "/node", operation_id = "list_nodes", tag = "node", params(ListParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The nodes", body = Vec<Node>),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "No node fits", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn list<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<ListParams>,
) -> Result<HttpResponse, ApiError> {
    let filter = NodeFilter {
        name: NameFilter::parse(params.limit.as_deref())?,
        daemon_state: params.daemon_state,
        coordinator_state: params.coordinator_state,
        domain_state: params.domain_state,
    };
    let view = app.view()?;
    let nodes = || {
        let nodes = node::list(&view, &filter);
        if nodes.is_empty() {
            return Err(ApiError::not_found("No node fits what was asked for"));
        }
        Ok(nodes)
    };
    let body = if filter.takes_all() {
        app.list("node", &view, nodes)?
    } else {
        Arc::new(reply::json(&nodes()?)?)
    };
    Ok(body.answer(&request))
}

/// One node, as a list of one.
#[utoipa::path(
    get, path = "/node/{node}", operation_id = "show_node", tag = "node",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The node, as a list of one", body = Vec<Node>),
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
    let found = node::one(&app.view()?, &name)?;
    Ok(Shown([found]))
}

/// How a node's agent is.
#[utoipa::path(
    get, path = "/node/{node}/daemon-state", operation_id = "node_daemon_state", tag = "node",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The state", body = NodeDaemonState),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn daemon_state<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let daemon_state = node::daemon_state(&app.view()?, &name)?;
    Ok(Shown(NodeDaemonState {
        name: name.to_string(),
        daemon_state,
    }))
}

/// A node's part in the primary role.
#[utoipa::path(
    get, path = "/node/{node}/coordinator-state", operation_id = "node_coordinator_state", tag = "node",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The state", body = NodeCoordinatorState),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn coordinator_state<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let coordinator_state = node::coordinator_state(&app.view()?, &name)?;
    Ok(Shown(NodeCoordinatorState {
        name: name.to_string(),
        coordinator_state,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CoordinatorStateParams {
    /// `primary` or `secondary`.
    #[serde(deserialize_with = "wanted_role")]
    #[param(value_type = String)]
    state: CoordinatorState,
}

/// The two states that can be asked for; the others are reached on the way.
fn wanted_role<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CoordinatorState, D::Error> {
    let state: CoordinatorState = extract::word(deserializer)?;
    match state {
        CoordinatorState::Primary | CoordinatorState::Secondary => Ok(state),
        CoordinatorState::Client | CoordinatorState::Takeover | CoordinatorState::Relinquish => {
            Err(serde::de::Error::custom(format_args!(
                "{state} can not be asked for, only primary and secondary"
            )))
        }
    }
}

/// Gives the primary role to a node, or takes it away. The change goes on after the reply.
#[utoipa::path(
    post, path = "/node/{node}/coordinator-state", operation_id = "set_node_coordinator_state", tag = "node",
    params(("node" = String, Path, description = "The node's name"), CoordinatorStateParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Under way, or so already", body = Message),
        (status = 400, description = "The node can not take the role, or a parameter is wrong", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 409, description = "Others change the role at the same time", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn set_coordinator_state<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
    Params(params): Params<CoordinatorStateParams>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let text = match params.state {
        CoordinatorState::Primary => app.promptly(node::make_primary(&app.store, &name)).await?,
        CoordinatorState::Secondary
        | CoordinatorState::Client
        | CoordinatorState::Takeover
        | CoordinatorState::Relinquish => app.promptly(node::make_secondary(&app.store, &name)).await?,
    };
    Ok(message(text))
}

/// Whether a node takes guests.
#[utoipa::path(
    get, path = "/node/{node}/domain-state", operation_id = "node_domain_state", tag = "node",
    params(("node" = String, Path, description = "The node's name")),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The state", body = NodeDomainState),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn domain_state<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let (domain_state, report) = drain::progress(&app.view()?, &name)?;
    Ok(Shown(NodeDomainState {
        name: name.to_string(),
        domain_state,
        drain: report.map(drain::shown),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DomainStateParams {
    /// `flush` moves its guests away and lets it take none; `ready` takes them back.
    #[serde(deserialize_with = "wanted_domain_state")]
    #[param(value_type = String)]
    state: Order,
    /// Answers only when the node is done with it.
    #[serde(default, deserialize_with = "extract::boolean")]
    wait: bool,
}

/// The two states that can be asked for; the others are reached on the way.
fn wanted_domain_state<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Order, D::Error> {
    let state: DomainState = extract::word(deserializer)?;
    match state {
        DomainState::Ready => Ok(Order::Ready),
        DomainState::Flush => Ok(Order::Flush),
        // By this word PVC 1.0.3 shows what "ready" brings about; an administrator may well ask for it.
        DomainState::Unflush => Ok(Order::Ready),
        DomainState::Flushed | DomainState::FenceFlush => Err(serde::de::Error::custom(format_args!(
            "{state} can not be asked for, only ready and flush"
        ))),
    }
}

/// Empties a node, or lets it take guests again. The node does it after the reply, unless `wait` is given. The opposite
/// takes the place of what is under way.
#[utoipa::path(
    post, path = "/node/{node}/domain-state", operation_id = "set_node_domain_state", tag = "node",
    params(("node" = String, Path, description = "The node's name"), DomainStateParams),
    security(("token" = ["operator"])),
    responses(
        (status = 200, description = "Ordered, done, or so already", body = Message),
        (status = 400, description = "A parameter is missing or wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 409, description = "The node can not do it now, or with wait: it was ordered otherwise", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
        (status = 504, description = "Ordered, but not done in the time that a request may wait", body = ErrorReply),
    )
)]
pub(crate) async fn set_domain_state<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
    Params(params): Params<DomainStateParams>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let reply = if params.wait {
        Reply::WhenDone
    } else {
        Reply::AtOnce
    };
    Ok(message(drain::request(&app, &name, params.state, reply).await?))
}

/// Lines that are shown of a node's log if nothing else is said.
const LOG_LINES: usize = 10;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParams {
    /// How many of the last lines; 10 if not given.
    #[serde(default, deserialize_with = "extract::optional_word")]
    #[param(value_type = Option<u64>)]
    lines: Option<usize>,
}

/// The last lines of a node's log, which its agent brings into the store every few seconds if `logging.zookeeper_logging` is on. All
/// that an agent tells is in its node's journal.
#[utoipa::path(
    get, path = "/node/{node}/log", operation_id = "node_log", tag = "node",
    params(("node" = String, Path, description = "The node's name"), LogParams),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The lines, separated by line feeds", body = NodeLog),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 404, description = "There is no such node", body = ErrorReply),
        (status = 503, description = "The coordination store has no quorum", body = ErrorReply),
    )
)]
pub(crate) async fn log<S: Store>(
    app: web::Data<App<S>>,
    name: web::Path<String>,
    Params(params): Params<LogParams>,
) -> Result<impl Responder, ApiError> {
    let name = node::parse_name(&name)?;
    let lines = params.lines.unwrap_or(LOG_LINES);
    let data = app.promptly(node::log(&app, &name, lines)).await?;
    Ok(Shown(NodeLog {
        name: name.to_string(),
        data,
    }))
}
