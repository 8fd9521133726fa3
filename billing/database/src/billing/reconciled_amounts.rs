//! `billing.reconciled_amount`: what stream and batch charge for the clicks of a campaign-day. Read and written within
//! the one transaction of a reconciliation.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::Minute;
use clicktally_proto::money::{Currency, Micros};
use futures::TryStreamExt;
use sqlx::Row;

use super::amounts::{Amounts, CampaignAmounts, CurrencyAmounts};
use super::reconciliation::Reconciliation;
use crate::column::{not_negative, to_currency, to_minute};
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;

/// Valid clicks of a campaign as each side counts them, and what the stream charged for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedClicks {
    pub campaign_id: i64,
    /// One row has the whole day, under its last minute, if the campaign has had one price since an hour before it.
    pub minute: Minute,
    pub batch_clicks: i64,
    pub stream_clicks: i64,
    pub stream_micros: Micros,
    /// The log index of the newest change of the stream's counts; 0 where it has none.
    pub newest_revision: i64,
}

/// What the batch makes of a campaign-day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchAmounts {
    /// Clicks × price, before budgets.
    pub cost_micros: Micros,
    pub billed_micros: Micros,
}

impl Reconciliation<'_> {
    /// In order of campaign and minute.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn priced_clicks(&mut self) -> Result<Vec<PricedClicks>, DatabaseError> {
        // Sums saturate: an amount beyond all bounds differs from every other, and must not hide them.
        let mut rows = sqlx::query(
            "WITH repriced AS (
                SELECT campaign_id FROM catalog.campaign_terms GROUP BY campaign_id
                HAVING min(cost_per_click_micros) <> max(cost_per_click_micros)
                    OR min(effective_from) > $1 - interval '1 hour')
             SELECT campaign_id, max(minute) AS minute, coalesce(sum(batch.clicks), 0)::bigint AS batch_clicks,
                coalesce(sum(stream.clicks), 0)::bigint AS stream_clicks,
                least(coalesce(sum(stream.spend_micros), 0), 9223372036854775807)::bigint AS stream_micros,
                coalesce(max(stream.revision), 0) AS newest_revision
             FROM (SELECT * FROM billing.batch_ad_minute WHERE minute >= $1 AND minute < $1 + interval '1 day') batch
             FULL JOIN (SELECT * FROM reports.ad_minute WHERE minute >= $1 AND minute < $1 + interval '1 day') stream
                USING (minute, ad_id, campaign_id)
             LEFT JOIN repriced USING (campaign_id)
             GROUP BY campaign_id, CASE WHEN repriced.campaign_id IS NOT NULL THEN minute END
             ORDER BY 1, 2",
        )
        .bind(self.day.start())
        .fetch(&mut *self.t);
        let mut clicks = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let start: DateTime<Utc> = row.try_get("minute")?;
            clicks.push(PricedClicks {
                campaign_id: row.try_get("campaign_id")?,
                minute: to_minute(start)?,
                batch_clicks: not_negative(row.try_get("batch_clicks")?, "clicks")?,
                stream_clicks: not_negative(row.try_get("stream_clicks")?, "clicks")?,
                stream_micros: not_negative(row.try_get("stream_micros")?, "spend")?,
                newest_revision: row.try_get("newest_revision")?,
            });
        }
        Ok(clicks)
    }

    /// By campaign.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn batch_amounts(&mut self) -> Result<HashMap<i64, BatchAmounts>, DatabaseError> {
        let rows: Vec<(i64, Micros, Micros)> = sqlx::query_as(
            "SELECT campaign_id,
                least(coalesce(sum(clicks::numeric * price_micros), 0), 9223372036854775807)::bigint AS cost_micros,
                least(sum(amount_micros), 9223372036854775807)::bigint AS billed_micros
             FROM billing.batch_campaign_day WHERE day = $1 GROUP BY campaign_id",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?;
        let amounts = rows.into_iter().map(|(campaign_id, cost_micros, billed_micros)| {
            (campaign_id, BatchAmounts { cost_micros, billed_micros })
        });
        Ok(amounts.collect())
    }

    pub(super) async fn replace_amounts(&mut self, rows: &[CampaignAmounts]) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM billing.reconciled_amount WHERE day = $1")
            .bind(self.day.date())
            .execute(&mut *self.t)
            .await?;
        let column =
            |value: fn(&Amounts) -> Micros| rows.iter().map(|row| value(&row.amounts)).collect::<Vec<Micros>>();
        let campaigns: Vec<i64> = rows.iter().map(|row| row.campaign_id).collect();
        let currencies: Vec<Option<&str>> =
            rows.iter().map(|row| row.currency.as_ref().map(Currency::as_str)).collect();
        sqlx::query(
            "INSERT INTO billing.reconciled_amount (day, campaign_id, currency, stream_micros, batch_micros, billed_micros,
                counted_micros, terms_changed_micros, unexplained_micros)
             SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::bigint[])",
        )
        .bind(self.day.date())
        .bind(campaigns)
        .bind(currencies)
        .bind(column(|amounts| amounts.stream_micros))
        .bind(column(|amounts| amounts.batch_micros))
        .bind(column(|amounts| amounts.billed_micros))
        .bind(column(|amounts| amounts.counted_micros))
        .bind(column(|amounts| amounts.terms_changed_micros))
        .bind(column(|amounts| amounts.unexplained_micros))
        .execute(&mut *self.t)
        .await?;
        Ok(())
    }
}

/// The amounts that the last reconciliation of the day compared, by currency.
///
/// # Errors
/// `Sql`; `Currency`.
pub async fn amounts_by_currency(database: &Database, day: Day) -> Result<Vec<CurrencyAmounts>, DatabaseError> {
    // Sums saturate, as the amounts of a campaign do.
    let rows = sqlx::query(
        "SELECT currency::text AS currency,
            least(sum(stream_micros), 9223372036854775807)::bigint AS stream_micros,
            least(sum(batch_micros), 9223372036854775807)::bigint AS batch_micros,
            least(sum(billed_micros), 9223372036854775807)::bigint AS billed_micros,
            greatest(-9223372036854775807, least(sum(counted_micros), 9223372036854775807))::bigint AS counted_micros,
            greatest(-9223372036854775807, least(sum(terms_changed_micros), 9223372036854775807))::bigint
                AS terms_changed_micros,
            least(sum(unexplained_micros), 9223372036854775807)::bigint AS unexplained_micros
         FROM billing.reconciled_amount WHERE day = $1 GROUP BY currency ORDER BY currency NULLS FIRST",
    )
    .bind(day.date())
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let amounts = Amounts {
                stream_micros: row.try_get("stream_micros")?,
                batch_micros: row.try_get("batch_micros")?,
                billed_micros: row.try_get("billed_micros")?,
                counted_micros: row.try_get("counted_micros")?,
                terms_changed_micros: row.try_get("terms_changed_micros")?,
                unexplained_micros: row.try_get("unexplained_micros")?,
            };
            let currency = row.try_get::<Option<String>, _>("currency")?.map(to_currency).transpose()?;
            Ok(CurrencyAmounts { currency, amounts })
        })
        .collect()
}
