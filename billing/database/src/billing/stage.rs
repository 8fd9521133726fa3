//! A temporary table that collects the cells of every shard, so that memory holds one shard at a time and the
//! transaction that replaces results stays short.

use clicktally_proto::event_time::Minute;
use sqlx::PgConnection;

use crate::binary_copy::{CopyTarget, copy_rows};
use crate::connection::Database;
use crate::error::DatabaseError;

const STAGE: CopyTarget = CopyTarget { table: "pg_temp.batch_stage", columns: 9 };

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
    /// `Sql`; `OutOfRange`; `Miscounted`.
    pub async fn add(&mut self, cells: &[StagedCell]) -> Result<(), DatabaseError> {
        if cells.is_empty() {
            return Ok(());
        }
        copy_rows(&mut self.connection, STAGE, cells, |fields, cell| {
            assert!(cell.clicks >= 0 && cell.invalid_clicks >= 0, "a shard counts clicks, it never takes one back");
            assert!(cell.conflicts <= cell.duplicates, "only a duplicate can conflict with the first copy");
            fields.int8(cell.campaign_id);
            fields.int8(cell.ad_id);
            fields.timestamptz(cell.minute.start_ms())?;
            fields.int8(cell.terms_revision);
            fields.int8(cell.clicks);
            fields.int8(cell.invalid_clicks);
            fields.int8(cell.duplicates);
            fields.int8(cell.conflicts);
            fields.int8(cell.strayed_copies);
            Ok(())
        })
        .await?;
        self.cells += cells.len() as u64;
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
