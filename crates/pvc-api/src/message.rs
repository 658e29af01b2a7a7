//! Replies that say something in words, errors among them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reply in words: what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// For a person to read.
    pub message: String,
}

/// A reply that says why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorReply {
    /// For a person to read: what is wrong, and where it can be told, what to do.
    pub message: String,
    /// For a program to compare. Addition to PVC 1.0.3, whose errors have the message alone.
    #[serde(default)]
    pub code: ErrorCode,
    /// This request's identity in the daemon's log. Addition to PVC 1.0.3.
    #[serde(default)]
    pub request_id: String,
}

/// The kinds of errors. A word once given out keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A parameter is missing or has a value that is not allowed (400).
    InvalidParameter,
    /// The token is missing or not known (401).
    Unauthorized,
    /// The caller's role does not allow it, or the request comes from another site's page (403).
    Forbidden,
    /// There is no such thing (404).
    NotFound,
    /// There is no such route (404).
    NoRoute,
    /// The route exists, but not for this method (405).
    MethodNotAllowed,
    /// What is asked for does not fit how things are now (409).
    Conflict,
    /// Somebody else changed the same thing at the same time, more often than was tried again (409).
    Busy,
    /// The request's body did not arrive in time (408).
    TooSlow,
    /// The request's body is larger than is taken (413).
    TooLarge,
    /// This address has failed to log in too often; the header `Retry-After` says when it may try again (429).
    TooManyFailures,
    /// This release does not do that yet (501).
    NotImplemented,
    /// The coordination store has no quorum or does not answer; nothing was changed (503).
    StoreUnavailable,
    /// As many requests wait, or clients are told of events, as this daemon takes; nothing was changed (503).
    TooMany,
    /// It is not known whether the coordination store took the change: look before asking again (503).
    OutcomeUnknown,
    /// A value in the coordination store is not of the kind it should be (500).
    StoreCorrupt,
    /// What was asked for was begun and has not come to its end in the time that a request may wait (504).
    WaitTimeout,
    /// Anything else.
    #[default]
    #[serde(other)]
    Internal,
}
