//! The description of the API for programs: OpenAPI 3.1, made from the handlers' annotations.

use pvc_api::{API_KEY_HEADER, PREFIX};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::{Modify, OpenApi};

use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "PVC API", description = "The API of Parallel Virtual Cluster"),
    paths(
        routes::root::index,
        routes::root::version,
        routes::status::show,
        routes::status::set_maintenance,
        routes::status::primary_node,
        routes::status::show_adoption,
        routes::status::adopt,
        routes::node::list,
        routes::node::show,
        routes::node::daemon_state,
        routes::node::coordinator_state,
        routes::node::set_coordinator_state,
        routes::node::domain_state,
        routes::node::set_domain_state,
        routes::vm::index,
        routes::vm::create,
        routes::vm::create_named,
        routes::vm::show,
        routes::vm::modify,
        routes::vm::remove,
        routes::vm::state,
        routes::vm::set_state,
        routes::vm::node,
        routes::vm::move_to,
        routes::vm::meta,
        routes::vm::set_meta,
        routes::vm::flush_locks,
        routes::vm::show_locks,
        routes::fence::list,
        routes::fence::show,
        routes::fence::confirm,
        routes::fault::list,
        routes::fault::acknowledge_all,
        routes::fault::delete_all,
        routes::fault::show,
        routes::fault::acknowledge,
        routes::fault::delete,
    ),
    modifiers(&Server_, &Token),
    tags(
        (name = "root", description = "What this is"),
        (name = "status", description = "The cluster as a whole"),
        (name = "node", description = "Nodes"),
        (name = "vm", description = "Guests"),
        (name = "fault", description = "What is wrong and wants a person"),
        (name = "fence", description = "Fences: nodes that are suspect or dead"),
    )
)]
struct Document;

struct Server_;

impl Modify for Server_ {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document.servers = Some(vec![Server::new(PREFIX)]);
    }
}

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(API_KEY_HEADER)));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
        document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    }
}

/// The OpenAPI document as it is checked in under `docs/openapi/`.
///
/// # Errors
/// When it can not be written as JSON.
pub fn openapi() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&Document::openapi())?;
    text.push('\n');
    Ok(text)
}
