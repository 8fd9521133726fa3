//! After the last click: waits until the stream is final, the archive is complete, and the batch has run.

use std::time::Duration;

use clicktally_node::tools::load::LoadSummary;
use clicktally_proto::click_log::RAW_CLICKS;

use super::screen::Screen;
use super::stage::Stage;
use crate::checks::{self, ct2_offset_chain};
use crate::eventually::eventually;
use crate::oracle;

/// The time beyond the lateness: to read a backlog, and to publish and write its windows.
const SLACK: Duration = Duration::from_secs(180);
/// A minute that has just begun when the load ends must still pass.
const MINUTE: Duration = Duration::from_secs(60);

/// Waits until all shards have read to the end of the log, and all windows in PostgreSQL are final.
pub(super) async fn stream(stage: &Stage, summary: &LoadSummary, screen: &Screen) -> anyhow::Result<()> {
    screen.say(&format!("All {} clicks are acknowledged. Waiting until every window is final …", summary.sent));
    let ends = end_offsets(stage).await?;
    eventually("all shards have read to the end of the log", SLACK, async || {
        let view = stage.cluster.client.cluster().await?;
        checks::require_none(&ct2_offset_chain::check_read_to_end(&view, &ends))
    })
    .await?;
    let lateness = Duration::from_millis(stage.cluster.options.allowed_lateness_ms);
    eventually("all windows are final in PostgreSQL", lateness + MINUTE + SLACK, async || {
        let (clicks, not_final) = stage.database.stream_progress().await?;
        anyhow::ensure!(not_final == 0, "{not_final} rows are not final");
        // Too few rows: some are still on their way. Too many: the verdict reports them.
        anyhow::ensure!(clicks >= summary.counted, "{clicks} of {} clicks are there", summary.counted);
        Ok(())
    })
    .await
}

/// Waits until every partition is archived to its end.
pub(super) async fn archive(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    screen.say("Waiting for the archive …");
    let ends = end_offsets(stage).await?;
    eventually("the archive reaches the end of the log", SLACK, async || {
        let archived = stage.database.archived_to().await?;
        for (shard, end) in (0_u16..).zip(&ends) {
            let to = archived.get(&shard).copied().unwrap_or(0);
            anyhow::ensure!(to >= *end, "shard {shard} is archived up to {to} of {end}");
        }
        Ok(())
    })
    .await
}

/// The demo bills a day that is not over: its clicks are complete, because nothing else sends any.
const OVERRIDE: [&str; 5] = ["--override", "--by", "demo", "--reason", "the demo's clicks are complete"];

/// Runs, reconciles and finalises every day the archive has, through the command line.
pub(super) async fn batch(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    for day in stage.database.archived_days().await? {
        screen.say(&format!("Running the batch for {day} …"));
        for (verb, options) in [("run", &[][..]), ("reconcile", &[]), ("finalize", &OVERRIDE)] {
            stage.cluster.bill(verb, &day, options).await?;
        }
    }
    Ok(())
}

pub(super) async fn end_offsets(stage: &Stage) -> anyhow::Result<Vec<u64>> {
    let bootstrap = stage.services.kafka.bootstrap();
    tokio::task::spawn_blocking(move || oracle::end_offsets(&bootstrap, RAW_CLICKS)).await?
}
