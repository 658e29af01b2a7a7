//! Talking to the API.

mod failure;
mod trust;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use flate2::read::GzDecoder;
use pvc_api::message::Message;
use pvc_api::{API_KEY_HEADER, REQUEST_ID_HEADER};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, RequestBuilder};

use self::failure::Asked;
use crate::connection::{Connection, Verification};
use crate::error::{CliError, Exit, Result};
use crate::wait;

/// As long as PVC 1.0.3's client: a floating address on its way answers within this.
const CONNECT_LIMIT: Duration = Duration::from_millis(2050);
/// How long an API may be silent that was asked for something to show: it makes lists within 15 s.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// How long one may be silent that was asked for a change: it waits 15 s for its turn at most, and then writes.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);
/// The same for a change that the API may hold until a guest or a node is as it should be.
const HELD_LIMIT: Duration = Duration::from_secs(600);
/// The same for a backup to be put back: it may take 120 s to arrive, and then it is written.
const RESTORE_LIMIT: Duration = Duration::from_secs(300);
/// How long a request may take in all, its reply included.
const CALL_LIMIT: Duration = Duration::from_secs(900);
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
    /// Replies that have a tag, by what was asked for; none are kept unless somebody will ask again and again.
    kept: Arc<OnceLock<Mutex<BTreeMap<String, Kept>>>>,
}

/// A reply, and the tag by which the API knows whether it still is so.
#[derive(Debug, Clone)]
struct Kept {
    tag: String,
    text: String,
}

/// What came back, success or not.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    location: Option<String>,
    tag: Option<String>,
    /// The body.
    pub(crate) text: String,
}

/// What is sent with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    /// Go into the query of what has no body, and into the form of what has one.
    pub(crate) params: &'a [(&'a str, &'a str)],
    /// A body of JSON, beside which the parameters go into the query.
    pub(crate) json: Option<&'a str>,
}

/// For a request that says all by its path.
const NOTHING: Content<'static> = Content {
    params: &[],
    json: None,
};

impl Client {
    /// A client of the cluster at that connection. Nothing is sent yet.
    pub(crate) fn new(connection: Connection, debug: bool) -> Result<Client> {
        Client::with_limit(connection, debug, READ_LIMIT)
    }

    /// The same for somebody who waits no longer for an answer.
    pub(crate) fn with_limit(connection: Connection, debug: bool, limit: Duration) -> Result<Client> {
        let verifies = connection.verification == Verification::On;
        let mut tls = TlsConfig::builder().disable_verification(!verifies);
        if verifies && connection.url.starts_with("https://") {
            tls = tls.root_certs(trust::of_the_system()?);
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The token would go along to wherever one is sent.
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_LIMIT.min(limit)))
            .timeout_recv_response(Some(limit))
            .timeout_per_read(Some(limit))
            .timeout_global(Some(CALL_LIMIT))
            .user_agent(concat!("pvc-client-cli/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Client {
            agent,
            connection,
            debug,
            kept: Arc::default(),
        })
    }

    /// From now on replies that have a tag are kept, and what has not changed is not sent again.
    pub(crate) fn keep_replies(&self) {
        self.kept.get_or_init(Mutex::default);
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
    fn call(&self, method: Method, path: &str, params: &[(&str, &str)]) -> Result<String> {
        let content = Content { params, json: None };
        let reply = self.send_once(method, path, content)?;
        self.accepted(method, path, content, reply)
    }

    /// Sends any request and answers with the reply, of success or not. A read is tried again when the cluster can not
    /// answer for now.
    pub(crate) fn send(&self, method: Method, path: &str, content: Content<'_>) -> Result<Reply> {
        if method != Method::Get {
            return self.send_once(method, path, content);
        }
        let mut refused = None;
        let answered = self.patiently(|| {
            let reply = self.send_once(method, path, content)?;
            if let Some(error) = self.refusal(method, path, content, &reply) {
                refused = Some(reply);
                return Err(error);
            }
            refused = None;
            Ok(reply)
        });
        match refused {
            Some(reply) => Ok(reply),
            None => answered,
        }
    }

    fn send_once(&self, method: Method, path: &str, content: Content<'_>) -> Result<Reply> {
        // A name that is empty, as of a variable that is not set, makes the path another one.
        if path.len() > 1 && (path.contains("//") || path.ends_with('/')) {
            return Err(CliError::usage("A name is empty"));
        }
        let url = self.url(path);
        let asked = self.asked(method, path, content);
        let pairs = content.params.iter().copied();
        let kept = self.kept(path, content.params);
        let sent = match (method, content.json) {
            (Method::Get, _) => {
                let request = self.agent.get(url).header("Accept-Encoding", "gzip");
                let mut request = self.signed(request.query_pairs(pairs));
                if let Some(kept) = &kept {
                    request = request.header("If-None-Match", &kept.tag);
                }
                request.call()
            }
            (Method::Delete, _) => {
                let request = self.signed(self.agent.delete(url).query_pairs(pairs));
                patient(request, limit(method, path, content)).call()
            }
            (Method::Post | Method::Put, json) => {
                let request = match method {
                    Method::Put => self.agent.put(url),
                    Method::Post | Method::Get | Method::Delete => self.agent.post(url),
                };
                let request = patient(self.signed(request), limit(method, path, content));
                match json {
                    None => request.send_form(pairs),
                    Some(json) => request
                        .query_pairs(pairs)
                        .content_type("application/json")
                        .send(json),
                }
            }
        };
        let mut response = sent.map_err(|error| failure::unanswered(asked, &error))?;
        self.tell(method, path, &response);
        let text =
            body(&mut response).map_err(|error| failure::unanswered(asked, &ureq::Error::from(error)))?;
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let reply = Reply {
            status: response.status(),
            location: header("Location"),
            tag: header("ETag"),
            text,
        };
        if let (StatusCode::NOT_MODIFIED, Some(kept)) = (reply.status, kept) {
            return Ok(Reply {
                status: StatusCode::OK,
                text: kept.text,
                ..reply
            });
        }
        self.keep(path, content.params, &reply);
        Ok(reply)
    }

    /// What was answered to the same read before.
    fn kept(&self, path: &str, params: &[(&str, &str)]) -> Option<Kept> {
        let kept = self.kept.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&question(path, params)).cloned()
    }

    fn keep(&self, path: &str, params: &[(&str, &str)], reply: &Reply) {
        let (Some(kept), Some(tag), StatusCode::OK) = (self.kept.get(), &reply.tag, reply.status) else {
            return;
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (tag, text) = (tag.clone(), reply.text.clone());
        kept.insert(question(path, params), Kept { tag, text });
    }

    /// Opens the stream of events. Nothing if this cluster has none, as those of PVC 1.0.3.
    pub(crate) fn events(&self, query: &[(&str, &str)]) -> Result<Option<impl Read + use<>>> {
        let request = self
            .signed(self.agent.get(self.url("/events")))
            .query_pairs(query.iter().copied())
            .header("Accept", "text/event-stream")
            .config()
            .timeout_global(None)
            .timeout_recv_response(Some(EVENTS_ANSWER_LIMIT))
            .timeout_per_read(Some(EVENTS_SILENCE_LIMIT))
            .build();
        let asked = self.asked(Method::Get, "/events", NOTHING);
        let mut response = request
            .call()
            .map_err(|error| failure::unanswered(asked, &error))?;
        self.tell(Method::Get, "/events", &response);
        let streams = response
            .headers()
            .get("Content-Type")
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        match response.status() {
            StatusCode::OK if streams => Ok(Some(response.into_body().into_reader())),
            StatusCode::OK
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(None),
            status => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                let reply = Reply {
                    status,
                    location: None,
                    tag: None,
                    text,
                };
                self.accepted(Method::Get, "/events", NOTHING, reply)
                    .map(|_| None)
            }
        }
    }

    /// Tries again what passes. If one of the tries may have come through, and the last did not, that is what is told.
    fn patiently<T>(&self, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
        let mut perhaps = None;
        let mut tries = 1;
        loop {
            match ask() {
                Err(error) if error.cause.is_passing() && tries < READ_TRIES => {
                    if error.exit == Exit::Unseen {
                        perhaps = Some(error);
                    }
                    tries += 1;
                    wait::pause(READ_PAUSE);
                }
                Err(error) if error.exit == Exit::Unreachable => return Err(perhaps.unwrap_or(error)),
                Err(error) => {
                    return Err(match perhaps {
                        // It may be refused because it is done, or under way, already.
                        Some(earlier) => CliError {
                            message: format!(
                                "{}. Asked again, the answer was: {}",
                                earlier.message.trim_end_matches('.'),
                                error.message
                            ),
                            ..earlier
                        },
                        None => error,
                    });
                }
                Ok(answer) => return Ok(answer),
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

    fn asked<'a>(&'a self, method: Method, path: &'a str, content: Content<'_>) -> Asked<'a> {
        Asked {
            method,
            path,
            is_held: method != Method::Get && limit(method, path, content) == HELD_LIMIT,
            url: &self.connection.url,
        }
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

    /// Shows that a request was answered, for who wants to see that.
    fn tell(&self, method: Method, path: &str, response: &Response<Body>) {
        if !self.debug {
            return;
        }
        let id = response
            .headers()
            .get(REQUEST_ID_HEADER)
            .and_then(|id| id.to_str().ok())
            .unwrap_or("-");
        anstream::eprintln!(
            "{} {} answered {} (request {id})",
            method.word(),
            self.url(path),
            response.status()
        );
    }

    /// What a reply means that is not one of success.
    pub(crate) fn refusal(
        &self,
        method: Method,
        path: &str,
        content: Content<'_>,
        reply: &Reply,
    ) -> Option<CliError> {
        (!reply.status.is_success()).then(|| failure::refused(self.asked(method, path, content), reply))
    }

    /// The body of a reply, if it is one of success.
    fn accepted(&self, method: Method, path: &str, content: Content<'_>, reply: Reply) -> Result<String> {
        match self.refusal(method, path, content, &reply) {
            Some(error) => Err(error),
            None => Ok(reply.text),
        }
    }
}

/// The same request, whose answer may take that long.
fn patient<B>(request: RequestBuilder<B>, limit: Duration) -> RequestBuilder<B> {
    request
        .config()
        .timeout_recv_response(Some(limit))
        .timeout_per_read(Some(limit))
        .build()
}

/// How long the API may take to answer a change.
fn limit(method: Method, path: &str, content: Content<'_>) -> Duration {
    let is = |name, values: &[&str]| {
        content
            .params
            .iter()
            .any(|(given, value)| *given == name && values.contains(value))
    };
    let waits = content
        .params
        .iter()
        .any(|(name, value)| *name == "wait" && !matches!(*value, "false" | "no" | "off" | "0"));
    match path {
        "/restore" | "/initialize" => RESTORE_LIMIT,
        // Both end the guest first.
        _ if method == Method::Delete && is_vm(path) => HELD_LIMIT,
        _ if path.ends_with("/state") && is("state", &["disable"]) => HELD_LIMIT,
        _ if waits => HELD_LIMIT,
        _ => CHANGE_LIMIT,
    }
}

/// The body of a reply. Not by the HTTP library's own means: those would unpack what other crates' tests want to see packed.
fn body(response: &mut Response<Body>) -> std::io::Result<String> {
    let is_packed = response
        .headers()
        .get("Content-Encoding")
        .is_some_and(|encoding| encoding == "gzip");
    let mut reader = response.body_mut().with_config().limit(REPLY_LIMIT).reader();
    let mut text = String::new();
    if is_packed {
        // What is small when packed may be large: the limit holds for what comes out as well.
        let mut unpacked = GzDecoder::new(reader).take(REPLY_LIMIT);
        unpacked.read_to_string(&mut text)?;
    } else {
        reader.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Whether a path is that of a guest, rather than of something of it.
fn is_vm(path: &str) -> bool {
    path.strip_prefix("/vm/")
        .is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// What a read asks for, in one word.
fn question(path: &str, params: &[(&str, &str)]) -> String {
    format!("{path} {params:?}")
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::*;
    use crate::error::Cause;

    fn client(url: String, limit: Duration) -> Client {
        let connection = Connection {
            name: "test".to_owned(),
            description: String::new(),
            url,
            api_key: None,
            verification: Verification::On,
        };
        Client::with_limit(connection, false, limit).unwrap()
    }

    /// A server whose connections are handed on, and its URL.
    fn server() -> (String, Receiver<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, connections) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = sender.send(stream);
            }
        });
        (url, connections)
    }

    /// What hangs will hang again: three times the limit is three times too long for who waits.
    #[test]
    fn a_read_that_is_not_answered_in_time_is_not_sent_again() {
        let (url, connections) = server();
        let error = client(url, Duration::from_millis(200))
            .get("/node", &[])
            .unwrap_err();
        assert_eq!((error.exit, error.cause), (Exit::Unreachable, Cause::Silent));
        assert_eq!(connections.try_iter().count(), 1);
    }

    #[test]
    fn only_changes_that_the_api_holds_are_waited_for_long() {
        let of = |method, path, params| limit(method, path, Content { params, json: None });
        assert_eq!(
            of(Method::Post, "/vm/web1/state", &[("state", "stop")]),
            CHANGE_LIMIT
        );
        assert_eq!(of(Method::Put, "/vm/web1", &[("wait", "no")]), CHANGE_LIMIT);
        assert_eq!(
            of(Method::Post, "/vm/web1/state", &[("state", "disable")]),
            HELD_LIMIT
        );
        assert_eq!(of(Method::Post, "/vm/web1/node", &[("wait", "true")]), HELD_LIMIT);
        assert_eq!(of(Method::Delete, "/vm/web1", &[]), HELD_LIMIT);
        assert_eq!(of(Method::Delete, "/token/x", &[]), CHANGE_LIMIT);
        assert_eq!(of(Method::Delete, "/vm/web1/device", &[]), CHANGE_LIMIT);
        assert_eq!(of(Method::Post, "/restore", &[]), RESTORE_LIMIT);
    }

    /// A list that is watched for hours by many must not be made and sent each time.
    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let (url, connections) = server();
        let asked = thread::spawn(move || {
            let mut tags = Vec::new();
            for mut stream in connections.iter().take(3) {
                let lines = BufReader::new(&stream).lines().map_while(std::io::Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let given = head.iter().find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("if-none-match: ")
                        .map(str::to_owned)
                });
                let answer = match &given {
                    Some(_) => "304 Not Modified\r\nETag: W/\"1\"\r\nConnection: close\r\n\r\n",
                    None => "200 OK\r\nETag: W/\"1\"\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
                };
                write!(stream, "HTTP/1.1 {answer}").unwrap();
                tags.push(given);
            }
            tags
        });
        let client = client(url, READ_LIMIT);
        client.keep_replies();
        assert_eq!(client.get("/node", &[]).unwrap(), Value::Array(Vec::new()));
        assert_eq!(client.get("/node", &[]).unwrap(), Value::Array(Vec::new()));
        // Another question has another answer.
        assert_eq!(
            client.get("/node", &[("limit", "a")]).unwrap(),
            Value::Array(Vec::new())
        );
        assert_eq!(asked.join().unwrap(), [None, Some("w/\"1\"".to_owned()), None]);
    }

    /// A list of thousands of guests has an eighth of its size.
    #[test]
    fn a_packed_reply_is_unpacked() {
        let (url, connections) = server();
        let answering = thread::spawn(move || {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(b"[\"web1\"]").unwrap();
            let packed = packed.finish().unwrap();
            let mut stream = connections.iter().next().unwrap();
            let lines = BufReader::new(&stream).lines().map_while(std::io::Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let length = packed.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
            )
            .unwrap();
            stream.write_all(&packed).unwrap();
            head
        });
        let list = client(url, READ_LIMIT).get("/vm", &[]).unwrap();
        assert_eq!(list, serde_json::json!(["web1"]));
        let head = answering.join().unwrap();
        assert!(
            head.iter()
                .any(|line| line.eq_ignore_ascii_case("accept-encoding: gzip")),
            "{head:?}"
        );
    }
}
