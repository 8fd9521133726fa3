//! The contract of the Sink seam, tested on the simulated tables. The adapter to real PostgreSQL has to meet the same
//! claims (`node/tests/postgres_tables/`): the simulation is worth only as much as the two agree.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[path = "../../node/tests/postgres_tables/table_claims.rs"]
mod table_claims;

use clicktally_chaos_tests::simulation::nodes::LoneTables;
use clicktally_chaos_tests::simulation::random::Seed;

use table_claims::{
    Rows, one_writes_as_long_as_its_session_lasts, rows_and_offsets_come_together_once_and_never_go_back,
};

#[tokio::test(start_paused = true)]
async fn the_simulated_tables_keep_the_promises_of_the_real_ones() {
    let lone = LoneTables::new(Seed(1));
    let tables = lone.as_node();
    let rows = async || lone.rows().map(|row| (row.ad_id, (row.revision, row.clicks))).collect::<Rows>();
    rows_and_offsets_come_together_once_and_never_go_back(&*tables, rows).await;
    one_writes_as_long_as_its_session_lasts(&*tables).await;
}
