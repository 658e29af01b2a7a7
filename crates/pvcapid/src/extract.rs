//! Reading parameters: from the query and from a form body, both together, as clients of PVC 1.0.3 send them.
//!
//! A parameter that does not fit is answered with 400 and its name.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, web};
use futures::future::{Either, LocalBoxFuture, select};
use futures::{Stream, StreamExt};
use pvc_api::message::ErrorCode;
use pvc_common::clock::{Clock, HostClock};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

use crate::access::{Caller, audit};
use crate::error::ApiError;

/// The largest body that is taken, in bytes: a guest's XML must fit into one znode, whose limit is 1 MiB.
pub(crate) const BODY_LIMIT: usize = 1024 * 1024;

/// The largest body of somebody unknown: a name and a password.
const STRANGERS_BODY_LIMIT: usize = 8 * 1024;

/// How long a body may take to arrive: a client that trickles must not hold a connection for ever.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A request's parameters.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + 'static> FromRequest for Params<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let mut text = req.query_string().to_owned();
        let content_type = req
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let limit = match req.extensions().contains::<Caller>() {
            true => BODY_LIMIT,
            false => STRANGERS_BODY_LIMIT,
        };
        let payload = payload.take();
        Box::pin(async move {
            let body = body(payload, limit, BODY_TIME).await?;
            if !body.is_empty() {
                if !content_type.starts_with("application/x-www-form-urlencoded") {
                    return Err(ApiError::new(
                        ErrorCode::InvalidParameter,
                        format!(
                            "Send parameters in the query or as application/x-www-form-urlencoded, not as {}",
                            if content_type.is_empty() {
                                "a body without a type"
                            } else {
                                &content_type
                            }
                        ),
                    ));
                }
                let form = std::str::from_utf8(&body).map_err(|_| {
                    ApiError::new(
                        ErrorCode::InvalidParameter,
                        "The form in the body is not UTF-8 text",
                    )
                })?;
                if !text.is_empty() {
                    text.push('&');
                }
                text.push_str(form);
            }
            audit::parameters(&text);
            parse(&text).map(Params)
        })
    }
}

/// A request's body of at most `limit` bytes, if it arrives within `time`.
///
/// # Errors
/// 408, 413, or 400 when it can not be read.
pub(crate) async fn body<P>(payload: P, limit: usize, time: Duration) -> Result<web::BytesMut, ApiError>
where
    P: Stream<Item = Result<web::Bytes, PayloadError>> + Unpin,
{
    match select(pin!(read_body(payload, limit)), pin!(HostClock.sleep(time))).await {
        Either::Left((body, _)) => body,
        Either::Right(((), _)) => Err(ApiError::new(
            ErrorCode::TooSlow,
            format!("The body did not arrive within {} s", time.as_secs()),
        )),
    }
}

async fn read_body<P>(mut payload: P, limit: usize) -> Result<web::BytesMut, ApiError>
where
    P: Stream<Item = Result<web::Bytes, PayloadError>> + Unpin,
{
    let mut body = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidParameter,
                format!("The body could not be read: {error}"),
            )
        })?;
        if body.len().saturating_add(chunk.len()) > limit {
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!("The body is larger than {limit} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The parameters in a query or a form.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let deserializer = serde_html_form::Deserializer::from_bytes(text.as_bytes());
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        // An absent or repeated parameter is reported for the whole; its name is in the reason then.
        if path == "." {
            match name_in(&reason) {
                Some(name) if reason.starts_with("missing field") => {
                    ApiError::invalid(name, "it is required")
                }
                Some(name) if reason.starts_with("duplicate field") => {
                    ApiError::invalid(name, "it is given more than once")
                }
                Some(_) | None => ApiError::new(ErrorCode::InvalidParameter, reason),
            }
        } else {
            let name = path.split(['[', '.']).next().unwrap_or(&path);
            ApiError::invalid(name, reason)
        }
    })
}

fn name_in(reason: &str) -> Option<&str> {
    reason.split('`').nth(1)
}

/// A yes or no as PVC 1.0.3 reads it, but for what is neither: there it meant no, here it is refused.
pub(crate) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct Words;
    impl Visitor<'_> for Words {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
                "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
                _ => Err(E::custom(format_args!("{text:?} is neither true nor false"))),
            }
        }
    }
    deserializer.deserialize_str(Words)
}

/// As [`boolean`]; an empty text counts as not given.
pub(crate) fn optional_boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    boolean(de::value::StringDeserializer::new(text)).map(Some)
}

/// A word that is one of a fixed set, read by its own parser so that the answer lists the choices.
pub(crate) fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

/// As [`word`]; an empty text counts as not given, as clients send it for options that were left out.
pub(crate) fn optional_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pvc_core::states::VmState;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "word")]
        state: VmState,
        #[serde(default, deserialize_with = "boolean")]
        wait: bool,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default, deserialize_with = "optional_word")]
        lines: Option<u32>,
    }

    #[test]
    fn parameters_are_read_as_clients_of_the_reference_send_them() {
        let sample: Sample = parse("state=start&wait=True&tags=a&tags=b&unknown=1&lines=").unwrap();
        assert_eq!(sample.state, VmState::Start);
        assert!(sample.wait);
        assert_eq!(sample.tags, ["a", "b"]);
        assert_eq!(sample.lines, None);
        assert_eq!(parse::<Sample>("state=stop&tags=one").unwrap().tags, ["one"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for (text, name) in [
            ("", "'state'"),
            ("state=begin", "'state'"),
            ("state=start&state=stop", "'state'"),
            ("state=start&wait=maybe", "'wait'"),
            ("state=start&wait=", "'wait'"),
            ("state=start&lines=x", "'lines'"),
        ] {
            let error = parse::<Sample>(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameter);
            assert!(error.message.contains(name), "{text}: {error}");
        }
        let error = parse::<Sample>("state=begin").unwrap_err();
        assert!(error.message.contains("restart"), "lists the choices: {error}");
    }

    proptest! {
        // Anybody sends anything: it is read, or refused as the sender's mistake.
        #[test]
        fn any_text_is_read_or_refused(text in "((state|wait|tags|lines|[a-z]{0,3})=[^&]{0,8}&?|.){0,20}") {
            if let Err(error) = parse::<Sample>(&text) {
                prop_assert_eq!(error.code, ErrorCode::InvalidParameter);
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
