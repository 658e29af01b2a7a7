//! What is noted of a request while it is carried out.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use pvc_api::message::ErrorCode;
use pvc_common::keys::Key;
use pvc_common::store::{Store, ZnodeVersion};
use pvc_core::access::{AuditEntry, AuditRequest};

use super::super::Caller;
use crate::app::App;
use crate::error::ApiError;
use crate::request;

/// Values of parameters that are longer are not noted, in characters: what says what was asked for is short.
const VALUE: usize = 64;

/// Of all parameters together, in characters.
const PARAMETERS: usize = 400;

/// Parts of names of parameters whose values are nobody's business, or too long to tell anything.
const UNTOLD: [&str; 7] = ["pass", "secret", "token", "key", "xml", "data", "script"];

tokio::task_local! {
    static NOTE: Note;
}

/// What is noted of a request that may change something.
#[derive(Debug, Clone)]
pub(in crate::access) struct Note(Arc<Mutex<Noted>>);

#[derive(Debug)]
struct Noted {
    request: AuditRequest,
    /// What was answered in words.
    message: String,
    /// The names under which the note may stand in the store.
    names: Vec<String>,
    /// Whether it surely does.
    stands: bool,
    /// The znode that tells what the request named, with the version at which it did.
    named: Option<(String, ZnodeVersion)>,
    /// How many of its transactions have changed something, or may have.
    writes: usize,
}

/// A note that is to be written with the first change of its request.
pub(super) struct Due {
    pub(super) note: Note,
    /// The name under which it is to be tried.
    pub(super) name: String,
    pub(super) request: AuditRequest,
    /// The znode that tells what the request named, with the version at which it did.
    pub(super) named: Option<(String, ZnodeVersion)>,
}

impl Note {
    /// The note of that request.
    pub(in crate::access) fn of<S: Store>(
        app: &App<S>,
        request: &HttpRequest,
        operation: &str,
        caller: Option<&Caller>,
    ) -> Note {
        let id = request::current_id();
        let request = AuditRequest {
            // Outside of a request that has one, as in tests of parts: it must still be a name.
            request_id: if id.is_empty() { "none".to_owned() } else { id },
            at: app.clock_seconds(),
            node: app.settings.node.to_string(),
            who: caller.map_or_else(|| "somebody who is not logged in".to_owned(), ToString::to_string),
            role: caller.map(|caller| caller.role),
            from: request
                .peer_addr()
                .map(|peer| peer.ip().to_canonical().to_string())
                .unwrap_or_default(),
            operation: operation.to_owned(),
            method: request.method().to_string(),
            target: request.path().to_owned(),
            parameters: parameters_told(request.query_string()),
        };
        Note::new(request)
    }

    /// The note of a request of which that is known.
    pub(super) fn new(request: AuditRequest) -> Note {
        Note(Arc::new(Mutex::new(Noted {
            request: request.bounded(),
            message: String::new(),
            names: Vec::new(),
            stands: false,
            named: None,
            writes: 0,
        })))
    }

    /// Carries out `work`, all of whose writes are of this request.
    pub(in crate::access) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        NOTE.scope(self, work)
    }

    /// The note of the request that is being carried out here, unless it stands in the store already.
    pub(super) fn due() -> Option<Due> {
        let note = NOTE.try_with(Clone::clone).ok()?;
        let mut noted = note.lock();
        if noted.stands {
            return None;
        }
        // A name is tried once: after an unknown outcome the same one could be there already, or come later.
        let name = format!("{}-{}", noted.request.request_id, noted.names.len());
        noted.names.push(name.clone());
        let (request, named) = (noted.request.clone(), noted.named.clone());
        drop(noted);
        Some(Due {
            note,
            name,
            request,
            named,
        })
    }

    /// Whether nobody is known to have sent the request.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        self.lock().request.role.is_none()
    }

    /// The note stands in the store.
    pub(super) fn stands(&self) {
        self.lock().stands = true;
    }

    /// The note does surely not stand in the store under that name.
    pub(super) fn stands_not(&self, name: &str) {
        self.lock().names.retain(|tried| tried != name);
    }

    /// The log's entry of the request, answered with that status, and the names under which its note may stand.
    pub(super) fn finished(&self, status: u16) -> (AuditEntry, Vec<String>) {
        let noted = self.lock();
        let entry = AuditEntry::answered(noted.request.clone(), Some(status), &noted.message);
        (entry, noted.names.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // Nothing is ever half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enters that secrets were shown: such a request changes nothing, but who has sent it is to be found.
pub(crate) async fn shown_secrets<S: Store>(app: &App<S>, request: &HttpRequest, operation: &str) {
    let note = Note::of(app, request, operation, Some(&Caller::of(request)));
    note.lock().message = "Secrets were shown".to_owned();
    app.access.audit.note(note, StatusCode::OK, None).await;
}

/// Carries out `work` of the request that is being carried out here to its end, also if the client hangs up.
///
/// # Errors
/// Those of `work`.
pub(crate) async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let task = match NOTE.try_with(Clone::clone) {
        Ok(note) => tokio::spawn(note.scope(work)),
        Err(_) => tokio::spawn(work),
    };
    task.await
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
}

/// How many transactions of the request that is being carried out have changed something, or may have.
pub(crate) fn writes() -> usize {
    NOTE.try_with(|note| note.lock().writes).unwrap_or(0)
}

/// Notes that a transaction of the request that is being carried out is about to be sent.
pub(super) fn writing() {
    let _ = NOTE.try_with(|note| note.lock().writes += 1);
}

/// Notes that the last one that was sent has surely changed nothing.
pub(super) fn not_written() {
    let _ = NOTE.try_with(|note| {
        let mut noted = note.lock();
        noted.writes = noted.writes.saturating_sub(1);
    });
}

/// Notes that the request that is being carried out named something by what the znode of `key` says at that version: it is
/// carried out only if it still says so.
pub(crate) fn named<T>(key: &Key<T>, version: ZnodeVersion) {
    let _ = NOTE.try_with(|note| note.lock().named = Some((key.path().to_owned(), version)));
}

/// Notes what the request that is being carried out was answered, in words.
pub(crate) fn answered(message: &str) {
    let _ = NOTE.try_with(|note| message.clone_into(&mut note.lock().message));
}

/// Notes who sent the request that is being carried out, where only its handler knows: somebody logs in.
pub(in crate::access) fn identified(caller: &Caller) {
    let _ = NOTE.try_with(|note| {
        let mut noted = note.lock();
        noted.request.who = caller.to_string();
        noted.request.role = Some(caller.role);
    });
}

/// Notes the parameters of the request that is being carried out, those of query and form together.
pub(crate) fn parameters(text: &str) {
    let _ = NOTE.try_with(|note| {
        let mut noted = note.lock();
        noted.request.parameters = parameters_told(text);
    });
}

/// What is told of parameters: names, and those values that are short and no secret.
fn parameters_told(text: &str) -> String {
    let pairs: Vec<(String, String)> = serde_html_form::from_str(text).unwrap_or_default();
    let mut told = String::new();
    for (name, value) in pairs {
        let quiet = name.to_ascii_lowercase();
        let shown = if UNTOLD.iter().any(|part| quiet.contains(part)) || value.chars().count() > VALUE {
            "..."
        } else {
            &value
        };
        if !told.is_empty() {
            told.push(' ');
        }
        told.extend(name.chars().take(VALUE));
        told.push('=');
        told.push_str(shown);
        if told.chars().count() > PARAMETERS {
            return told.chars().take(PARAMETERS).chain("...".chars()).collect();
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_told_without_secrets() {
        let told =
            parameters_told("state=stop&force=true&password=hunter2&api_key=x&xml=%3Cdomain%3E&user=ann");
        assert_eq!(
            told,
            "state=stop force=true password=... api_key=... xml=... user=ann"
        );
        assert_eq!(parameters_told(&format!("a={}", "x".repeat(65))), "a=...");
        assert_eq!(parameters_told(""), "");
    }

    proptest! {
        #[test]
        fn no_parameters_are_too_long(text in "([a-z=&%0-9]|.){0,2000}") {
            prop_assert!(parameters_told(&text).chars().count() <= PARAMETERS + 3);
        }
    }
}
