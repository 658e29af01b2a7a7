//! Talking to the API.

use std::io::Read;
use std::time::Duration;

use clap::ValueEnum;
use pvc_api::message::{ErrorCode, ErrorReply, Message};
use pvc_api::{API_KEY_HEADER, REQUEST_ID_HEADER};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, RequestBuilder};

use crate::connection::{Connection, Verification};
use crate::error::{CliError, Exit, Result};
use crate::wait;

/// As long as PVC 1.0.3's client: a floating address on its way answers within this.
const CONNECT_LIMIT: Duration = Duration::from_millis(2050);
/// A request that waits for a guest ends on the server before this.
const CALL_LIMIT: Duration = Duration::from_secs(600);
/// Tries of a read that could not be answered for now, as while the primary role moves.
const READ_TRIES: u32 = 3;
const READ_PAUSE: Duration = Duration::from_millis(500);
/// How long the stream of events may take to begin.
const EVENTS_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the stream of events may be silent: the server sends a sign of life every 10 s.
const EVENTS_SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// The largest reply that is taken, in bytes: some ten thousand guests with their XML.
const REPLY_LIMIT: u64 = 256 * 1024 * 1024;

/// A client of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    connection: Connection,
    /// Whether requests are shown.
    debug: bool,
}

impl Client {
    /// A client of the cluster at that connection. Nothing is sent yet.
    pub(crate) fn new(connection: Connection, debug: bool) -> Client {
        let tls = TlsConfig::builder()
            .disable_verification(connection.verification == Verification::Off)
            .build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(CALL_LIMIT))
            .user_agent(concat!("pvc-client-cli/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        Client {
            agent,
            connection,
            debug,
        }
    }

    /// Reads; tries again when the cluster can not answer for now.
    pub(crate) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        self.patiently(|| self.get_once(path, query))
    }

    /// Reads without trying again.
    pub(crate) fn get_once(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        self.value(&self.call(Method::Get, path, query)?)
    }

    /// Reads a list. That nothing fits is an error only if something was asked for: an empty cluster is no failure.
    pub(crate) fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        match self.get(path, query) {
            Err(error) if error.exit == Exit::NotFound && query.is_empty() => Ok(Value::Array(Vec::new())),
            result => result,
        }
    }

    /// Reads what is no JSON, as metrics are; tries again when the cluster can not answer for now.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        self.patiently(|| self.call(Method::Get, path, &[]))
    }

    /// Changes something. Never tried again by itself: it may have been done. Answers with the message.
    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        said(self.post_value(path, form)?)
    }

    /// As [`Client::post`]; answers with the whole reply.
    pub(crate) fn post_value(&self, path: &str, form: &[(&str, &str)]) -> Result<Value> {
        self.change(Method::Post, path, form)
    }

    /// Changes something for which asking twice comes to the same, as a change of the primary role does; tries again when
    /// no answer comes. The one who answers may lose the address that it answers from by this very change.
    pub(crate) fn post_repeatable(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        self.patiently(|| self.post(path, form))
    }

    /// Replaces something.
    pub(crate) fn put(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        said(self.change(Method::Put, path, form)?)
    }

    /// Removes something.
    pub(crate) fn delete(&self, path: &str) -> Result<String> {
        said(self.change(Method::Delete, path, &[])?)
    }

    /// Sends a change once; answers with the whole reply.
    pub(crate) fn change(&self, method: Method, path: &str, form: &[(&str, &str)]) -> Result<Value> {
        self.value(&self.call(method, path, form)?)
    }

    /// Sends a request once; answers with the body of a reply of success.
    pub(crate) fn call(&self, method: Method, path: &str, params: &[(&str, &str)]) -> Result<String> {
        let url = self.url(path);
        let pairs = params.iter().copied();
        let mut response = match method {
            Method::Get => self.signed(self.agent.get(url).query_pairs(pairs)).call(),
            Method::Delete => self.signed(self.agent.delete(url).query_pairs(pairs)).call(),
            Method::Post => self.signed(self.agent.post(url)).send_form(pairs),
            Method::Put => self.signed(self.agent.put(url)).send_form(pairs),
        }
        .map_err(|error| self.unreachable(&error))?;
        self.body(method, path, &mut response)
    }

    /// Opens the stream of events. Nothing if this cluster has none, as those of PVC 1.0.3.
    pub(crate) fn events(&self) -> Result<Option<impl Read + use<>>> {
        let request = self
            .signed(self.agent.get(self.url("/events")))
            .header("Accept", "text/event-stream")
            .config()
            .timeout_global(None)
            .timeout_recv_response(Some(EVENTS_ANSWER_LIMIT))
            .timeout_per_read(Some(EVENTS_SILENCE_LIMIT))
            .build();
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        let streams = response
            .headers()
            .get("Content-Type")
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        match response.status().as_u16() {
            200 if streams => Ok(Some(response.into_body().into_reader())),
            200 | 404 | 405 | 501 => Ok(None),
            _ => self.body(Method::Get, "/events", &mut response).map(|_| None),
        }
    }

    fn patiently<T>(&self, ask: impl Fn() -> Result<T>) -> Result<T> {
        let mut tries = 1;
        loop {
            match ask() {
                Err(error) if error.exit == Exit::Unreachable && tries < READ_TRIES => {
                    tries += 1;
                    wait::pause(READ_PAUSE);
                }
                result @ (Ok(_) | Err(_)) => return result,
            }
        }
    }

    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.connection.api_key {
            Some(key) => request.header(API_KEY_HEADER, key),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.connection.url)
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        CliError::new(
            Exit::Unreachable,
            format!(
                "Can not reach the API at {}: {error}. Is the address right, and does the cluster have a primary node?",
                self.connection.url
            ),
        )
    }

    /// What a reply holds. An empty one is nothing.
    fn value(&self, text: &str) -> Result<Value> {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(text).map_err(|_| {
            CliError::failure(format!(
                "What answers at {} is not a PVC API: it sent no JSON",
                self.connection.url
            ))
        })
    }

    /// The body of a reply, if it is one of success.
    fn body(&self, method: Method, path: &str, response: &mut Response<Body>) -> Result<String> {
        let status = response.status();
        if self.debug {
            let id = response
                .headers()
                .get(REQUEST_ID_HEADER)
                .and_then(|id| id.to_str().ok())
                .unwrap_or("-");
            anstream::eprintln!(
                "{} {} answered {status} (request {id})",
                method.word(),
                self.url(path)
            );
        }
        let text = response
            .body_mut()
            .with_config()
            .limit(REPLY_LIMIT)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        let reply: Option<ErrorReply> = serde_json::from_str(&text).ok();
        let exit = match status.as_u16() {
            404 => Exit::NotFound,
            429 | 502 | 503 => Exit::Unreachable,
            504 => Exit::Timeout,
            _ => Exit::Failure,
        };
        let message = match reply {
            None => format!("The API at {} answered {status}", self.connection.url),
            Some(reply) if reply.code == ErrorCode::Unauthorized => format!(
                "{}; check the token of this connection ('pvc connection list')",
                reply.message
            ),
            Some(reply) if status.as_u16() == 500 && !reply.request_id.is_empty() => format!(
                "{} (request {} in the log of pvcapid)",
                reply.message, reply.request_id
            ),
            Some(reply) => reply.message,
        };
        Err(CliError::new(exit, message))
    }
}

/// How something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Read
    Get,
    /// Change or begin
    Post,
    /// Replace
    Put,
    /// Remove
    Delete,
}

impl Method {
    const fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }
}

/// The one object of a reply that is a list of one, as most replies about one thing are.
pub(crate) fn only(value: Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([one]) => one.clone(),
        Some(_) | None => value,
    }
}

/// What a reply holds, as that type.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        CliError::failure(format!(
            "The reply is not what this version of pvc understands ({error}); try -f json"
        ))
    })
}

/// The message of a reply; empty if it has none.
pub(crate) fn said(value: Value) -> Result<String> {
    if value.is_null() {
        return Ok(String::new());
    }
    typed::<Message>(value).map(|reply| reply.message)
}

/// A name as a part of a path.
pub(crate) fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
