//! Reads: fired windows of the group this node leads. Writes: `window_counts`, then `SinkProgress`.
//!
//! Promises: every revision that replicated state reports as published is in the topic. Values are absolute and carry
//! their revision, so that publishing twice is harmless. On restart: continues after the replicated progress.

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, LogError};
use clicktally_proto::command::Command;
use clicktally_proto::fault::{self, Mutant, is_broken};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::{Group, ProposeError};
use tokio::sync::watch;

use super::window_news::WindowNews;
use crate::halts::{Halts, Part};
use crate::retry::{self, HALT_PAUSE};

/// Records handed to the log at once. This bounds memory, and the records that a failed publish repeats.
const RECORDS_MAX: usize = 20_000;
/// The same limit in bytes, because rows of hot ads carry sketches of 2 KiB.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The interval at which a leader looks for news.
const ROUND: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl PublishError {
    fn next_move(&self) -> NextMove {
        match self {
            PublishError::Log(error) => error.next_move(),
            PublishError::Propose(error) => error.next_move(),
        }
    }
}

/// Runs on every node, and publishes where the node leads.
pub async fn run(group: Group, log: Arc<dyn ClickLog>, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
    let part = Part::WindowPublisher(group.id());
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if !group.is_leader() {
            halts.works(part);
            continue;
        }
        match publish_news(&group, log.as_ref()).await {
            Ok(()) => halts.works(part),
            Err(error) if error.next_move() == NextMove::Retry => {
                tracing::warn!(group = group.id().0, %error, "windows not published yet; trying again");
            }
            Err(error) => {
                halts.halted(part, &error);
                if retry::pause(HALT_PAUSE, &mut stop).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn publish_news(group: &Group, log: &dyn ClickLog) -> Result<(), PublishError> {
    let news = group.read(WindowNews::of);
    if news.is_empty() {
        return Ok(());
    }
    let report = || Command::SinkProgress { published_revision: news.newest_revision() };
    if is_broken(Mutant::ReportedUnpublished) {
        group.propose(&report()).await?;
    }
    let (mut records, mut bytes) = (Vec::new(), 0);
    for record in news.records() {
        bytes += record.value.len();
        records.push(record);
        if records.len() >= RECORDS_MAX || bytes >= BYTES_MAX {
            log.publish(std::mem::take(&mut records)).await?;
            bytes = 0;
        }
    }
    if !records.is_empty() {
        log.publish(records).await?;
    }
    fault::point("sink.after_publish");
    group.propose(&report()).await?;
    Ok(())
}
