//! Checks the settings of the log's topics once an hour: an operator may change them while nodes run.
//!
//! *Reads* the settings of the topics. *Writes* nothing. *Promises*: a setting under which clicks would be lost, or
//! counts would seem fresher than they are, is shown as a halted part within an hour. *On restart* the node itself
//! checks them before it counts.

use std::sync::Arc;
use std::time::Duration;

use clicktally_kafka::KafkaLog;
use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

use crate::halts::{Halts, Part};
use crate::retry;

const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Ends when `stop` turns true.
pub async fn watch_topics(log: Arc<KafkaLog>, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
    while retry::pause(CHECK_INTERVAL, &mut stop).await.is_some() {
        match log.check_topics().await {
            Ok(()) => halts.works(Part::LogTopics),
            Err(error) if error.next_move() == NextMove::Retry => {
                tracing::warn!(%error, "the settings of the log's topics are checked again in an hour");
            }
            Err(error) => halts.halted(Part::LogTopics, &error),
        }
    }
}
