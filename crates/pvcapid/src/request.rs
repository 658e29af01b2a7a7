//! What every request goes through: an identity, a line in the log, and the token check.

use std::future::Future;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, ResponseError, web};
use pvc_api::{API_KEY_HEADER, PREFIX, REQUEST_ID_HEADER};
use pvc_common::clock::{Clock, HostClock};
use tracing::Instrument;

use crate::auth::AuthPolicy;

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The identity of the request that is being answered; empty outside of one.
pub(crate) fn current_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// Gives each request an identity, which its log lines and its reply carry, and logs its end.
pub(crate) async fn trace<B>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error>
where
    B: MessageBody + 'static,
{
    // Random and short: it only has to be found again in the log of one daemon.
    let id: String = uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(12)
        .collect();
    let method = req.method().clone();
    // Never the query: it may hold what nobody should find in a log.
    let path = req.path().to_owned();
    let peer = req
        .peer_addr()
        .map(|addr| addr.ip().to_string())
        .unwrap_or_default();
    let span = tracing::info_span!("request", id = %id, op = %format_args!("{method} {path}"));
    let clock = HostClock;
    let begun = clock.now();
    scoped(id.clone(), async move {
        let result = next.call(req).await;
        let mut response = match result {
            Ok(response) => response.map_into_left_body(),
            Err(error) => return Err(error),
        };
        let name = HeaderName::from_bytes(REQUEST_ID_HEADER.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&id)) {
            response.headers_mut().insert(name, value);
        }
        let took_ms = u64::try_from(clock.now().since(begun).as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            peer,
            status = response.status().as_u16(),
            took_ms,
            "request answered"
        );
        Ok::<ServiceResponse<EitherBody<B>>, Error>(response)
    })
    .instrument(span)
    .await
}

fn scoped<F: Future>(id: String, work: F) -> impl Future<Output = F::Output> {
    REQUEST_ID.scope(id, work)
}

/// Routes that are answered without a token, as in PVC 1.0.3.
fn is_open(path: &str) -> bool {
    let Some(rest) = path.strip_prefix(PREFIX) else {
        return false;
    };
    matches!(rest, "" | "/" | "/status/primary_node")
}

/// Refuses requests without a known token, before anything else of them is looked at.
pub(crate) async fn authenticate<B>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error>
where
    B: MessageBody + 'static,
{
    let policy = req.app_data::<web::Data<AuthPolicy>>().cloned();
    let token = req.headers().get(API_KEY_HEADER).map(HeaderValue::as_bytes);
    // Without a policy nobody gets in: forgetting to set one must not open the door.
    let caller = policy.as_ref().and_then(|policy| policy.caller(token));
    let open = policy.is_some() && is_open(req.path());
    if let Some(caller) = caller {
        req.extensions_mut().insert(caller);
        return Ok(next.call(req).await?.map_into_left_body());
    }
    if open {
        return Ok(next.call(req).await?.map_into_left_body());
    }
    let refusal = AuthPolicy::refusal(req.headers().contains_key(API_KEY_HEADER)).error_response();
    Ok(req.into_response(refusal).map_into_right_body())
}
