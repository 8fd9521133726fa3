//! The window writer's adapter to PostgreSQL, on a real one.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

mod table_claims;

use std::sync::Arc;

use clicktally_database::Database;
use clicktally_embedded::{Postgres, PostgresOptions};
use clicktally_node::halts::Halts;
use clicktally_node::sink::postgres_tables::PostgresTables;
use clicktally_proto::clock::SystemClock;

use table_claims::{
    Rows, one_writes_as_long_as_its_session_lasts, rows_and_offsets_come_together_once_and_never_go_back,
};

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_what_the_window_writer_relies_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start(PostgresOptions::for_tests(folder.path().join("postgres"))).await.unwrap();
    let halts = Arc::new(Halts::new(Arc::new(SystemClock)));
    let tables = PostgresTables::new(Database::connect_and_migrate(&postgres.url()).await.unwrap(), halts);
    let pool = sqlx::PgPool::connect(&postgres.url()).await.unwrap();
    let rows = async || {
        let rows: Vec<(i64, i64, i64)> =
            sqlx::query_as("SELECT ad_id, revision, clicks FROM reports.ad_minute").fetch_all(&pool).await.unwrap();
        let unsigned = |value: i64| u64::try_from(value).unwrap();
        rows.into_iter()
            .map(|(ad, revision, clicks)| (unsigned(ad), (unsigned(revision), unsigned(clicks))))
            .collect::<Rows>()
    };
    rows_and_offsets_come_together_once_and_never_go_back(&tables, rows).await;
    one_writes_as_long_as_its_session_lasts(&tables).await;
    postgres.stop().await.unwrap();
}
