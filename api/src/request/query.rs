//! The query string as parameters by name.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::problem::Problem;
use crate::text_forms::query_parameters::{Parameters, by_name};

/// Each name occurs once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryParameters(pub Parameters);

impl<S: Send + Sync> FromRequestParts<S> for QueryParameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<QueryParameters, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = query.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
        by_name(pairs).map(QueryParameters).map_err(|error| Problem::invalid(error.to_string()))
    }
}
