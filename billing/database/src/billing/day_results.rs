//! The one transaction that replaces a day's results: `billing.batch_run`, `billing.batch_ad_minute`,
//! `billing.batch_campaign_day`, and the documents of the day.
//!
//! This module decides nothing about money. The batch asks it for usage and for what was billed before, applies the
//! rules, and hands back rows.

use std::collections::BTreeMap;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::money::{Currency, Micros};
use sqlx::{Connection, Postgres, Row, Transaction};

use super::documents::{NewDocument, insert_document};
use super::stage::Stage;
use crate::column::{from_bigint, to_bigint, to_currency, to_timestamp};
use crate::day::Day;
use crate::error::DatabaseError;
use crate::locks::{AdvisoryLock, lock_in_transaction};

/// A row of `billing.batch_run`, without its revision.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub day: Day,
    pub manifest_sha256: String,
    pub files: Vec<String>,
    pub rows_read: u64,
    pub unique_valid_clicks: u64,
    pub invalid_clicks: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub quarantined: u64,
    pub misrouted: u64,
    pub malformed: u64,
    pub computed_at_ms: UnixMillis,
}

/// A campaign's distinct clicks of a day under one revision of its terms; revision 0 where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub campaign_id: i64,
    pub terms_revision: i64,
    /// Valid ones.
    pub clicks: u64,
    pub invalid_clicks: u64,
}

/// What finalised documents of the day bill under one revision of a campaign's terms, summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledLine {
    pub campaign_id: i64,
    pub terms_revision: i64,
    pub clicks: i64,
    pub amount_micros: Micros,
}

/// A row of `billing.batch_campaign_day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignDay {
    pub usage: Usage,
    /// Advertiser, currency and price; absent where the catalogue has no terms.
    pub agreed: Option<(i64, Currency, Micros)>,
    pub billed_clicks: u64,
    pub amount_micros: Micros,
    pub unbilled_cause: Option<&'static str>,
}

/// What documents of other days than the one being billed bill a campaign in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BilledElsewhere {
    pub earlier_micros: Micros,
    /// (Terms revision, amount) of later days, in order of day and revision. A rerun of an earlier day finds them.
    pub later: Vec<(i64, Micros)>,
}

/// By campaign and currency.
pub type BilledByCampaign = BTreeMap<(i64, Currency), BilledElsewhere>;

/// Nothing is visible, and the budgets stay locked, until [`DayReplacement::commit`]. Dropping it changes nothing.
#[derive(Debug)]
pub struct DayReplacement<'a> {
    t: Transaction<'a, Postgres>,
    day: Day,
    revision: i32,
    manifest_sha256: String,
    settled_bill: Option<String>,
}

impl Stage {
    /// 1. Lock, so that nothing else bills the same budgets meanwhile. 2. Delete the day's drafts. 3. Replace its
    ///    windows by the staged ones.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`; `Damaged` for a revision that no run of ours has.
    pub async fn replace_day(&mut self, run: &NewRun) -> Result<DayReplacement<'_>, DatabaseError> {
        assert!(run.conflicts <= run.duplicates, "only a duplicate can conflict with the first copy");
        let mut t = self.connection().begin().await?;
        lock_in_transaction(&mut t, AdvisoryLock::Billing).await?;
        let date = run.day.date();
        for statement in [
            "DELETE FROM billing.invoice WHERE day = $1 AND state = 'draft'",
            "DELETE FROM billing.batch_run WHERE day = $1 AND state = 'draft'",
            "DELETE FROM billing.batch_campaign_day WHERE day = $1",
            "DELETE FROM billing.batch_ad_minute
             WHERE minute >= $1::timestamp AT TIME ZONE 'UTC' AND minute < ($1 + 1)::timestamp AT TIME ZONE 'UTC'",
        ] {
            sqlx::query(statement).bind(date).execute(&mut *t).await?;
        }
        sqlx::query(
            "INSERT INTO billing.batch_ad_minute
                (minute, ad_id, campaign_id, clicks, invalid_clicks, duplicates, strayed_copies)
             SELECT minute, ad_id, campaign_id, sum(clicks), sum(invalid_clicks), sum(duplicates), sum(strayed_copies)
             FROM pg_temp.batch_stage GROUP BY minute, ad_id, campaign_id ORDER BY minute, ad_id, campaign_id",
        )
        .execute(&mut *t)
        .await?;
        let revision: i32 = sqlx::query_scalar(
            "SELECT coalesce(max(revision), 0) + 1 FROM billing.batch_run WHERE day = $1 AND state = 'final'",
        )
        .bind(date)
        .fetch_one(&mut *t)
        .await?;
        if revision < 1 {
            let detail = format!("a final run of {} whose revision is below 1", run.day);
            return Err(DatabaseError::Damaged { table: "billing.batch_run", detail });
        }
        let settled_bill: Option<Option<String>> = sqlx::query_scalar(
            "SELECT bill_sha256::text FROM billing.batch_run WHERE day = $1 AND revision = $2 AND state = 'final'",
        )
        .bind(date)
        .bind(revision - 1)
        .fetch_optional(&mut *t)
        .await?;
        let (day, manifest_sha256) = (run.day, run.manifest_sha256.clone());
        Ok(DayReplacement { t, day, revision, manifest_sha256, settled_bill: settled_bill.flatten() })
    }
}

impl DayReplacement<'_> {
    /// 1 for a day without finalised documents; it grows by one with each finalisation.
    pub fn revision(&self) -> i32 {
        self.revision
    }

    /// The bill of the newest final run, as a hash. `None`: there is no such run, or an earlier build ran it.
    pub fn settled_bill(&self) -> Option<&str> {
        self.settled_bill.as_deref()
    }

    /// Records the run, before its documents.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn record_run(&mut self, run: &NewRun, bill_sha256: &str) -> Result<(), DatabaseError> {
        insert_run(&mut self.t, run, self.revision, bill_sha256).await
    }

    /// What the staged cells sum to.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn usage(&mut self) -> Result<Vec<Usage>, DatabaseError> {
        sqlx::query(
            "SELECT campaign_id, terms_revision, sum(clicks)::bigint AS clicks, sum(invalid_clicks)::bigint AS invalid_clicks
             FROM pg_temp.batch_stage GROUP BY campaign_id, terms_revision
             HAVING sum(clicks) > 0 OR sum(invalid_clicks) > 0",
        )
        .fetch_all(&mut *self.t)
        .await?
        .iter()
        .map(|row| {
            Ok(Usage {
                campaign_id: row.try_get("campaign_id")?,
                terms_revision: row.try_get("terms_revision")?,
                clicks: from_bigint(row.try_get("clicks")?, "clicks")?,
                invalid_clicks: from_bigint(row.try_get("invalid_clicks")?, "clicks")?,
            })
        })
        .collect()
    }

    /// What documents of all other days bill the staged campaigns, by campaign and currency.
    ///
    /// # Errors
    /// `Sql`; `Currency`; `Damaged` for a sum below zero, because that would raise the campaign's budget.
    pub async fn billed_on_other_days(&mut self) -> Result<BilledByCampaign, DatabaseError> {
        let rows = sqlx::query(
            "SELECT campaign_id, currency::text AS currency, day > $1 AS is_later,
                CASE WHEN day > $1 THEN day END AS later_day, CASE WHEN day > $1 THEN terms_revision END AS later_revision,
                sum(line.amount_micros)::bigint AS amount_micros
             FROM billing.invoice_line line JOIN billing.invoice USING (invoice_id)
             WHERE day <> $1 AND campaign_id IN (SELECT campaign_id FROM pg_temp.batch_stage)
             GROUP BY campaign_id, currency, is_later, later_day, later_revision
             ORDER BY later_day, later_revision",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?;
        let mut billed = BilledByCampaign::new();
        for row in rows {
            let (campaign_id, amount_micros): (i64, Micros) =
                (row.try_get("campaign_id")?, row.try_get("amount_micros")?);
            if amount_micros < 0 {
                let detail = format!("the lines of campaign {campaign_id} take back more than they bill");
                return Err(DatabaseError::Damaged { table: "billing.invoice_line", detail });
            }
            let of_campaign = billed.entry((campaign_id, to_currency(row.try_get("currency")?)?)).or_default();
            if row.try_get("is_later")? {
                of_campaign.later.push((row.try_get("later_revision")?, amount_micros));
            } else {
                of_campaign.earlier_micros = amount_micros;
            }
        }
        Ok(billed)
    }

    /// What the day's documents bill already. The drafts were deleted, so these are final.
    ///
    /// # Errors
    /// `Sql`; `Damaged` for documents without a final run.
    pub async fn settled_lines(&mut self) -> Result<Vec<SettledLine>, DatabaseError> {
        let settled: Vec<SettledLine> = sqlx::query(
            "SELECT campaign_id, terms_revision, sum(clicks)::bigint AS clicks, sum(line.amount_micros)::bigint AS amount_micros
             FROM billing.invoice_line line JOIN billing.invoice USING (invoice_id)
             WHERE day = $1 GROUP BY campaign_id, terms_revision",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?
        .iter()
        .map(|row| {
            Ok(SettledLine {
                campaign_id: row.try_get("campaign_id")?,
                terms_revision: row.try_get("terms_revision")?,
                clicks: row.try_get("clicks")?,
                amount_micros: row.try_get("amount_micros")?,
            })
        })
        .collect::<Result<_, DatabaseError>>()?;
        if self.revision == 1 && !settled.is_empty() {
            let detail = format!("documents of {} that belong to no final run", self.day);
            return Err(DatabaseError::Damaged { table: "billing.invoice", detail });
        }
        Ok(settled)
    }

    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn add_campaign_day(&mut self, row: &CampaignDay) -> Result<(), DatabaseError> {
        assert!(row.billed_clicks <= row.usage.clicks, "no more clicks are billed than were counted");
        assert!(row.amount_micros >= 0, "a day's usage costs nothing or something, never less");
        assert_eq!(
            row.unbilled_cause.is_some(),
            row.billed_clicks < row.usage.clicks,
            "clicks that are not billed have a cause, and only they"
        );
        sqlx::query(
            "INSERT INTO billing.batch_campaign_day (day, campaign_id, terms_revision, advertiser_id, currency, price_micros,
                clicks, invalid_clicks, billed_clicks, amount_micros, unbilled_cause)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(self.day.date())
        .bind(row.usage.campaign_id)
        .bind(row.usage.terms_revision)
        .bind(row.agreed.map(|(advertiser_id, _, _)| advertiser_id))
        .bind(row.agreed.map(|(_, currency, _)| currency.as_str().to_owned()))
        .bind(row.agreed.map(|(_, _, price_micros)| price_micros))
        .bind(to_bigint(row.usage.clicks, "clicks")?)
        .bind(to_bigint(row.usage.invalid_clicks, "clicks")?)
        .bind(to_bigint(row.billed_clicks, "clicks")?)
        .bind(row.amount_micros)
        .bind(row.unbilled_cause)
        .execute(&mut *self.t)
        .await?;
        Ok(())
    }

    /// Adds a draft with its lines.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn add_document(&mut self, document: &NewDocument<'_>) -> Result<(), DatabaseError> {
        assert_eq!(document.day, self.day, "a day's run writes documents of that day only");
        assert_eq!(document.revision, self.revision, "a run and its documents share one revision");
        insert_document(&mut self.t, document, &self.manifest_sha256).await
    }

    /// # Errors
    /// `Sql`: the outcome is unknown if the connection was lost, and the run may be repeated.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        Ok(self.t.commit().await?)
    }
}

async fn insert_run(
    t: &mut Transaction<'_, Postgres>,
    run: &NewRun,
    revision: i32,
    bill_sha256: &str,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO billing.batch_run (day, revision, state, manifest_sha256, files, rows_read, unique_valid_clicks,
            invalid_clicks, duplicates, conflicts, quarantined, misrouted, malformed, computed_at, bill_sha256)
         VALUES ($1, $2, 'draft', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(run.day.date())
    .bind(revision)
    .bind(&run.manifest_sha256)
    .bind(&run.files)
    .bind(to_bigint(run.rows_read, "rows")?)
    .bind(to_bigint(run.unique_valid_clicks, "clicks")?)
    .bind(to_bigint(run.invalid_clicks, "clicks")?)
    .bind(to_bigint(run.duplicates, "clicks")?)
    .bind(to_bigint(run.conflicts, "clicks")?)
    .bind(to_bigint(run.quarantined, "clicks")?)
    .bind(to_bigint(run.misrouted, "clicks")?)
    .bind(to_bigint(run.malformed, "clicks")?)
    .bind(to_timestamp(run.computed_at_ms)?)
    .bind(bill_sha256)
    .execute(&mut **t)
    .await?;
    Ok(())
}
