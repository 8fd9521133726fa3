//! `billing.reconciled_amount`: what stream and batch charge for the clicks of a campaign-day. Read and written within
//! the one transaction of a reconciliation.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::Minute;
use clicktally_proto::money::{Currency, Micros};
use futures::TryStreamExt;
use sqlx::Row;

use super::reconciliation::Reconciliation;
use crate::column::{not_negative, to_minute};
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

/// A row of `billing.reconciled_amount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewAmounts {
    pub campaign_id: i64,
    pub currency: Option<Currency>,
    pub stream_micros: Micros,
    pub batch_micros: Micros,
    pub billed_micros: Micros,
    pub counted_micros: Micros,
    pub terms_changed_micros: Micros,
    pub unexplained_micros: Micros,
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

    pub(super) async fn replace_amounts(&mut self, amounts: &[NewAmounts]) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM billing.reconciled_amount WHERE day = $1")
            .bind(self.day.date())
            .execute(&mut *self.t)
            .await?;
        let column = |value: fn(&NewAmounts) -> i64| amounts.iter().map(value).collect::<Vec<i64>>();
        let currencies: Vec<Option<&str>> =
            amounts.iter().map(|row| row.currency.as_ref().map(Currency::as_str)).collect();
        sqlx::query(
            "INSERT INTO billing.reconciled_amount (day, campaign_id, currency, stream_micros, batch_micros, billed_micros,
                counted_micros, terms_changed_micros, unexplained_micros)
             SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::bigint[])",
        )
        .bind(self.day.date())
        .bind(column(|row| row.campaign_id))
        .bind(currencies)
        .bind(column(|row| row.stream_micros))
        .bind(column(|row| row.batch_micros))
        .bind(column(|row| row.billed_micros))
        .bind(column(|row| row.counted_micros))
        .bind(column(|row| row.terms_changed_micros))
        .bind(column(|row| row.unexplained_micros))
        .execute(&mut *self.t)
        .await?;
        Ok(())
    }
}
