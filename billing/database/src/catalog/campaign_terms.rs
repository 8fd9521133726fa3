//! `catalog.campaign_terms`: every revision of every campaign's terms. Insert-only.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::{Currency, Micros};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgConnection, Row};

use crate::column::{from_bigint, not_negative, to_currency};
use crate::connection::Database;
use crate::error::DatabaseError;

/// One revision of a campaign's terms, as the batch needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub campaign_id: i64,
    pub revision: i64,
    pub advertiser_id: i64,
    pub name: String,
    pub currency: Currency,
    pub cost_per_click_micros: Micros,
    pub budget_micros: Micros,
    pub effective_from_ms: UnixMillis,
}

/// One revision, as the replicated state holds it.
#[derive(Debug, Clone, Copy)]
pub struct NewTerms<'a> {
    pub campaign_id: CampaignId,
    pub revision: u64,
    pub advertiser_id: u64,
    pub name: &'a str,
    pub currency: Currency,
    pub cost_per_click_micros: Micros,
    pub budget_micros: Micros,
    pub tolerance_micros: Micros,
    pub effective_from_ms: UnixMillis,
}

/// All revisions of all campaigns, in no order.
///
/// # Errors
/// `Sql`; `Currency` for a code that is not one; `OutOfRange` for a price or a budget below zero.
pub async fn all_terms(database: &Database) -> Result<Vec<Terms>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT campaign_id, revision, advertiser_id, name, currency::text AS currency, cost_per_click_micros,
            budget_micros, effective_from
         FROM catalog.campaign_terms",
    )
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let effective_from: DateTime<Utc> = row.try_get("effective_from")?;
            Ok(Terms {
                campaign_id: row.try_get("campaign_id")?,
                revision: row.try_get("revision")?,
                advertiser_id: row.try_get("advertiser_id")?,
                name: row.try_get("name")?,
                currency: to_currency(row.try_get("currency")?)?,
                cost_per_click_micros: not_negative(row.try_get("cost_per_click_micros")?, "cost per click")?,
                budget_micros: not_negative(row.try_get("budget_micros")?, "budget")?,
                // Terms from before 1970 are in effect from the first click on.
                effective_from_ms: from_bigint(effective_from.timestamp_millis().max(0), "effective_from")?,
            })
        })
        .collect()
}

/// A revision that PostgreSQL does not take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTerms {
    pub campaign_id: CampaignId,
    pub revision: u64,
    pub detail: String,
}

/// Adds the revisions that are not there yet. A revision that PostgreSQL refuses is returned, and the others are added:
/// one campaign must not keep the others from being billed.
///
/// # Errors
/// `Sql` for what concerns no single row. Some revisions may be there then; repeating is harmless.
pub async fn add_terms(database: &Database, revisions: &[NewTerms<'_>]) -> Result<Vec<RefusedTerms>, DatabaseError> {
    let mut refused = Vec::new();
    let mut pieces = vec![revisions];
    while let Some(piece) = pieces.pop() {
        let error = match add_all(database, piece).await {
            Ok(()) => continue,
            Err(error) if error.refuses_a_row() => error,
            Err(error) => return Err(error),
        };
        if let [terms] = piece {
            let (campaign_id, revision) = (terms.campaign_id, terms.revision);
            refused.push(RefusedTerms { campaign_id, revision, detail: error.to_string() });
        } else {
            // Some row of the piece is refused: look for it in the halves.
            let (first, second) = piece.split_at(piece.len() / 2);
            pieces.extend([second, first]);
        }
    }
    Ok(refused)
}

/// All or none.
async fn add_all(database: &Database, revisions: &[NewTerms<'_>]) -> Result<(), DatabaseError> {
    let mut transaction = database.pool().begin().await?;
    for terms in revisions {
        let added = sqlx::query_with(
            "INSERT INTO catalog.campaign_terms (campaign_id, revision, advertiser_id, name, currency, \
             cost_per_click_micros, budget_micros, tolerance_micros, effective_from) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9::bigint / 1000.0)) ON CONFLICT DO NOTHING",
            arguments(terms)?,
        )
        .execute(&mut *transaction)
        .await?;
        if added.rows_affected() == 0 {
            require_equal(&mut transaction, terms).await?;
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// The parameters $1 to $9, in the order of the table's columns.
fn arguments(terms: &NewTerms<'_>) -> Result<PgArguments, DatabaseError> {
    let mut arguments = PgArguments::default();
    let mut add = || {
        arguments.add(terms.campaign_id.cast_signed())?;
        arguments.add(terms.revision.cast_signed())?;
        arguments.add(terms.advertiser_id.cast_signed())?;
        arguments.add(terms.name)?;
        arguments.add(terms.currency.as_str())?;
        arguments.add(terms.cost_per_click_micros)?;
        arguments.add(terms.budget_micros)?;
        arguments.add(terms.tolerance_micros)?;
        arguments.add(terms.effective_from_ms.cast_signed())
    };
    add().map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

/// A revision is an index of the cluster's own log. Equal revisions with other terms come from two clusters.
async fn require_equal(connection: &mut PgConnection, terms: &NewTerms<'_>) -> Result<(), DatabaseError> {
    let is_equal: bool = sqlx::query_scalar_with(
        "SELECT advertiser_id = $3 AND name = $4 AND currency = $5 AND cost_per_click_micros = $6 AND budget_micros = $7
            AND tolerance_micros = $8 AND effective_from = to_timestamp($9::bigint / 1000.0)
         FROM catalog.campaign_terms WHERE campaign_id = $1 AND revision = $2",
        arguments(terms)?,
    )
    .fetch_one(connection)
    .await?;
    let NewTerms { campaign_id, revision, .. } = *terms;
    if is_equal {
        Ok(())
    } else {
        Err(DatabaseError::ForeignTerms { campaign_id, revision, found: revision.cast_signed() })
    }
}

/// The newest revision of each of these campaigns that PostgreSQL has.
///
/// # Errors
/// `Sql`.
pub async fn newest_revisions(
    database: &Database,
    campaigns: &[CampaignId],
) -> Result<BTreeMap<CampaignId, i64>, DatabaseError> {
    let campaigns: Vec<i64> = campaigns.iter().map(|campaign| campaign.cast_signed()).collect();
    let rows = sqlx::query(
        "SELECT campaign_id, max(revision) AS revision FROM catalog.campaign_terms WHERE campaign_id = ANY($1)
         GROUP BY campaign_id",
    )
    .bind(campaigns)
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let campaign: i64 = row.try_get("campaign_id")?;
            Ok((campaign.cast_unsigned(), row.try_get("revision")?))
        })
        .collect()
}
