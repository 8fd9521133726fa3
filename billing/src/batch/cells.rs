//! What one shard contributes to a day, and how it travels into PostgreSQL.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use chrono::DateTime;
use sqlx::PgConnection;

use crate::error::{BillingError, unsigned};

/// One (campaign, ad, minute, terms revision) of one shard. Revision 0: the catalogue has no terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) campaign_id: i64,
    pub(crate) ad_id: i64,
    pub(crate) minute: u32,
    pub(crate) terms_revision: i64,
    pub(crate) clicks: i64,
    pub(crate) invalid_clicks: i64,
    pub(crate) duplicates: i64,
    pub(crate) conflicts: i64,
    pub(crate) strayed_copies: i64,
}

/// Cells of a query result whose columns are named as the fields of [`Cell`].
pub(crate) fn cells_of(batch: &RecordBatch) -> Result<Vec<Cell>, BillingError> {
    let minutes = column(batch, "minute")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| mistyped("minute"))?;
    let bigints = |name| -> Result<_, BillingError> {
        column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(name))
    };
    let (campaigns, ads, revisions) = (bigints("campaign_id")?, bigints("ad_id")?, bigints("terms_revision")?);
    let (clicks, invalid, duplicates) = (bigints("clicks")?, bigints("invalid_clicks")?, bigints("duplicates")?);
    let (conflicts, strayed) = (bigints("conflicts")?, bigints("strayed_copies")?);
    Ok((0..batch.num_rows())
        .map(|row| Cell {
            campaign_id: campaigns.value(row),
            ad_id: ads.value(row),
            minute: minutes.value(row),
            terms_revision: revisions.value(row),
            clicks: clicks.value(row),
            invalid_clicks: invalid.value(row),
            duplicates: duplicates.value(row),
            conflicts: conflicts.value(row),
            strayed_copies: strayed.value(row),
        })
        .collect())
}

pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a dyn Array, BillingError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| mistyped(name))
}

pub(crate) fn mistyped(name: &'static str) -> BillingError {
    BillingError::Worker(format!("the batch query's column {name} is not what it should be"))
}

/// Collects every shard's cells in a table of this session, so that memory is one shard's and the transaction that
/// replaces results is short.
pub(super) async fn create_stage(session: &mut PgConnection) -> Result<(), BillingError> {
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS pg_temp.batch_stage;
         CREATE TEMPORARY TABLE batch_stage (
            campaign_id bigint NOT NULL, ad_id bigint NOT NULL, minute timestamptz NOT NULL, terms_revision bigint NOT NULL,
            clicks bigint NOT NULL, invalid_clicks bigint NOT NULL, duplicates bigint NOT NULL, conflicts bigint NOT NULL,
            strayed_copies bigint NOT NULL)",
    )
    .execute(session)
    .await?;
    Ok(())
}

pub(super) async fn stage(session: &mut PgConnection, cells: &[Cell]) -> Result<(), BillingError> {
    use std::fmt::Write as _;
    if cells.is_empty() {
        return Ok(());
    }
    let mut text = String::with_capacity(cells.len() * 64);
    for cell in cells {
        let minute =
            DateTime::from_timestamp(i64::from(cell.minute) * 60, 0).ok_or(BillingError::Overflow("minute"))?;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            cell.campaign_id,
            cell.ad_id,
            minute.to_rfc3339(),
            cell.terms_revision,
            cell.clicks,
            cell.invalid_clicks,
            cell.duplicates,
            cell.conflicts,
            cell.strayed_copies
        );
    }
    let mut copy = session.copy_in_raw("COPY pg_temp.batch_stage FROM STDIN").await?;
    copy.send(text.as_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// Sums over the staged cells, for the run's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StagedTotals {
    pub(super) clicks: u64,
    pub(super) invalid_clicks: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
}

impl StagedTotals {
    pub(super) fn add(&mut self, cells: &[Cell]) -> Result<(), BillingError> {
        for cell in cells {
            self.clicks += unsigned(cell.clicks, "clicks")?;
            self.invalid_clicks += unsigned(cell.invalid_clicks, "clicks")?;
            self.duplicates += unsigned(cell.duplicates, "clicks")?;
            self.conflicts += unsigned(cell.conflicts, "clicks")?;
        }
        Ok(())
    }
}
