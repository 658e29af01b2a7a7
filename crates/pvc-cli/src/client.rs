//! Talking to the API.

use std::time::Duration;

use pvc_api::message::{ErrorCode, ErrorReply, Message};
use pvc_api::{API_KEY_HEADER, REQUEST_ID_HEADER};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

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
/// The largest reply that is taken, in bytes: some ten thousand guests with their XML.
const REPLY_LIMIT: u64 = 256 * 1024 * 1024;

/// A client of one cluster.
#[derive(Debug)]
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
        let mut tries = 1;
        loop {
            let result = self.get_once(path, query);
            match result {
                Err(error) if error.exit == Exit::Unreachable && tries < READ_TRIES => {
                    tries += 1;
                    wait::pause(READ_PAUSE);
                }
                Ok(_) | Err(_) => return result,
            }
        }
    }

    /// Reads without trying again.
    pub(crate) fn get_once(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in query {
            request = request.query(*name, *value);
        }
        if let Some(key) = &self.connection.api_key {
            request = request.header(API_KEY_HEADER, key);
        }
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        self.check("GET", path, &mut response)
    }

    /// Reads a list. That nothing fits is an error only if something was asked for: an empty cluster is no failure.
    pub(crate) fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        match self.get(path, query) {
            Err(error) if error.exit == Exit::NotFound && query.is_empty() => Ok(Value::Array(Vec::new())),
            result => result,
        }
    }

    /// Changes something. Never tried again by itself: it may have been done. Answers with the message.
    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        said(self.post_value(path, form)?)
    }

    /// As [`Client::post`]; answers with the whole reply.
    pub(crate) fn post_value(&self, path: &str, form: &[(&str, &str)]) -> Result<Value> {
        let mut request = self.agent.post(self.url(path));
        if let Some(key) = &self.connection.api_key {
            request = request.header(API_KEY_HEADER, key);
        }
        let mut response = request
            .send_form(form.iter().copied())
            .map_err(|error| self.unreachable(&error))?;
        self.check("POST", path, &mut response)
    }

    /// Changes something for which asking twice comes to the same, as a change of the primary role does; tries again when
    /// no answer comes. The one who answers may lose the address that it answers from by this very change.
    pub(crate) fn post_repeatable(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        let mut tries = 1;
        loop {
            match self.post(path, form) {
                Err(error) if error.exit == Exit::Unreachable && tries < READ_TRIES => {
                    tries += 1;
                    wait::pause(READ_PAUSE);
                }
                result @ (Ok(_) | Err(_)) => return result,
            }
        }
    }

    /// Replaces something.
    pub(crate) fn put(&self, path: &str, form: &[(&str, &str)]) -> Result<String> {
        let mut request = self.agent.put(self.url(path));
        if let Some(key) = &self.connection.api_key {
            request = request.header(API_KEY_HEADER, key);
        }
        let mut response = request
            .send_form(form.iter().copied())
            .map_err(|error| self.unreachable(&error))?;
        said(self.check("PUT", path, &mut response)?)
    }

    /// Removes something.
    pub(crate) fn delete(&self, path: &str) -> Result<String> {
        let mut request = self.agent.delete(self.url(path));
        if let Some(key) = &self.connection.api_key {
            request = request.header(API_KEY_HEADER, key);
        }
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        said(self.check("DELETE", path, &mut response)?)
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

    fn check(&self, method: &str, path: &str, response: &mut Response<Body>) -> Result<Value> {
        let status = response.status();
        if self.debug {
            let id = response
                .headers()
                .get(REQUEST_ID_HEADER)
                .and_then(|id| id.to_str().ok())
                .unwrap_or("-");
            anstream::eprintln!("{method} {} answered {status} (request {id})", self.url(path));
        }
        let text = response
            .body_mut()
            .with_config()
            .limit(REPLY_LIMIT)
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            if text.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).map_err(|_| {
                CliError::failure(format!(
                    "What answers at {} is not a PVC API: it sent no JSON",
                    self.connection.url
                ))
            });
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

fn said(value: Value) -> Result<String> {
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
