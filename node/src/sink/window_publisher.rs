//! Reads: fired windows of the group this node leads. Writes: `window_counts`, then `SinkProgress`.
//!
//! Promises: every revision that replicated state reports as published is in the topic. Values are absolute and carry their
//! revision, so that publishing twice is harmless. On restart: continues behind the replicated progress.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, OutRecord, WINDOW_COUNTS};
use clicktally_proto::command::Command;
use clicktally_proto::fault;
use clicktally_proto::window_count::WindowCount;
use clicktally_raft_store::group::Group;
use prost::Message;
use tokio::sync::watch;

/// Records handed to the log at once: bounds memory, and what a failed publish repeats.
const RECORDS_MAX: usize = 20_000;
/// The same in bytes: rows of hot ads carry sketches of 2 KiB.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Looks for news at least this often, and whenever the replica has applied something, but not more often than this.
const ROUND: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Log(#[from] clicktally_proto::click_log::LogError),
    #[error(transparent)]
    Propose(#[from] clicktally_raft_store::group::ProposeError),
}

/// Runs on every node; works where the node leads.
pub async fn run(group: Group, log: Arc<dyn ClickLog>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if group.is_leader()
            && let Err(error) = publish_news(&group, log.as_ref()).await
        {
            tracing::warn!(group = group.id().0, %error, "windows not published yet; trying again");
        }
    }
}

async fn publish_news(group: &Group, log: &dyn ClickLog) -> Result<(), PublishError> {
    let (published, newest, windows) =
        group.read(|state| (state.published_revision(), state.newest_revision(), state.unpublished_windows()));
    if windows.is_empty() {
        return Ok(());
    }
    let (mut records, mut bytes) = (Vec::new(), 0);
    for (minute, window) in windows {
        for row in window.rows_after(minute, published) {
            let record = record_of(&row);
            bytes += record.value.len();
            records.push(record);
            if records.len() >= RECORDS_MAX || bytes >= BYTES_MAX {
                log.publish(std::mem::take(&mut records)).await?;
                bytes = 0;
            }
        }
    }
    if !records.is_empty() {
        log.publish(records).await?;
    }
    fault::point("sink.after_publish");
    group.propose(&Command::SinkProgress { published_revision: newest }).await?;
    Ok(())
}

/// Compaction keeps the newest value of each (ad, campaign, minute).
fn record_of(row: &WindowCount) -> OutRecord {
    let mut key = Vec::with_capacity(20);
    key.extend_from_slice(&row.ad_id.to_be_bytes());
    key.extend_from_slice(&row.minute.to_be_bytes());
    key.extend_from_slice(&row.campaign_id.to_be_bytes());
    OutRecord { topic: WINDOW_COUNTS, partition: None, key, value: row.encode_to_vec() }
}
