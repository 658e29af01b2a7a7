//! Replies to reads, which are told to be unchanged by their tags (`ETag`, `If-None-Match`).
//!
//! The lists of guests and nodes, single guests, the status and the fences are made once and sent often: serialised once for the
//! view that they show, and compressed when the first client asks for that. All others are made for each request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix_web::body::{BoxBody, SizedStream};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ContentType, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Responder, ResponseError as _};
use futures::stream;
use pvc_common::mirror::Branch;
use serde::Serialize;

use crate::error::ApiError;
use crate::gzip::{self, Part};
use crate::metrics::{Text, Texts};

/// Shorter bodies are sent as they are.
const WORTH_COMPRESSING: usize = 1024;

/// Longer bodies are sent in pieces of this size. The server copies what it is about to send, and whole lists copied for
/// dozens of clients at a time would take hundreds of megabytes.
const PIECE: usize = 64 * 1024;

/// A reply's body with its tag. Its forms are made when the first client asks for them.
pub(crate) struct Body {
    tag: String,
    of: Source,
    plain: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

/// What a body is made of.
enum Source {
    Whole(Bytes),
    List(Vec<Arc<dyn Element>>),
}

/// An element of a list, which is kept from list to list.
pub(crate) trait Element: Send + Sync {
    /// As it is sent.
    fn plain(&self) -> &[u8];
    /// The same, compressed.
    fn part(&self) -> &Part;
}

impl Body {
    /// A body of that text.
    pub(crate) fn new(text: impl Into<Bytes>, tag: String) -> Body {
        Body::of(Source::Whole(text.into()), tag)
    }

    /// A list of these, in JSON.
    pub(crate) fn list(elements: Vec<Arc<dyn Element>>, tag: String) -> Body {
        Body::of(Source::List(elements), tag)
    }

    fn of(of: Source, tag: String) -> Body {
        Body {
            tag,
            of,
            plain: OnceLock::new(),
            gzip: OnceLock::new(),
        }
    }

    /// As it is sent to a client that takes nothing else.
    pub(crate) fn plain(&self) -> &Bytes {
        self.plain.get_or_init(|| match &self.of {
            Source::Whole(text) => text.clone(),
            Source::List(elements) => {
                let length: usize = elements.iter().map(|element| element.plain().len() + 1).sum();
                let mut text = BytesMut::with_capacity(length + 1);
                for (place, element) in elements.iter().enumerate() {
                    text.extend_from_slice(if place == 0 { b"[" } else { b"," });
                    text.extend_from_slice(element.plain());
                }
                text.extend_from_slice(if elements.is_empty() { b"[]" } else { b"]" });
                text.freeze()
            }
        })
    }

    fn gzip(&self) -> &Bytes {
        self.gzip.get_or_init(|| match &self.of {
            Source::Whole(text) => gzip::whole(text).into(),
            Source::List(elements) => {
                let (begin, comma, end) = (Part::new(b"["), Part::new(b","), Part::new(b"]"));
                let inner = elements.iter().enumerate().flat_map(|(place, element)| {
                    let before = if place == 0 { &begin } else { &comma };
                    [before, element.part()]
                });
                let begin = elements.is_empty().then_some(&begin);
                gzip::join(begin.into_iter().chain(inner).chain([&end])).into()
            }
        })
    }

    /// Whether it is worth the time to compress it.
    fn is_long(&self) -> bool {
        match &self.of {
            Source::Whole(text) => text.len() >= WORTH_COMPRESSING,
            Source::List(elements) => !elements.is_empty(),
        }
    }

    /// Whether both show the same.
    fn is_same(&self, other: &Body) -> bool {
        match (&self.of, &other.of) {
            (Source::Whole(one), Source::Whole(other)) => one == other,
            (Source::List(_), Source::List(_)) => self.tag == other.tag,
            (Source::Whole(_), Source::List(_)) | (Source::List(_), Source::Whole(_)) => false,
        }
    }

    /// The answer to `request`: the body as the client wants it, or that it has not changed.
    pub(crate) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        if has(request, &self.tag) {
            return unchanged(&self.tag);
        }
        let mut response = begin(&self.tag);
        if self.is_long() && takes_gzip(request) {
            response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            return send(&mut response, self.gzip().clone());
        }
        send(&mut response, self.plain().clone())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// The beginning of a reply with that tag. What it shows may be another a moment later, so nobody may use a copy of it
/// without asking.
pub(crate) fn begin(tag: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    mark(&mut response, tag);
    response.insert_header(ContentType::json());
    response
}

/// The reply with that body, in pieces if it is long.
fn send(response: &mut HttpResponseBuilder, body: Bytes) -> HttpResponse {
    if body.len() <= PIECE {
        return response.body(body);
    }
    send_parts(response, vec![body])
}

/// The reply whose body is these parts, one after the other.
fn send_parts(response: &mut HttpResponseBuilder, parts: Vec<Bytes>) -> HttpResponse {
    let length = parts.iter().map(Bytes::len).sum::<usize>();
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let pieces = parts.into_iter().flat_map(|part| {
        (0..part.len()).step_by(PIECE).map(move |from| {
            let to = (from + PIECE).min(part.len());
            Ok::<Bytes, Infallible>(part.slice(from..to))
        })
    });
    response.body(SizedStream::new(length, stream::iter(pieces)))
}

/// The reply whose body is these texts, one after the other, as the client wants it.
pub(crate) fn send_texts(
    request: &HttpRequest,
    response: &mut HttpResponseBuilder,
    texts: &[Arc<Text>],
) -> HttpResponse {
    if takes_gzip(request) {
        response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        return send(response, gzip::join(texts.iter().map(|text| &text.part)).into());
    }
    // Nor is it compressed in any other way, anew for each who asks.
    response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("identity")));
    send_parts(response, texts.iter().map(|text| text.plain.clone()).collect())
}

/// The answer to a client that has it already.
pub(crate) fn unchanged(tag: &str) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::NOT_MODIFIED);
    mark(&mut response, tag);
    response.finish()
}

fn mark(response: &mut HttpResponseBuilder, tag: &str) {
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("private, no-cache")))
        .insert_header((
            VARY,
            HeaderValue::from_static("Accept-Encoding, X-Api-Key, Cookie"),
        ));
}

/// Whether the client says that it has what has this tag.
pub(crate) fn has(request: &HttpRequest, tag: &str) -> bool {
    let given = request.headers().get_all(IF_NONE_MATCH);
    given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|given| given.trim() == "*" || given.trim() == tag)
}

/// Whether the client takes gzip. One that names no encodings gets none.
fn takes_gzip(request: &HttpRequest) -> bool {
    let given = request.headers().get_all(ACCEPT_ENCODING);
    given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = weight
                .trim()
                .strip_prefix("q=")
                .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
            matches!(name.trim(), "gzip" | "*") && !refused
        })
}

/// Replies that were made, by what they list.
#[derive(Debug)]
pub(crate) struct Replies {
    /// Differs from that of every other daemon and of this one before its last start.
    nonce: String,
    serial: AtomicU64,
    /// Metrics.
    pub(crate) texts: Texts,
    lists: Mutex<HashMap<&'static str, Arc<Mutex<Option<Kept>>>>>,
}

#[derive(Debug)]
struct Kept {
    of: Branch,
    second: u64,
    body: Arc<Body>,
}

impl Replies {
    pub(crate) fn new() -> Replies {
        Replies {
            nonce: uuid::Uuid::new_v4()
                .simple()
                .to_string()
                .chars()
                .take(12)
                .collect(),
            serial: AtomicU64::new(0),
            texts: Texts::default(),
            lists: Mutex::default(),
        }
    }

    /// A number that was not given before.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// The tag of what that text or number stands for.
    pub(crate) fn tag(&self, of: impl fmt::Display) -> String {
        // Weak, since the compressed form has it as well.
        format!("W/\"{}-{of}\"", self.nonce)
    }

    /// The list `name`, made anew if what it is made `of` has changed, or once a second: some of what is shown grows older.
    /// Of several requests that come at a time one makes it.
    pub(crate) fn list(
        &self,
        name: &'static str,
        of: &Branch,
        second: u64,
        make: impl FnOnce() -> Result<Body, ApiError>,
    ) -> Result<Arc<Body>, ApiError> {
        let slot = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lists.entry(name).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*slot
            && kept.second == second
            && kept.of.is_same(of)
        {
            return Ok(Arc::clone(&kept.body));
        }
        let made = make()?;
        // One that looks as before keeps its tag and its compressed form.
        let body = match slot.take() {
            Some(kept) if kept.body.is_same(&made) => kept.body,
            Some(_) | None => Arc::new(made),
        };
        *slot = Some(Kept {
            of: of.clone(),
            second,
            body: Arc::clone(&body),
        });
        Ok(body)
    }
}

/// A body of that value, whose tag says what is in it: who has the same has it from whichever daemon.
///
/// # Errors
/// When it can not be written as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Body, ApiError> {
    let text = to_json(value)?;
    let sum: String = blake3::hash(&text).to_hex().chars().take(20).collect();
    Ok(Body::new(text, format!("W/\"{sum}\"")))
}

/// What a route shows, which is made for each request: it has a tag too, so that a client that has it is not sent it again.
#[derive(Debug)]
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Serialize> Responder for Shown<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match json(&self.0) {
            Ok(body) => body.answer(request),
            Err(error) => error.error_response(),
        }
    }
}

/// A value as it is sent.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| {
        ApiError::new(
            pvc_api::message::ErrorCode::Internal,
            format!("The answer can not be written: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn with(name: actix_web::http::header::HeaderName, value: &str) -> HttpRequest {
        TestRequest::default()
            .insert_header((name, value))
            .to_http_request()
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let body = Body::new("[]", "W/\"a-1\"".to_owned());
        for (given, status) in [
            ("W/\"a-1\"", 304),
            ("\"x\", W/\"a-1\"", 304),
            ("*", 304),
            ("W/\"a-2\"", 200),
        ] {
            let answer = body.answer(&with(IF_NONE_MATCH, given));
            assert_eq!(answer.status().as_u16(), status, "{given}");
            assert_eq!(answer.headers().get(ETAG).unwrap(), "W/\"a-1\"", "{given}");
        }
    }

    #[test]
    fn only_who_takes_gzip_gets_it() {
        let body = Body::new("a".repeat(WORTH_COMPRESSING), "t".to_owned());
        for (given, compressed) in [
            ("gzip, deflate, br", true),
            ("*", true),
            ("gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("br", false),
        ] {
            let answer = body.answer(&with(ACCEPT_ENCODING, given));
            assert_eq!(
                answer.headers().contains_key(CONTENT_ENCODING),
                compressed,
                "{given}"
            );
        }
    }

    #[test]
    fn a_list_is_made_again_only_when_it_may_differ() {
        let replies = Replies::new();
        let view = pvc_common::mirror::View::default();
        let branch = view.branch("/domains");
        let text = |text: &'static str| json(&text);
        let first = replies.list("vm", &branch, 1, || text("one")).unwrap();
        let again = replies
            .list("vm", &branch, 1, || text("never asked for"))
            .unwrap();
        assert_eq!(first.tag, again.tag);
        let same = replies.list("vm", &branch, 2, || text("one")).unwrap();
        assert_eq!(first.tag, same.tag, "it looks as before");
        let other = replies.list("vm", &branch, 3, || text("two")).unwrap();
        assert_ne!(first.tag, other.tag);
        assert_eq!(other.plain(), "\"two\"");
    }
}
