//! What it means when no reply comes, or one of failure: was nothing done, or may it have been?
//!
//! The difference decides what a script does next. Who is told "try again later" tries again; for a change that was made
//! already that may be one change too many.

use std::io;

use pvc_api::message::{ErrorCode, ErrorReply};
use ureq::Timeout;

use super::{Method, Reply};
use crate::error::{Cause, CliError, Exit};

/// What was asked for and did not come to a good end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// Whether the API first orders something, and then waits for that before it answers.
    pub(super) is_held: bool,
    /// Where it was sent to.
    pub(super) url: &'a str,
}

/// How far a request came that was not answered.
enum Came {
    /// Nowhere: it can not be put as one of HTTP.
    Unmade,
    /// Not to the API.
    Nowhere,
    /// To something whose certificate is not trusted: nothing was sent to that.
    Untrusted,
    /// To something that speaks no TLS: nothing was sent to that.
    ToPlain,
    /// Perhaps to the API.
    Perhaps(Cause),
}

/// What is not known to have stayed here may have arrived.
fn how_far(error: &ureq::Error) -> Came {
    if let ureq::Error::Io(error) = error {
        return of_io(error);
    }
    if let ureq::Error::Rustls(error) = error {
        return of_tls(error);
    }
    if matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)) {
        return Came::Unmade;
    }
    if matches!(
        error,
        ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::Tls(_)
            | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
    ) {
        return Came::Nowhere;
    }
    Came::Perhaps(if matches!(error, ureq::Error::Timeout(_)) {
        Cause::Silent
    } else {
        Cause::Lost
    })
}

fn of_tls(error: &rustls::Error) -> Came {
    if matches!(error, rustls::Error::InvalidCertificate(_)) {
        return Came::Untrusted;
    }
    let is_plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    if *error == is_plain {
        Came::ToPlain
    } else {
        Came::Perhaps(Cause::Lost)
    }
}

fn of_io(error: &io::Error) -> Came {
    if let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return of_tls(error);
    }
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
    ) {
        return Came::Nowhere;
    }
    // The standard library has no kind for a name that nobody knows.
    if error.to_string().contains("failed to lookup address") {
        return Came::Nowhere;
    }
    Came::Perhaps(Cause::Lost)
}

/// No reply came.
pub(super) fn unanswered(asked: Asked<'_>, error: &ureq::Error) -> CliError {
    let url = asked.url;
    match how_far(error) {
        Came::Unmade => CliError::usage(format!(
            "The request can not be made: {error}. Look at the address ({url}), the token and what is named"
        )),
        Came::Nowhere => CliError::new(
            Exit::Unreachable,
            format!(
                "Can not reach the API at {url}: {error}. Is the address right, and does the cluster have a primary node?"
            ),
        )
        .because(Cause::NotNow),
        Came::Untrusted => CliError::failure(format!(
            "The certificate of the API at {url} is not trusted: {error}. If a certificate authority of your own made it, \
             add that authority's certificate to this system ('update-ca-certificates') or name it in SSL_CERT_FILE; \
             if its name does not fit, use the name that it was made for. PVC_CLIENT_VERIFY_SSL=False leaves it unchecked"
        )),
        Came::ToPlain => CliError::failure(format!(
            "What listens at {url} does not speak HTTPS. Is it http:// there?"
        )),
        Came::Perhaps(cause) if asked.method == Method::Get => CliError::new(
            Exit::Unreachable,
            format!("The API at {url} {}: {error}", what_it_did(cause)),
        )
        .because(cause),
        Came::Perhaps(cause) => perhaps_done(
            asked,
            cause,
            &format!("The API at {url} {} ({error})", what_it_did(cause)),
        ),
    }
}

fn what_it_did(cause: Cause) -> &'static str {
    match cause {
        Cause::Silent => "was asked and has not answered in time",
        Cause::Other | Cause::NotNow | Cause::Lost | Cause::Invalid | Cause::Busy => {
            "was lost before it had answered"
        }
    }
}

/// The reply is one of failure.
pub(super) fn refused(asked: Asked<'_>, reply: &Reply) -> CliError {
    let status = reply.status.as_u16();
    let url = asked.url;
    let said: Option<ErrorReply> = serde_json::from_str(&reply.text).ok();
    let code = said.as_ref().map(|said| said.code);
    let reads = asked.method == Method::Get;
    let message = match said {
        None => format!("The API at {url} answered {}", reply.status),
        Some(said) if said.code == ErrorCode::Unauthorized => format!(
            "{}; check the token of this connection ('pvc connection list')",
            said.message
        ),
        Some(said) if status == 500 && !said.request_id.is_empty() => format!(
            "{} (request {} in the log of pvcapid)",
            said.message, said.request_id
        ),
        Some(said) => said.message,
    };
    match status {
        300..=399 => CliError::failure(format!(
            "The API at {url} sends elsewhere: to {}. The token is not taken there; if that is the cluster, give that \
             address",
            reply.location.as_deref().unwrap_or("nowhere")
        )),
        400 => CliError::failure(message).because(Cause::Invalid),
        // Not of this thing but of all: an address that is not that of an API must not look like an empty cluster.
        404 if code.is_none_or(|code| code == ErrorCode::NoRoute) && !is_of_reference(&reply.text) => {
            CliError::failure(format!(
                "What answers at {url} has no {}: is that the address of a cluster's API?",
                asked.path
            ))
        }
        404 => CliError::new(Exit::NotFound, message),
        409 if code == Some(ErrorCode::Busy) => CliError::failure(message).because(Cause::Busy),
        503 if code == Some(ErrorCode::OutcomeUnknown) && !reads => {
            perhaps_done(asked, Cause::Lost, &message)
        }
        503 if code == Some(ErrorCode::TooMany) => {
            CliError::new(Exit::Unreachable, message).because(Cause::NotNow)
        }
        // The store may have been lost after the order was written.
        503 if asked.is_held => perhaps_done(asked, Cause::Lost, &message),
        // Not from the API, but from something before it, which can not tell how far the request came.
        502 if !reads => perhaps_done(asked, Cause::Lost, &message),
        504 if !reads && code != Some(ErrorCode::WaitTimeout) => perhaps_done(asked, Cause::Silent, &message),
        504 => CliError::new(if reads { Exit::Unreachable } else { Exit::Unseen }, message)
            .because(Cause::Silent),
        502 | 503 => CliError::new(Exit::Unreachable, message).because(Cause::NotNow),
        _ => CliError::failure(message),
    }
}

/// Whether that is an error as PVC 1.0.3 tells one: in words, without a code.
fn is_of_reference(text: &str) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_str(text).ok();
    said.is_some_and(|said| said.get("message").is_some() && said.get("code").is_none())
}

/// A change that may have been made.
fn perhaps_done(asked: Asked<'_>, cause: Cause, what: &str) -> CliError {
    CliError::new(
        Exit::Unseen,
        format!(
            "{}: it may have been done; look with '{}', then decide",
            what.trim_end_matches('.'),
            where_it_shows(asked.path)
        ),
    )
    .because(cause)
}

/// The command that shows whether a change was made.
fn where_it_shows(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["vm", name, ..] if !name.is_empty() => format!("pvc vm info {name}"),
        ["vm", ..] => "pvc vm list".to_owned(),
        ["node", name, ..] => format!("pvc node info {name}"),
        ["fence", name, ..] => format!("pvc fence show {name}"),
        ["fault" | "faults", ..] => "pvc fault list".to_owned(),
        ["token", ..] => "pvc token list".to_owned(),
        ["user", ..] => "pvc user list".to_owned(),
        ["status", "adopt"] => "pvc cluster adopt --show".to_owned(),
        ["status", ..] => "pvc cluster status".to_owned(),
        _ => "pvc audit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_where_to_look() {
        for (path, command) in [
            ("/vm/web1/state", "pvc vm info web1"),
            ("/vm", "pvc vm list"),
            ("/node/hv1/domain-state", "pvc node info hv1"),
            ("/status", "pvc cluster status"),
            ("/restore", "pvc audit"),
        ] {
            assert_eq!(where_it_shows(path), command);
        }
    }
}
