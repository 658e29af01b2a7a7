//! The description of the API for programs: OpenAPI 3.1, made from the handlers' annotations.

use pvc_api::{API_KEY_HEADER, PREFIX};
use pvc_core::access::Role;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, ResponseBuilder};

use crate::access::SESSION_COOKIE;
use crate::routes;

#[derive(OpenApi)]
#[openapi(info(title = "PVC API", description = "The API of Parallel Virtual Cluster"))]
struct Document;

/// The description. The `security` of each operation says which role it needs.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi().merge_from(routes::document());
    document.servers = Some(vec![Server::new(PREFIX)]);
    let components = document.components.get_or_insert_default();
    let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(API_KEY_HEADER)));
    components.add_security_scheme("token", token);
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE)));
    components.add_security_scheme("session", session);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.put, &mut item.post].into_iter().flatten() {
            send_in_body(operation);
        }
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            allow_sessions(operation);
            describe_refusals(operation);
        }
    }
    document
}

/// Says that what changes something is sent in a form in the body. Handlers take parameters from there and from the query, where
/// clients of PVC 1.0.3 put them; but a client that is made from the description must not write passwords and tokens into URLs,
/// which stand in logs, and XML does not fit there.
fn send_in_body(operation: &mut Operation) {
    let Some(parameters) = operation.parameters.take() else {
        return;
    };
    let (mut form, mut is_required) = (ObjectBuilder::new(), Required::False);
    let mut rest = Vec::new();
    let mut is_empty = true;
    for parameter in parameters {
        match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                is_empty = false;
                if parameter.required == Required::True {
                    form = form.required(parameter.name.clone());
                    is_required = Required::True;
                }
                form = form.property(parameter.name.clone(), described(parameter));
            }
            other @ (RefOr::T(_) | RefOr::Ref(_)) => rest.push(other),
        }
    }
    operation.parameters = (!rest.is_empty()).then_some(rest);
    if is_empty {
        return;
    }
    let body = RequestBodyBuilder::new()
        .description(Some(
            "Also taken from the query, as by PVC 1.0.3; secrets do not belong there",
        ))
        .required(Some(is_required))
        .content(
            "application/x-www-form-urlencoded",
            ContentBuilder::new().schema(Some(form.build())).build(),
        );
    operation.request_body = Some(body.build().into());
}

/// The schema of a parameter, with the description of the parameter.
fn described(parameter: Parameter) -> RefOr<Schema> {
    let mut schema = parameter.schema.unwrap_or_default();
    match &mut schema {
        RefOr::Ref(found) => found.description = parameter.description.unwrap_or_default(),
        RefOr::T(Schema::Array(found)) => found.description = parameter.description,
        RefOr::T(Schema::Object(found)) => found.description = parameter.description,
        RefOr::T(Schema::OneOf(found)) => found.description = parameter.description,
        RefOr::T(Schema::AllOf(found)) => found.description = parameter.description,
        RefOr::T(Schema::AnyOf(found)) => found.description = parameter.description,
        // A kind of schema that a later release of the library may have.
        RefOr::T(_) => {}
    }
    schema
}

/// Whoever has a session may do what one who has a token of his role may.
fn allow_sessions(operation: &mut Operation) {
    let Some(security) = &mut operation.security else {
        return;
    };
    let sessions: Vec<SecurityRequirement> = Role::ALL
        .iter()
        .filter(|role| security.contains(&SecurityRequirement::new("token", [role.as_str()])))
        .map(|role| SecurityRequirement::new("session", [role.as_str()]))
        .collect();
    security.extend(sessions);
}

/// How a request is refused that may not do what it asks for is the same everywhere.
fn describe_refusals(operation: &mut Operation) {
    if operation.security.as_deref() == Some(&[SecurityRequirement::default()]) {
        return;
    }
    for (status, description) in [
        ("401", "No token, or one that is not known"),
        ("403", "The caller's role does not allow it"),
        ("429", "This address has failed to log in too often"),
    ] {
        let response = ResponseBuilder::new().description(description).content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorReply")))
                .build(),
        );
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| response.build().into());
    }
}

/// The OpenAPI document as it is checked in under `docs/openapi/`.
///
/// # Errors
/// When it can not be written as JSON.
pub fn openapi() -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&document())?;
    text.push('\n');
    Ok(text)
}
