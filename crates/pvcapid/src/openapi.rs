//! The description of the API for programs: OpenAPI 3.1, made from the handlers' annotations.

use pvc_api::{API_KEY_HEADER, PREFIX};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::{Modify, OpenApi};

use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "PVC API", description = "The API of Parallel Virtual Cluster"),
    modifiers(&Server_, &Token)
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
    let mut text = serde_json::to_string_pretty(&Document::openapi().merge_from(routes::document()))?;
    text.push('\n');
    Ok(text)
}
