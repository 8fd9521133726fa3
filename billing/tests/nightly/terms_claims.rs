//! The batch bills by every price that was in force, and counts by the rules that the stream counts by.

use std::time::Duration;

use clicktally_billing::batch::{BatchOptions, exported_terms, run, wait_until_terms_exported};
use clicktally_billing::{BillingError, Day};
use clicktally_database::DatabaseError;
use clicktally_database::catalog::{NewTerms, TermsExport, add_terms, newest_revisions, note_exports};
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_proto::money::Currency;

use crate::billing_claims::{set_terms, valid_clicks};
use crate::clicks::{HOUR_MS, NOON_MS, produce};
use crate::environment::Environment;

const NO_TIME: Duration = Duration::from_millis(100);

fn terms(revision: u64, cost_per_click_micros: i64) -> NewTerms<'static> {
    NewTerms {
        campaign_id: 1,
        revision,
        advertiser_id: 10,
        name: "spring",
        currency: Currency::USD,
        cost_per_click_micros,
        budget_micros: 1_000_000,
        tolerance_micros: 0,
        effective_from_ms: 1_700_000_000_123,
    }
}

pub(crate) async fn terms_of_another_cluster_are_refused_and_our_own_may_come_twice(environment: &Environment) {
    let world = environment.world().await;
    let own = [terms(500, 1), terms(501, 2)];
    for _ in 0..2 {
        assert_eq!(add_terms(&world.database, &own).await.unwrap(), []);
    }
    let foreign = add_terms(&world.database, &[terms(502, 1), terms(501, 3)]).await.unwrap_err();
    assert!(matches!(foreign, DatabaseError::ForeignTerms { campaign_id: 1, revision: 501, found: 501 }), "{foreign}");
    let newest = newest_revisions(&world.database, &[1, 2]).await.unwrap();
    assert_eq!(newest.into_iter().collect::<Vec<_>>(), [(1, 501)], "nothing of a refused batch is there");
}

pub(crate) async fn the_batch_waits_until_the_slowest_group_has_exported_its_terms(environment: &Environment) {
    let world = environment.world().await;
    let export =
        |group: u16, complete_to_ms: u64| TermsExport { group: GroupId(group), complete_to_ms, max_ahead_ms: 7 };
    let wait = |until_ms: u64| wait_until_terms_exported(&world.database, 2, until_ms, NO_TIME);
    note_exports(&world.database, &[export(0, 5_000)]).await.unwrap();
    let silent = wait(1).await.unwrap_err();
    assert!(matches!(silent, BillingError::TermsBehind { behind_ms: None, .. }), "{silent}");
    note_exports(&world.database, &[export(0, 4_000), export(1, 3_000)]).await.unwrap();
    let behind = wait(5_000).await.unwrap_err();
    assert!(matches!(behind, BillingError::TermsBehind { behind_ms: Some(2_000), .. }), "{behind}");

    let database = world.database.clone();
    let waiting =
        tokio::spawn(async move { wait_until_terms_exported(&database, 2, 5_000, Duration::from_secs(300)).await });
    note_exports(&world.database, &[export(1, 5_001)]).await.unwrap();
    let found = waiting.await.unwrap().unwrap();
    assert_eq!((found.complete_to_ms, found.max_ahead_ms), (5_000, 7), "a slower writer moves nothing back");
    assert!(matches!(exported_terms(&world.database, 1).await, Err(BillingError::OtherGroups { .. })));
}

pub(crate) async fn a_click_further_ahead_than_the_stream_counts_is_not_billed(environment: &Environment) {
    let world = environment.world().await;
    set_terms(&world, 1, 1, 100, 1_000_000, 0).await;
    let ahead_ms = SystemClock.now_ms() + 60_000;
    produce(&world, &valid_clicks(20, ahead_ms));
    world.archive_all().await;
    let day = Day::of(ahead_ms).unwrap();
    for (max_ahead_ms, billed, quarantined) in [(30_000, 0, 20), (300_000, 20, 0)] {
        let options = BatchOptions { max_ahead_ms, ..BatchOptions::default() };
        let summary = run(&world.database, &world.store, day, &options, &SystemClock).await.unwrap();
        assert_eq!((summary.billed_clicks, summary.quarantined), (billed, quarantined), "bound {max_ahead_ms} ms");
    }
}

pub(crate) async fn a_click_that_arrives_before_the_first_terms_is_not_billed_and_shown_so(environment: &Environment) {
    let world = environment.world().await;
    let day = Day::of(NOON_MS).unwrap();
    produce(&world, &valid_clicks(20, NOON_MS));
    world.archive_all().await;
    // The clicks of campaign 1 arrive now. Its terms come an hour later.
    set_terms(&world, 1, 1, 100, 1_000_000, SystemClock.now_ms() + HOUR_MS).await;
    let early = run(&world.database, &world.store, day, &BatchOptions::default(), &SystemClock).await.unwrap();
    assert_eq!((early.unique_valid_clicks, early.billed_clicks), (20, 0));
    let causes: Vec<String> = sqlx::query_scalar("SELECT unbilled_cause FROM billing.batch_campaign_day")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(causes, ["unknown_campaign"]);
    // Terms that are older than their arrival bill them, although the clicks are dated years before.
    set_terms(&world, 1, 2, 100, 1_000_000, NOON_MS + HOUR_MS).await;
    let agreed = run(&world.database, &world.store, day, &BatchOptions::default(), &SystemClock).await.unwrap();
    assert_eq!(agreed.billed_clicks, 20);
}
