//! The producer behind [`ClickLog::publish`], and the one place where a client that failed for good is replaced.
//!
//! The rule: a Kafka client is never repaired, it is replaced.
//!
//! * A producer outlives its errors, because every part of a node shares it. When it fails for good, this module makes
//!   another one from the same settings.
//! * A client that asks questions outlives its errors, too ([`super::QueryClient`]).
//! * A reader ends with its first error, because records behind the error may lie behind a hole. Its owner opens
//!   another one at the offset that is due.
//! * The load generator's producer is not replaced: its verdict depends on the order of records across retries, which
//!   only one producer keeps. Its load fails instead.
//!
//! [`ClickLog::publish`]: clicktally_proto::click_log::ClickLog::publish

use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{LogError, OutRecord};
use clicktally_proto::event_time::UnixMillis;
use futures::future::try_join_all;
use parking_lot::RwLock;
use rdkafka::Timestamp;
use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::{KafkaConnection, require_offset};
use crate::client_error::log_error;

/// How long a record may wait for room in the producer; its acknowledgement has a limit of its own.
const ENQUEUE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct DurableProducer {
    connection: KafkaConnection,
    current: RwLock<Arc<FutureProducer>>,
}

impl DurableProducer {
    /// Connects in the background.
    pub(super) fn new(connection: &KafkaConnection) -> Result<DurableProducer, KafkaError> {
        let current = RwLock::new(Arc::new(connection.new_durable_producer()?));
        Ok(DurableProducer { connection: connection.clone(), current })
    }

    /// Returns once every record is durable at every replica in sync. After an error any of them may be in the log.
    pub async fn write(&self, records: &[OutRecord]) -> Result<(), LogError> {
        let producer = Arc::clone(&self.current.read());
        let deliveries = records.iter().map(|out| write_one(&producer, out));
        match try_join_all(deliveries).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.replace_if_fatal(&producer).map_err(log_error)?;
                Err(log_error(error))
            }
        }
    }

    /// Writes one record, and returns the broker's time at its arrival.
    ///
    /// # Errors
    /// [`LogError::Fatal`] if the topic's stamps are not the broker's.
    pub async fn stamp(&self, record: &OutRecord) -> Result<UnixMillis, LogError> {
        let producer = Arc::clone(&self.current.read());
        match write_one(&producer, record).await.map(|delivery| delivery.timestamp) {
            Ok(Timestamp::LogAppendTime(stamped_ms)) => u64::try_from(stamped_ms).map_err(|_| {
                LogError::Fatal(format!("the broker's clock shows {stamped_ms} ms, which is before 1970"))
            }),
            Ok(_) => Err(LogError::Fatal(format!(
                "topic {} must have message.timestamp.type=LogAppendTime, but its records have the sender's time",
                record.topic
            ))),
            Err(error) => {
                self.replace_if_fatal(&producer).map_err(log_error)?;
                Err(log_error(error))
            }
        }
    }

    /// One sequence number out of order makes an idempotent producer fail for good: it refuses every later record.
    fn replace_if_fatal(&self, failed: &Arc<FutureProducer>) -> Result<(), KafkaError> {
        let Some((code, reason)) = failed.client().fatal_error() else { return Ok(()) };
        tracing::warn!(%code, reason, "the producer failed for good; starting another");
        let mut current = self.current.write();
        // Another caller may have replaced it already.
        if Arc::ptr_eq(&current, failed) {
            *current = Arc::new(self.connection.new_durable_producer()?);
        }
        Ok(())
    }
}

async fn write_one(producer: &FutureProducer, out: &OutRecord) -> Result<Delivery, KafkaError> {
    let mut record = FutureRecord::to(out.topic).key(&out.key).payload(&out.value);
    record.partition = out.partition;
    let sent = producer.send(record, Timeout::After(ENQUEUE_TIMEOUT)).await;
    let delivery = sent.map_err(|(error, _)| error)?;
    require_offset(&delivery)?;
    Ok(delivery)
}
