//! What every request gets: an identity, a line in the log, and no body in the answer if it is a `HEAD`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AGE, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use pvc_api::{PREFIX, REQUEST_ID_HEADER};
use pvc_common::clock::{Clock, HostClock};
use pvc_common::store::Store;
use tracing::Instrument;

use crate::access::Caller;
use crate::app::App;
use crate::metrics::Instruments;

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The identity of the request that is being answered; empty outside of one.
pub(crate) fn current_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// A body of which only the length is told.
#[derive(Debug)]
pub(crate) struct Withheld(BodySize);

impl MessageBody for Withheld {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// Gives each request an identity, which its log lines and its reply carry, and logs its end.
///
/// A `HEAD` goes on as a `GET`: so whatever can be looked at answers it, with the same checks, and there is no second table of
/// routes that could differ from the first. What the answer would hold is dropped here, unsent: some have no end.
pub(crate) async fn trace<B>(
    mut req: ServiceRequest,
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
    if method == Method::HEAD {
        req.head_mut().method = Method::GET;
    }
    // Never the query: it may hold what nobody should find in a log.
    let path = req.path().to_owned();
    let peer = req
        .peer_addr()
        .map(|addr| addr.ip().to_string())
        .unwrap_or_default();
    let span = tracing::info_span!("request", id = %id, op = %format_args!("{method} {path}"));
    let instruments = req.app_data::<web::Data<Instruments>>().cloned();
    let under_way = instruments.as_ref().map(|instruments| instruments.begin());
    let clock = HostClock;
    let begun = clock.now();
    scoped(id.clone(), async move {
        let result = next.call(req).await;
        let mut response = match result {
            Ok(response) if method == Method::HEAD => {
                response.map_body(|_, body| EitherBody::right(Withheld(body.size())))
            }
            Ok(response) => response.map_into_left_body(),
            Err(error) => return Err(error),
        };
        let name = HeaderName::from_bytes(REQUEST_ID_HEADER.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&id)) {
            response.headers_mut().insert(name, value);
        }
        let who = response
            .request()
            .extensions()
            .get::<Caller>()
            .map(ToString::to_string)
            .unwrap_or_default();
        let took = clock.now().since(begun);
        if let Some(instruments) = instruments {
            let route = response.request().match_pattern();
            instruments.answered(method.as_str(), route, response.status().as_u16(), took);
        }
        drop(under_way);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            peer,
            who,
            status = response.status().as_u16(),
            took_ms,
            "request answered"
        );
        Ok::<ServiceResponse<EitherBody<B, Withheld>>, Error>(response)
    })
    .instrument(span)
    .await
}

/// Says with each successful reply to a read how old it may be, in seconds (`Age`): what is shown comes from the mirror.
pub(crate) async fn tell_age<S: Store, B>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody + use<S, B>>, Error>
where
    B: MessageBody + 'static,
{
    let app = req.app_data::<web::Data<App<S>>>().cloned();
    let reads = req.method() == Method::GET && req.path().starts_with(PREFIX);
    let mut response = next.call(req).await?;
    let status = response.status();
    if reads
        && (status.is_success() || status == StatusCode::NOT_MODIFIED)
        && let Some(age) = app.and_then(|app| app.mirror().age(app.clock.now()))
    {
        response
            .headers_mut()
            .insert(AGE, HeaderValue::from(age.as_secs()));
    }
    Ok(response)
}

fn scoped<F: Future>(id: String, work: F) -> impl Future<Output = F::Output> {
    REQUEST_ID.scope(id, work)
}
