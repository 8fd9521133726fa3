//! The one parameter of a path, as text.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::problem::Problem;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathText, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        // For example a percent-encoded byte that is not UTF-8.
        path.map(|Path(text)| PathText(text)).map_err(|rejection| Problem::invalid(rejection.body_text()))
    }
}
