//! `GET /metrics`: the process's one Prometheus registry as a page.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};
use tokio::sync::Mutex;

use super::cluster_metrics;
use crate::state::ApiState;

/// One scrape at a time: a scrape empties some gauges before it fills them, and a second one must not see them empty.
static SCRAPE: Mutex<()> = Mutex::const_new(());

#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "Prometheus text format", body = String))
)]
pub async fn show_metrics(State(state): State<Arc<ApiState>>) -> Response {
    let families = {
        let _alone = SCRAPE.lock().await;
        cluster_metrics::refresh(&state).await;
        prometheus::gather()
    };
    let mut page = Vec::new();
    let encoder = TextEncoder::new();
    if let Err(error) = encoder.encode(&families, &mut page) {
        tracing::error!(%error, "metrics cannot be encoded");
    }
    ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], page).into_response()
}
