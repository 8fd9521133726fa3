//! Everything billing shows of a day: its runs, documents and lines, and the clicks that are not billed.

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::FromRow;

use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;

/// Everything billing knows of a day; the lists are empty where it was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    pub day: Day,
    pub runs: Vec<RunRow>,
    pub documents: Vec<DocumentRow>,
    pub lines: Vec<LineRow>,
    pub campaigns: Vec<CampaignRow>,
    pub differences: Vec<DifferenceRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct RunRow {
    pub revision: i32,
    pub state: String,
    pub manifest_sha256: String,
    pub files: i64,
    pub rows_read: i64,
    pub unique_valid_clicks: i64,
    pub invalid_clicks: i64,
    pub duplicates: i64,
    pub conflicts: i64,
    pub quarantined: i64,
    pub misrouted: i64,
    pub malformed: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct DocumentRow {
    pub invoice_id: String,
    pub revision: i32,
    pub advertiser_id: i64,
    pub currency: String,
    pub kind: String,
    pub state: String,
    pub amount_micros: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct LineRow {
    pub invoice_id: String,
    pub line: i32,
    pub campaign_id: i64,
    pub campaign_name: String,
    pub terms_revision: i64,
    pub clicks: i64,
    pub price_micros: i64,
    pub amount_micros: i64,
    pub unbilled_clicks: i64,
    pub manifest_sha256: String,
}

/// The newest run's view of a campaign, billable or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct CampaignRow {
    pub campaign_id: i64,
    pub terms_revision: i64,
    pub clicks: i64,
    pub invalid_clicks: i64,
    pub billed_clicks: i64,
    pub amount_micros: i64,
    pub unbilled_cause: Option<String>,
}

/// One difference that the last reconciliation found, per campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct DifferenceRow {
    pub campaign_id: i64,
    pub cause: String,
    pub stream_clicks: i64,
    pub billed_clicks: i64,
    pub clicks: i64,
}

/// # Errors
/// `Sql`.
pub async fn statement(database: &Database, day: Day) -> Result<Statement, DatabaseError> {
    let date = day.date();
    let runs = sqlx::query_as(
        "SELECT revision, state, manifest_sha256::text, cardinality(files)::bigint AS files, rows_read, unique_valid_clicks,
            invalid_clicks, duplicates, conflicts, quarantined, misrouted, malformed
         FROM billing.batch_run WHERE day = $1 ORDER BY revision",
    )
    .bind(date)
    .fetch_all(database.pool())
    .await?;
    let documents = sqlx::query_as(
        "SELECT invoice_id, revision, advertiser_id, currency::text, kind, state, amount_micros
         FROM billing.invoice WHERE day = $1 ORDER BY revision, advertiser_id, currency",
    )
    .bind(date)
    .fetch_all(database.pool())
    .await?;
    let lines = sqlx::query_as(
        "SELECT invoice_id, line, campaign_id, campaign_name, terms_revision, clicks, price_micros, line.amount_micros,
            unbilled_clicks, manifest_sha256::text
         FROM billing.invoice_line line JOIN billing.invoice USING (invoice_id)
         WHERE day = $1 ORDER BY revision, invoice_id, line",
    )
    .bind(date)
    .fetch_all(database.pool())
    .await?;
    let campaigns = sqlx::query_as(
        "SELECT campaign_id, terms_revision, clicks, invalid_clicks, billed_clicks, amount_micros, unbilled_cause
         FROM billing.batch_campaign_day WHERE day = $1 ORDER BY campaign_id, terms_revision",
    )
    .bind(date)
    .fetch_all(database.pool())
    .await?;
    let differences = sqlx::query_as(
        "SELECT campaign_id, cause, stream_clicks, batch_clicks AS billed_clicks, clicks
         FROM billing.reconciliation WHERE day = $1 AND scope = 'campaign' ORDER BY campaign_id, cause",
    )
    .bind(date)
    .fetch_all(database.pool())
    .await?;
    Ok(Statement { day, runs, documents, lines, campaigns, differences })
}

/// The days that have a batch run, in order.
///
/// # Errors
/// `Sql`.
pub async fn days_run(database: &Database) -> Result<Vec<Day>, DatabaseError> {
    let days: Vec<NaiveDate> = sqlx::query_scalar("SELECT DISTINCT day FROM billing.batch_run ORDER BY day")
        .fetch_all(database.pool())
        .await?;
    Ok(days.into_iter().map(Day::from).collect())
}
