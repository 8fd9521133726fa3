//! Reads: `window_counts` and `late_clicks`. The consumer has a thread of its own and reads a little ahead of the
//! tables.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clicktally_kafka::{KafkaConnection, log_error};
use clicktally_proto::click_log::{LATE_CLICKS, LogError, WINDOW_COUNTS};
use clicktally_proto::clock::Clock;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::window_rows::WindowRows;
use super::window_writer::{OutProgress, OutReader, OutTopics, SinkError};

/// The number of batches that the consumer reads ahead of the tables.
const BATCHES_AHEAD_MAX: usize = 2;
const POLL: Duration = Duration::from_millis(100);
const BROKER_DEADLINE: Duration = Duration::from_secs(10);

pub struct KafkaOutTopics {
    log: KafkaConnection,
    clock: Arc<dyn Clock>,
}

impl KafkaOutTopics {
    pub fn new(log: KafkaConnection, clock: Arc<dyn Clock>) -> KafkaOutTopics {
        KafkaOutTopics { log, clock }
    }
}

impl From<KafkaError> for SinkError {
    fn from(error: KafkaError) -> SinkError {
        SinkError::Topics(log_error(error))
    }
}

#[async_trait]
impl OutTopics for KafkaOutTopics {
    async fn read_from(&self, progress: OutProgress) -> Result<Box<dyn OutReader>, SinkError> {
        let (batches, read) = mpsc::channel(BATCHES_AHEAD_MAX);
        let (log, clock) = (self.log.clone(), Arc::clone(&self.clock));
        // Dropping `read` ends the thread at its next batch.
        let thread = tokio::task::spawn_blocking(move || read_batches(&log, &progress, clock.as_ref(), &batches));
        Ok(Box::new(KafkaOutReader { read, thread }))
    }
}

struct KafkaOutReader {
    read: mpsc::Receiver<WindowRows>,
    thread: JoinHandle<Result<(), SinkError>>,
}

#[async_trait]
impl OutReader for KafkaOutReader {
    async fn next(&mut self) -> Result<WindowRows, SinkError> {
        if let Some(rows) = self.read.recv().await {
            return Ok(rows);
        }
        match (&mut self.thread).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(SinkError::Topics(LogError::Unavailable("the reader has stopped".into()))),
            Err(error) => Err(SinkError::Topics(LogError::Unavailable(error.to_string()))),
        }
    }
}

/// Reads both topics from the committed offsets until the receiver is dropped. This function blocks.
fn read_batches(
    log: &KafkaConnection,
    progress: &OutProgress,
    clock: &dyn Clock,
    batches: &mpsc::Sender<WindowRows>,
) -> Result<(), SinkError> {
    // PostgreSQL holds the offsets, together with the rows made from these records.
    let consumer = log.out_topics_reader()?;
    let mut assignment = TopicPartitionList::new();
    for topic in [WINDOW_COUNTS, LATE_CLICKS] {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_DEADLINE)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let committed = progress.get(&(topic, partition.id()));
            let from = committed.map_or(Offset::Beginning, |next| Offset::Offset(*next));
            assignment.add_partition_offset(topic, partition.id(), from)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut rows = WindowRows::default();
    let mut first_read_at = clock.monotonic();
    while !batches.is_closed() {
        let record = consumer.poll(POLL);
        let is_quiet = record.is_none();
        if let Some(record) = record {
            let record = record?;
            if rows.is_empty() {
                first_read_at = clock.monotonic();
            }
            rows.take(record.topic(), record.partition(), record.offset(), record.payload().unwrap_or_default());
        }
        if rows.are_due(is_quiet, clock.monotonic().saturating_sub(first_read_at)) {
            if rows.undecodable > 0 {
                tracing::error!(records = rows.undecodable, "skipped undecodable records of the outbound topics");
            }
            if batches.blocking_send(std::mem::take(&mut rows)).is_err() {
                break;
            }
        }
    }
    Ok(())
}
