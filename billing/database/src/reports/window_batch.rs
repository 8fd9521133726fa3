//! Writes: `reports.ad_minute`, `reports.late_click`, `reports.sink_progress`.
//!
//! Promises: a row only ever moves to a higher revision; rows and the offsets they came from commit together. If
//! PostgreSQL was restored to an older state, its offsets say so.

use clicktally_proto::counts::window_count::{LateClick, WindowCount, WindowState};
use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{self, Mutant, is_broken};
use sqlx::{Connection, PgConnection};

use crate::binary_copy::{CopyTarget, copy_rows};
use crate::error::DatabaseError;
use crate::locks::{AdvisoryLock, LockSession};

/// Takes the columns of `reports.ad_minute`.
const NEW_MINUTE: CopyTarget = CopyTarget { table: "new_minute", columns: 12 };
/// Takes the columns of `reports.late_click`.
const NEW_LATE: CopyTarget = CopyTarget { table: "new_late", columns: 8 };

/// One transaction's worth of the outbound topics.
#[derive(Debug, Default)]
pub struct WindowBatch<'a> {
    /// At most one of each (minute, ad, campaign).
    pub windows: Vec<&'a WindowCount>,
    pub late: Vec<&'a LateClick>,
    pub progress: Vec<TopicRange>,
}

/// Offsets `[first, next)` of one partition. Compaction and transactions leave holes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicRange {
    pub topic: &'static str,
    pub partition: i32,
    pub first: i64,
    pub next: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum BatchOutcome {
    Committed,
    /// Another writer committed past the beginning of this range: nothing of the batch was written.
    Overtaken {
        range: TopicRange,
        found: i64,
    },
}

/// The next offset to read of each (topic, partition).
///
/// # Errors
/// `Sql`.
pub async fn topic_progress(session: &mut LockSession) -> Result<Vec<(String, i32, i64)>, DatabaseError> {
    Ok(sqlx::query_as("SELECT topic, partition, next_offset FROM reports.sink_progress")
        .fetch_all(session.connection())
        .await?)
}

/// Commits rows and offsets in one transaction. It may have committed also after an error: repeating it is harmless,
/// because the offsets recognise the repetition.
///
/// The session that holds the writer's lock writes, so that a writer which lost its lock cannot write.
///
/// # Errors
/// `Sql`; `OutOfRange` for a time that PostgreSQL cannot hold; `Miscounted`.
pub async fn write_batch(session: &mut LockSession, batch: &WindowBatch<'_>) -> Result<BatchOutcome, DatabaseError> {
    assert_eq!(session.lock(), AdvisoryLock::WindowWriter, "only the window writer's session writes reports");
    let mut transaction = session.connection().begin().await?;
    let t = &mut *transaction;
    sqlx::raw_sql(
        "CREATE TEMP TABLE new_minute (LIKE reports.ad_minute) ON COMMIT DROP; \
         CREATE TEMP TABLE new_late (LIKE reports.late_click) ON COMMIT DROP",
    )
    .execute(&mut *t)
    .await?;
    copy_windows(t, &batch.windows).await?;
    copy_late(t, &batch.late).await?;
    sqlx::raw_sql(if is_broken(Mutant::Sink) { ADD_UP } else { UPSERT }).execute(&mut *t).await?;
    sqlx::raw_sql("INSERT INTO reports.late_click SELECT * FROM new_late ON CONFLICT DO NOTHING")
        .execute(&mut *t)
        .await?;
    for range in &batch.progress {
        assert!(range.first < range.next, "a range that was read holds at least one offset");
        let found: i64 = sqlx::query_scalar(PROGRESS)
            .bind(range.topic)
            .bind(range.partition)
            .bind(range.next)
            .fetch_one(&mut *t)
            .await?;
        // Holes put the first offset above the committed one, never below.
        if found > range.first {
            transaction.rollback().await?;
            return Ok(BatchOutcome::Overtaken { range: *range, found });
        }
    }
    fault::point("writer.before_commit");
    transaction.commit().await?;
    fault::point("writer.after_commit");
    Ok(BatchOutcome::Committed)
}

// Unsigned numbers cross as their bit pattern: ids of the log may use all 64 bits, and the tables' constraints refuse
// a count that turned negative.

async fn copy_windows(t: &mut PgConnection, windows: &[&WindowCount]) -> Result<(), DatabaseError> {
    copy_rows(t, NEW_MINUTE, windows, |fields, window| {
        fields.timestamptz(Minute(window.minute).start_ms())?;
        fields.int8(window.ad_id.cast_signed());
        fields.int8(window.campaign_id.cast_signed());
        fields.int8(window.clicks.cast_signed());
        fields.int8(window.invalid_clicks.cast_signed());
        fields.int8(window.spend_micros);
        fields.int8(window.revision.cast_signed());
        fields.text(WindowState::try_from(window.state).unwrap_or(WindowState::Unspecified).as_str());
        fields.int8(window.unique_users.cast_signed());
        fields.bytea(&window.user_sketch);
        fields.int8(window.cost_sum_micros);
        fields.int8(window.cost_count.cast_signed());
        Ok(())
    })
    .await
}

async fn copy_late(t: &mut PgConnection, late: &[&LateClick]) -> Result<(), DatabaseError> {
    copy_rows(t, NEW_LATE, late, |fields, click| {
        fields.int8(click.click_id.cast_signed());
        fields.int8(click.campaign_id.cast_signed());
        fields.int8(click.ad_id.cast_signed());
        fields.timestamptz(click.event_time_ms)?;
        fields.int4(click.shard.cast_signed());
        fields.int8(click.offset);
        fields.timestamptz(click.watermark_ms)?;
        fields.bool(click.valid);
        Ok(())
    })
    .await
}

const UPSERT: &str = "INSERT INTO reports.ad_minute SELECT * FROM new_minute \
    ON CONFLICT (minute, ad_id, campaign_id) DO UPDATE SET clicks = excluded.clicks, \
    invalid_clicks = excluded.invalid_clicks, spend_micros = excluded.spend_micros, revision = excluded.revision, \
    state = excluded.state, unique_users = excluded.unique_users, user_sketch = excluded.user_sketch, \
    cost_sum_micros = excluded.cost_sum_micros, cost_count = excluded.cost_count \
    WHERE excluded.revision > reports.ad_minute.revision";

/// The mistake that `Mutant::Sink` plants: it adds up deliveries that come at least once.
const ADD_UP: &str = "INSERT INTO reports.ad_minute SELECT * FROM new_minute \
    ON CONFLICT (minute, ad_id, campaign_id) DO UPDATE SET clicks = reports.ad_minute.clicks + excluded.clicks, \
    revision = excluded.revision, state = excluded.state";

/// Moves the progress row and returns its offset before; 0 where there was none.
const PROGRESS: &str = "WITH old AS (SELECT next_offset FROM reports.sink_progress \
        WHERE topic = $1 AND partition = $2 FOR UPDATE), \
    moved AS (INSERT INTO reports.sink_progress VALUES ($1, $2, $3) \
        ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset) \
    SELECT coalesce((SELECT next_offset FROM old), 0)";
