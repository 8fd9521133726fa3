//! Every record of the log is in the archive exactly once by manifest, whichever process dies at any moment.

use std::sync::Arc;
use std::time::Duration;

use clicktally_billing::BillingError;
use clicktally_billing::archive::{ArchiveOptions, Archiver, wait_until_archived};
use clicktally_database::AdvisoryLock;
use clicktally_database::billing::archived_offsets;
use clicktally_proto::clock::SystemClock;
use sqlx::Row;

use crate::clicks::{HANG_MAX, generate, produce, produce_transaction};
use crate::environment::{Environment, World, duty};
use crate::recount::recount;

/// Ranges of each shard follow each other from 0 to the end of the log, and hold as many rows as were produced.
async fn assert_complete(world: &World, rows: i64, malformed: i64) {
    let manifest = sqlx::query(
        "SELECT shard, offset_from, offset_to, rows, malformed_rows FROM billing.archive_manifest ORDER BY shard, offset_from",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let mut next = std::collections::BTreeMap::new();
    for row in &manifest {
        let expected = next.entry(row.get::<i32, _>("shard")).or_insert(0_i64);
        assert_eq!(row.get::<i64, _>("offset_from"), *expected);
        *expected = row.get("offset_to");
    }
    assert_eq!(archived_offsets(&world.database).await.unwrap(), world.log_ends().await);
    assert_eq!(manifest.iter().map(|row| row.get::<i64, _>("rows")).sum::<i64>(), rows);
    assert_eq!(manifest.iter().map(|row| row.get::<i64, _>("malformed_rows")).sum::<i64>(), malformed);
}

pub(crate) async fn a_kill_between_upload_and_manifest_leaves_no_gap_and_no_copy(environment: &Environment) {
    let world = environment.world().await;
    let records = generate(1, 3_000);
    let expected = recount(&records);
    assert!(expected.malformed > 0);
    produce(&world, &records);
    for point in ["archive.after_upload:3", "archive.after_manifest:4", "archive.after_upload:1"] {
        assert!(world.archive_killed_at(point, 20), "{point} was never reached");
        let archived: u64 = archived_offsets(&world.database).await.unwrap().values().sum();
        assert!(archived > 0 && archived < world.log_ends().await.values().sum());
    }
    world.archive_all().await;
    assert_complete(&world, expected.rows, expected.malformed).await;
}

/// Offsets have holes then: the markers of transactions, and aborted records, also at the end of a partition.
pub(crate) async fn transactions_of_other_producers_leave_no_gap_and_aborted_clicks_are_not_archived(
    environment: &Environment,
) {
    let world = environment.world().await;
    let (first, committed, aborted, last) = (generate(4, 300), generate(5, 300), generate(6, 300), generate(7, 300));
    produce(&world, &first);
    produce_transaction(&world, &committed, true);
    produce_transaction(&world, &aborted, false);
    world.archive_all().await;
    produce(&world, &last);
    // Partitions that end with an aborted transaction only.
    produce_transaction(&world, &aborted, false);
    world.archive_all().await;
    let expected = [&first, &committed, &last].map(|records| recount(records));
    let rows = expected.iter().map(|recount| recount.rows).sum();
    assert_complete(&world, rows, expected.iter().map(|recount| recount.malformed).sum()).await;
    // Offsets without any record are archived, too: the log forgets them.
    produce_transaction(&world, &aborted, false);
    world.archive_all().await;
    assert_complete(&world, rows, expected.iter().map(|recount| recount.malformed).sum()).await;
}

pub(crate) async fn a_second_archiver_stands_by_and_the_manifest_takes_nothing_out_of_order(environment: &Environment) {
    let world = environment.world().await;
    produce(&world, &generate(2, 500));
    world.archive_all().await;
    let first = world.archiver(100).await;
    assert!(world.database.try_lock(AdvisoryLock::Archiver).await.unwrap().is_none(), "two archivers at once");
    drop(first);
    // Its turn comes once the first is gone.
    drop(world.archiver(100).await);

    for forged in [
        // An overlap, a gap, an edit, a removal.
        "INSERT INTO billing.archive_manifest SELECT 'overlap', shard, offset_from, offset_to + 1, rows, 0, bytes, sha256, hour, null,
            null, '{}' FROM billing.archive_manifest LIMIT 1",
        "INSERT INTO billing.archive_manifest SELECT 'gap', shard, offset_to + 1, offset_to + 2, rows, 0, bytes, sha256, hour, null,
            null, '{}' FROM billing.archive_manifest ORDER BY offset_to DESC LIMIT 1",
        "UPDATE billing.archive_manifest SET sha256 = sha256",
        "DELETE FROM billing.archive_manifest",
        "TRUNCATE billing.archive_manifest",
    ] {
        assert!(sqlx::query(forged).execute(&world.pool).await.is_err(), "{forged}");
    }
}

pub(crate) async fn waiting_for_the_archive_does_not_wait_for_its_age(environment: &Environment) {
    let world = environment.world().await;
    let records = generate(3, 500);
    let options = ArchiveOptions { file_age_max: Duration::from_secs(86_400), ..world.archive_options(1_000_000) };
    let (store, metrics) = (world.store.clone(), world.metrics.clone());
    let (session, clock) = (duty(&world.database).await, Arc::new(SystemClock));
    let mut archiver = Archiver::start(options, session, &world.database, store, clock, metrics).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(async move { archiver.run(stopped).await });

    produce(&world, &records);
    let ends = world.log_ends().await;
    wait_until_archived(&world.database, &ends, HANG_MAX).await.unwrap();
    assert_complete(&world, recount(&records).rows, recount(&records).malformed).await;

    // What is beyond the log is not waited for in vain for ever.
    let beyond = ends.into_iter().map(|(shard, end)| (shard, end + 1)).collect();
    let behind = wait_until_archived(&world.database, &beyond, Duration::from_millis(100)).await;
    assert!(matches!(behind, Err(BillingError::ArchiveBehind { missing: 16, .. })));
    stop.send(true).unwrap();
    running.await.unwrap().unwrap();
}
