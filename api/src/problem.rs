//! Errors as RFC 9457 problems. A `type` is part of the public contract: clients match on it, so it is never renamed.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::ProposeError;
use serde::Serialize;
use utoipa::ToSchema;

/// The one content coding of bodies that is decoded.
const ENCODING_ACCEPTED: &str = "gzip";

/// What a client is told to wait before it tries again, in seconds.
pub const RETRY_AFTER_S: u64 = 1;

macro_rules! problem_kinds {
    ($($(#[$doc:meta])* $name:ident = $uri:literal, $status:ident, $title:literal;)+) => {
        /// Every stable problem type; this table is the only place that writes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemKind {
            $($(#[$doc])* $name,)+
        }

        impl ProblemKind {
            pub const ALL: &'static [ProblemKind] = &[$(ProblemKind::$name,)+];

            /// The `type`: a URI reference that names the kind of problem.
            pub fn uri(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => concat!("/problems/", $uri),)+
                }
            }

            pub fn title(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => $title,)+
                }
            }

            pub fn status(self) -> StatusCode {
                match self {
                    $(ProblemKind::$name => StatusCode::$status,)+
                }
            }
        }
    };
}

problem_kinds! {
    InvalidRequest = "invalid-request", BAD_REQUEST, "The request is not valid";
    NoValidClick = "no-valid-click", BAD_REQUEST, "No click of the request is valid";
    /// All `Click…` kinds concern one item of a batch; the other items are not affected.
    ClickMalformed = "click-malformed", BAD_REQUEST, "The item is not a click";
    ClickFieldMissing = "click-field-missing", BAD_REQUEST, "A required field of the click is missing";
    ClickFieldInvalid = "click-field-invalid", BAD_REQUEST, "A field of the click is not valid";
    ClickFieldTooLong = "click-field-too-long", BAD_REQUEST, "A field of the click is too long";
    ClickTimestampOutOfRange =
        "click-timestamp-out-of-range", BAD_REQUEST, "The click's time is too far from its arrival";
    Unauthorized = "unauthorized", UNAUTHORIZED, "A known bearer token is required";
    NotFound = "not-found", NOT_FOUND, "There is nothing here";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "This path does not support the method";
    RoleAbsent = "role-absent", MISDIRECTED_REQUEST, "This node does not have the required role";
    UnsupportedEncoding = "unsupported-encoding", UNSUPPORTED_MEDIA_TYPE, "The content encoding is not supported";
    BodyTooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body did not arrive in time";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The request is too large";
    AlreadyExists = "already-exists", CONFLICT, "It already exists";
    CurrencyFixed = "currency-fixed", CONFLICT, "The currency of a campaign cannot change";
    RevisionMoved = "revision-moved", PRECONDITION_FAILED, "It has changed in the meantime";
    LimitReached = "limit-reached", CONFLICT, "A limit is reached";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too many requests are in flight";
    LogUnavailable = "log-unavailable", SERVICE_UNAVAILABLE, "The click log cannot be written";
    HistoryUnavailable = "history-unavailable", SERVICE_UNAVAILABLE, "Older counts cannot be read";
    Undecided = "undecided", SERVICE_UNAVAILABLE, "The cluster did not decide in time";
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "This node is not ready";
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
    /// The field that is wrong; absent if the item as a whole is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub r#type: String,
    pub detail: String,
}

impl ItemError {
    pub fn new(index: usize, field: Option<&str>, kind: ProblemKind, detail: impl Into<String>) -> ItemError {
        ItemError { index, field: field.map(str::to_owned), r#type: kind.uri().to_owned(), detail: detail.into() }
    }
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        Problem {
            r#type: kind.uri().to_owned(),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
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
        let kind = match error.next_move() {
            NextMove::Retry => ProblemKind::Undecided,
            NextMove::Reject | NextMove::Halt => ProblemKind::NotReady,
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
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(ENCODING_ACCEPTED));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_problem_type_is_written_once_and_says_what_to_expect() {
        let uris: BTreeSet<&str> = ProblemKind::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), ProblemKind::ALL.len(), "no two kinds share a type");
        for &kind in ProblemKind::ALL {
            let name = kind.uri().strip_prefix("/problems/").expect("a relative reference under /problems/");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
            assert!(!kind.title().is_empty() && !kind.title().ends_with('.'), "{kind:?}");
            let problem = Problem::new(kind, "detail");
            assert_eq!((problem.r#type.as_str(), problem.status), (kind.uri(), kind.status().as_u16()));
            assert_eq!(problem.into_response().status(), kind.status());
        }
    }

    /// Clients match on these. A new type needs no entry here before it is released; an entry is never removed.
    const RELEASED: [&str; 20] = [
        "/problems/invalid-request",
        "/problems/no-valid-click",
        "/problems/click-malformed",
        "/problems/click-field-missing",
        "/problems/click-field-invalid",
        "/problems/click-field-too-long",
        "/problems/click-timestamp-out-of-range",
        "/problems/unauthorized",
        "/problems/not-found",
        "/problems/method-not-allowed",
        "/problems/role-absent",
        "/problems/body-too-large",
        "/problems/already-exists",
        "/problems/revision-moved",
        "/problems/limit-reached",
        "/problems/overloaded",
        "/problems/log-unavailable",
        "/problems/history-unavailable",
        "/problems/undecided",
        "/problems/not-ready",
    ];

    #[test]
    fn a_released_problem_type_is_never_renamed() {
        for released in RELEASED {
            assert!(ProblemKind::ALL.iter().any(|kind| kind.uri() == released), "{released} is part of the contract");
        }
    }

    #[test]
    fn no_other_file_of_this_crate_writes_a_problem_type() {
        let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("src/problem.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(!text.contains("/problems/"), "{} writes a problem type by hand", path.display());
                }
            }
        }
    }

    #[test]
    fn a_problem_that_may_pass_says_when_to_try_again() {
        let response = Problem::new(ProblemKind::LogUnavailable, "no broker").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
