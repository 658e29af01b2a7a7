//! What a request that is not carried out is answered with.

use actix_web::http::header::{ALLOW, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use pvc_api::PREFIX;
use pvc_api::message::{ErrorCode, ErrorReply};
use pvc_common::mirror::Stale;
use pvc_common::store::{ReadError, StoreError};

use crate::access::audit;
use crate::{request, unavailable};

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For a program to compare; decides the status code.
    pub code: ErrorCode,
    /// For a person to read.
    pub message: String,
    /// In how many seconds the client may try again, if that is known.
    pub retry_after_seconds: Option<u64>,
    /// The methods that the path has, where it is asked for with another one.
    pub allow: Option<String>,
}

impl ApiError {
    /// An error of that kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            retry_after_seconds: None,
            allow: None,
        }
    }

    /// Parameter `name` is missing or has a value that is not allowed.
    pub fn invalid(name: &str, reason: impl std::fmt::Display) -> ApiError {
        ApiError::new(
            ErrorCode::InvalidParameter,
            format!("Parameter '{name}': {reason}"),
        )
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::NotFound, message)
    }

    /// There is no such route.
    pub fn no_route(method: &Method, path: &str) -> ApiError {
        if let Some(error) = ApiError::not_yet(method, path) {
            return error;
        }
        ApiError::new(
            ErrorCode::NoRoute,
            format!("There is no route {path}; routes begin with {PREFIX}/"),
        )
    }

    /// The route is not for that method but for those, if it is known for which.
    pub fn no_method(method: &Method, path: &str, allow: Option<String>) -> ApiError {
        if let Some(error) = ApiError::not_yet(method, path) {
            return error;
        }
        let possible = match &allow {
            Some(methods) => format!("; possible: {methods}"),
            None => String::new(),
        };
        ApiError {
            allow,
            ..ApiError::new(
                ErrorCode::MethodNotAllowed,
                format!("{method} is not possible on {path}{possible}"),
            )
        }
    }

    /// What PVC 1.0.3 does and this release does not is told apart from what does not exist.
    fn not_yet(method: &Method, path: &str) -> Option<ApiError> {
        let path = path.strip_prefix(PREFIX)?;
        let area = unavailable::find(method, path)?;
        Some(ApiError::not_implemented(format!(
            "This release can not do that yet ({method} {path}): {area}"
        )))
    }

    /// What is asked for does not fit how things are now.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::Conflict, message)
    }

    /// This release does not do that yet.
    pub fn not_implemented(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::NotImplemented, message)
    }

    /// The store did not answer within the time that a request may take.
    pub fn store_silent() -> ApiError {
        ApiError::new(
            ErrorCode::StoreUnavailable,
            "The coordination store does not answer: it may have lost its quorum. Try again; \
             if this lasts, check ZooKeeper on the coordinators",
        )
    }

    /// The store did not say in time whether it has taken a change.
    pub fn outcome_unknown() -> ApiError {
        ApiError::new(
            ErrorCode::OutcomeUnknown,
            "The coordination store did not say in time whether it has taken the change, which may or may not have been \
             made. Look at the current state before asking again",
        )
    }

    /// Somebody else changed the same thing each time we tried.
    pub fn busy(what: &str) -> ApiError {
        ApiError::new(
            ErrorCode::Busy,
            format!("{what} is being changed by somebody else at the same time; try again"),
        )
    }
}

/// The status code that goes with a kind of error.
pub fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidParameter => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::NoRoute => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Conflict | ErrorCode::Busy => StatusCode::CONFLICT,
        ErrorCode::TooSlow => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::StoreUnavailable | ErrorCode::TooMany | ErrorCode::OutcomeUnknown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::WaitTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::StoreCorrupt | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(self.code)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "request failed");
        } else {
            tracing::debug!(error = %self, %status, "request refused");
        }
        if self.code == ErrorCode::StoreUnavailable && audit::writes() > 0 {
            // Nothing was changed, it would say.
            return ApiError::outcome_unknown().error_response();
        }
        audit::answered(&self.message);
        let mut response = HttpResponse::build(status);
        if let Some(seconds) = self.retry_after_seconds {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        // RFC 9110, 15.5.6.
        if let Some(methods) = &self.allow {
            response.insert_header((ALLOW, methods.as_str()));
        }
        response.json(ErrorReply {
            message: self.message.clone(),
            code: self.code,
            request_id: request::current_id(),
        })
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Unavailable { .. } | StoreError::SessionExpired => {
                tracing::warn!(%error, "the store did not take a request");
                ApiError::store_silent()
            }
            StoreError::Unknown { .. } => {
                tracing::warn!(%error, "outcome of a write unknown");
                ApiError::outcome_unknown()
            }
            StoreError::NoNode { .. }
            | StoreError::NodeExists { .. }
            | StoreError::BadVersion { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::LockLost { .. } => ApiError::new(
                ErrorCode::Busy,
                format!("Somebody else changed the same thing at the same time ({error}); try again"),
            ),
            StoreError::Refused { .. } => ApiError::new(ErrorCode::Internal, error.to_string()),
        }
    }
}

impl From<Stale> for ApiError {
    fn from(error: Stale) -> ApiError {
        tracing::debug!(%error, "what is known is too old to be shown");
        ApiError::store_silent()
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Missing { .. } | ReadError::Value { .. } | ReadError::Child { .. } => ApiError::new(
                ErrorCode::StoreCorrupt,
                format!("The coordination store holds something that should not be there: {error}"),
            ),
        }
    }
}
