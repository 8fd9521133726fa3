//! What the window writer relies on, asked of one adapter: of PostgreSQL here, of the simulation's tables in
//! `chaos-tests/tests/sink_contract.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_node::sink::window_rows::WindowRows;
use clicktally_node::sink::window_writer::{WindowTables, WriterSession};
use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::counts::window_count::{LateClick, WindowCount};
use prost::Message;
use tokio::sync::watch;

const MINUTE: u32 = 29_453_734;
/// A lock that is held is asked for again within this.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_millis(1_500);

/// (revision, clicks) of each ad.
pub(crate) type Rows = BTreeMap<u64, (u64, u64)>;

/// One record of the outbound topic, at an offset.
fn window(offset: i64, ad_id: u64, revision: u64, clicks: u64) -> WindowRows {
    let mut rows = WindowRows::default();
    let row = WindowCount { ad_id, campaign_id: 1, minute: MINUTE, clicks, revision, state: 1, ..Default::default() };
    rows.take(WINDOW_COUNTS, 0, offset, &row.encode_to_vec());
    rows
}

fn late(offset: i64) -> WindowRows {
    let mut rows = WindowRows::default();
    let click = LateClick { click_id: 5, campaign_id: 1, ad_id: 1, shard: 3, offset: 9, ..Default::default() };
    rows.take(LATE_CLICKS, 1, offset, &click.encode_to_vec());
    rows
}

async fn obtain(tables: &dyn WindowTables) -> Box<dyn WriterSession> {
    let (_stop, mut stopped) = watch::channel(false);
    tables.obtain(&mut stopped).await.unwrap()
}

/// `rows`: what the tables hold. They are empty at the beginning.
pub(crate) async fn rows_and_offsets_come_together_once_and_never_go_back(
    tables: &dyn WindowTables,
    rows: impl AsyncFn() -> Rows,
) {
    let mut session = obtain(tables).await;
    assert!(session.progress().await.unwrap().is_empty());
    session.write(&window(0, 1, 3, 10)).await.unwrap();
    session.write(&window(1, 1, 2, 99)).await.unwrap();
    assert_eq!(rows().await, Rows::from([(1, (3, 10))]), "an older revision changes nothing");
    session.write(&late(0)).await.unwrap();
    session.write(&late(1)).await.unwrap();
    let progress = session.progress().await.unwrap();
    assert_eq!(progress, BTreeMap::from([((WINDOW_COUNTS, 0), 2), ((LATE_CLICKS, 1), 2)]));
    // Another writer has read on from there.
    assert!(session.write(&window(1, 2, 9, 9)).await.is_err());
    drop(session);
    let mut session = obtain(tables).await;
    assert_eq!(rows().await, Rows::from([(1, (3, 10))]), "nothing of what was overtaken is there");
    assert_eq!(session.progress().await.unwrap(), progress);
    // Compaction and transactions leave holes.
    session.write(&window(7, 1, 9, 11)).await.unwrap();
    assert_eq!(rows().await, Rows::from([(1, (9, 11))]));
    assert_eq!(session.progress().await.unwrap()[&(WINDOW_COUNTS, 0)], 8);
}

pub(crate) async fn one_writes_as_long_as_its_session_lasts(tables: &dyn WindowTables) {
    let mut first = obtain(tables).await;
    assert!(first.is_held().await);
    assert!(tokio::time::timeout(ASKED_AGAIN_WITHIN, obtain(tables)).await.is_err(), "two sessions at the same time");
    drop(first);
    assert!(obtain(tables).await.is_held().await);
    let (stop, mut stopped) = watch::channel(false);
    let _held = obtain(tables).await;
    stop.send_replace(true);
    assert!(tables.obtain(&mut stopped).await.is_none(), "whoever stops need not wait for a lock");
}
