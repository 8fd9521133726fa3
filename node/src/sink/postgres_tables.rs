//! Writes: `reports.ad_minute`, `reports.late_click`, `reports.sink_progress`.
//!
//! Promises: a row only ever moves to a higher revision; rows and the offsets they came from commit together. After PostgreSQL was
//! restored to an older state it says so by its offsets.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::fault::{self, Mutant, is_broken};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use super::singleton::{self, Duty};
use super::window_rows::WindowRows;
use super::window_writer::{OutProgress, SinkError, WindowTables, WriterSession};

pub struct PostgresTables {
    pool: PgPool,
    url: String,
}

impl PostgresTables {
    /// Both to the same database: one to hold a lock and to look things up, one for the binary COPY.
    pub fn new(pool: PgPool, url: String) -> PostgresTables {
        PostgresTables { pool, url }
    }
}

impl From<tokio_postgres::Error> for SinkError {
    fn from(error: tokio_postgres::Error) -> SinkError {
        SinkError::Tables(error.into())
    }
}

impl From<sqlx::Error> for SinkError {
    fn from(error: sqlx::Error) -> SinkError {
        SinkError::Tables(error.into())
    }
}

#[async_trait]
impl WindowTables for PostgresTables {
    async fn obtain(&self, stop: &mut watch::Receiver<bool>) -> Option<Box<dyn WriterSession>> {
        let held = singleton::obtain(&self.pool, Duty::WindowWriter, stop).await?;
        Some(Box::new(PostgresSession { held, pool: self.pool.clone(), url: self.url.clone(), copying: None }))
    }
}

struct PostgresSession {
    held: singleton::Held,
    pool: PgPool,
    url: String,
    /// From the first batch on.
    copying: Option<Copying>,
}

struct Copying {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[async_trait]
impl WriterSession for PostgresSession {
    async fn progress(&mut self) -> Result<OutProgress, SinkError> {
        let rows: Vec<(String, i32, i64)> =
            sqlx::query_as("SELECT topic, partition, next_offset FROM reports.sink_progress")
                .fetch_all(&self.pool)
                .await?;
        let known = |name: &str| [WINDOW_COUNTS, LATE_CLICKS].into_iter().find(|topic| *topic == name);
        let rows = rows.into_iter().filter_map(|(topic, partition, next)| Some(((known(&topic)?, partition), next)));
        Ok(rows.collect())
    }

    async fn write(&mut self, rows: &WindowRows) -> Result<(), SinkError> {
        let copying = match &mut self.copying {
            Some(copying) => copying,
            copying => {
                let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                let driver = tokio::spawn(connection).abort_handle();
                copying.insert(Copying { client, driver })
            }
        };
        write_batch(&mut copying.client, rows).await
    }

    async fn is_held(&mut self) -> bool {
        self.held.is_held().await
    }
}

/// A minute or a millisecond, as PostgreSQL counts time: microseconds since 2000.
fn timestamp(ms: UnixMillis) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(ms)
}

async fn write_batch(client: &mut Client, rows: &WindowRows) -> Result<(), SinkError> {
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
    for (&(topic, partition), (first, next)) in &rows.progress {
        let moved = transaction.query_one(PROGRESS, &[&topic, &partition, next]).await?;
        let found: i64 = moved.get(0);
        // Compaction and transactions leave holes, so the first offset may lie above the committed one, never below.
        if found > *first {
            return Err(SinkError::Overtaken { topic, partition, expected: *first, found });
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
