//! What changes, as server-sent events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, ContentEncoding, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream;
use pvc_api::message::{ErrorCode, ErrorReply};
use pvc_common::clock::Clock;
use pvc_common::store::Store;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, OpenApi};

use super::resource;
use crate::access::{self, Known, Presented};
use crate::app::App;
use crate::error::ApiError;
use crate::events::{EventId, Kind, MOST_CLIENTS, Numbered, Subscription};
use crate::extract::Params;

/// How often something is sent when nothing happens, so that both sides notice a connection that is gone.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The header in which a browser says what it got last.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Adds these routes.
pub(crate) fn configure<S: Store>(services: &mut web::ServiceConfig) {
    services.service(resource("/events").route(web::get().to(events::<S>)));
}

/// Their description.
#[derive(OpenApi)]
#[openapi(
    paths(events),
    tags((name = "event", description = "What changes, as it happens"))
)]
pub(crate) struct Document;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Only events of these kinds, separated by commas: `cluster`, `primary`, `node`, `vm`, `fault`, `task`.
    #[serde(default)]
    types: String,
    /// Go on after this event: for clients that can not send the header `Last-Event-ID`.
    #[serde(default)]
    last_event_id: String,
}

/// What changes, as server-sent events, until the client goes. Addition to PVC 1.0.3.
///
/// The first is `begin` (from now on) or, for a client that says what it got last and can not be told the rest any more,
/// `reset` (read everything again). Its data is an object with `action` (`added`, `changed`, `removed`) and how the thing is
/// now. A client that does not read is cut off, and so is one whose token or session ends; it goes on by its last id.
#[utoipa::path(
    get, path = "/events", operation_id = "events", tag = "event", params(
        EventParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that the client has got"),
    ),
    security(("token" = ["viewer"])),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is wrong; the message names it", body = ErrorReply),
        (status = 401, description = "No token, or one that is not known", body = ErrorReply),
        (status = 503, description = "Too many clients are told already", body = ErrorReply),
    )
)]
pub(crate) async fn events<S: Store>(
    app: web::Data<App<S>>,
    request: HttpRequest,
    Params(params): Params<EventParams>,
) -> Result<HttpResponse, ApiError> {
    let kinds = params
        .types
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse::<Kind>()
                .map_err(|reason| ApiError::invalid("types", reason))
        })
        .collect::<Result<BTreeSet<Kind>, _>>()?;
    let header = request
        .headers()
        .get(LAST_EVENT_ID)
        .and_then(|value| value.to_str().ok());
    let given = header.unwrap_or(&params.last_event_id);
    let subscription = app.events().subscribe(parse_id(given)).ok_or_else(|| {
        ApiError::new(
            ErrorCode::TooMany,
            format!("{MOST_CLIENTS} clients are told of events already"),
        )
    })?;
    let feed = Feed::new(subscription, kinds, app.clone(), Presented::of(&request));
    let body = stream::unfold(feed, async |mut feed| {
        let text = feed.next().await?;
        Some((Ok::<_, actix_web::Error>(Bytes::from(text)), feed))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // Each event is to arrive at once, not when a block is full.
        .insert_header((
            CONTENT_ENCODING,
            HeaderValue::from_static(ContentEncoding::Identity.as_str()),
        ))
        .streaming(Box::pin(body)))
}

/// An id that can not be read is one that is gone.
fn parse_id(text: &str) -> Option<EventId> {
    match text {
        "" => None,
        text => Some(text.parse().unwrap_or_else(|()| EventId::unknown())),
    }
}

/// What one client is sent.
struct Feed<S: Store> {
    app: web::Data<App<S>>,
    subscription: Subscription,
    kinds: BTreeSet<Kind>,
    /// What is sent before anything new.
    first: Vec<String>,
    /// What the client has shown of itself: it must be good as long as it is told anything.
    presented: Presented,
}

impl<S: Store> Feed<S> {
    fn new(
        mut subscription: Subscription,
        kinds: BTreeSet<Kind>,
        app: web::Data<App<S>>,
        presented: Presented,
    ) -> Feed<S> {
        let mut first = Vec::new();
        match subscription.missed.take() {
            None => first.push(message(subscription.last, "reset", "{}")),
            Some(missed) if missed.is_empty() => first.push(message(subscription.last, "begin", "{}")),
            Some(missed) => first.extend(missed.iter().filter_map(|event| shown(&kinds, event))),
        }
        first.reverse();
        Feed {
            app,
            subscription,
            kinds,
            first,
            presented,
        }
    }

    /// The next text; `None` ends the connection.
    async fn next(&mut self) -> Option<String> {
        if let Some(text) = self.first.pop() {
            return Some(text);
        }
        loop {
            let received = self
                .app
                .clock
                .timeout(HEARTBEAT, self.subscription.live.recv())
                .await;
            if access::is_known(&self.app, &self.presented) == Known::No {
                return None;
            }
            match received {
                None => return Some(":\n\n".to_owned()),
                Some(Ok(event)) => {
                    if let Some(text) = shown(&self.kinds, &event) {
                        return Some(text);
                    }
                }
                // It does not read fast enough, or the daemon stops: it comes again.
                Some(Err(RecvError::Lagged(_) | RecvError::Closed)) => return None,
            }
        }
    }
}

fn shown(kinds: &BTreeSet<Kind>, event: &Arc<Numbered>) -> Option<String> {
    if !kinds.is_empty() && !kinds.contains(&event.event.kind) {
        return None;
    }
    let mut data = event.event.what.clone();
    if let Some(object) = data.as_object_mut() {
        object.insert("action".to_owned(), event.event.action.as_str().into());
    }
    Some(message(event.id, event.event.kind.as_str(), &data.to_string()))
}

fn message(id: EventId, name: &str, data: &str) -> String {
    // JSON has no line feed of its own in it, so the data is one line.
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}
