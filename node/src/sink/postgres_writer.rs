//! Reads: `window_counts` and `late_clicks`. Writes: `reports.ad_minute`, `reports.late_click`, `reports.sink_progress`.
//!
//! Promises: a row only ever moves to a higher revision; rows and the offsets they came from commit together. On restart, or
//! after PostgreSQL was restored to an older state: goes on from the offsets it finds there.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::clock::Clock;
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::fault::{self, Mutant, is_broken};
use clicktally_proto::window_count::WindowState;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use super::singleton::{self, Duty};
use super::window_rows::WindowRows;

/// Batches read ahead of the database.
const BATCHES_AHEAD_MAX: usize = 2;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(100);
const BROKER_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum WriterError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("PostgreSQL: {0}")]
    Pool(#[from] sqlx::Error),
    #[error("Kafka: {0}")]
    Log(#[from] rdkafka::error::KafkaError),
    #[error("another writer moved {topic}/{partition} to {found}, this one read from {expected}")]
    Overtaken { topic: String, partition: i32, expected: i64, found: i64 },
    #[error("the reader stopped")]
    ReaderStopped,
}

/// Where to read and where to write.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    pub brokers: String,
    pub postgres_url: String,
}

/// Runs on every node that serves; one of them writes.
pub async fn run(config: WriterConfig, pool: PgPool, clock: Arc<dyn Clock>, mut stop: watch::Receiver<bool>) {
    while let Some(mut held) = singleton::obtain(&pool, Duty::WindowWriter, &mut stop).await {
        let written = tokio::select! {
            written = write_until_error(&config, &pool, &clock, &mut held) => written,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "window writer interrupted; continuing from the committed offsets");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn write_until_error(
    config: &WriterConfig,
    pool: &PgPool,
    clock: &Arc<dyn Clock>,
    held: &mut singleton::Held,
) -> Result<(), WriterError> {
    let progress = load_progress(pool).await?;
    let (batches, mut read) = mpsc::channel::<WindowRows>(BATCHES_AHEAD_MAX);
    let (brokers, clock) = (config.brokers.clone(), Arc::clone(clock));
    // Dropping `read` ends the reader at its next batch.
    let reader = tokio::task::spawn_blocking(move || read_batches(&brokers, &progress, clock.as_ref(), &batches));
    let (mut client, connection) = tokio_postgres::connect(&config.postgres_url, NoTls).await?;
    let driver = tokio::spawn(connection);
    let outcome = async {
        loop {
            match tokio::time::timeout(RETRY_PAUSE, read.recv()).await {
                Ok(Some(rows)) => write_batch(&mut client, &rows).await?,
                Ok(None) => return Err(WriterError::ReaderStopped),
                Err(_idle) => {
                    if !held.is_held().await {
                        return Ok(());
                    }
                }
            }
        }
    }
    .await;
    drop(read);
    driver.abort();
    match (outcome, reader.await) {
        (Err(WriterError::ReaderStopped), Ok(Err(error))) => Err(error),
        (outcome, _) => outcome,
    }
}

async fn load_progress(pool: &PgPool) -> Result<BTreeMap<(String, i32), i64>, WriterError> {
    let rows: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM reports.sink_progress").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect())
}

/// On a blocking thread: reads both topics from the committed offsets, until the other side is gone.
fn read_batches(
    brokers: &str,
    progress: &BTreeMap<(String, i32), i64>,
    clock: &dyn Clock,
    batches: &mpsc::Sender<WindowRows>,
) -> Result<(), WriterError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by the client, never used: offsets live in PostgreSQL, with the rows they came from.
        .set("group.id", "clicktally-window-writer")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for topic in [WINDOW_COUNTS, LATE_CLICKS] {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_DEADLINE)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let committed = progress.get(&(topic.to_owned(), partition.id()));
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
                tracing::error!(
                    records = rows.undecodable,
                    "undecodable records in the outbound topics were passed over"
                );
            }
            if batches.blocking_send(std::mem::take(&mut rows)).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// A minute or a millisecond, as PostgreSQL counts time: microseconds since 2000.
fn timestamp(ms: UnixMillis) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(ms)
}

async fn write_batch(client: &mut Client, rows: &WindowRows) -> Result<(), WriterError> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "CREATE TEMP TABLE new_minute (LIKE reports.ad_minute) ON COMMIT DROP; \
             CREATE TEMP TABLE new_late (LIKE reports.late_click) ON COMMIT DROP",
        )
        .await?;
    let copy = transaction.copy_in("COPY new_minute FROM STDIN BINARY").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(copy, &AD_MINUTE));
    for row in rows.windows.values() {
        let state = WindowState::try_from(row.state).unwrap_or(WindowState::Unspecified).as_str();
        writer
            .as_mut()
            .write(&[
                &timestamp(Minute(row.minute).start_ms()),
                &row.ad_id.cast_signed(),
                &row.campaign_id.cast_signed(),
                &row.clicks.cast_signed(),
                &row.invalid_clicks.cast_signed(),
                &row.spend_micros,
                &row.revision.cast_signed(),
                &state,
                &row.unique_users.cast_signed(),
                &row.user_sketch,
                &row.cost_sum_micros,
                &row.cost_count.cast_signed(),
            ])
            .await?;
    }
    writer.as_mut().finish().await?;
    let copy = transaction.copy_in("COPY new_late FROM STDIN BINARY").await?;
    let types =
        [Type::INT8, Type::INT8, Type::INT8, Type::TIMESTAMPTZ, Type::INT4, Type::INT8, Type::TIMESTAMPTZ, Type::BOOL];
    let mut writer = pin!(BinaryCopyInWriter::new(copy, &types));
    for click in rows.late.values() {
        writer
            .as_mut()
            .write(&[
                &click.click_id.cast_signed(),
                &click.campaign_id.cast_signed(),
                &click.ad_id.cast_signed(),
                &timestamp(click.event_time_ms),
                &click.shard.cast_signed(),
                &click.offset,
                &timestamp(click.watermark_ms),
                &click.valid,
            ])
            .await?;
    }
    writer.as_mut().finish().await?;
    let upsert = if is_broken(Mutant::Sink) { ADD_UP } else { UPSERT };
    transaction.batch_execute(upsert).await?;
    transaction.batch_execute("INSERT INTO reports.late_click SELECT * FROM new_late ON CONFLICT DO NOTHING").await?;
    for ((topic, partition), (first, next)) in &rows.progress {
        let moved = transaction.query_one(PROGRESS, &[topic, partition, next]).await?;
        let found: i64 = moved.get(0);
        // Compaction and transactions leave holes, so the first offset may lie above the committed one, never below.
        if found > *first {
            let (topic, partition) = ((*topic).to_owned(), *partition);
            return Err(WriterError::Overtaken { topic, partition, expected: *first, found });
        }
    }
    fault::point("writer.before_commit");
    transaction.commit().await?;
    fault::point("writer.after_commit");
    Ok(())
}

/// The columns of `reports.ad_minute`, in order.
const AD_MINUTE: [Type; 12] = [
    Type::TIMESTAMPTZ,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
    Type::BYTEA,
    Type::INT8,
    Type::INT8,
];

const UPSERT: &str = "INSERT INTO reports.ad_minute SELECT * FROM new_minute \
    ON CONFLICT (minute, ad_id, campaign_id) DO UPDATE SET clicks = excluded.clicks, \
    invalid_clicks = excluded.invalid_clicks, spend_micros = excluded.spend_micros, revision = excluded.revision, \
    state = excluded.state, unique_users = excluded.unique_users, user_sketch = excluded.user_sketch, \
    cost_sum_micros = excluded.cost_sum_micros, cost_count = excluded.cost_count \
    WHERE excluded.revision > reports.ad_minute.revision";

/// The mistake that `Mutant::Sink` plants: at-least-once deliveries added up.
const ADD_UP: &str = "INSERT INTO reports.ad_minute SELECT * FROM new_minute \
    ON CONFLICT (minute, ad_id, campaign_id) DO UPDATE SET clicks = reports.ad_minute.clicks + excluded.clicks, \
    revision = excluded.revision, state = excluded.state";

/// Moves the progress row and returns where it stood (the start of the range, where there was none).
const PROGRESS: &str = "WITH old AS (SELECT next_offset FROM reports.sink_progress \
        WHERE topic = $1 AND partition = $2 FOR UPDATE), \
    moved AS (INSERT INTO reports.sink_progress VALUES ($1, $2, $3) \
        ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset) \
    SELECT coalesce((SELECT next_offset FROM old), 0)";
