//! What every request passes before anything else of it is looked at: who asks, and may he?
//!
//! Closed unless declared: a request goes on only if the path that the router will choose, with this method, is an
//! operation of the description, and that operation needs nothing or a role that the caller has. What may change
//! something goes into the audit log, whatever comes of it.

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, ResponseError, web};
use pvc_api::message::ErrorCode;
use pvc_common::store::Store;
use pvc_core::access::Source;

use super::audit::Note;
use super::identify::identify;
use super::operations::{Looked, Need, Operation, Operations};
use super::{Caller, Presented};
use crate::app::App;
use crate::error::ApiError;

/// A request that the guard has looked at.
struct Admission<'a> {
    looked: Looked<'a>,
    /// Who sent it; `None` where nobody has to say.
    caller: Option<Caller>,
    /// Why it does not go on.
    refusal: Option<ApiError>,
}

fn admit<'a, S: Store>(app: &App<S>, operations: &'a Operations, request: &HttpRequest) -> Admission<'a> {
    // The text that the router matches, percent signs decoded where it decodes them: one that is matched by another
    // pattern here than there could borrow that one's declaration.
    let pattern = request
        .resource_map()
        .match_pattern(request.match_info().as_str());
    let looked = operations.look(pattern.as_deref(), request.method());
    let admission = |caller, refusal| Admission {
        looked,
        caller,
        refusal,
    };
    if let Looked::Found(operation) = looked
        && operation.need == Need::Nothing
    {
        return admission(None, None);
    }
    let presented = Presented::of(request);
    let caller = match identify(app, &presented) {
        Ok(caller) => caller,
        Err(refusal) => return admission(None, Some(refusal)),
    };
    let refusal = match looked {
        Looked::NoSuchPath => Some(ApiError::no_route(request.method(), request.path())),
        Looked::OtherMethods(methods) => Some(ApiError::no_method(
            request.method(),
            request.path(),
            Some(methods.to_string()),
        )),
        Looked::Found(operation) => refusal(&caller, operation),
    };
    admission(Some(caller), refusal)
}

/// Why that caller may not do that; `None` if he may.
fn refusal(caller: &Caller, operation: &Operation) -> Option<ApiError> {
    let message = match operation.need {
        Need::Nothing => return None,
        Need::Role(needed) if caller.role.covers(needed) => return None,
        Need::Role(needed) => format!(
            "{} needs the role {needed}, and {caller} has the role {}",
            operation.id, caller.role
        ),
        Need::Undeclared => format!(
            "{} declares no role and is closed: this is a fault of this release",
            operation.id
        ),
    };
    Some(ApiError::new(ErrorCode::Forbidden, message))
}

/// Lets through who may do what he asks for; answers everybody else.
pub(crate) async fn guard<S: Store, B>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody + use<S, B>>, Error>
where
    B: MessageBody + 'static,
{
    let app = req.app_data::<web::Data<App<S>>>().cloned();
    let operations = req.app_data::<web::Data<Operations>>().cloned();
    // Without them nobody gets in: forgetting to set one must not open the door.
    let (Some(app), Some(operations)) = (app, operations) else {
        let error = ApiError::new(ErrorCode::Internal, "The API has no guard");
        return Ok(refuse(req, &error));
    };
    let Admission {
        looked,
        caller,
        refusal,
    } = admit(&app, &operations, req.request());
    let operation = match looked {
        Looked::Found(operation) if !req.method().is_safe() => operation,
        // It changes nothing, or there is nothing that it could change.
        Looked::Found(_) | Looked::OtherMethods(_) | Looked::NoSuchPath => {
            return pass(req, next, caller, refusal).await;
        }
    };
    let note = Note::of(&app, req.request(), &operation.id, caller.as_ref());
    let source = req.peer_addr().map(|peer| Source::from(peer.ip()));
    let reply = note.clone().scope(pass(req, next, caller, refusal)).await;
    let status = match &reply {
        Ok(reply) => reply.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    app.access.audit.note(note, status, source).await;
    reply
}

async fn pass<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
    caller: Option<Caller>,
    refusal: Option<ApiError>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if let Some(refusal) = refusal {
        return Ok(refuse(req, &refusal));
    }
    if let Some(caller) = caller {
        req.extensions_mut().insert(caller);
    }
    Ok(next.call(req).await?.map_into_left_body())
}

fn refuse<B>(req: ServiceRequest, refusal: &ApiError) -> ServiceResponse<EitherBody<B>> {
    req.into_response(refusal.error_response()).map_into_right_body()
}

#[cfg(test)]
mod tests {
    use actix_web::http::{Method, StatusCode};
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App as ActixApp, HttpResponse};
    use pvc_api::API_KEY_HEADER;
    use pvc_common::store::memory::{MemoryServer, MemoryStore};
    use pvc_core::access::Role;
    use pvc_core::ids::NodeName;
    use serde_json::json;

    use super::*;
    use crate::access::{AuthPolicy, KnownToken, TokenDigest};
    use crate::app::{Settings, Waits};

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
        let operations = web::Data::new(Operations::of(&document));
        let settings = Settings {
            auth: policy,
            waits: Waits::for_shutdown_timeout(std::time::Duration::from_secs(1)),
            max_age: std::time::Duration::from_secs(5),
            node: NodeName::new("hv1").unwrap(),
            tls: false,
            metrics: false,
        };
        actix_web::rt::System::new().block_on(async move {
            let app = web::Data::new(App::new(MemoryServer::new().client(), settings));
            let yes = || web::to(HttpResponse::Ok);
            let service = init_service(
                ActixApp::new()
                    .app_data(app)
                    .app_data(operations)
                    .service(
                        web::scope("/api/v1")
                            .service(web::resource("/look/closely").route(yes()))
                            .service(web::resource("/look/{thing}").route(yes()))
                            .service(web::resource("/open").route(yes()))
                            .service(web::resource("/forgotten").route(yes()))
                            .service(web::resource("/undocumented").route(yes())),
                    )
                    .wrap(from_fn(guard::<MemoryStore, _>)),
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
