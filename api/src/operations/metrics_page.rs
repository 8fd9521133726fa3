//! What this crate counts, in the process's one Prometheus registry, and the page that shows the whole registry.

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, Opts, TextEncoder};
use tokio::sync::Mutex;

use crate::operations::cluster_metrics;
use crate::state::ApiState;

/// `outcome`: accepted, invalid, unavailable.
pub static CAPTURE_CLICKS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let options =
        Opts::new("clicktally_capture_clicks_total", "Clicks offered to this node's capture, by what became of them");
    registered(IntCounterVec::new(options, &["outcome"]).expect(FIXED))
});

pub static BUDGET_CHECK: LazyLock<Histogram> = LazyLock::new(|| {
    let options =
        HistogramOpts::new("clicktally_budget_check_seconds", "Time from request to answer of a budget check")
            .buckets(vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1]);
    registered(Histogram::with_opts(options).expect(FIXED))
});

/// One scrape at a time: what is brought up to date is emptied first, and nobody may look in between.
static SCRAPE: Mutex<()> = Mutex::const_new(());

#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Prometheus text format", body = String)))]
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
