//! Errors as RFC 9457 problems. A `type` is part of the outside contract: it may be matched on, and is never renamed.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clicktally_raft_store::group::ProposeError;
use serde::Serialize;
use utoipa::ToSchema;

/// What a client is told to wait before it tries again, in seconds.
pub const RETRY_AFTER_S: u64 = 1;

/// One variant for each stable problem type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    InvalidRequest,
    NoValidClick,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    RoleAbsent,
    BodyTooLarge,
    AlreadyExists,
    RevisionMoved,
    LimitReached,
    Overloaded,
    LogUnavailable,
    HistoryUnavailable,
    Undecided,
    NotReady,
}

impl ProblemKind {
    fn describe(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            ProblemKind::InvalidRequest => {
                ("/problems/invalid-request", "The request is not valid", StatusCode::BAD_REQUEST)
            }
            ProblemKind::NoValidClick => {
                ("/problems/no-valid-click", "No click of the request can be taken", StatusCode::BAD_REQUEST)
            }
            ProblemKind::Unauthorized => {
                ("/problems/unauthorized", "A known bearer token is needed", StatusCode::UNAUTHORIZED)
            }
            ProblemKind::NotFound => ("/problems/not-found", "There is nothing here", StatusCode::NOT_FOUND),
            ProblemKind::MethodNotAllowed => {
                ("/problems/method-not-allowed", "This path has no such method", StatusCode::METHOD_NOT_ALLOWED)
            }
            ProblemKind::RoleAbsent => {
                ("/problems/role-absent", "This node does not have the role for it", StatusCode::MISDIRECTED_REQUEST)
            }
            ProblemKind::BodyTooLarge => {
                ("/problems/body-too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            ProblemKind::AlreadyExists => ("/problems/already-exists", "It exists already", StatusCode::CONFLICT),
            ProblemKind::RevisionMoved => {
                ("/problems/revision-moved", "It changed meanwhile", StatusCode::PRECONDITION_FAILED)
            }
            ProblemKind::LimitReached => ("/problems/limit-reached", "A limit is reached", StatusCode::CONFLICT),
            ProblemKind::Overloaded => {
                ("/problems/overloaded", "Too many requests are in flight", StatusCode::SERVICE_UNAVAILABLE)
            }
            ProblemKind::LogUnavailable => {
                ("/problems/log-unavailable", "The click log cannot be written", StatusCode::SERVICE_UNAVAILABLE)
            }
            ProblemKind::HistoryUnavailable => {
                ("/problems/history-unavailable", "Older counts cannot be read", StatusCode::SERVICE_UNAVAILABLE)
            }
            ProblemKind::Undecided => {
                ("/problems/undecided", "The cluster did not decide in time", StatusCode::SERVICE_UNAVAILABLE)
            }
            ProblemKind::NotReady => ("/problems/not-ready", "This node is not ready", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// The body of every error, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// A stable URI reference naming the kind of problem.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// What is wrong with this request in particular, and what to do.
    pub detail: String,
    /// One entry for each item of a batch that was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ItemError>,
}

/// Why one item of a batch was refused; the others are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemError {
    /// Position in the request, from 0.
    pub index: usize,
    pub r#type: String,
    pub detail: String,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        let (uri, title, status) = kind.describe();
        Problem {
            r#type: uri.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(ProblemKind::InvalidRequest, detail)
    }

    pub fn with_errors(mut self, errors: Vec<ItemError>) -> Problem {
        self.errors = errors;
        self
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Problem {
        let kind = match error {
            ProposeError::Retry(_) => ProblemKind::Undecided,
            ProposeError::Halt(_) => ProblemKind::NotReady,
        };
        Problem::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_may_pass_says_when_to_try_again() {
        let response = Problem::new(ProblemKind::LogUnavailable, "no broker").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
