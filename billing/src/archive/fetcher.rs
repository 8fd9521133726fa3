//! The archive's own readers of the raw topic: one thread, explicit offsets, nothing committed to the broker.
//!
//! The archive reads with the same code as the stream (`clicktally_kafka::PartitionReaders`), so that both read the
//! same records: the same codecs, and the same committed transactions
//! (`docs/decisions/025-transactions-in-the-raw-log.md`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clicktally_kafka::{FetchBy, KafkaConnection, PartitionReaders, log_error};
use clicktally_proto::click_log::{LogError, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::consumer::Consumer;
use tokio::sync::mpsc;

use super::buffer::RawRecord;
use crate::error::BillingError;

/// What one hand-over of a shard's records may hold, and one record more.
const READ_BYTES_MAX: usize = 1 << 20;
const READ_RECORDS_MAX: usize = 1_000;
/// Read but not yet taken in. When it is full, the thread waits, and fetching stops.
const QUEUE_READS_MAX: usize = 16;
/// Answers of the log that the thread has not taken apart yet.
const HELD_BYTES_MAX: usize = 32 << 20;
/// The pause of the thread when no shard has news. Also how long it takes to notice that its fetcher was dropped.
const IDLE_PAUSE: Duration = Duration::from_millis(20);
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// What was read of one shard since the read before.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) shard: ShardId,
    pub(super) records: Vec<RawRecord>,
    /// Every readable record below this offset was read.
    pub(super) next: u64,
}

/// Stops when dropped.
#[derive(Debug)]
pub(super) struct Fetcher {
    reads: mpsc::Receiver<Result<Read, LogError>>,
    is_dropped: Arc<AtomicBool>,
}

impl Fetcher {
    /// Reads every shard of `from` at its offset.
    pub(super) fn start(
        log: &KafkaConnection,
        topic: &str,
        fetch: FetchBy,
        from: BTreeMap<ShardId, u64>,
    ) -> Result<Fetcher, BillingError> {
        let readers = PartitionReaders::start(log, topic, fetch, HELD_BYTES_MAX)?;
        let (sender, reads) = mpsc::channel(QUEUE_READS_MAX);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let stop = is_dropped.clone();
        std::thread::Builder::new()
            .name("archive-fetch".to_owned())
            .spawn(move || {
                if let Err(error) = fetch_all(&readers, &from, &sender, &stop) {
                    // The archiver may be gone already. Then no error reaches it.
                    let _ = sender.blocking_send(Err(error));
                }
            })
            .map_err(|e| BillingError::Worker(e.to_string()))?;
        Ok(Fetcher { reads, is_dropped })
    }

    /// Waits for the first read, then takes what has arrived already, and returns how many; none if the thread has
    /// ended. Safe to drop while waiting.
    pub(super) async fn next(&mut self, into: &mut Vec<Result<Read, LogError>>) -> usize {
        self.reads.recv_many(into, QUEUE_READS_MAX).await
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

/// Reads the shards in turn until the fetcher is dropped.
fn fetch_all(
    readers: &PartitionReaders,
    from: &BTreeMap<ShardId, u64>,
    sender: &mpsc::Sender<Result<Read, LogError>>,
    stop: &AtomicBool,
) -> Result<(), LogError> {
    let open = |(shard, from): (&ShardId, &u64)| Ok((*shard, readers.open(*shard, *from)?));
    let mut shards = from.iter().map(open).collect::<Result<Vec<_>, LogError>>()?;
    while !stop.load(Ordering::Relaxed) {
        let mut is_idle = true;
        for (shard, reader) in &mut shards {
            let Some(read) = read_some(*shard, reader.as_mut())? else { continue };
            is_idle = false;
            if sender.blocking_send(Ok(read)).is_err() {
                return Ok(());
            }
        }
        if is_idle {
            std::thread::sleep(IDLE_PAUSE);
        }
    }
    Ok(())
}

/// `None` if the reader has not moved.
fn read_some(shard: ShardId, reader: &mut dyn ShardReader) -> Result<Option<Read>, LogError> {
    let (before, mut records, mut bytes) = (reader.position(), Vec::new(), 0);
    while records.len() < READ_RECORDS_MAX && bytes < READ_BYTES_MAX {
        let drained = reader.drain(1, &mut |record| {
            bytes += record.value.len();
            let (offset, arrival_ms) = (record.offset, record.arrival_ms);
            records.push(RawRecord { offset, arrival_ms, value: record.value.to_vec() });
        })?;
        if drained == 0 {
            break;
        }
    }
    let next = reader.position();
    Ok((next > before).then_some(Read { shard, records, next }))
}

/// Asks the broker for the end of what is readable in each shard. Blocks.
pub(super) fn end_offsets(
    log: &KafkaConnection,
    topic: &str,
    shards: impl Iterator<Item = ShardId>,
) -> Result<BTreeMap<ShardId, u64>, BillingError> {
    let consumer = log.metadata_reader().map_err(log_error)?;
    shards
        .map(|shard| {
            let (_, end) = consumer.fetch_watermarks(topic, shard.partition(), BROKER_TIMEOUT).map_err(log_error)?;
            Ok((shard, u64::try_from(end).map_err(|_| BillingError::Overflow("log offset"))?))
        })
        .collect()
}
