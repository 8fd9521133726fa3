//! What became of the clicks offered to capture.

use std::sync::LazyLock;

use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::{IntCounterVec, Opts};

/// `outcome`: accepted, invalid, unavailable.
pub static CAPTURE_CLICKS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let options =
        Opts::new("clicktally_capture_clicks_total", "Clicks offered to this node's capture, by what became of them");
    registered(IntCounterVec::new(options, &["outcome"]).expect(FIXED))
});
