//! Reads one partition of a topic in order with the client library, from the offset at which it was opened.

use std::sync::Arc;

use clicktally_proto::click::record::RECORD_BYTES_MAX;
use clicktally_proto::click_log::{LogError, LogRecord, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::client_error::log_error;
use super::partition_queue::{Fetched, PartitionQueue};

pub(super) struct LibrdkafkaShardReader {
    topic: Arc<str>,
    shard: ShardId,
    /// The next offset due. Offsets may have holes; they never go back.
    position: u64,
    queue: PartitionQueue,
    /// Set by the first error and never cleared, because records behind it may lie behind a hole.
    failure: Option<LogError>,
    consumer: Arc<BaseConsumer>,
}

impl LibrdkafkaShardReader {
    pub(super) fn open(
        consumer: &Arc<BaseConsumer>,
        topic: &Arc<str>,
        shard: ShardId,
        from: u64,
    ) -> Result<LibrdkafkaShardReader, LogError> {
        let queue = PartitionQueue::detach(consumer, topic, shard.partition())
            .ok_or_else(|| LogError::Unavailable(format!("the Kafka client has no queue for shard {}", shard.0)))?;
        let offset = i64::try_from(from).map_err(|_| LogError::OffsetLost {
            shard,
            offset: from,
            detail: "the offset is larger than any offset of a log".into(),
        })?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, shard.partition(), Offset::Offset(offset))
            .and_then(|()| consumer.incremental_assign(&assignment))
            // An earlier reader of this shard in this process is still being closed, so trying again helps.
            .map_err(|error| LogError::Unavailable(format!("cannot open shard {}: {error}", shard.0)))?;
        let (topic, consumer) = (Arc::clone(topic), Arc::clone(consumer));
        Ok(LibrdkafkaShardReader { topic, shard, position: from, queue, failure: None, consumer })
    }

    fn explain(shard: ShardId, offset: u64, code: RDKafkaErrorCode) -> LogError {
        match code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
                LogError::OffsetLost { shard, offset, detail: code.to_string() }
            }
            RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage => {
                LogError::Damaged { shard, offset, detail: code.to_string() }
            }
            other => log_error(KafkaError::MessageConsumption(other)),
        }
    }
}

impl ShardReader for LibrdkafkaShardReader {
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        let mut taken = 0;
        while taken < records_max && self.failure.is_none() {
            let (shard, position, failure) = (self.shard, &mut self.position, &mut self.failure);
            let filled = self.queue.consume(records_max - taken, |fetched| match fetched {
                Fetched::Record { offset, timestamp_ms, value } => {
                    let offset = u64::try_from(offset).unwrap_or(0);
                    // A record behind an error would be a skip. A record before the position is of an earlier reader.
                    if failure.is_some() || offset < *position {
                        return;
                    }
                    *position = offset + 1;
                    taken += 1;
                    // Both readers hand over the same bytes.
                    let value = value.get(..=RECORD_BYTES_MAX).unwrap_or(value);
                    take(LogRecord { offset, arrival_ms: u64::try_from(timestamp_ms).unwrap_or(0), value });
                }
                // The library keeps transactions' markers and aborted records to itself. Only this tells of them.
                Fetched::End { offset } => {
                    if failure.is_none() {
                        *position = (*position).max(u64::try_from(offset).unwrap_or(0));
                    }
                }
                Fetched::Failed(code) => {
                    failure.get_or_insert_with(|| LibrdkafkaShardReader::explain(shard, *position, code));
                }
            });
            if filled == 0 {
                break;
            }
        }
        match &self.failure {
            Some(error) if taken == 0 => Err(error.clone()),
            _ => Ok(taken),
        }
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Drop for LibrdkafkaShardReader {
    fn drop(&mut self) {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition(&self.topic, self.shard.partition());
        if let Err(error) = self.consumer.incremental_unassign(&assignment) {
            tracing::warn!(shard = self.shard.0, %error, "cannot give up a partition");
        }
    }
}
