//! A temporary table that collects the cells of every shard, so that memory holds one shard at a time and the
//! transaction that replaces results stays short.

use clicktally_proto::event_time::Minute;
use sqlx::PgConnection;

use crate::binary_copy::BinaryCopy;
use crate::connection::Database;
use crate::error::DatabaseError;

/// One (campaign, ad, minute, terms revision) of one shard. Revision 0: the catalogue has no terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedCell {
    pub campaign_id: i64,
    pub ad_id: i64,
    pub minute: Minute,
    pub terms_revision: i64,
    pub clicks: i64,
    pub invalid_clicks: i64,
    pub duplicates: i64,
    pub conflicts: i64,
    pub strayed_copies: i64,
}

/// The session of one batch run. The stage ends with it.
#[derive(Debug)]
pub struct Stage {
    connection: PgConnection,
    cells: u64,
}

impl Stage {
    /// # Errors
    /// `Sql`.
    pub async fn create(database: &Database) -> Result<Stage, DatabaseError> {
        let mut connection = database.detached().await?;
        sqlx::raw_sql(
            "CREATE TEMPORARY TABLE batch_stage (
                campaign_id bigint NOT NULL, ad_id bigint NOT NULL, minute timestamptz NOT NULL,
                terms_revision bigint NOT NULL, clicks bigint NOT NULL, invalid_clicks bigint NOT NULL,
                duplicates bigint NOT NULL, conflicts bigint NOT NULL, strayed_copies bigint NOT NULL)",
        )
        .execute(&mut connection)
        .await?;
        Ok(Stage { connection, cells: 0 })
    }

    /// Adds cells of one shard.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn add(&mut self, cells: &[StagedCell]) -> Result<(), DatabaseError> {
        if cells.is_empty() {
            return Ok(());
        }
        let mut copy = self.connection.copy_in_raw("COPY pg_temp.batch_stage FROM STDIN BINARY").await?;
        let mut rows = BinaryCopy::new(9);
        for cell in cells {
            assert!(cell.clicks >= 0 && cell.invalid_clicks >= 0, "a shard counts clicks, it never takes one back");
            assert!(cell.conflicts <= cell.duplicates, "only a duplicate can conflict with the first copy");
            rows.begin_row();
            rows.int8(cell.campaign_id);
            rows.int8(cell.ad_id);
            rows.timestamptz(cell.minute.start_ms())?;
            rows.int8(cell.terms_revision);
            rows.int8(cell.clicks);
            rows.int8(cell.invalid_clicks);
            rows.int8(cell.duplicates);
            rows.int8(cell.conflicts);
            rows.int8(cell.strayed_copies);
            if rows.is_full() {
                copy.send(rows.chunk()).await?;
                rows.clear();
            }
        }
        rows.finish();
        copy.send(rows.chunk()).await?;
        let copied = copy.finish().await?;
        assert_eq!(copied, cells.len() as u64, "COPY takes every cell or fails");
        self.cells += copied;
        Ok(())
    }

    /// Cells added so far, over all shards.
    pub fn cells(&self) -> u64 {
        self.cells
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
