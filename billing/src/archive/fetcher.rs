//! The archive's own reader of the raw topic: one thread, explicit offsets, nothing committed to the broker.
//!
//! It is kept apart from the stream's reader on purpose, so that a fault in either shows in reconciliation. Both
//! share only the connection (`clicktally_kafka::connection`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clicktally_kafka::KafkaConnection;
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::buffer::RawRecord;
use crate::error::BillingError;

/// Records handed over but not yet taken in. When it is full, the thread waits, the client's queue fills, and
/// fetching stops.
const QUEUE_RECORDS_MAX: usize = 8_192;
/// How long the thread takes to notice that its fetcher was dropped.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Fetched = Result<(ShardId, RawRecord), BillingError>;

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Fetcher {
    records: mpsc::Receiver<Fetched>,
    is_dropped: Arc<AtomicBool>,
}

impl Fetcher {
    /// Reads every shard of `from` at its offset.
    pub(super) fn start(
        log: &KafkaConnection,
        topic: &str,
        from: &BTreeMap<ShardId, u64>,
    ) -> Result<Fetcher, BillingError> {
        let consumer = log.archive_reader().map_err(log_error)?;
        let mut assignment = TopicPartitionList::new();
        for (shard, offset) in from {
            let offset = i64::try_from(*offset).map_err(|_| BillingError::Overflow("log offset"))?;
            assignment.add_partition_offset(topic, shard.partition(), Offset::Offset(offset)).map_err(log_error)?;
        }
        consumer.assign(&assignment).map_err(log_error)?;
        let (sender, records) = mpsc::channel(QUEUE_RECORDS_MAX);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let stop = is_dropped.clone();
        std::thread::Builder::new()
            .name("archive-fetch".to_owned())
            .spawn(move || fetch(&consumer, &sender, &stop))
            .map_err(|e| BillingError::Worker(e.to_string()))?;
        Ok(Fetcher { records, is_dropped })
    }

    /// Waits for the first record, then takes what has arrived already, `at_most` in all. Safe to drop while waiting.
    pub(super) async fn next(&mut self, into: &mut Vec<Fetched>, at_most: usize) -> usize {
        self.records.recv_many(into, at_most).await
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

fn fetch(consumer: &BaseConsumer, sender: &mpsc::Sender<Fetched>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let fetched = match consumer.poll(POLL_TIMEOUT) {
            None => continue,
            Some(Ok(message)) => record_of(&message),
            Some(Err(error)) if is_passing(&error) => {
                tracing::warn!(%error, "the archive cannot read the log at the moment; the Kafka client keeps trying");
                continue;
            }
            Some(Err(error)) => Err(lost_or_failed(&error)),
        };
        let is_last = fetched.is_err();
        if sender.blocking_send(fetched).is_err() || is_last {
            return;
        }
    }
}

fn record_of(message: &impl Message) -> Fetched {
    let shard = u16::try_from(message.partition()).map_err(|_| BillingError::Overflow("partition"))?;
    let offset = u64::try_from(message.offset()).map_err(|_| BillingError::Overflow("log offset"))?;
    let arrival_ms = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    // A record without a value is malformed, but it is archived as a record.
    let value = message.payload().unwrap_or_default().to_vec();
    Ok((ShardId(shard), RawRecord { offset, arrival_ms, value }))
}

fn is_passing(error: &KafkaError) -> bool {
    !matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

fn lost_or_failed(error: &KafkaError) -> BillingError {
    match error.rdkafka_error_code() {
        // The client does not name the partition here. Its own log line does.
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            BillingError::LogTruncated(error.to_string())
        }
        _ => BillingError::Log(error.to_string()),
    }
}

fn log_error(error: KafkaError) -> BillingError {
    BillingError::Log(error.to_string())
}

/// Asks the broker for the offset after the newest record of each shard. Blocks.
pub(super) fn end_offsets(
    log: &KafkaConnection,
    topic: &str,
    shards: impl Iterator<Item = ShardId>,
) -> Result<BTreeMap<ShardId, u64>, BillingError> {
    let consumer = log.archive_reader().map_err(log_error)?;
    shards
        .map(|shard| {
            let (_, end) = consumer.fetch_watermarks(topic, shard.partition(), BROKER_TIMEOUT).map_err(log_error)?;
            Ok((shard, u64::try_from(end).map_err(|_| BillingError::Overflow("log offset"))?))
        })
        .collect()
}
