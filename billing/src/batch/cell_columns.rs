//! Cells as the columns of a query result.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use clicktally_database::billing::StagedCell;
use clicktally_proto::event_time::Minute;

use crate::error::BillingError;

/// Cells of a query result whose columns are named as the fields of [`StagedCell`].
pub(crate) fn cells_of(batch: &RecordBatch) -> Result<Vec<StagedCell>, BillingError> {
    let minutes = column(batch, "minute")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| mistyped("minute"))?;
    let bigints = |name| -> Result<_, BillingError> {
        column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(name))
    };
    let (campaigns, ads, revisions) = (bigints("campaign_id")?, bigints("ad_id")?, bigints("terms_revision")?);
    let (clicks, invalid, duplicates) = (bigints("clicks")?, bigints("invalid_clicks")?, bigints("duplicates")?);
    let (conflicts, strayed) = (bigints("conflicts")?, bigints("strayed_copies")?);
    Ok((0..batch.num_rows())
        .map(|row| StagedCell {
            campaign_id: campaigns.value(row),
            ad_id: ads.value(row),
            minute: Minute(minutes.value(row)),
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
