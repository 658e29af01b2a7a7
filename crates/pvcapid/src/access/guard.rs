//! What every request passes before anything else of it is looked at: who asks, and may he?
//!
//! Closed unless declared: a request goes on only if the path that the router will choose, with this method, is an
//! operation of the description, and that operation needs nothing or a role that the caller has.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, ResponseError, web};
use pvc_api::API_KEY_HEADER;
use pvc_api::message::ErrorCode;
use pvc_common::clock::{Clock, HostClock};
use pvc_core::access::{FailureLimit, Role, Source};

use super::operations::{Looked, Need, Operation, Operations};
use super::{AuthPolicy, Caller, TokenDigest};
use crate::error::ApiError;

/// What the guard knows.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: AuthPolicy,
    operations: Operations,
    failures: Mutex<FailureLimit>,
}

impl Gate {
    /// A gate that lets in whom `policy` knows, to the operations of that description.
    pub(crate) fn new(policy: AuthPolicy, document: &serde_json::Value) -> Gate {
        Gate {
            policy,
            operations: Operations::of(document),
            failures: Mutex::default(),
        }
    }

    /// Who sent `req`, if he may do what it asks for; `None` where nobody has to say who he is.
    fn admit(&self, req: &ServiceRequest) -> Result<Option<Caller>, ApiError> {
        // The text that the router matches, percent signs decoded where it decodes them: one that is matched by
        // another pattern here than there could borrow that one's declaration.
        let pattern = req
            .request()
            .resource_map()
            .match_pattern(req.match_info().as_str());
        let looked = self.operations.look(pattern.as_deref(), req.method());
        if let Looked::Found(Operation {
            need: Need::Nothing, ..
        }) = looked
        {
            return Ok(None);
        }
        let caller = self.identify(req)?;
        match looked {
            Looked::NoSuchPath => Err(ApiError::no_route(req.path())),
            Looked::OtherMethods => Err(ApiError::no_method(req.method(), req.path())),
            Looked::Found(operation) => match operation.need {
                Need::Nothing => Ok(Some(caller)),
                Need::Role(needed) if caller.role.covers(needed) => Ok(Some(caller)),
                Need::Role(needed) => Err(forbidden(&caller, needed, operation)),
                Need::Undeclared => Err(ApiError::new(
                    ErrorCode::Forbidden,
                    format!(
                        "{} declares no role and is closed: this is a fault of this release",
                        operation.id
                    ),
                )),
            },
        }
    }

    fn identify(&self, req: &ServiceRequest) -> Result<Caller, ApiError> {
        if let AuthPolicy::Open = self.policy {
            return Ok(Caller::anybody(Role::Admin));
        }
        let token = req.headers().get(API_KEY_HEADER).map(|value| value.as_bytes());
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Err(ApiError::new(
                ErrorCode::Unauthorized,
                format!(
                    "Authentication is required: send a token of this cluster in the header {API_KEY_HEADER}"
                ),
            ));
        };
        let source = req.peer_addr().map(|peer| Source::from(peer.ip()));
        let now = HostClock.now();
        if let Some(source) = source {
            self.failures().check(source, now).map_err(too_many_failures)?;
        }
        let digest = TokenDigest::of(token);
        self.policy.holder(&digest).ok_or_else(|| {
            if let Some(source) = source {
                self.failures().fail(source, digest.guess(), now);
            }
            ApiError::new(
                ErrorCode::Unauthorized,
                format!("The token in {API_KEY_HEADER} is not one that this cluster knows"),
            )
        })
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, FailureLimit> {
        // Nothing is ever half done under this lock.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forbidden(caller: &Caller, needed: Role, operation: &Operation) -> ApiError {
    ApiError::new(
        ErrorCode::Forbidden,
        format!(
            "{} needs the role {needed}, and {caller} has the role {}",
            operation.id, caller.role
        ),
    )
}

fn too_many_failures(wait: Duration) -> ApiError {
    // Rounded up: who comes back at that time is let try.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiError {
        retry_after_seconds: Some(seconds),
        ..ApiError::new(
            ErrorCode::TooManyFailures,
            format!(
                "This address has sent too many wrong tokens or passwords; it may try again in {seconds} s"
            ),
        )
    }
}

/// Lets through who may do what he asks for; answers everybody else.
pub(crate) async fn guard<B>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error>
where
    B: MessageBody + 'static,
{
    // Without a gate nobody gets in: forgetting to set one must not open the door.
    let admitted = match req.app_data::<web::Data<Gate>>() {
        Some(gate) => gate.admit(&req),
        None => Err(ApiError::new(ErrorCode::Internal, "The API has no gate")),
    };
    match admitted {
        Ok(caller) => {
            if let Some(caller) = caller {
                req.extensions_mut().insert(caller);
            }
            Ok(next.call(req).await?.map_into_left_body())
        }
        Err(refusal) => {
            let reply: ServiceResponse<EitherBody<B>> =
                req.into_response(refusal.error_response()).map_into_right_body();
            Ok(reply)
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::{Method, StatusCode};
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse};
    use serde_json::json;

    use super::*;
    use crate::access::KnownToken;

    /// How each request is answered by a server whose handlers all say "yes".
    fn statuses(requests: &[(Method, &str, &str)]) -> Vec<StatusCode> {
        let document = json!({"paths": {
            "/look/{thing}": {"get": {"operationId": "look", "security": [{"token": ["viewer"]}]}},
            "/look/closely": {"get": {"operationId": "closely", "security": [{"token": ["admin"]}]}},
            "/open": {"get": {"operationId": "open", "security": [{}]}},
            "/forgotten": {"get": {"operationId": "forgotten"}},
        }});
        let known = |text: &str, role| KnownToken {
            digest: TokenDigest::of(text.as_bytes()),
            description: text.to_owned(),
            role,
        };
        let policy = AuthPolicy::Tokens(vec![known("viewer", Role::Viewer), known("admin", Role::Admin)]);
        let gate = web::Data::new(Gate::new(policy, &document));
        actix_web::rt::System::new().block_on(async move {
            let yes = || web::to(HttpResponse::Ok);
            let service = init_service(
                App::new()
                    .app_data(gate)
                    .service(
                        web::scope("/api/v1")
                            .service(web::resource("/look/closely").route(yes()))
                            .service(web::resource("/look/{thing}").route(yes()))
                            .service(web::resource("/open").route(yes()))
                            .service(web::resource("/forgotten").route(yes()))
                            .service(web::resource("/undocumented").route(yes())),
                    )
                    .wrap(from_fn(guard)),
            )
            .await;
            let mut statuses = Vec::new();
            for (method, path, token) in requests {
                let request = TestRequest::default()
                    .method(method.clone())
                    .uri(path)
                    .insert_header((API_KEY_HEADER, *token))
                    .to_request();
                statuses.push(call_service(&service, request).await.status());
            }
            statuses
        })
    }

    #[test]
    fn a_route_is_closed_unless_it_is_declared() {
        let get = |path, token| (Method::GET, path, token);
        let answers = statuses(&[
            get("/api/v1/open", ""),
            get("/api/v1/look/x", "viewer"),
            get("/api/v1/look/x", ""),
            get("/api/v1/look/closely", "viewer"),
            get("/api/v1/look/closely", "admin"),
            // The handlers of these would say yes.
            get("/api/v1/forgotten", "admin"),
            get("/api/v1/undocumented", "admin"),
            (Method::POST, "/api/v1/look/x", "admin"),
            (Method::POST, "/api/v1/open", "admin"),
            // The router decodes these; the guard must not take them for another route.
            get("/api/v1/look/%63losely", "viewer"),
            get("/api/v1/look/closel%79", "admin"),
            get("/api/v1/look%2Fclosely", "viewer"),
            get("/api/v1/%6fpen", ""),
            get("//api/v1/look/closely", "viewer"),
            get("/api/v1/./look/closely", "viewer"),
        ]);
        let expected = [
            200, 200, 401, 403, 200, 403, 404, 405, 405, 403, 200, 404, 200, 404, 404,
        ];
        let answers: Vec<u16> = answers.iter().map(StatusCode::as_u16).collect();
        assert_eq!(answers, expected);
    }
}
