//! The batch's questions to the archive, in SQL: the rules of counting, written a second time and differently.
//!
//! One shard at a time: identity determines the shard, so no copy of a click is in another one's files. Sorting
//! spills to disk beyond the memory given.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use clicktally_database::Day;
use clicktally_database::billing::{ManifestFile, StagedCell};
use clicktally_database::reports::LateRecord;
use clicktally_proto::click::invalid_traffic::ROBOT_FRAGMENTS;
use clicktally_proto::event_time::WINDOW_MS;
use clicktally_proto::identity::shard_key::ShardId;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use url::Url;

use super::cell_columns::{cells_of, column, mistyped};
use super::options::BatchOptions;
use crate::archive::{ArchiveStore, schema};
use crate::bill::TermsInterval;
use crate::error::{BillingError, unsigned};

const STORE_URL: &str = "archive://store";
/// Threads of one query: the batch has no deadline, and shares the machine.
const PARTITIONS: usize = 2;

/// What lies in a shard's files besides the day's clicks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SetAside {
    pub(crate) rows_read: u64,
    /// Clicks dated too far ahead of their arrival, and ids beyond what PostgreSQL holds.
    pub(crate) quarantined: u64,
    /// In a partition they do not belong to: republished to their own.
    pub(crate) misrouted: u64,
    pub(crate) malformed: u64,
}

/// One shard's files of one day, ready to be asked.
pub(crate) struct ShardQuery {
    session: SessionContext,
    day: Day,
    max_ahead_ms: u64,
}

impl ShardQuery {
    /// # Errors
    /// `Query` when a file is absent or not readable as the published schema.
    pub(crate) async fn open(
        store: &ArchiveStore,
        files: &[&ManifestFile],
        day: Day,
        options: &BatchOptions,
    ) -> Result<ShardQuery, BillingError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(options.memory_bytes_max)))
            .build_arc()?;
        let config = SessionConfig::new().with_target_partitions(PARTITIONS);
        let session = SessionContext::new_with_config_rt(config, runtime);
        let url = Url::parse(STORE_URL).map_err(|e| BillingError::Worker(e.to_string()))?;
        session.register_object_store(&url, store.objects());
        // Exactly the manifest's files, by name: an orphan beside them is never read.
        let paths: Vec<String> = files.iter().map(|file| format!("{STORE_URL}/{}", file.file)).collect();
        let schema = schema();
        let archived = session.read_parquet(paths, ParquetReadOptions::default().schema(&schema)).await?;
        session.register_table("archived", archived.into_view())?;
        Ok(ShardQuery { session, day, max_ahead_ms: options.max_ahead_ms })
    }

    /// The shard's cells of the day, in pieces: see [`super::cell_columns::cells_of`].
    pub(crate) async fn cells(&self, terms: &[TermsInterval]) -> Result<SendableRecordBatchStream, BillingError> {
        self.register("terms", terms_batch(terms)?)?;
        let (from, to) = (unsigned_sql(self.day.start_ms()), unsigned_sql(self.day.end_ms()));
        let copies = copies_sql(self.max_ahead_ms);
        let minute_ms = unsigned_sql(WINDOW_MS);
        // The day is cut after copies have met: a copy dated into another day must still lose to the first one.
        let sql = format!(
            "WITH {copies}
             SELECT arrow_cast(copies.campaign_id, 'Int64') AS campaign_id, arrow_cast(copies.ad_id, 'Int64') AS ad_id,
                arrow_cast(minute, 'UInt32') AS minute, coalesce(terms.revision, 0) AS terms_revision,
                count(*) FILTER (WHERE copy = 1 AND is_valid) AS clicks,
                count(*) FILTER (WHERE copy = 1 AND NOT is_valid) AS invalid_clicks,
                count(*) FILTER (WHERE copy > 1) AS duplicates,
                count(*) FILTER (WHERE copy > 1 AND (campaign_id <> first_campaign OR ad_id <> first_ad
                    OR event_time_ms <> first_event_time OR is_valid <> first_is_valid)) AS conflicts,
                count(*) FILTER (WHERE copy > 1 AND is_valid AND (campaign_id <> first_campaign OR ad_id <> first_ad
                    OR minute <> first_event_time / {minute_ms})) AS strayed_copies
             FROM copies
             LEFT JOIN terms ON copies.campaign_id = terms.terms_campaign_id
                AND copies.event_time_ms >= terms.from_ms AND copies.event_time_ms < terms.to_ms
                AND (copies.event_time_ms >= terms.agreed_ms OR copies.arrival_ms >= terms.agreed_ms)
             WHERE event_time_ms >= {from} AND event_time_ms < {to}
             GROUP BY 1, 2, 3, 4"
        );
        Ok(self.session.sql(&sql).await?.execute_stream().await?)
    }

    /// Rows that are in the files and in no cell, of whatever day the files hold.
    pub(crate) async fn set_aside(&self) -> Result<SetAside, BillingError> {
        let usable = usable_sql(self.max_ahead_ms);
        let sql = format!(
            "SELECT count(*) AS rows_read,
                count(*) FILTER (WHERE malformed IS NOT NULL) AS malformed,
                count(*) FILTER (WHERE malformed IS NULL AND home_shard <> shard) AS misrouted,
                count(*) FILTER (WHERE malformed IS NULL AND home_shard = shard AND NOT ({usable})) AS quarantined
             FROM archived"
        );
        let batches = self.session.sql(&sql).await?.collect().await?;
        let batch = batches.first().ok_or_else(|| mistyped("rows_read"))?;
        let value = |name| -> Result<u64, BillingError> {
            let column = column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(name))?;
            unsigned(column.value(0), name)
        };
        Ok(SetAside {
            rows_read: value("rows_read")?,
            quarantined: value("quarantined")?,
            misrouted: value("misrouted")?,
            malformed: value("malformed")?,
        })
    }

    /// Cells of the valid clicks that the batch counts from one of these very records, which the stream declared
    /// late. A late *copy* of a click counted in time explains nothing and is left out.
    pub(crate) async fn late_winners(&self, late: &[LateRecord]) -> Result<Vec<StagedCell>, BillingError> {
        let batch = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                Field::new("late_click_id", DataType::UInt64, false),
                Field::new("late_offset", DataType::UInt64, false),
            ])),
            vec![
                Arc::new(UInt64Array::from_iter_values(late.iter().map(|click| click.click_id))),
                Arc::new(UInt64Array::from_iter_values(late.iter().map(|click| click.log_offset))),
            ],
        )?;
        self.register("late", batch)?;
        let (from, to) = (unsigned_sql(self.day.start_ms()), unsigned_sql(self.day.end_ms()));
        let copies = copies_sql(self.max_ahead_ms);
        let sql = format!(
            "WITH {copies}
             SELECT arrow_cast(campaign_id, 'Int64') AS campaign_id, arrow_cast(ad_id, 'Int64') AS ad_id,
                arrow_cast(minute, 'UInt32') AS minute, 0::bigint AS terms_revision, count(*) AS clicks,
                0::bigint AS invalid_clicks, 0::bigint AS duplicates, 0::bigint AS conflicts, 0::bigint AS strayed_copies
             FROM copies JOIN late ON click_id = late_click_id AND log_offset = late_offset
             WHERE copy = 1 AND is_valid AND event_time_ms >= {from} AND event_time_ms < {to}
             GROUP BY 1, 2, 3"
        );
        let mut found = Vec::new();
        for batch in self.session.sql(&sql).await?.collect().await? {
            found.extend(cells_of(&batch)?);
        }
        Ok(found)
    }

    fn register(&self, name: &str, batch: RecordBatch) -> Result<(), BillingError> {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        self.session.deregister_table(name)?;
        self.session.register_table(name, Arc::new(table))?;
        Ok(())
    }
}

/// Every usable copy of every click, numbered in log order: copy 1 is the click, the others are duplicates.
fn copies_sql(max_ahead_ms: u64) -> String {
    let (usable, valid, minute_ms) = (usable_sql(max_ahead_ms), valid_sql(), unsigned_sql(WINDOW_MS));
    let first = |column: &str| format!("first_value({column}) OVER identity");
    let (campaign, ad, time, is_valid) =
        (first("campaign_id"), first("ad_id"), first("event_time_ms"), first("is_valid"));
    format!(
        "usable AS (
            SELECT click_id, campaign_id, ad_id, event_time_ms, arrival_ms, log_offset, position, {valid} AS is_valid
            FROM archived WHERE malformed IS NULL AND home_shard = shard AND {usable}),
         copies AS (
            SELECT click_id, campaign_id, ad_id, event_time_ms, arrival_ms, event_time_ms / {minute_ms} AS minute, log_offset,
                is_valid, row_number() OVER identity AS copy, {campaign} AS first_campaign, {ad} AS first_ad,
                {time} AS first_event_time, {is_valid} AS first_is_valid
            FROM usable
            WINDOW identity AS (PARTITION BY click_id ORDER BY log_offset, position))"
    )
}

/// An unsigned literal: mixed with a signed one, ids and times would be compared and divided as decimals.
fn unsigned_sql(value: u64) -> String {
    format!("arrow_cast({value}, 'UInt64')")
}

/// Not dated further ahead of its arrival than the contract allows, and with ids that a bigint holds.
fn usable_sql(max_ahead_ms: u64) -> String {
    let ahead_ms = unsigned_sql(max_ahead_ms);
    let bigint_max = unsigned_sql(i64::MAX.unsigned_abs());
    format!("(event_time_ms <= arrival_ms + {ahead_ms} AND campaign_id <= {bigint_max} AND ad_id <= {bigint_max})")
}

/// The definition of `proto::click::invalid_traffic`, restated. `lower` folds more than ASCII, but nothing onto these
/// letters.
fn valid_sql() -> String {
    let robots: Vec<String> = ROBOT_FRAGMENTS.iter().map(|f| format!("lower(user_agent) LIKE '%{f}%'")).collect();
    format!("(evidence = 0 AND NOT ({}))", robots.join(" OR "))
}

fn terms_batch(terms: &[TermsInterval]) -> Result<RecordBatch, BillingError> {
    let campaigns: Result<Vec<u64>, BillingError> =
        terms.iter().map(|interval| unsigned(interval.campaign_id, "campaign id")).collect();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(vec![
            Field::new("terms_campaign_id", DataType::UInt64, false),
            Field::new("revision", DataType::Int64, false),
            Field::new("from_ms", DataType::UInt64, false),
            Field::new("to_ms", DataType::UInt64, false),
            Field::new("agreed_ms", DataType::UInt64, false),
        ])),
        vec![
            Arc::new(UInt64Array::from(campaigns?)),
            Arc::new(Int64Array::from_iter_values(terms.iter().map(|interval| interval.revision))),
            Arc::new(UInt64Array::from_iter_values(terms.iter().map(|interval| interval.from_ms))),
            Arc::new(UInt64Array::from_iter_values(terms.iter().map(|interval| interval.to_ms))),
            Arc::new(UInt64Array::from_iter_values(terms.iter().map(|interval| interval.agreed_ms))),
        ],
    )?)
}

/// Groups files by shard; they come ordered by it.
pub(crate) fn by_shard(files: &[ManifestFile]) -> impl Iterator<Item = (ShardId, Vec<&ManifestFile>)> {
    files.chunk_by(|a, b| a.shard == b.shard).filter_map(|files| Some((files.first()?.shard, files.iter().collect())))
}
