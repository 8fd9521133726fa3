//! Opens readers of one topic's partitions: one fetcher or one client of the library serves all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clicktally_proto::click_log::{LogError, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;
use rdkafka::consumer::BaseConsumer;
use serde::{Deserialize, Serialize};

use super::client_error::log_error;
use super::connection::KafkaConnection;
use super::direct::{DirectShardReader, Fetcher};
use super::librdkafka_reader::LibrdkafkaShardReader;
use super::rereading::RereadingShardReader;

const EVENTS_POLL: Duration = Duration::from_millis(500);

/// What reads the raw log (`docs/decisions/007-direct-fetch.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FetchBy {
    /// The fetcher of this crate, the cheaper one (`docs/performance.md`). Plain TCP, record batches of format 2 (Kafka
    /// 0.11 and newer).
    #[default]
    Direct,
    /// The client library, for what the fetcher cannot read.
    Librdkafka,
}

pub struct PartitionReaders {
    reading: Arc<Reading>,
    is_stopping: Arc<AtomicBool>,
}

/// Opens readers that end at the first damaged batch.
pub(crate) enum Reading {
    Direct(Fetcher),
    Librdkafka { topic: Arc<str>, consumer: Arc<BaseConsumer> },
}

impl Reading {
    pub(crate) fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError> {
        Ok(match self {
            Reading::Direct(fetcher) => Box::new(DirectShardReader::open(fetcher, shard, from)?),
            Reading::Librdkafka { topic, consumer } => {
                Box::new(LibrdkafkaShardReader::open(consumer, topic, shard, from)?)
            }
        })
    }
}

impl PartitionReaders {
    /// Connects in the background. `held_bytes_max`: answers in memory that no reader has taken apart yet. The client
    /// library has limits of its own.
    pub fn start(
        connection: &KafkaConnection,
        topic: &str,
        fetch: FetchBy,
        held_bytes_max: usize,
    ) -> Result<PartitionReaders, LogError> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let fatal = |error: std::io::Error| LogError::Fatal(error.to_string());
        let reading = match fetch {
            FetchBy::Direct => {
                let fetcher = Fetcher::start(connection.clone(), topic, held_bytes_max);
                Reading::Direct(fetcher.map_err(fatal)?)
            }
            FetchBy::Librdkafka => {
                let consumer = Arc::new(connection.partition_reader().map_err(log_error)?);
                serve_events(Arc::clone(&consumer), Arc::clone(&is_stopping)).map_err(fatal)?;
                Reading::Librdkafka { topic: topic.into(), consumer }
            }
        };
        Ok(PartitionReaders { reading: Arc::new(reading), is_stopping })
    }

    /// One reader of a partition at a time.
    pub fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError> {
        Ok(Box::new(RereadingShardReader::open(Arc::clone(&self.reading), shard, from)?))
    }
}

impl Drop for PartitionReaders {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}

/// Serves the client's own news (errors, statistics) until the readers are dropped. Records never come this way.
fn serve_events(consumer: Arc<BaseConsumer>, is_stopping: Arc<AtomicBool>) -> std::io::Result<()> {
    let serve = move || {
        while !is_stopping.load(Ordering::Relaxed) {
            if let Some(Err(error)) = consumer.poll(EVENTS_POLL) {
                tracing::warn!(%error, "the log's client reports an error");
            }
        }
    };
    std::thread::Builder::new().name("log-events".into()).spawn(serve).map(|_| ())
}
