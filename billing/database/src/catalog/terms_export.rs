//! `catalog.terms_export`: how far `catalog.campaign_terms` is complete, and the rules that the stream counts by.

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::GroupId;
use sqlx::Row;

use crate::column::from_bigint;
use crate::connection::Database;
use crate::error::DatabaseError;
use crate::notifications::{Channel, notify};

/// What a group's terms in PostgreSQL cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermsExport {
    pub group: GroupId,
    /// Every change of terms that the group accepted before this time is in `catalog.campaign_terms`.
    pub complete_to_ms: UnixMillis,
    /// [`clicktally_proto::event_time::EventTimeRules::max_ahead_ms`] of the group.
    pub max_ahead_ms: u64,
}

/// Records how far the terms are complete, and announces it. Time never goes back: two writers may overlap for a
/// moment.
///
/// # Errors
/// `Sql`.
pub async fn note_exports(database: &Database, exports: &[TermsExport]) -> Result<(), DatabaseError> {
    let mut transaction = database.pool().begin().await?;
    for TermsExport { group, complete_to_ms, max_ahead_ms } in exports {
        sqlx::query(
            "INSERT INTO catalog.terms_export AS known (group_id, complete_to, max_ahead_ms)
             VALUES ($1, to_timestamp($2::bigint / 1000.0), $3)
             ON CONFLICT (group_id) DO UPDATE SET
                complete_to = greatest(known.complete_to, excluded.complete_to), max_ahead_ms = excluded.max_ahead_ms",
        )
        .bind(i32::from(group.0))
        .bind(complete_to_ms.cast_signed())
        .bind(max_ahead_ms.cast_signed())
        .execute(&mut *transaction)
        .await?;
    }
    notify(&mut transaction, Channel::TermsExported).await?;
    transaction.commit().await?;
    Ok(())
}

/// The exports of all groups that have reported one, by group.
///
/// # Errors
/// `Sql`; `OutOfRange` for a group that cannot exist.
pub async fn exports(database: &Database) -> Result<Vec<TermsExport>, DatabaseError> {
    let rows = sqlx::query("SELECT group_id, complete_to, max_ahead_ms FROM catalog.terms_export ORDER BY group_id")
        .fetch_all(database.pool())
        .await?;
    rows.iter()
        .map(|row| {
            let group: i32 = row.try_get("group_id")?;
            let complete_to: DateTime<Utc> = row.try_get("complete_to")?;
            Ok(TermsExport {
                group: GroupId(u16::try_from(group).map_err(|_| DatabaseError::OutOfRange("group_id"))?),
                complete_to_ms: from_bigint(complete_to.timestamp_millis(), "complete_to")?,
                max_ahead_ms: from_bigint(row.try_get("max_ahead_ms")?, "max_ahead_ms")?,
            })
        })
        .collect()
}
